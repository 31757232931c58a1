"""The checks of a VM entry, kept up to date as fields are written (docs/isa/vmx.md#entry)."""

from amaranth import *
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.csrs import MSTATUS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, SATP, SatpMode
from rtl.arch.traps import Exception_, Interrupt
from rtl.arch.vmx.checks import ENTRY_CHECKS
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPT_ROOT_BITS, EPTP, EptMode
from rtl.arch.vmx.exits import INTERRUPTION, InterruptionType
from rtl.arch.vmx.fields import VMCS_FIELDS, VMCS_NUMBER_BITS
from rtl.lib.layouts import struct_of
from rtl.mmu.context import Privilege

__all__ = [
    "CheckClass",
    "CheckResult",
    "EntryChecks",
    "FieldWrite",
    "GuestSummary",
    "bad_ept_mode",
    "bad_ept_root",
]

_EXECUTION = CONTROL_WORDS["execution_controls"]
_INTERRUPTION = struct_of(INTERRUPTION)
#: Clock cycles from a write to the result that heeds it.
_STAGES = 3
_RAM = MEMORY_MAP["ram"]


class CheckClass(enum.Enum, shape=2):
    """What a failure leads to."""

    CONTROLS = 0
    HOST_STATE = 1
    GUEST_STATE = 2


class FieldWrite(data.Struct):
    """A field of the current VMCS gets a value, by VMWRITE or as VMPTRLD reads it."""

    valid: 1
    number: VMCS_NUMBER_BITS
    value: 64


class GuestSummary(data.Struct):
    """What the checks ask of guest state that the guest itself changes."""

    privilege: Privilege
    tw: 1
    waiting: 1


class CheckResult(data.Struct):
    """``number`` and ``check_class`` are those of the first check that fails, if one does."""

    failed: 1
    number: range(len(ENTRY_CHECKS) + 1)
    check_class: CheckClass


def bad_ept_mode(eptp: Value) -> Value:
    """Whether its format is none that the hart has."""
    return eptp[EPTP["mode"].lsb :][: EPTP["mode"].width] != EptMode.SV39X4


def bad_ept_root(eptp: Value) -> Value:
    """Whether its root table is not aligned, or not in the place of RAM."""
    frame = eptp[EPTP["ppn"].lsb :][: EPTP["ppn"].width]
    return (
        frame[: EPT_ROOT_BITS - PAGE_BITS].any()
        | (frame < _RAM.base >> PAGE_BITS)
        | (frame >= _RAM.end >> PAGE_BITS)
    )


class EntryChecks(wiring.Component):
    """Say at any time which check the current VMCS fails first.

    Members
    -------
    write : In(FieldWrite)
        Any number of writes, one per cycle. All fields have been written since reset before the
        result means anything.
    execution_mask, exit_mask : In(64)
        What software lets the control words have; taken into account in the next cycle.
    guest : In(GuestSummary)
        The same.
    result : Out(CheckResult)
        Valid while ``settled``.
    settled : Out(1)
        No write of an earlier cycle is on its way.
    """

    write: In(FieldWrite)
    execution_mask: In(64)
    exit_mask: In(64)
    guest: In(GuestSummary)
    result: Out(CheckResult)
    settled: Out(1)

    def elaborate(self, platform):
        m = Module()
        fails = {name: Signal(name=f"fails_{name}") for name in ENTRY_CHECKS}
        write = Signal(FieldWrite)
        m.d.sync += write.eq(self.write)
        self._reserved(m, write, fails)
        self._values(m, write, fails)
        self._controls(m, write, fails)
        self._guest(m, write, fails)

        first = Signal(CheckResult)
        choice = m.If
        for check in ENTRY_CHECKS.values():
            with choice(fails[check.name]):
                m.d.comb += first.eq(
                    CheckResult.const(
                        {
                            "failed": 1,
                            "number": check.number,
                            "check_class": CheckClass[check.check_class.name],
                        }
                    )
                )
            choice = m.Elif
        m.d.sync += self.result.eq(first)
        busy = Signal(_STAGES - 1)
        m.d.sync += busy.eq(Cat(self.write.valid, busy))
        m.d.comb += self.settled.eq(~busy.any())
        return m

    def _reserved(self, m, write, fails):
        """One comparison serves every field: which bits it looks at follows from the number."""
        reserved, required = Signal(64), Signal(64)
        fields = [field for field in VMCS_FIELDS.values() if field.reserved]
        bad = Signal()
        m.d.comb += bad.eq(((write.value ^ required) & reserved).any())
        with m.Switch(write.number):
            for field in fields:
                with m.Case(field.number):
                    m.d.comb += [reserved.eq(field.reserved), required.eq(field.required)]
                    with m.If(write.valid):
                        m.d.sync += fails[f"{field.name}_reserved"].eq(bad)

    def _on(self, m, write, name):
        """A scope for writes of the field."""
        return m.If(write.valid & (write.number == VMCS_FIELDS[name].number))

    def _values(self, m, write, fails):
        """Checks of one field's value alone."""
        value = write.value
        with self._on(m, write, "guest_privilege"):
            m.d.sync += fails["guest_privilege_level"].eq(value[:2] == Privilege.RESERVED)
        mpp = MSTATUS["mpp"]
        with self._on(m, write, "guest_mstatus"):
            m.d.sync += fails["guest_mstatus_mpp"].eq(
                value[mpp.lsb : mpp.msb + 1] == Privilege.RESERVED
            )
        mode = SATP["mode"]
        with self._on(m, write, "guest_satp"):
            m.d.sync += fails["guest_satp_mode"].eq(
                ~value[mode.lsb : mode.msb + 1].matches(*map(int, SatpMode))
            )

    def _controls(self, m, write, fails):
        controls = {}
        masks = {"execution_controls": self.execution_mask, "exit_controls": self.exit_mask}
        for name, word in CONTROL_WORDS.items():
            held = controls[name] = Signal(max(row.bit for row in word.controls) + 1, name=name)
            with self._on(m, write, name):
                m.d.sync += held.eq(write.value)
            known = word.layout.mask()
            m.d.comb += fails[f"{name}_allowed"].eq(
                (held & ~(masks[name] & word.allowed) & known).any()
            )
            if word.required:
                m.d.comb += fails[f"{name}_required"].eq((~held & word.required).any())
        bits = {row.name: controls["execution_controls"][row.bit] for row in _EXECUTION.controls}
        for row in _EXECUTION.controls:
            if row.needs:
                needed = Cat(bits[name] for name in row.needs).all()
                m.d.comb += fails[f"{row.name}_needs"].eq(bits[row.name] & ~needed)

        value = write.value
        bad_mode = Signal()
        bad_root = Signal()
        no_vpid = Signal()
        no_scale = Signal()
        with self._on(m, write, "eptp"):
            m.d.sync += [bad_mode.eq(bad_ept_mode(value)), bad_root.eq(bad_ept_root(value))]
        with self._on(m, write, "vpid"):
            m.d.sync += no_vpid.eq(value == 0)
        with self._on(m, write, "time_scale"):
            m.d.sync += no_scale.eq(value == 0)
        m.d.comb += [
            fails["eptp_mode"].eq(bits["enable_ept"] & bad_mode),
            fails["eptp_root"].eq(bits["enable_ept"] & bad_root),
            fails["vpid_zero"].eq(bits["enable_vpid"] & no_vpid),
            fails["time_scale_zero"].eq(bits["use_time_scale"] & no_scale),
        ]

    def _guest(self, m, write, fails):
        """Injection, and what the guest was doing."""
        event = data.View(_INTERRUPTION, write.value)
        is_interrupt = event.type == InterruptionType.INTERRUPT
        is_exception = event.type == InterruptionType.EXCEPTION
        known = (is_interrupt & event.cause.matches(*map(int, Interrupt))) | (
            is_exception & event.cause.matches(*map(int, Exception_))
        )
        exception = Signal()
        with self._on(m, write, "entry_interruption"):
            m.d.sync += [
                fails["injection_type"].eq(event.valid & ~(is_interrupt | is_exception)),
                fails["injection_cause"].eq(event.valid & ~known),
                exception.eq(event.valid & is_exception),
            ]
        guest = self.guest
        allowed = (guest.privilege == Privilege.MACHINE) | (
            (guest.privilege == Privilege.SUPERVISOR) & ~guest.tw
        )
        m.d.comb += [
            fails["guest_activity_privilege"].eq(guest.waiting & ~allowed),
            fails["guest_activity_injection"].eq(guest.waiting & exception),
        ]

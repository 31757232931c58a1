"""The fields of the current VMCS that the hart itself changes (docs/isa/vmx.md#exit)."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.vmx import exits
from rtl.arch.vmx.checks import ENTRY_CHECKS
from rtl.arch.vmx.exits import ENTRY_FAILURE, EXIT_REASONS, INTERRUPTION
from rtl.arch.vmx.fields import VMCS_FIELDS
from rtl.lib.layouts import enum_of, struct_of
from rtl.mmu.context import Privilege
from rtl.vmx.entry_checks import CheckClass, CheckResult, FieldWrite
from rtl.vmx.intercept import ExitReason
from rtl.vmx.vmcs import InformationWrite

__all__ = ["ExitRecord", "InterruptionType", "SavedFields", "SavedState", "interruption"]

_Interruption = struct_of(INTERRUPTION)
InterruptionType = enum_of(exits.InterruptionType, width=INTERRUPTION["type"].width)
_VALID = INTERRUPTION["valid"].lsb


class ExitRecord(data.Struct):
    """A VM exit as the hart sees it; what the reason has no use for is ignored.

    ``length`` is that of the instruction in bytes, 0 if it could not be fetched whole; ``rs1`` and
    ``rs2`` are zero where it has no such operand. ``cause`` is that of the exception or of the
    interrupt. ``waiting``: the guest was in wfi.
    """

    reason: ExitReason
    qualification: 64
    gva: 64
    gpa: 64
    pc: 64
    privilege: Privilege
    instruction: 32
    length: 3
    rs1: 64
    rs2: 64
    cause: 6
    waiting: 1


class SavedFields(data.Struct):
    """Fields under their own names, with the bits they can have. ``exit_pc`` is missing: where it
    means something, it is ``guest_pc``.
    """

    entry_check: range(len(ENTRY_CHECKS) + 1)
    exit_reason: ENTRY_FAILURE + 1
    exit_qualification: 64
    exit_gva: 64
    exit_gpa: 64
    exit_instruction: 32
    exit_instruction_length: 3
    exit_rs1: 64
    exit_rs2: 64
    exit_interruption: _VALID + 1
    guest_pc: 64
    guest_privilege: Privilege
    guest_activity: 1
    guest_preemption_timer: 64
    entry_interruption: _VALID + 1


_FIELDS = tuple(name for name, _ in data.Layout.cast(SavedFields))
#: What an entry right behind an exit changes, or leaves for the next exit to wait for.
_FIRST = ("exit_pc", "entry_interruption", "entry_check")
#: Fields in the order in which they are written, each with where its value stands.
_ROWS = {name: name for name in (*_FIRST, *_FIELDS)} | {"exit_pc": "guest_pc"}
_EXIT = tuple(
    name
    for name in _ROWS
    if name.startswith("exit_") or name in ("guest_pc", "guest_privilege", "guest_activity")
)
_FAILURE = ("exit_reason", "exit_qualification")


def interruption(value: Value) -> data.View:
    """What stands in a field ``entry_interruption`` or ``exit_interruption`` of ``SavedFields``."""
    return _Interruption(Cat(value, Const(0, INTERRUPTION.width - len(value))))


def _reasons(use) -> tuple[int, ...]:
    """The reasons whose row says ``use``."""
    return tuple(int(reason) for reason, row in EXIT_REASONS.items() if getattr(row, use))


class SavedState(wiring.Component):
    """Hold these fields in registers; write what has changed into the VMCS, a field per cycle.

    At most one of the strobes comes in a cycle. What has not been written by the time it changes
    is written once, as it then is; ``exit_pc`` needs the cycle after ``exit_stb`` for it, in which
    ``pc_stb`` must not come.

    Members
    -------
    write : In(FieldWrite)
        Fields as VMWRITE or VMPTRLD gives them.
    exit_stb, record : In
        The guest exits.
    timer_stb, timer : In
        With ``exit_stb``: what is left of the preemption timer is saved.
    failure_stb, check : In
        The entry fails at this check.
    pc_stb, pc : In
        The guest goes on elsewhere.
    injected_stb : In
        What was to be injected is valid no longer.
    fields : Out(SavedFields)
        Those of the current VMCS, a cycle after they changed.
    o_field : Out(stream.Signature(InformationWrite))
    idle : Out(1)
        All has been written.
    """

    write: In(FieldWrite)
    exit_stb: In(1)
    record: In(ExitRecord)
    timer_stb: In(1)
    timer: In(64)
    failure_stb: In(1)
    check: In(CheckResult)
    pc_stb: In(1)
    pc: In(64)
    injected_stb: In(1)
    fields: Out(SavedFields)
    o_field: Out(stream.Signature(InformationWrite))
    idle: Out(1)

    def elaborate(self, platform):
        m = Module()
        fields, left = self.fields, {name: Signal(name=f"{name}_left") for name in _ROWS}

        def save(*names):
            m.d.sync += [left[name].eq(1) for name in names]

        with m.If(self.write.valid):
            with m.Switch(self.write.number):
                for name in _FIELDS:
                    with m.Case(VMCS_FIELDS[name].number):
                        m.d.sync += Value.cast(fields[name]).eq(self.write.value)

        # The first that is left goes first, whatever comes behind it.
        m.d.comb += self.idle.eq(~Cat(*left.values()).any())
        m.d.comb += self.o_field.valid.eq(~self.idle)
        choice = m.If
        for name, source in _ROWS.items():
            with choice(left[name]):
                m.d.comb += [
                    self.o_field.payload.number.eq(VMCS_FIELDS[name].number),
                    self.o_field.payload.value.eq(Value.cast(fields[source])),
                ]
                with m.If(self.o_field.ready):
                    m.d.sync += left[name].eq(0)
            choice = m.Elif

        with m.If(self.exit_stb):
            self._exit(m)
            save(*_EXIT)
        with m.If(self.timer_stb):
            m.d.sync += fields.guest_preemption_timer.eq(self.timer)
            save("guest_preemption_timer")
        with m.If(self.failure_stb):
            m.d.sync += fields.entry_check.eq(self.check.number)
            save("entry_check")
            with m.If(self.check.check_class == CheckClass.GUEST_STATE):
                m.d.sync += [
                    fields.exit_reason.eq(
                        exits.ExitReason.BAD_GUEST_STATE.value | 1 << ENTRY_FAILURE
                    ),
                    fields.exit_qualification.eq(self.check.number),
                ]
                save(*_FAILURE)
        with m.If(self.pc_stb):
            m.d.sync += fields.guest_pc.eq(self.pc)
            save("guest_pc")
        with m.If(self.injected_stb):
            m.d.sync += fields.entry_interruption[_VALID].eq(0)
            save("entry_interruption")
        return m

    def _exit(self, m):
        """What of the record its reason has a use for."""
        fields, record = self.fields, self.record
        reason = record.reason.as_value()
        qualified, addressed, interrupted, by_instruction = (
            reason.matches(*_reasons(use))
            for use in ("qualification", "address", "interruption", "instruction")
        )
        fetched = by_instruction & (record.length != 0)
        event = Signal(_Interruption)
        m.d.comb += [
            event.valid.eq(1),
            event.type.eq(
                Mux(
                    record.reason == ExitReason.EXTERNAL_INTERRUPT,
                    InterruptionType.INTERRUPT,
                    InterruptionType.EXCEPTION,
                )
            ),
            event.cause.eq(record.cause),
        ]
        m.d.sync += [
            fields.exit_reason.eq(reason),
            fields.exit_qualification.eq(Mux(qualified, record.qualification, 0)),
            fields.exit_gva.eq(Mux(addressed, record.gva, 0)),
            fields.exit_gpa.eq(Mux(addressed, record.gpa, 0)),
            fields.exit_instruction.eq(Mux(fetched, record.instruction, 0)),
            fields.exit_instruction_length.eq(Mux(fetched, record.length, 0)),
            fields.exit_rs1.eq(Mux(fetched, record.rs1, 0)),
            fields.exit_rs2.eq(Mux(fetched, record.rs2, 0)),
            fields.exit_interruption.eq(Mux(interrupted, event.as_value(), 0)),
            fields.guest_pc.eq(record.pc),
            fields.guest_privilege.eq(record.privilege),
            fields.guest_activity.eq(record.waiting),
        ]

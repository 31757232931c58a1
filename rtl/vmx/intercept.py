"""Which CSR instructions of a guest exit (docs/isa/vmx.md#intercept-order)."""

from amaranth import *
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.arch.csrs import CSR_BY_NUMBER, CSRS
from rtl.arch.vmx import controls, exits
from rtl.arch.vmx.fields import CSR_BITMAP, CSR_BITMAP_WORDS, CSR_REASONS, VMCS_FIELDS
from rtl.lib.layouts import enum_of, struct_of
from rtl.vmx.entry_checks import FieldWrite

__all__ = ["CsrAccess", "CsrIntercept", "ExecutionControls", "ExitReason"]

ExecutionControls = struct_of(controls.CONTROL_WORDS["execution_controls"].layout)
ExitReason = enum_of(exits.ExitReason, width=exits.EXIT_REASON_BITS)


class CsrAccess(data.Struct):
    """A CSR instruction and what it does; ``value`` is what it would write."""

    reads: 1
    writes: 1
    value: 64


class _Kind(enum.Enum, shape=3):
    """CSRs by the exit reason they belong to."""

    BITMAP = 0
    TIME = 1
    COUNTER = 2
    SATP = 3
    MSTATUS = 4
    SSTATUS = 5


def _kind(name: str) -> _Kind:
    match CSR_REASONS.get(name):
        case exits.ExitReason.TIME_READ:
            return _Kind.TIME
        case exits.ExitReason.COUNTER_READ:
            return _Kind.COUNTER
        case exits.ExitReason.SATP_OR_STATUS:
            return _Kind[name.upper()]
    return _Kind.BITMAP


class CsrIntercept(wiring.Component):
    """Decide over a CSR instruction that is legal in the guest.

    Members
    -------
    write : In(FieldWrite)
        The bitmaps, as they are written into the VMCS; ready for an access two cycles later.
    number : In(12)
        The CSR; its bits are looked up at the end of the cycle.
    access : In(CsrAccess)
        In the next cycle.
    controls, status_mask, status_shadow : In
        Fields of the current VMCS, in the same cycle as ``access``.
    exits, reason : Out
        The answer, combinationally from ``access``.
    """

    write: In(FieldWrite)
    number: In(12)
    access: In(CsrAccess)
    controls: In(ExecutionControls)
    status_mask: In(64)
    status_shadow: In(64)
    exits: Out(1)
    reason: Out(ExitReason)

    def elaborate(self, platform):
        m = Module()
        kind, place = Signal(_Kind), Signal(range(64 * CSR_BITMAP_WORDS))
        places = {name: index for index, name in enumerate(CSR_BITMAP)}
        with m.Switch(self.number):
            for number, csr in CSR_BY_NUMBER.items():
                with m.Case(number):
                    m.d.comb += [kind.eq(_kind(csr.name)), place.eq(places.get(csr.name, 0))]
        held = Signal(_Kind)
        m.d.sync += held.eq(kind)
        read_exits = self._bitmap(m, "read", place)
        write_exits = self._bitmap(m, "write", place)

        access, controls = self.access, self.controls

        def changes(name):
            changed = (access.value ^ self.status_shadow) & self.status_mask
            return (changed & CSRS[name].writable).any()

        def exit_if(condition, reason):
            m.d.comb += [self.exits.eq(condition), self.reason.eq(reason)]

        with m.Switch(held):
            with m.Case(_Kind.TIME):
                exit_if(access.reads & controls.time_read_exiting, ExitReason.TIME_READ)
            with m.Case(_Kind.COUNTER):
                exit_if(access.reads & controls.counter_read_exiting, ExitReason.COUNTER_READ)
            with m.Case(_Kind.SATP):
                exit_if(access.writes & controls.satp_write_exiting, ExitReason.SATP_OR_STATUS)
            with m.Case(_Kind.MSTATUS):
                exit_if(access.writes & changes("mstatus"), ExitReason.SATP_OR_STATUS)
            with m.Case(_Kind.SSTATUS):
                exit_if(access.writes & changes("sstatus"), ExitReason.SATP_OR_STATUS)
            with m.Default():
                reads = controls.use_csr_bitmap & access.reads & read_exits
                writes = controls.use_csr_bitmap & access.writes & write_exits
                exit_if(reads | writes, Mux(reads, ExitReason.CSR_READ, ExitReason.CSR_WRITE))
        return m

    def _bitmap(self, m, kind, place):
        """The CSR's bit of a bitmap, one cycle later."""
        memory = Memory(shape=64, depth=1 << (CSR_BITMAP_WORDS - 1).bit_length(), init=[])
        m.submodules[f"{kind}_bitmap"] = memory
        write, read = memory.write_port(), memory.read_port(domain="comb")
        first = VMCS_FIELDS[f"csr_{kind}_bitmap_0"].number
        index = self.write.number - first
        m.d.comb += [
            write.addr.eq(index),
            write.data.eq(self.write.value),
            write.en.eq(self.write.valid & (index >= 0) & (index < CSR_BITMAP_WORDS)),
            read.addr.eq(place >> 6),
        ]
        bit = Signal(name=f"{kind}_bit")
        m.d.sync += bit.eq(read.data.bit_select(place[:6], 1))
        return bit

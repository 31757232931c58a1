"""What the retirement trace says."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS
from rtl.arch.records import EXIT_BIT
from rtl.core.decode import MemoryOperation, Unit
from rtl.core.execute.execute import Executed
from rtl.core.ports import RetirementPort
from rtl.core.traps import Trap
from rtl.mmu.context import Privilege, World
from rtl.vmx.saved_state import SavedFields

__all__ = ["RetirementRecorder"]


class RetirementRecorder(wiring.Component):
    """Record what retired, or the trap or VM exit taken instead, one cycle late.

    Parameters
    ----------
    guests : bool
        There are guests. Without them ``injected``, ``exited`` and what goes with them are not used.

    Members
    -------
    instruction, rd, rs2 : In
        What is under way, the register it writes and the value of its rs2.
    done : In(1)
        It retires.
    trapped, trap : In
        A trap is taken, for what was under way in the cycle before.
    injected, pc : In(1), In(64)
        With ``trapped``: at ``pc``, without an instruction.
    exited : In(1)
        The guest exits; ``saved`` says how, a cycle later.
    privilege, world : In
        As it stands.
    physical, stored : In
        Of the memory instruction that retires.
    value : In(64)
        What was written to rd, a cycle later.
    retirement : Out(RetirementPort())
    """

    instruction: In(Executed)
    rd: In(5)
    rs2: In(64)
    done: In(1)
    trapped: In(1)
    trap: In(Trap)
    injected: In(1)
    pc: In(64)
    exited: In(1)
    saved: In(SavedFields)
    privilege: In(Privilege)
    world: In(World)
    physical: In(BUS_ADDRESS_BITS)
    stored: In(1)
    value: In(64)
    retirement: Out(RetirementPort())

    def __init__(self, *, guests):
        self._has_guests = guests
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        record, inst, trap = self.retirement.record, self.instruction, self.trap
        kept = Signal.like(record)
        m.d.comb += [record.eq(kept), record.value.eq(self.value)]
        with m.If(kept.trap):
            m.d.comb += record.value.eq(Cat(trap.code, Const(0, 57), trap.interrupt))
        is_memory = inst.unit == Unit.MEMORY
        writes_only = (inst.operation == MemoryOperation.STORE.value) | (
            inst.operation == MemoryOperation.STORE_CONDITIONAL.value
        )
        # Whether it retires is known too late to enable anything. A trap is taken in the cycle after it
        # is decided, at what stood here then.
        m.d.sync += self.retirement.valid.eq(self.done | self.trapped | self.exited)
        with m.If(self.trapped):
            m.d.sync += [
                kept.rd.eq(0),
                kept.trap.eq(1),
                kept.load.eq(0),
                kept.store.eq(0),
                kept.data.eq(trap.value),
            ]
        with m.Else():
            m.d.sync += [
                kept.pc.eq(inst.pc),
                kept.instruction.eq(inst.bits),
                kept.privilege.eq(self.privilege),
                kept.world.eq(self.world),
                kept.rd.eq(self.rd),
                kept.trap.eq(0),
                kept.load.eq(is_memory & ~writes_only),
                kept.store.eq(is_memory & self.stored),
                kept.address.eq(self.physical),
                kept.size.eq(inst.funct3[:2]),
                kept.data.eq(self.rs2),
            ]
        if self._has_guests:
            self._guests(m, record, kept)
        return m

    def _guests(self, m, record, kept):
        with m.If(self.trapped & self.injected):
            m.d.sync += [
                kept.pc.eq(self.pc),
                kept.instruction.eq(0),
                kept.privilege.eq(self.privilege),
                kept.world.eq(self.world),
            ]
        exited, saved = Signal(), self.saved
        m.d.sync += exited.eq(self.exited)
        with m.If(exited):
            m.d.comb += [
                record.pc.eq(saved.guest_pc),
                record.value.eq(saved.exit_reason | 1 << EXIT_BIT),
                record.data.eq(saved.exit_qualification),
                record.instruction.eq(saved.exit_instruction),
                record.address.eq(saved.exit_interruption),
                record.rd.eq(0),
                record.privilege.eq(saved.guest_privilege),
                record.world.eq(World.NON_ROOT),
                record.trap.eq(1),
                record.load.eq(saved.guest_activity),
                record.store.eq(0),
            ]

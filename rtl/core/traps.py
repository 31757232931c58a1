"""Which interrupt is taken, and who takes a trap."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.traps import INTERRUPT_PRIORITY
from rtl.mmu.context import Privilege

__all__ = ["InterruptSelect", "Trap"]


class Trap(data.Struct):
    """A trap about to be taken: its cause, and the value for mtval or stval."""

    interrupt: 1
    code: 6
    value: 64


class InterruptSelect(wiring.Component):
    """Choose the interrupt to take now; the choice is registered, one cycle late.

    A hart takes an interrupt for M when it runs below M or mstatus.MIE is set, one delegated to S
    when it runs below S, or in S with mstatus.SIE set; those for M come first (Privileged
    Architecture, sections "mip and mie" and "mideleg").

    Members
    -------
    pending, enabled, delegated : 64
        mip, mie and mideleg.
    valid, code :
        An interrupt is to be taken before the next instruction.
    wake : 1
        Some enabled interrupt is pending, whatever the global enables say: wfi ends.
    """

    pending: In(64)
    enabled: In(64)
    delegated: In(64)
    privilege: In(Privilege)
    mie: In(1)
    sie: In(1)
    valid: Out(1)
    code: Out(6)
    wake: Out(1)

    def elaborate(self, platform):
        m = Module()
        for_machine = (self.privilege != Privilege.MACHINE) | self.mie
        for_supervisor = (self.privilege == Privilege.USER) | (
            (self.privilege == Privilege.SUPERVISOR) & self.sie
        )
        # First match wins: all of M's in order of priority, then all of S's.
        candidates = []
        for to_machine in (True, False):
            for interrupt in INTERRUPT_PRIORITY:
                ready = self.pending[interrupt] & self.enabled[interrupt]
                if to_machine:
                    ready &= for_machine & ~self.delegated[interrupt]
                else:
                    ready &= for_supervisor & self.delegated[interrupt]
                candidates.append((ready, interrupt))
        chosen = Signal(6)
        for ready, interrupt in reversed(candidates):
            with m.If(ready):
                m.d.comb += chosen.eq(interrupt)
        m.d.sync += [
            self.valid.eq(Cat(ready for ready, _ in candidates).any()),
            self.code.eq(chosen),
            self.wake.eq(
                Cat(self.pending[bit] & self.enabled[bit] for bit in INTERRUPT_PRIORITY).any()
            ),
        ]
        return m

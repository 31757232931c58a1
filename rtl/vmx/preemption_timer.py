"""The preemption timer (docs/isa/vmx.md#preemption-timer)."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["PreemptionTimer"]


class PreemptionTimer(wiring.Component):
    """Count cycles of non-root operation down to zero, and stay there.

    Members
    -------
    load, start : In(1), In(64)
        Begin at ``start`` from the next cycle on.
    counting : In(1)
        This cycle is one of non-root operation.
    left : Out(64)
        Cycles until it expires.
    expiring, expired : Out(1)
        ``left`` is zero in the next cycle, in this cycle.
    """

    load: In(1)
    start: In(64)
    counting: In(1)
    left: Out(64)
    expiring: Out(1)
    expired: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.expiring.eq(self.expired)
        m.d.sync += self.expired.eq(self.expiring)
        with m.If(self.load):
            m.d.sync += self.left.eq(self.start)
            m.d.comb += self.expiring.eq(self.start == 0)
        with m.Elif(self.counting & ~self.expired):
            m.d.sync += self.left.eq(self.left - 1)
            m.d.comb += self.expiring.eq(self.left == 1)
        return m

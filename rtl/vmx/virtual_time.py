"""The guest's time: the machine's, scaled and shifted (docs/isa/vmx.md#time)."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.vmx.fields import TIME_SCALE_FRACTION

__all__ = ["VirtualTime"]

#: Ticks that are caught up by adding; a longer way is multiplied. Time may tick in every cycle
#: while a multiplication goes on, which takes 64.
_NEAR_BITS = 7


class VirtualTime(wiring.Component):
    """Keep ``floor(time * scale / 2**48) + offset`` without multiplying at every tick.

    The product is kept as a fixed-point accumulator to which every tick adds the scale. When the
    scale has changed or time has jumped, it is made anew, which takes 64 cycles and a few.

    Members
    -------
    time : In(64)
        The machine's ticks.
    scaled : In(1)
        Without it the scale is 1.
    scale, offset : In(64)
    changed : In(1)
        The scale is another from this cycle on.
    value : Out(64)
        The guest's ticks, for the time of at most two cycles ago while ``ready``.
    ready : Out(1)
    """

    time: In(64)
    scaled: In(1)
    scale: In(64)
    offset: In(64)
    changed: In(1)
    value: Out(64)
    ready: Out(1)

    def elaborate(self, platform):
        m = Module()
        product = Signal(64 + TIME_SCALE_FRACTION)
        # The time the product is for.
        reached = Signal(64)
        left = Signal(range(65))
        factor = Signal(64)
        way = Signal(64)
        m.d.comb += way.eq(self.time - reached)
        # Time does not come here before the accumulator has been made for the first time.
        stale = Signal(init=1)

        with m.If(left != 0):
            addend = Mux(factor[-1], self.scale, 0)
            m.d.sync += [
                product.eq((product << 1) + addend),
                factor.eq(factor << 1),
                left.eq(left - 1),
            ]
        with m.Elif(stale | way[_NEAR_BITS:].any()):
            m.d.sync += [
                product.eq(0),
                reached.eq(self.time),
                factor.eq(self.time),
                left.eq(64),
                stale.eq(0),
            ]
        with m.Elif(way > 1):
            m.d.sync += [product.eq(product + (self.scale << 1)), reached.eq(reached + 2)]
        with m.Elif(way == 1):
            m.d.sync += [product.eq(product + self.scale), reached.eq(reached + 1)]
        with m.If(self.changed):
            m.d.sync += stale.eq(1)

        now = Signal(64)
        m.d.comb += now.eq(Mux(self.scaled, product[TIME_SCALE_FRACTION:], self.time))
        m.d.sync += [
            self.value.eq(now + self.offset),
            self.ready.eq(~self.scaled | ((left == 0) & ~stale & ~self.changed & (way[1:] == 0))),
        ]
        return m

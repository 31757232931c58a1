"""A place for one payload, so that ``ready`` need not wait for who is behind."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SkidBuffer"]


class SkidBuffer(wiring.Component):
    """Pass payloads on in the cycle they come; hold the one that is not taken.

    ``i.ready`` is a flip-flop: no combinational path leads from ``o.ready`` to it.

    Parameters
    ----------
    shape : ShapeLike
        Of the payload.

    Members
    -------
    i, o : stream.Signature(shape)
    clear : In(1)
        Drops what is held, and what is not taken in this cycle.
    full : Out(1)
        It holds a payload; ``i`` waits.
    """

    def __init__(self, *, shape):
        self._shape = shape
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "clear": In(1),
                "full": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        held = Signal(self._shape)
        m.d.comb += [
            self.i.ready.eq(~self.full),
            self.o.valid.eq(self.i.valid | self.full),
            self.o.payload.eq(self.i.payload),
        ]
        with m.If(self.full):
            m.d.comb += self.o.payload.eq(held)
        with m.Else():
            m.d.sync += held.eq(self.i.payload)
        m.d.sync += self.full.eq(self.o.valid & ~self.o.ready & ~self.clear)
        return m

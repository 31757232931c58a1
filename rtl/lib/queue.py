"""A queue that can be emptied at once."""

from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Queue"]


class Queue(wiring.Component):
    """Hand payloads on in order, at the earliest in the cycle after they came.

    A full queue takes a payload in a cycle in which it gives one away (``i.ready`` follows
    ``o.ready`` combinationally).

    Parameters
    ----------
    shape : ShapeLike
    depth : int
        Payloads it holds.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    clear : In(1)
        Drops everything, also what comes in this cycle.
    level : Out(range(depth + 1))
        Payloads it holds now.

    Raises ValueError when ``depth`` is not positive.
    """

    def __init__(self, *, shape, depth: int):
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(f"depth must be a positive whole number, not {depth!r}")
        self._shape, self._depth = shape, depth
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "clear": In(1),
                "level": Out(range(depth + 1)),
            }
        )

    @property
    def depth(self) -> int:
        return self._depth

    def elaborate(self, platform):
        m = Module()
        m.submodules.payloads = payloads = memory.Memory(
            shape=self._shape, depth=self._depth, init=[]
        )
        write = payloads.write_port()
        # What is written in a cycle is never read in it: an empty queue does not answer.
        read = payloads.read_port(domain="comb")
        put, take = self.i.valid & self.i.ready, self.o.valid & self.o.ready

        def after(place):
            return Mux(place == self._depth - 1, 0, place + 1)

        m.d.comb += [
            self.i.ready.eq((self.level != self._depth) | take),
            self.o.valid.eq(self.level != 0),
            self.o.payload.eq(read.data),
            write.data.eq(self.i.payload),
            write.en.eq(put),
        ]
        with m.If(put):
            m.d.sync += write.addr.eq(after(write.addr))
        with m.If(take):
            m.d.sync += read.addr.eq(after(read.addr))
        m.d.sync += self.level.eq(self.level + put - take)
        with m.If(self.clear):
            m.d.sync += [write.addr.eq(0), read.addr.eq(0), self.level.eq(0)]
        return m

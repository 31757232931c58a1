"""Several initiators on one AXI4 bus."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from rtl.bus.axi4 import Axi4, Axi4Read

__all__ = ["Axi4Arbiter"]


class _Turn(wiring.Component):
    """Choose one of those who ask, in turn; the choice stays until ``release``.

    Without a choice held, ``chosen`` follows the requests in the same cycle. ``chosen`` is
    one-hot, or zero when nobody asks.
    """

    def __init__(self, count):
        self._count = count
        super().__init__(
            {"requests": In(count), "chosen": Out(count), "release": In(1), "held": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        count = self._count
        held_choice = Signal(count)
        # Those behind the one chosen last go first.
        behind = Signal(count)
        first = self.requests & behind
        candidates = Mux(first.any(), first, self.requests)
        m.d.comb += [
            self.held.eq(held_choice.any()),
            self.chosen.eq(Mux(self.held, held_choice, candidates & -candidates)),
        ]
        with m.If(self.release):
            m.d.sync += held_choice.eq(0)
        with m.Else():
            m.d.sync += held_choice.eq(self.chosen)
        with m.If(self.chosen.any()):
            m.d.sync += behind.eq(~(self.chosen | (self.chosen - 1)))
        return m


def _selected(chosen, payloads):
    """The payload of the one chosen, as a plain value; without one it may be anybody's."""
    if len(payloads) == 1:
        return payloads[0].as_value()
    result = C(0)
    for number, payload in enumerate(payloads):
        bits = payload.as_value()
        result = result | bits & chosen[number].replicate(len(bits))
    return result


class Axi4Arbiter(wiring.Component):
    """Join initiators into one bus; reads and writes are arbitrated apart, each in turn.

    The identifier on ``bus`` is the initiator's number, readers first, and responses go where it
    says: whatever identifier an initiator sends, it gets its number back. A write holds the
    write channels until its address and its last beat are taken. Nothing is delayed by a cycle.

    Parameters
    ----------
    readers, writers : int
        Number of initiators that only read, and of those that do both.
    id_width : int
        Wide enough for the number of all initiators.

    Members
    -------
    readers : In(Axi4Read) array
    writers : In(Axi4) array
    bus : Out(Axi4)

    Raises ValueError when there is nobody to arbitrate, or too many for the identifier.
    """

    def __init__(self, *, readers, writers, id_width):
        if readers < 0 or writers < 0 or readers + writers < 1:
            raise ValueError(f"an arbiter of {readers} readers and {writers} writers")
        if id_width < ceil_log2(readers + writers):
            raise ValueError(f"{readers + writers} initiators need more than {id_width} id bits")
        super().__init__(
            {
                "readers": In(Axi4Read(id_width=id_width)).array(readers),
                "writers": In(Axi4(id_width=id_width)).array(writers),
                "bus": Out(Axi4(id_width=id_width)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        readers = [*self.readers, *self.writers]

        m.submodules.reads = reads = _Turn(len(readers))
        m.d.comb += [
            reads.requests.eq(Cat(port.ar.valid for port in readers)),
            reads.release.eq(bus.ar.ready),
            bus.ar.valid.eq(reads.chosen.any()),
            bus.ar.payload.eq(_selected(reads.chosen, [port.ar.payload for port in readers])),
        ]
        for number, port in enumerate(readers):
            mine = bus.r.p.id == number
            with m.If(reads.chosen[number]):
                m.d.comb += bus.ar.p.id.eq(number)
            with m.If(mine):
                m.d.comb += bus.r.ready.eq(port.r.ready)
            m.d.comb += [
                port.ar.ready.eq(bus.ar.ready & reads.chosen[number]),
                port.r.valid.eq(bus.r.valid & mine),
                port.r.payload.eq(bus.r.payload),
            ]

        m.submodules.writes = writes = _Turn(len(self.writers))
        # What the write under way has handed over already.
        address_taken, data_taken = Signal(), Signal()
        address_ends, data_ends = Signal(), Signal()
        m.d.comb += [
            address_ends.eq(address_taken | bus.aw.valid & bus.aw.ready),
            data_ends.eq(data_taken | bus.w.valid & bus.w.ready & bus.w.p.last),
            writes.requests.eq(Cat(port.aw.valid | port.w.valid for port in self.writers)),
            writes.release.eq(address_ends & data_ends),
            bus.aw.payload.eq(_selected(writes.chosen, [port.aw.payload for port in self.writers])),
            bus.w.payload.eq(_selected(writes.chosen, [port.w.payload for port in self.writers])),
        ]
        m.d.sync += [
            address_taken.eq(address_ends & ~writes.release),
            data_taken.eq(data_ends & ~writes.release),
        ]
        for number, port in enumerate(self.writers):
            mine = bus.b.p.id == len(self.readers) + number
            with m.If(writes.chosen[number]):
                m.d.comb += [
                    bus.aw.valid.eq(port.aw.valid & ~address_taken),
                    bus.aw.p.id.eq(len(self.readers) + number),
                    bus.w.valid.eq(port.w.valid & ~data_taken),
                    port.aw.ready.eq(bus.aw.ready & ~address_taken),
                    port.w.ready.eq(bus.w.ready & ~data_taken),
                ]
            with m.If(mine):
                m.d.comb += bus.b.ready.eq(port.b.ready)
            m.d.comb += [
                port.b.valid.eq(bus.b.valid & mine),
                port.b.payload.eq(bus.b.payload),
            ]
        return m

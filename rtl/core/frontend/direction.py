"""Direction of conditional branches: a counter per address, corrected by two tagged tables."""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.lib.collisions import COLLISIONS_UNDEFINED

__all__ = ["HISTORY_BITS", "Direction", "DirectionPredictor", "DirectionUpdate"]

#: The path behind; how it grows is the predictor's affair.
HISTORY_BITS = 16
_SHORT_BITS = 6
_TAG_BITS = 8
#: Counters of the tagged tables; the upper half of their range says taken.
_COUNTER_BITS = 3
_PACKET_BITS = 3
_ROW = data.StructLayout({"valid": 1, "tag": _TAG_BITS, "counter": _COUNTER_BITS})


class Direction(data.Struct):
    """What the tables said: kept with the branch, to move the right counters later."""

    base: 2
    short_hit: 1
    short: _COUNTER_BITS
    long_hit: 1
    long: _COUNTER_BITS


class DirectionUpdate(data.Struct):
    """The branch ending in the packet of ``pc`` went ``taken``; it was predicted by ``direction``
    under ``history``.
    """

    valid: 1
    pc: 64
    history: HISTORY_BITS
    direction: Direction
    taken: 1


def _towards(counter, taken, width):
    most = (1 << width) - 1
    return Mux(
        taken,
        Mux(counter == most, most, counter + 1),
        Mux(counter == 0, 0, counter - 1),
    )


def _packet(pc, index_bits):
    return pc[_PACKET_BITS : _PACKET_BITS + index_bits]


def _places(pc, history, index_bits):
    """Index and tag in the two tagged tables, by a short and by the whole history."""
    packet = _packet(pc, index_bits)
    above = pc[_PACKET_BITS + 2 :][:_TAG_BITS]
    short = history[:_SHORT_BITS]
    folded = history[:index_bits] ^ history[index_bits:]
    scattered = history[:_TAG_BITS] ^ Cat(Const(0, 1), history[_TAG_BITS:])
    return (
        (packet ^ Cat(Const(0, index_bits - _SHORT_BITS), short), (above ^ short)[:_TAG_BITS]),
        (packet ^ folded, (above ^ scattered)[:_TAG_BITS]),
    )


class DirectionPredictor(wiring.Component):
    """Predict a branch by the longest history that has an entry for it (after TAGE, Seznec 2006).

    Parameters
    ----------
    counter_count : int
        Rows of each table; a power of two from 256 on.

    Members
    -------
    pc, history, read : In
        The tables are read at the end of the cycle with ``read``.
    direction, taken : Out
        The answer, from the next cycle on.
    update : In(DirectionUpdate)
        The table that predicted learns; if it was wrong the one with the next longer history
        takes the branch.
    sweep, swept : In
        While ``sweep`` is 1, row ``swept`` of every table is cleared in each cycle.
    """

    def __init__(self, *, counter_count):
        self._counter_count = counter_count
        super().__init__(
            {
                "pc": In(64),
                "history": In(HISTORY_BITS),
                "read": In(1),
                "direction": Out(Direction),
                "taken": Out(1),
                "update": In(DirectionUpdate),
                "sweep": In(1),
                "swept": In(exact_log2(counter_count)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows, index_bits = self._counter_count, len(self.swept)
        # A read that collides with learning may give anything: it is a prediction, and every
        # prediction is checked.
        m.submodules.base = base = memory.Memory(
            shape=2, depth=rows, init=[], attrs=COLLISIONS_UNDEFINED
        )
        m.submodules.short = short = memory.Memory(
            shape=unsigned(_ROW.size), depth=rows, init=[], attrs=COLLISIONS_UNDEFINED
        )
        m.submodules.long = long = memory.Memory(
            shape=unsigned(_ROW.size), depth=rows, init=[], attrs=COLLISIONS_UNDEFINED
        )
        base_read, base_write = base.read_port(), base.write_port()
        direction, update = self.direction, self.update
        old = update.direction
        m.d.comb += [
            base_read.addr.eq(_packet(self.pc, index_bits)),
            base_read.en.eq(self.read),
            direction.base.eq(base_read.data),
            self.taken.eq(direction.base[-1]),
        ]

        # Who predicted, and whether wrongly.
        provider_taken = Mux(
            old.long_hit, old.long[-1], Mux(old.short_hit, old.short[-1], old.base[-1])
        )
        wrong = provider_taken != update.taken
        learns = (
            (old.short_hit & ~old.long_hit, ~old.short_hit & ~old.long_hit & wrong),
            (old.long_hit, old.short_hit & ~old.long_hit & wrong),
        )
        fresh = Mux(update.taken, 1 << _COUNTER_BITS - 1, (1 << _COUNTER_BITS - 1) - 1)
        tables = (
            (short, direction.short_hit, direction.short, old.short),
            (long, direction.long_hit, direction.long, old.long),
        )
        reads = _places(self.pc, self.history, index_bits)
        writes = _places(update.pc, update.history, index_bits)
        for (table, hit, counter, before), (index, tag), (target, target_tag), (
            moves,
            takes,
        ) in zip(tables, reads, writes, learns, strict=True):
            read, write = table.read_port(), table.write_port()
            expected = Signal(_TAG_BITS)
            row, new = Signal(_ROW), Signal(_ROW)
            with m.If(self.read):
                m.d.sync += expected.eq(tag)
            m.d.comb += [
                read.addr.eq(index),
                read.en.eq(self.read),
                row.as_value().eq(read.data),
                hit.eq(row.valid & (row.tag == expected)),
                counter.eq(row.counter),
                new.valid.eq(1),
                new.tag.eq(target_tag),
                new.counter.eq(Mux(moves, _towards(before, update.taken, _COUNTER_BITS), fresh)),
                write.addr.eq(Mux(self.sweep, self.swept, target)),
                write.data.eq(Mux(self.sweep, 0, new.as_value())),
                write.en.eq(self.sweep | (update.valid & (moves | takes))),
            ]
            with m.If(hit):
                m.d.comb += self.taken.eq(counter[-1])

        m.d.comb += [
            base_write.addr.eq(Mux(self.sweep, self.swept, _packet(update.pc, index_bits))),
            # Weakly taken: a branch is known once it has been taken.
            base_write.data.eq(Mux(self.sweep, 2, _towards(old.base, update.taken, 2))),
            base_write.en.eq(self.sweep | (update.valid & ~old.short_hit & ~old.long_hit)),
        ]
        return m

"""Counters of 64 bits that share one memory and one adder."""

from collections.abc import Iterable

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["CounterBank"]

#: Bits that count in flip-flops. A carry out of them has to reach memory before the next one comes,
#: while reads and writes may take every second cycle, and all rows may have one.
_LOW_BITS = 6
_ROW_BITS = 4


class CounterBank(wiring.Component):
    """Count up to one event per cycle and counter; read or write one counter per cycle.

    The low bits count in flip-flops. The high bits stand in memory; whichever row is at hand, for a
    read or because something waits for it, takes that up.

    Parameters
    ----------
    rows : iterable of int
        The counters there are, by row number below 16.

    Members
    -------
    count : In(16)
        By row: it counts one at the end of this cycle, unless it is written then.
    add, addends, amount : In(1), In(16), In(32)
        With ``add``, which comes only while ``settled``, the rows in ``addends`` count ``amount`` at once.
    row : In(4)
        The counter read or written; with neither, any.
    access : In(1)
        ``row`` matters in this cycle.
    value : Out(64)
        With ``access``, what the counter holds, all that was added included.
    write, data : In(1), In(64)
        With ``access``: the counter becomes ``data``.
    settled : Out(1)
        Another ``add`` may come: some cycles after the one before, and 16 after reset.
    cleared : Out(1)
        Every counter is zero, 16 cycles after reset.
    """

    count: In(1 << _ROW_BITS)
    add: In(1)
    addends: In(1 << _ROW_BITS)
    amount: In(32)
    row: In(_ROW_BITS)
    access: In(1)
    value: Out(64)
    write: In(1)
    data: In(64)
    settled: Out(1)
    cleared: Out(1)

    def __init__(self, *, rows: Iterable[int]):
        self._rows = tuple(rows)
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.high = high = memory.Memory(
            shape=unsigned(64 - _LOW_BITS), depth=1 << _ROW_BITS, init=[]
        )
        read, write = high.read_port(domain="comb"), high.write_port()

        turn, clearing = Signal(_ROW_BITS), Signal(init=1)
        at = Signal(_ROW_BITS)
        m.d.sync += turn.eq(turn + 1)
        with m.If(turn.all()):
            m.d.sync += clearing.eq(0)
        # Per row, at its number; those that do not exist stay zero.
        low = Array(Signal(_LOW_BITS, name=f"low_{n}") for n in range(1 << _ROW_BITS))
        carry, owed = Signal(1 << _ROW_BITS), Signal(1 << _ROW_BITS)
        m.d.comb += at.eq(turn)
        for n in reversed(self._rows):
            with m.If(owed[n] | carry[n]):
                m.d.comb += at.eq(n)
        with m.If(self.access):
            m.d.comb += at.eq(self.row)
        # Events of the cycle before: what happens is known late.
        counted = Signal(1 << _ROW_BITS)
        amount = Signal(32)
        carries, adds, counts = Signal(), Signal(), Signal()
        base, total, stored = Signal(64), Signal(64), Signal(64)
        writes, looks, busy = Signal(), Signal(), Signal()
        m.d.comb += [
            busy.eq(self.access | carry.any() | owed.any() | clearing),
            writes.eq(self.access & self.write),
            read.addr.eq(at),
            write.addr.eq(at),
            self.cleared.eq(~clearing),
            self.settled.eq(~clearing & ~owed.any()),
        ]
        with m.If(busy):
            m.d.comb += [
                base.eq(Cat(low[at], read.data)),
                carries.eq(carry.bit_select(at, 1)),
                adds.eq(owed.bit_select(at, 1)),
                # A read leaves it to a later cycle to put down what it has added.
                looks.eq(adds & self.access & ~self.write),
                counts.eq((adds | self.access) & counted.bit_select(at, 1)),
                total.eq(base + (Mux(adds, amount, 0) + (carries << _LOW_BITS)) + counts),
                self.value.eq(total),
                write.en.eq(~looks),
                stored.eq(Mux(writes, self.data, total)),
                write.data.eq(stored[_LOW_BITS:]),
            ]
        m.d.sync += counted.eq(self.count & ~(writes << at)[: 1 << _ROW_BITS])
        with m.If(self.add):
            m.d.sync += amount.eq(self.amount)
        for n in self._rows:
            here = Signal(name=f"here_{n}")
            m.d.comb += here.eq((at == n) & ~looks)
            with m.If(here):
                m.d.sync += carry[n].eq(0)
            with m.If(self.add & self.addends[n]):
                m.d.sync += owed[n].eq(1)
            with m.If(here & (adds | self.access)):
                m.d.sync += [low[n].eq(stored[:_LOW_BITS]), owed[n].eq(0)]
            with m.Elif(counted[n]):
                m.d.sync += low[n].eq(low[n] + 1)
                with m.If(low[n].all()):
                    m.d.sync += carry[n].eq(1)
        with m.If(clearing):
            m.d.comb += write.data.eq(0)
        return m

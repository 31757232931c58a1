"""The exit table: how often the hart parked for each reason, and how long the transitions took."""

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.core.ports import HartEvents

__all__ = ["REASON_COUNT", "ExitCounters", "ExitRow"]

_REASON_WIDTH = data.Layout.cast(HartEvents)["reason"].width
#: Rows of the table: the exception codes, then the interrupt codes.
REASON_COUNT = 1 << _REASON_WIDTH


class ExitRow(data.Struct):
    """Exits of one reason, and the transition cycles that began with them."""

    count: 64
    cycles: 64


class ExitCounters(wiring.Component):
    """Count exits and their cycles per reason; a row holds everything up to the cycle it is read.

    Members
    -------
    exit : In(1)
        An exit for ``reason`` begins in this cycle.
    transition : In(1)
        This cycle counts for the latest exit (the one that begins in it included).
    clear : In(1)
        All rows become zero; it wins over an exit.
    i_query, o_row : streams
        A reason, and its row; one at a time.
    """

    exit: In(1)
    reason: In(_REASON_WIDTH)
    transition: In(1)
    clear: In(1)
    i_query: In(stream.Signature(_REASON_WIDTH))
    o_row: Out(stream.Signature(ExitRow))

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = memory.Memory(shape=ExitRow, depth=REASON_COUNT, init=[])
        write = rows.write_port()
        # A row read in the cycle it is written is read as written: exits may follow each other.
        read = rows.read_port(transparent_for=(write,))

        # Rows that were written since the last clear; all others are zero, whatever memory holds.
        written = Signal(REASON_COUNT)
        last_read = Signal(_REASON_WIDTH)
        row = Signal(ExitRow)
        looking = Signal()

        # The latest exit is added to its row when the next one begins.
        latest = Signal(data.StructLayout({"valid": 1, "reason": _REASON_WIDTH, "cycles": 64}))
        ended = Signal.like(latest)
        ending = self.exit & latest.valid
        m.d.sync += ended.valid.eq(ending & ~self.clear)
        with m.If(ending):
            m.d.sync += [ended.reason.eq(latest.reason), ended.cycles.eq(latest.cycles)]
        with m.If((ended.valid | looking) & written.bit_select(last_read, 1)):
            m.d.comb += row.eq(read.data)
        with m.If(self.exit):
            m.d.sync += [
                latest.valid.eq(1),
                latest.reason.eq(self.reason),
                latest.cycles.eq(self.transition),
            ]
        with m.Elif(self.transition):
            m.d.sync += latest.cycles.eq(latest.cycles + 1)
        with m.If(ended.valid):
            m.d.comb += [
                write.addr.eq(ended.reason),
                write.data.count.eq(row.count + 1),
                write.data.cycles.eq(row.cycles + ended.cycles),
                write.en.eq(1),
            ]
            m.d.sync += written.bit_select(ended.reason, 1).eq(1)
        with m.If(self.clear):
            m.d.sync += [latest.valid.eq(0), written.eq(0)]

        m.d.comb += [
            read.addr.eq(Mux(ending, latest.reason, self.i_query.payload)),
            read.en.eq(ending | self.i_query.valid),
        ]
        with m.If(read.en):
            m.d.sync += last_read.eq(read.addr)
        m.d.comb += self.i_query.ready.eq(~ending & ~looking & ~self.o_row.valid)
        m.d.sync += looking.eq(self.i_query.valid & self.i_query.ready)
        with m.If(looking):
            under_way = latest.valid & (latest.reason == last_read)
            m.d.sync += [
                self.o_row.payload.count.eq(row.count + under_way),
                self.o_row.payload.cycles.eq(row.cycles + Mux(under_way, latest.cycles, 0)),
                self.o_row.valid.eq(1),
            ]
        with m.Elif(self.o_row.ready):
            m.d.sync += self.o_row.valid.eq(0)
        return m

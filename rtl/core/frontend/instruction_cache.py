"""The instruction cache: reads lines from the data cache where it holds them, else from memory."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.bus.axi4 import DATA_BYTES, Axi4Read, Burst
from rtl.bus.snoop import SnoopPort
from rtl.core.cache_array import (
    FRAME_BITS,
    LINE_WORDS,
    OFFSET_BITS,
    CacheArray,
    CacheGeometry,
)
from rtl.core.ports import Written

__all__ = ["FetchAccess", "FetchResult", "InstructionCache"]


class FetchAccess(data.Struct):
    """Phase 1 of a fetch; ``valid`` = 0 drops it."""

    valid: 1
    frame: FRAME_BITS


class FetchResult(data.Struct):
    """The aligned word around the address, or ``error``: memory answered with a bus error.

    ``refilled`` comes with ``valid`` after a miss, and from registers.
    """

    valid: 1
    refilled: 1
    data: 8 * DATA_BYTES
    error: 1


class _State(enum.Enum, shape=3):
    READY = 0
    #: Asking the data cache for a word of the line, and waiting for its answer.
    ASK = 1
    ANSWER = 2
    #: The line comes from memory.
    REFILL = 3
    #: The access that missed reads the arrays again.
    REPLAY = 4


class InstructionCache(wiring.Component):
    """Serve one fetch per cycle; hold on to one that misses until its line is there.

    A line fetched is what memory held at one time after the miss, as far as other masters write
    it; the hart's own stores are seen after ``flush``.

    Parameters
    ----------
    size : int
        Bytes.
    ways : int
        Associativity; a way holds at most one page.

    Members
    -------
    i_index, access, o_result
        The fetch unit's port, as ``docs/internals.md`` describes it.
    flush : In
        Drop all lines; a refill under way is answered, but not kept. It takes a cycle per set
        until the next access is taken.
    written : In
        Drop what could hold this address; a refill of that line starts again.
    snoop : Out
        To the data cache.
    bus : Out
        Identifier 0.
    open : Out
        ``i_index`` is ready, unless the access in phase 1 misses.
    idle : Out
        No access and no bus transaction is under way.
    miss_stb : Out
        The line asked for is not here.

    Raises ValueError on a size and ways that cannot be built.
    """

    def __init__(self, *, size, ways):
        self._geometry = CacheGeometry(size=size, ways=ways)
        super().__init__(
            {
                "i_index": In(stream.Signature(OFFSET_BITS)),
                "access": In(FetchAccess),
                "o_result": Out(FetchResult),
                "flush": In(1),
                "written": In(Written),
                "snoop": Out(SnoopPort()),
                "bus": Out(Axi4Read(id_width=1)),
                "open": Out(1),
                "idle": Out(1),
                "miss_stb": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        geometry = self._geometry
        m.submodules.array = array = CacheArray(geometry=geometry)
        ar, r = self.bus.ar, self.bus.r

        state = Signal(_State)
        ready = Signal()
        m.d.comb += ready.eq(state == _State.READY)

        # The access in phase 1; `replayed` comes again after a refill into `victim`.
        phase1 = Signal()
        replayed = Signal()
        offset = Signal(OFFSET_BITS)
        frame = Signal(FRAME_BITS)
        victim = Signal(geometry.ways)
        failed = Signal()
        hit = Signal()
        miss = Signal()
        m.d.comb += [
            array.offset.eq(offset),
            array.frame.eq(Mux(ready, self.access.frame, frame)),
            array.select.eq(Mux(replayed, victim, array.hit)),
            # What was taken together with a flush must not see the lines being dropped.
            hit.eq(array.hit.any() & array.swept),
            miss.eq(phase1 & ~replayed & self.access.valid & ~hit),
            self.o_result.valid.eq(phase1 & (replayed | self.access.valid & hit)),
            self.o_result.refilled.eq(phase1 & replayed),
            self.o_result.data.eq(array.data),
            self.o_result.error.eq(failed),
            self.open.eq(ready & array.swept),
            self.i_index.ready.eq(self.open & ~miss),
            self.miss_stb.eq(miss),
            self.idle.eq(ready & ~phase1 & array.swept),
        ]

        # While the access in phase 1 misses, the arrays are read for nothing: to hold that back
        # would put the tag comparison before the memories' read enable.
        again = state == _State.REPLAY
        m.d.comb += [
            array.read_offset.eq(Mux(ready, self.i_index.payload, offset)),
            array.read_tags.eq(ready & self.i_index.valid),
            array.read_data.eq(ready & self.i_index.valid | again),
        ]

        # `stale`: the line was written while it was read, so what came may be torn or old.
        # `flushed`: it may be answered, but not kept.
        stale, flushed = Signal(), Signal()
        line_written = Signal()
        m.d.comb += [
            line_written.eq(
                self.written.valid & (self.written.address[6:] == Cat(offset[6:], frame))
            ),
            array.drop_all.eq(self.flush),
            array.drop_set.eq(self.written.valid),
            array.drop_offset.eq(self.written.address[:OFFSET_BITS]),
        ]
        with m.If(line_written):
            m.d.sync += stale.eq(1)
        with m.If(self.flush):
            m.d.sync += flushed.eq(1)

        word = Signal(range(LINE_WORDS))
        m.d.comb += [
            self.snoop.request.valid.eq(state == _State.ASK),
            self.snoop.request.p.address.eq(Cat(C(0, 3), word, offset[6:], frame)),
            self.snoop.request.p.mask.eq(0xFF),
            self.snoop.response.ready.eq(state == _State.ANSWER),
            ar.p.id.eq(0),
            ar.p.address.eq(Cat(C(0, 6), offset[6:], frame)),
            ar.p.len.eq(LINE_WORDS - 1),
            ar.p.size.eq(exact_log2(DATA_BYTES)),
            ar.p.burst.eq(Burst.INCR),
            r.ready.eq(state == _State.REFILL),
            array.write_word.eq(word),
            array.write_data.eq(Mux(state == _State.REFILL, r.p.data, self.snoop.response.p.data)),
        ]
        with m.If(ar.ready):
            m.d.sync += ar.valid.eq(0)

        received, line_ends, error = Signal(), Signal(), Signal()
        with m.Switch(state):
            with m.Case(_State.READY):
                m.d.sync += [
                    phase1.eq(self.i_index.valid & self.i_index.ready),
                    replayed.eq(0),
                    failed.eq(0),
                    stale.eq(0),
                    flushed.eq(0),
                    word.eq(0),
                ]
                with m.If(miss):
                    m.d.sync += [
                        frame.eq(self.access.frame),
                        victim.eq(array.victim),
                        state.eq(_State.ASK),
                    ]
                with m.Else():
                    m.d.sync += offset.eq(self.i_index.payload)
            with m.Case(_State.ASK):
                with m.If(self.snoop.request.ready):
                    m.d.sync += state.eq(_State.ANSWER)
            with m.Case(_State.ANSWER):
                with m.If(self.snoop.response.valid):
                    with m.If(self.snoop.response.p.hit):
                        m.d.comb += received.eq(1)
                        m.d.comb += line_ends.eq(word == LINE_WORDS - 1)
                        m.d.sync += state.eq(_State.ASK)
                    with m.Else():
                        m.d.sync += [word.eq(0), ar.valid.eq(1), state.eq(_State.REFILL)]
            with m.Case(_State.REFILL):
                with m.If(r.valid):
                    m.d.comb += [received.eq(1), line_ends.eq(r.p.last)]
                    m.d.comb += error.eq(r.p.resp.as_value()[1])
            with m.Case(_State.REPLAY):
                with m.If(stale | line_written):
                    m.d.sync += [stale.eq(0), failed.eq(0), state.eq(_State.ASK)]
                with m.Else():
                    m.d.sync += [phase1.eq(1), replayed.eq(1), state.eq(_State.READY)]

        with m.If(received):
            m.d.comb += array.write_ways.eq(victim)
            m.d.sync += [word.eq(word + 1), failed.eq(failed | error)]
        with m.If(~(ready | again)):
            m.d.comb += array.drop.eq(victim)
        with m.If(line_ends):
            m.d.sync += state.eq(_State.REPLAY)
            with m.If(~(failed | error | stale | line_written | flushed | self.flush)):
                m.d.comb += array.keep.eq(victim)
        return m

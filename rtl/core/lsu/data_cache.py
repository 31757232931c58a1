"""The data cache: write-back, write-allocate, and the point where all masters agree on RAM."""

from amaranth import *
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.bus.axi4 import DATA_BYTES, Axi4, Burst
from rtl.bus.snoop import SnoopPort
from rtl.core.cache_array import (
    FRAME_BITS,
    LINE_BYTES,
    LINE_WORDS,
    OFFSET_BITS,
    CacheArray,
    CacheGeometry,
)
from rtl.core.ports import Written
from rtl.mmu.ports import PteMemory

__all__ = ["DataAccess", "DataCache", "DataResult"]


class DataAccess(data.Struct):
    """Phase 1 of an access: ``valid`` = 0 drops it; ``mask`` names the bytes of a write.

    What is written, and whether, holds still until the answer.
    """

    valid: 1
    frame: FRAME_BITS
    write: 1
    mask: DATA_BYTES
    data: 8 * DATA_BYTES


class DataResult(data.Struct):
    """``valid`` strobes when an access is done. ``data``: the aligned word around the address, as
    it was before a write; ``error``: memory answered with a bus error and nothing was done.
    """

    valid: 1
    data: 8 * DATA_BYTES
    error: 1


class _State(enum.Enum, shape=3):
    """What the cache does; only in READY are requests taken."""

    READY = 0
    #: A dirty line goes out.
    WRITE_BACK = 1
    #: A line comes in; the victim's write response may still be under way.
    REFILL = 2
    #: The access that missed, or that is an update, reads the arrays again.
    REPLAY = 3
    #: A snoop access that missed is with memory.
    FORWARD = 4
    #: Looking for dirty lines, set by set.
    CLEAN = 5
    #: All lines are being dropped, after reset or cleaning.
    SWEEP = 6


class _Source(enum.Enum, shape=2):
    HART = 0
    WALKER = 1
    SNOOP = 2


class _Request(data.Struct):
    offset: OFFSET_BITS
    frame: FRAME_BITS
    write: 1
    forward: 1
    update: 8
    mask: DATA_BYTES
    data: 8 * DATA_BYTES


class _Store(data.Struct):
    """The word written in the cycle before, which a read at that time has not seen."""

    valid: 1
    word: OFFSET_BITS - 3
    data: 8 * DATA_BYTES


class DataCache(wiring.Component):
    """Serve one access at a time, of the hart, the page walker or another bus master, in order.

    All three go the same way: the arrays are read when the request is taken (phase 0), hit and
    data follow in the next cycle (phase 1). Whoever misses holds the cache until memory has
    answered, write-back included, so that memory sees accesses in the order of requests.

    Parameters
    ----------
    size : int
        Bytes.
    ways : int
        Associativity; a way holds at most one page.

    Members
    -------
    i_index, access, o_result
        The hart's port, as ``docs/internals.md`` describes it.
    lock : In
        Serve the hart only.
    walker : In
        Reads and updates of page-table entries. An update is a read, and a write in the access
        that follows it, before anybody else's.
    snoop : In
        All other masters. It never allocates.
    written : Out
        Strobes in the last cycle of a snoop write or of an update by the walker, before its
        response, and before any access that comes after it can be in phase 1.
    i_clean, o_cleaned
        Write all dirty lines back (payload 1: and drop all lines), then strobe.
    bus : Out
        Identifier 1. A bus error on write-back has nobody to go to and is ignored.
    idle : Out
        No access and no bus transaction is under way.
    miss_stb : Out
        A line the hart or the walker asked for is not here.

    Raises ValueError on a size and ways that cannot be built.
    """

    def __init__(self, *, size, ways):
        self._geometry = CacheGeometry(size=size, ways=ways)
        super().__init__(
            {
                "i_index": In(stream.Signature(OFFSET_BITS)),
                "access": In(DataAccess),
                "o_result": Out(DataResult),
                "lock": In(1),
                "walker": In(PteMemory()),
                "snoop": In(SnoopPort()),
                "written": Out(Written),
                "i_clean": In(stream.Signature(1)),
                "o_cleaned": Out(1),
                "bus": Out(Axi4(id_width=1)),
                "idle": Out(1),
                "miss_stb": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        geometry = self._geometry
        m.submodules.array = array = CacheArray(geometry=geometry)
        bus = self.bus

        state = Signal(_State, init=_State.SWEEP)
        ready = Signal()
        m.d.comb += ready.eq(state == _State.READY)

        # The access in phase 1. The hart's own arrives with `direct` set and brings its frame on
        # `access`, where what it writes stays; all else of it when it comes again after a refill,
        # and all of the others, stands in `request`.
        phase1 = Signal()
        direct = Signal()
        source = Signal(_Source)
        of_hart = source == _Source.HART
        request = Signal(_Request)
        failed = Signal()
        frame = Signal(FRAME_BITS)
        write = Signal()
        mask = Signal(DATA_BYTES)
        store_data = Signal(8 * DATA_BYTES)
        m.d.comb += [
            frame.eq(Mux(direct, self.access.frame, request.frame)),
            write.eq(Mux(of_hart, self.access.write, request.write)),
            mask.eq(Mux(of_hart, self.access.mask, request.mask)),
            store_data.eq(Mux(of_hart, self.access.data, request.data)),
        ]

        wanted = Signal()
        hit = Signal()
        store = Signal()
        miss = Signal()
        snooping = Signal()
        updating = Signal()
        busy = Signal()
        m.d.comb += [
            array.offset.eq(request.offset),
            array.frame.eq(frame),
            wanted.eq(phase1 & (self.access.valid | ~direct)),
            hit.eq(array.hit.any()),
            store.eq(wanted & hit & write),
            snooping.eq(source == _Source.SNOOP),
            miss.eq(wanted & ~hit & ~failed & ~(snooping & ~request.forward)),
            # The read of an update: its write follows, if the entry is as expected.
            updating.eq(phase1 & ~direct & ~failed & request.update.any()),
            busy.eq(miss | updating),
        ]
        last_store, last_way = Signal(_Store), Signal(geometry.ways)
        # By way: what was read there is not what was written.
        outdated, bypass = Signal(geometry.ways), Signal()
        word = Signal(8 * DATA_BYTES)
        stored_bits = Signal(8 * DATA_BYTES)
        merged = Signal(8 * DATA_BYTES)
        m.d.comb += [
            outdated.eq(
                last_way
                & (last_store.valid & (last_store.word == request.offset[3:])).replicate(
                    geometry.ways
                )
            ),
            bypass.eq((array.hit & outdated).any()),
            # No way is selected then: one more term of the sum, not a choice after it.
            word.eq(array.data | last_store.data & bypass.replicate(len(word))),
            stored_bits.eq(Cat(byte.replicate(8) for byte in mask)),
            merged.eq(word & ~stored_bits | store_data & stored_bits),
        ]
        m.d.sync += last_store.valid.eq(store)
        # The mask of an update is empty, so that it leaves there what it has read.
        updates = Signal()
        with m.If(store | updating):
            m.d.sync += [
                last_store.word.eq(request.offset[3:]),
                last_way.eq(array.hit),
                last_store.data.eq(merged),
            ]

        done = Signal()
        m.d.comb += [
            done.eq(wanted & ~miss & ~updating),
            self.miss_stb.eq(miss & ~snooping),
            self.o_result.valid.eq(done & (source == _Source.HART)),
            self.o_result.data.eq(word),
            self.o_result.error.eq(failed),
        ]
        responses = {_Source.WALKER: self.walker.response, _Source.SNOOP: self.snoop.response}
        for port, response in responses.items():
            with m.If(response.ready):
                m.d.sync += response.valid.eq(0)
            with m.If(done & (source == port)):
                m.d.sync += response.valid.eq(1)
                m.d.sync += response.p.data.eq(word)
                m.d.sync += response.p.error.eq(failed)
        with m.If(done & snooping):
            m.d.sync += self.snoop.response.p.hit.eq(hit)
        m.d.comb += self.idle.eq(
            ready & ~phase1 & ~self.walker.response.valid & ~self.snoop.response.valid
        )

        # A row of dirty bits per set; those of lines that are not valid mean nothing. They are
        # looked at when a victim is chosen and when cleaning.
        dirty_here = Signal(geometry.ways)
        victim = Signal(geometry.ways)
        write_back_starts = Signal()
        m.submodules.dirty_rows = dirty_rows = memory.Memory(
            shape=unsigned(geometry.ways), depth=geometry.set_count, init=()
        )
        dirty_read, dirty_write = dirty_rows.read_port(domain="comb"), dirty_rows.write_port()
        m.d.comb += [
            dirty_read.addr.eq(geometry.set_of(request.offset)),
            dirty_here.eq(dirty_read.data & array.valid),
            dirty_write.addr.eq(geometry.set_of(request.offset)),
            dirty_write.en.eq(store | write_back_starts | array.keep.any()),
            # A line that comes in is clean.
            dirty_write.data.eq(
                Mux(store, dirty_here | array.hit, dirty_here & ~(victim | array.keep))
            ),
        ]

        # Who comes next. In the cycle of its response, if not before, a snoop port leaves the way to
        # the hart, so that they take turns.
        others = Signal()
        cleaning = Signal()
        dropping = Signal()
        take_clean = Signal()
        take_walker = Signal()
        take_snoop = Signal()
        take_hart = Signal()
        m.d.comb += others.eq(ready & ~self.lock)
        with m.If(others & self.i_clean.valid):
            m.d.comb += take_clean.eq(1)
        with m.Elif(others & self.walker.request.valid & ~self.walker.response.valid):
            m.d.comb += take_walker.eq(1)
        with m.Elif(others & self.snoop.request.valid & ~self.snoop.response.valid):
            m.d.comb += take_snoop.eq(1)
        with m.Elif(ready):
            m.d.comb += take_hart.eq(1)
        m.d.comb += [
            self.i_clean.ready.eq(take_clean & ~busy),
            self.walker.request.ready.eq(take_walker & ~busy),
            self.snoop.request.ready.eq(take_snoop & ~busy),
            self.i_index.ready.eq(take_hart & ~busy),
        ]

        # While the access in phase 1 misses, the arrays are read for nothing: to hold that back
        # would put the tag comparison before the memories' read enable.
        m.d.comb += array.read_offset.eq(self.i_index.payload)
        with m.If(take_hart):
            m.d.comb += [array.read_tags.eq(self.i_index.valid)]
            m.d.comb += [array.read_data.eq(self.i_index.valid)]
        with m.Elif(ready):
            m.d.comb += array.read_offset.eq(
                Mux(
                    take_walker,
                    self.walker.request.p.address[:OFFSET_BITS],
                    self.snoop.request.p.address[:OFFSET_BITS],
                )
            )
            m.d.comb += [array.read_tags.eq(1), array.read_data.eq(1)]

        # Towards memory: one line out, one line in, or one word.
        single = Signal()
        out_of_line = Signal()
        address = Cat(
            C(0, 3),
            geometry.word_of(request.offset) & single.replicate(3),
            request.offset[6:],
            request.frame,
        )
        m.d.comb += [
            single.eq(state == _State.FORWARD),
            bus.ar.p.id.eq(1),
            bus.ar.p.address.eq(address),
            bus.ar.p.len.eq(Mux(single, 0, LINE_WORDS - 1)),
            bus.ar.p.size.eq(3),
            bus.ar.p.burst.eq(Burst.INCR),
            bus.aw.p.id.eq(1),
            bus.aw.p.address.eq(Mux(single, address, Cat(C(0, 6), array.line))),
            bus.aw.p.len.eq(bus.ar.p.len),
            bus.aw.p.size.eq(3),
            bus.aw.p.burst.eq(Burst.INCR),
            bus.w.p.data.eq(Mux(single, request.data, array.data)),
            bus.w.p.strb.eq(Mux(single, request.mask, 0xFF)),
            bus.w.p.last.eq(single | out_of_line),
        ]
        for channel in (bus.ar, bus.aw):
            with m.If(channel.ready):
                m.d.sync += channel.valid.eq(0)
        with m.If(bus.w.ready & bus.w.p.last):
            m.d.sync += bus.w.valid.eq(0)

        # `ready` of R and B says that an answer is due.
        r_ends, b_ends = Signal(), Signal()
        m.d.comb += [
            r_ends.eq(bus.r.ready & bus.r.valid & bus.r.p.last),
            b_ends.eq(bus.b.ready & bus.b.valid),
        ]
        with m.If(r_ends):
            m.d.sync += bus.r.ready.eq(0)
        with m.If(b_ends):
            m.d.sync += bus.b.ready.eq(0)
        bus_done = Signal()
        m.d.comb += bus_done.eq((~bus.r.ready | r_ends) & (~bus.b.ready | b_ends))

        # Words of the line read from the array, or written into it.
        words = Signal(range(LINE_WORDS + 1))
        beat = words[: exact_log2(LINE_WORDS)]
        m.d.comb += [
            out_of_line.eq(words == LINE_WORDS),
            array.select.eq(Mux(ready, array.hit & ~outdated, victim)),
            array.write_ways.eq(array.hit & store.replicate(geometry.ways)),
            array.write_word.eq(geometry.word_of(request.offset)),
            array.write_data.eq(merged),
        ]
        r_error = bus.r.p.resp.as_value()[1]
        b_error = bus.b.p.resp.as_value()[1]

        def refill():
            return [
                state.eq(_State.REFILL),
                bus.ar.valid.eq(1),
                bus.r.ready.eq(1),
                words.eq(0),
            ]

        with m.Switch(state):
            with m.Case(_State.READY):
                m.d.sync += [failed.eq(0), phase1.eq(0)]
                with m.If(miss):
                    m.d.sync += [
                        direct.eq(0),
                        request.frame.eq(frame),
                        victim.eq(array.victim),
                        words.eq(0),
                    ]
                    with m.If(snooping):
                        m.d.sync += [
                            state.eq(_State.FORWARD),
                            bus.ar.valid.eq(~write),
                            bus.r.ready.eq(~write),
                            bus.aw.valid.eq(write),
                            bus.w.valid.eq(write),
                            bus.b.ready.eq(write),
                        ]
                    with m.Elif((array.victim & dirty_here).any()):
                        m.d.sync += state.eq(_State.WRITE_BACK)
                    with m.Else():
                        m.d.sync += refill()
                with m.Elif(updating):
                    m.d.sync += [updates.eq(1), state.eq(_State.REPLAY)]
                with m.Elif(take_clean):
                    m.d.sync += [
                        state.eq(_State.CLEAN),
                        cleaning.eq(1),
                        dropping.eq(self.i_clean.payload),
                        request.offset.eq(0),
                    ]
                with m.Elif(take_walker):
                    m.d.sync += [
                        phase1.eq(1),
                        direct.eq(0),
                        source.eq(_Source.WALKER),
                        request.offset.eq(self.walker.request.p.address[:OFFSET_BITS]),
                        request.frame.eq(self.walker.request.p.address[OFFSET_BITS:]),
                        request.write.eq(0),
                        request.update.eq(self.walker.request.p.set),
                        request.mask.eq(0),
                        request.data.eq(self.walker.request.p.expected),
                    ]
                with m.Elif(take_snoop):
                    m.d.sync += [
                        phase1.eq(1),
                        direct.eq(0),
                        source.eq(_Source.SNOOP),
                        request.offset.eq(self.snoop.request.p.address[:OFFSET_BITS]),
                        request.frame.eq(self.snoop.request.p.address[OFFSET_BITS:]),
                        request.write.eq(self.snoop.request.p.write),
                        request.forward.eq(self.snoop.request.p.forward),
                        request.update.eq(0),
                        request.mask.eq(self.snoop.request.p.mask),
                        request.data.eq(self.snoop.request.p.data),
                    ]
                with m.Else():
                    m.d.sync += [
                        phase1.eq(self.i_index.valid),
                        direct.eq(1),
                        source.eq(_Source.HART),
                        request.offset.eq(self.i_index.payload),
                        request.update.eq(0),
                    ]
            with m.Case(_State.WRITE_BACK):
                m.d.comb += array.read_offset.eq(Cat(C(0, 3), beat, request.offset[6:]))
                with m.If(words == 0):
                    m.d.comb += [array.read_tags.eq(1), array.read_data.eq(1)]
                    m.d.comb += write_back_starts.eq(1)
                    m.d.sync += [
                        bus.aw.valid.eq(1),
                        bus.w.valid.eq(1),
                        bus.b.ready.eq(1),
                        words.eq(1),
                    ]
                with m.Elif(bus.w.valid & bus.w.ready & ~out_of_line):
                    m.d.comb += array.read_data.eq(1)
                    m.d.sync += words.eq(words + 1)
                with m.If(
                    out_of_line & (~bus.aw.valid | bus.aw.ready) & (~bus.w.valid | bus.w.ready)
                ):
                    # Reading may start before B: it is another line, and the next request
                    # waits for both.
                    m.d.sync += refill()
                    with m.If(cleaning):
                        m.d.sync += state.eq(_State.CLEAN)
                        m.d.sync += [bus.ar.valid.eq(0), bus.r.ready.eq(0)]
            with m.Case(_State.REFILL):
                m.d.comb += [
                    array.drop.eq(victim & bus.ar.valid.replicate(geometry.ways)),
                    array.write_word.eq(beat),
                    array.write_data.eq(bus.r.p.data),
                ]
                with m.If(bus.r.ready & bus.r.valid):
                    m.d.comb += array.write_ways.eq(victim)
                    m.d.sync += [words.eq(words + 1), failed.eq(failed | r_error)]
                with m.If(r_ends & ~failed & ~r_error):
                    m.d.comb += array.keep.eq(victim)
                with m.If(bus_done):
                    m.d.sync += state.eq(_State.REPLAY)
            with m.Case(_State.REPLAY):
                m.d.comb += [
                    array.read_offset.eq(request.offset),
                    array.read_tags.eq(1),
                    array.read_data.eq(1),
                ]
                m.d.sync += [phase1.eq(1), state.eq(_State.READY)]
                with m.If(updates):
                    # Whether the entry is as expected, from a register: loads are slow enough.
                    m.d.sync += [
                        updates.eq(0),
                        request.update.eq(0),
                        request.write.eq(last_store.data == request.data),
                        request.mask.eq(1),
                        request.data[:8].eq(request.data[:8] | request.update),
                    ]
            with m.Case(_State.FORWARD):
                with m.If(bus_done):
                    m.d.sync += [
                        state.eq(_State.READY),
                        self.snoop.response.valid.eq(1),
                        self.snoop.response.p.data.eq(bus.r.p.data),
                        self.snoop.response.p.hit.eq(0),
                        self.snoop.response.p.error.eq(Mux(request.write, b_error, r_error)),
                    ]
            with m.Case(_State.CLEAN):
                with m.If(bus_done):
                    with m.If(dirty_here.any()):
                        m.d.sync += [
                            victim.eq(dirty_here & -dirty_here),
                            words.eq(0),
                            state.eq(_State.WRITE_BACK),
                        ]
                    with m.Elif(geometry.set_of(request.offset) == geometry.set_count - 1):
                        m.d.comb += [self.o_cleaned.eq(1), array.drop_all.eq(dropping)]
                        m.d.sync += [cleaning.eq(0), state.eq(_State.READY)]
                        with m.If(dropping):
                            m.d.sync += state.eq(_State.SWEEP)
                    with m.Else():
                        m.d.sync += request.offset.eq(request.offset + LINE_BYTES)
            with m.Case(_State.SWEEP):
                with m.If(array.swept):
                    m.d.sync += state.eq(_State.READY)

        m.d.comb += [
            self.written.valid.eq(
                # All but the hart stand in `request`.
                phase1 & ~direct & hit & request.write & (source != _Source.HART)
                | (state == _State.FORWARD) & b_ends
            ),
            self.written.address.eq(Cat(C(0, 3), request.offset[3:], request.frame)),
        ]
        return m

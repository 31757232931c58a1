"""The data cache: one coherent view of RAM for the hart, the walker and all other masters."""

from itertools import pairwise

from amaranth import ResetInserter, Signal
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.core.lsu.data_cache import DataCache
from tests.axi_ram import AxiRam
from tests.rtl.core.cache_drivers import (
    Clock,
    HartOp,
    PteOp,
    SnoopOp,
    drive_hart,
    drive_snoop,
    word,
)
from tests.rtl.core.coherence import History, Span
from tests.streams import put, refusal, simulate, wait

# Four lines of one set and one of the other in a cache of two ways; and one that is not there.
LINES = (0x8000_0000, 0x8000_1000, 0x8000_2000, 0x8000_0080, 0x8000_1040)
NOWHERE = 0x9000_0000
WORDS = (0, 8, 56)


def fitted(address):
    return address < NOWHERE


def ram_contents():
    """Every word of the lines, each different."""
    return {line + offset: word(line, offset) for line in LINES for offset in range(0, 64, 8)}


class Bench:
    """A small cache with RAM behind it, and the history of what was done to it."""

    def __init__(self, *, size=256, ways=2, latency=range(1, 2), pause=0.0, seed=0):
        self.dut = DataCache(size=size, ways=ways)
        self.ram = AxiRam(
            self.dut.bus,
            memory=ram_contents(),
            fitted=fitted,
            latency=latency,
            pause=pause,
            seed=seed,
        )
        self.history = History(self.ram.memory)
        self.clock = Clock()
        self.results = []
        self.snooped = []
        self.walked = []
        self.updated = []
        self.strobes = []

    def hart(self, ops):
        def done(op, span, data, error):
            self.results.append((op, span, data))
            assert error == (not fitted(op.address))
            if not error:
                self._note(op, span, data)

        async def run(ctx):
            await drive_hart(ctx, self.dut, ops, self.clock, done)

        return run

    def snoop(self, ops):
        return self._port(self.dut.snoop, ops, self.snooped)

    def walker(self, ops):
        known = {}

        def done(op, span, response):
            self.walked.append((op, span, response))
            assert response.error == (not fitted(op.address))
            if response.error:
                return
            self.history.load(span, op.address, response.data)
            known[op.address] = response.data
            if op.bits and response.data == op.expected:
                known[op.address] |= op.bits
                self.history.write(span, op.address, known[op.address], 1)
                self.updated.append((op, span))

        async def run(ctx):
            for op in ops:
                op.known = known
            await drive_snoop(ctx, self.dut.walker, ops, self.clock, done)

        return run

    def _port(self, port, ops, log):
        def done(op, span, response):
            log.append((op, span, response))
            assert response.error == (op.forward and not fitted(op.address))
            if response.hit or op.forward:
                if not response.error:
                    self._note(op, span, response.data)
            elif fitted(op.address):
                # Who is told to look in memory must find it there.
                self._note(op, span, self.ram.read(op.address))

        async def run(ctx):
            await drive_snoop(ctx, port, ops, self.clock, done)

        return run

    def _note(self, op, span, data):
        if op.write:
            self.history.write(span, op.address, op.data, op.mask)
        else:
            self.history.load(span, op.address, data)

    async def clean(self, ctx, drop=0):
        await put(ctx, self.dut.i_clean, drop)
        cleaned = False
        while not cleaned:
            _, _, cleaned = await ctx.tick().sample(self.dut.o_cleaned)

    async def _watch_written(self, ctx):
        written = self.dut.written
        while True:
            now = self.clock.cycle
            _, _, valid, address = await ctx.tick().sample(written.valid, written.address)
            if valid:
                self.strobes.append((now, address))

    async def _watch_lock(self, ctx):
        dut = self.dut
        while True:
            _, _, lock, *served = await ctx.tick().sample(
                dut.lock, dut.snoop.request.ready, dut.walker.request.ready, dut.i_clean.ready
            )
            assert not (lock and any(served))

    def run(self, *testbenches, cycles=4_000, reset=None):
        simulate(
            self.dut if reset is None else ResetInserter(reset)(self.dut),
            *testbenches,
            background=[
                self.clock.run,
                *self.ram.testbenches(),
                self._watch_written,
                self._watch_lock,
            ],
            cycles=cycles,
        )

    def check(self):
        """The history is coherent, and every write of others has had its strobe before its answer."""
        self.history.check()
        writes = [(op, span) for op, span, _ in self.snooped if op.write] + self.updated
        writes.sort(key=lambda write: write[1].end)
        assert len(self.strobes) == len(writes)
        for (cycle, address), (op, span) in zip(self.strobes, writes, strict=True):
            assert address == op.address
            assert span.start < cycle < span.end


addresses = st.builds(
    lambda line, offset: line + offset, st.sampled_from(LINES), st.sampled_from(WORDS)
)
some_nowhere = st.one_of(addresses, addresses, addresses, addresses, st.just(NOWHERE + 8))
gaps = st.sampled_from((0, 0, 0, 1, 2, 9))
masks = st.sampled_from((0xFF, 0xFF, 0x0F, 0x80, 0x00))


def numbered(ops, name):
    """Give each write data of its own."""
    for index, op in enumerate(ops):
        op.data = word(name, index)
    return ops


hart_ops = st.lists(
    st.builds(
        HartOp,
        address=some_nowhere,
        write=st.integers(0, 1),
        mask=masks,
        gap=gaps,
        drop=st.sampled_from((False, False, False, True)),
        lock=st.sampled_from((False, False, False, False, True)),
    ),
    max_size=50,
).map(lambda ops: numbered(ops, "hart"))
snoop_ops = st.lists(
    st.builds(
        SnoopOp,
        address=some_nowhere,
        write=st.integers(0, 1),
        mask=masks,
        gap=gaps,
        patience=st.sampled_from((0, 0, 2)),
    ),
    max_size=25,
).map(lambda ops: numbered(ops, "snoop"))
probes = st.lists(
    st.builds(SnoopOp, address=some_nowhere, forward=st.just(0), gap=gaps), max_size=15
)


walker_ops = st.lists(
    st.builds(PteOp, address=some_nowhere, bits=st.sampled_from((0, 0, 0x40, 0xC0)), gap=gaps),
    max_size=15,
)


@settings(max_examples=20, deadline=None)
@given(
    st.data(),
    hart_ops,
    snoop_ops,
    probes,
    walker_ops,
    st.sampled_from((range(1, 2), range(1, 5), range(8, 20))),
    st.sampled_from((0.0, 0.3)),
    st.integers(0, 1000),
)
def test_all_masters_see_one_memory(data, hart, snoop, probes, walker, latency, pause, seed):
    if hart:
        hart[-1].lock = hart[-1].drop = False
    cleans = data.draw(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 1)), max_size=3))
    # Probes and other snoop accesses come through one port.
    snoop = [op for pair in zip(snoop, probes, strict=False) for op in pair] + snoop[len(probes) :]
    bench = Bench(latency=latency, pause=pause, seed=seed)
    running = 3

    def counted(testbench):
        async def run(ctx):
            nonlocal running
            await testbench(ctx)
            running -= 1

        return run

    async def cleaner(ctx):
        for gap, drop in cleans:
            await wait(ctx, gap)
            await bench.clean(ctx, drop)
        while running:
            await ctx.tick()
        await bench.clean(ctx)
        assert ctx.get(bench.dut.idle)
        now = Span(bench.clock.cycle, bench.clock.cycle)
        for address in ram_contents():
            bench.history.load(now, address, bench.ram.read(address))

    bench.run(
        counted(bench.hart(hart)),
        counted(bench.snoop(snoop)),
        counted(bench.walker(walker)),
        cleaner,
    )
    bench.check()
    # Locked pairs are atomic: nobody's write fits in between. An access that is dropped ends one, too.
    spans = {id(op): span for op, span, _ in bench.results}
    for first, then in pairwise(hart):
        if first.lock and not (first.drop or then.drop):
            read, write = spans[id(first)], spans[id(then)]
            for op, span, _ in bench.snooped:
                assert not (op.write and read.end < span.start and span.end < write.start)


A, B, C, OTHER_SET = LINES[0], LINES[1], LINES[2], LINES[4]


def load(address, **more):
    return HartOp(address, **more)


def store(address, data, mask=0xFF, **more):
    return HartOp(address, write=1, data=data, mask=mask, **more)


def after(gap, op):
    op.gap = gap
    return op


def test_hits_are_answered_in_phase_1_one_per_cycle_and_see_the_store_before_them():
    bench = Bench()
    ops = [load(A), load(OTHER_SET), after(60, store(A, 0x1122_3344_5566_7788))]
    ops += [load(A), store(A, 0xAA, mask=1), load(A), load(A + 8), load(OTHER_SET)]
    bench.run(bench.hart(ops))
    bench.check()
    hits = bench.results[2:]
    start = hits[0][1].start
    assert [span for _, span, _ in hits] == [Span(start + n, start + n) for n in range(6)]
    assert [hits[1][2], hits[3][2]] == [0x1122_3344_5566_7788, 0x1122_3344_5566_77AA]


def test_partial_stores_in_a_row_add_up():
    bench = Bench()
    ops = [load(A), after(60, store(A, word("new"), mask=0x0F))]
    ops += [store(A, word("new"), mask=0xE0), store(A, word("new"), mask=0x10), load(A)]
    bench.run(bench.hart(ops))
    bench.check()
    assert bench.results[-1][2] == word("new")


def test_a_load_of_another_page_does_not_see_the_store_before_it():
    bench = Bench()
    bench.run(bench.hart([load(A), load(B), after(60, store(A, 1)), load(B), load(A)]))
    bench.check()
    assert [data for _, _, data in bench.results[-2:]] == [word(B, 0), 1]


def test_a_dirty_victim_reaches_memory_before_the_next_request_is_served():
    bench = Bench(latency=range(30, 31))
    ops = [store(A, 1), load(B), load(C)]
    snoops = [after(80, SnoopOp(A)), SnoopOp(A, write=1, data=2), SnoopOp(A)]
    bench.run(bench.hart(ops), bench.snoop(snoops))
    bench.check()
    assert [response.data for op, _, response in bench.snooped if not op.write] == [1, 2]
    lines = [(kind, address) for kind, address, beats, _ in bench.ram.requests if beats == 8]
    assert lines == [("read", A), ("read", B), ("write", A), ("read", C)]
    assert bench.ram.read(A) == 2


def test_a_refill_with_a_bus_error_keeps_nothing_and_loses_nothing():
    bench = Bench()
    ops = [store(A, 1), store(B, 2), load(NOWHERE), store(NOWHERE, 3), load(A), load(B)]
    bench.run(bench.hart(ops))
    bench.check()
    assert [data for op, _, data in bench.results[-2:]] == [1, 2]
    assert sum(address == NOWHERE for _, address, _, _ in bench.ram.requests) == 2


def test_snoop_hits_change_the_line_and_make_it_dirty():
    bench = Bench()
    snoops = [after(40, SnoopOp(A, write=1, data=0xCC, mask=1)), SnoopOp(A)]
    bench.run(bench.hart([load(A), after(80, load(B)), load(C), load(A)]), bench.snoop(snoops))
    bench.check()
    assert [response.hit for _, _, response in bench.snooped] == [1, 1]
    assert bench.results[-1][2] == word(A, 0) & ~0xFF | 0xCC == bench.ram.read(A)


def test_snoop_misses_go_to_memory_as_single_beats_and_do_not_allocate():
    bench = Bench()
    snoops = [SnoopOp(A + 8, write=1, data=0xCC, mask=1), SnoopOp(A + 8), SnoopOp(NOWHERE)]
    snoops += [SnoopOp(NOWHERE, write=1)]
    bench.run(bench.snoop(snoops))
    bench.check()
    assert [response.hit for _, _, response in bench.snooped] == [0, 0, 0, 0]
    assert [response.error for _, _, response in bench.snooped] == [0, 0, 1, 1]
    assert bench.snooped[1][2].data == word(A, 8) & ~0xFF | 0xCC
    assert bench.ram.requests == [
        ("write", A + 8, 1, 1),
        ("read", A + 8, 1, 1),
        ("read", NOWHERE, 1, 1),
        ("write", NOWHERE, 1, 1),
    ]


def test_a_probe_that_misses_asks_nobody():
    bench = Bench()
    probes = [SnoopOp(A, forward=0), SnoopOp(NOWHERE, forward=0)]
    bench.run(bench.snoop(probes))
    assert [response.hit for _, _, response in bench.snooped] == [0, 0]
    assert bench.ram.requests == []


def test_walker_reads_allocate():
    bench = Bench()
    bench.run(bench.walker([PteOp(A), PteOp(A + 8), PteOp(NOWHERE)]))
    bench.check()
    assert [response.error for _, _, response in bench.walked] == [0, 0, 1]
    assert bench.ram.requests == [("read", A, 8, 1), ("read", NOWHERE, 8, 1)]


def test_updates_of_entries_are_one_step():
    """An update sets its bits if the entry is as expected, and nobody comes between."""
    outcomes = set()
    for gap in range(0, 12, 2):
        bench = Bench()
        update = after(30 + gap, PteOp(A, bits=0xC0))
        stores = [load(A), after(36, store(A, 0x55 << 56, mask=0x80))]
        stores += [store(A, n << 8, mask=2) for n in range(4)]
        stores += [after(60, load(A))]
        bench.run(bench.walker([PteOp(A), update]), bench.hart(stores))
        bench.check()
        op, _, response = bench.walked[-1]
        assert not response.error
        set_ = response.data == op.expected
        assert bench.results[-1][2] & 0xFF == ram_contents()[A] & 0xFF | (0xC0 if set_ else 0)
        outcomes.add(set_)
    assert outcomes == {True, False}


def test_updates_of_what_is_not_there_end_with_an_error():
    bench = Bench()
    bench.run(bench.walker([PteOp(NOWHERE, bits=0x40), PteOp(A), PteOp(A, bits=0x40)]))
    bench.check()
    assert [response.error for _, _, response in bench.walked] == [1, 0, 0]
    assert bench.strobes and bench.strobes[-1][1] == A


def test_the_walker_goes_first_then_snoop_and_hart_in_turn():
    bench = Bench()
    warm = [load(A), load(A)]
    served = []

    async def watch(ctx):
        dut = bench.dut
        streams = {"walker": dut.walker.request, "snoop": dut.snoop.request, "hart": dut.i_index}
        signals = [bit for stream in streams.values() for bit in (stream.valid, stream.ready)]
        await wait(ctx, 40)
        while True:
            bits = (await ctx.tick().sample(*signals))[2:]
            valid = {name for name, bit in zip(streams, bits[::2], strict=True) if bit}
            taken = {
                name
                for name, bit, ready in zip(streams, bits[::2], bits[1::2], strict=True)
                if bit and ready
            }
            served.append((valid, taken))

    hart = warm + [after(40 * (n == 0), load(A)) for n in range(60)]
    snoops = [after(60 * (n == 0), SnoopOp(A)) for n in range(20)]
    walks = [after(60 * (n == 0), PteOp(A)) for n in range(20)]
    simulate(
        bench.dut,
        bench.hart(hart),
        bench.snoop(snoops),
        bench.walker(walks),
        background=[bench.clock.run, *bench.ram.testbenches(), watch],
    )
    bench.history.check()
    busy = [(valid, taken) for valid, taken in served if taken]
    assert all(len(taken) == 1 for _, taken in busy)
    assert all(taken == {"walker"} for valid, taken in busy if "walker" in valid)
    last = None
    for valid, taken in busy:
        (who,) = taken
        if "snoop" in valid and "hart" in valid and "walker" not in valid:
            assert who == ("hart" if last == "snoop" else "snoop")
        last = who if who != "walker" else last
    assert {who for _, taken in busy for who in taken} == {"walker", "snoop", "hart"}


def test_a_greedy_snoop_initiator_does_not_starve_the_hart():
    bench = Bench()
    dut = bench.dut
    served = []

    async def greedy(ctx):
        # Never cached, so that the hart would find no gap while memory is asked.
        ctx.set(dut.snoop.request.payload, {"address": C, "forward": 1, "mask": 0xFF})
        ctx.set(dut.snoop.request.valid, 1)
        ctx.set(dut.snoop.response.ready, 1)
        while True:
            bits = await ctx.tick().sample(dut.snoop.request.ready, dut.i_index.ready)
            served.extend(who for who, bit in zip(("snoop", "hart"), bits[2:], strict=True) if bit)

    simulate(
        dut,
        bench.hart([load(A) for _ in range(20)]),
        background=[bench.clock.run, *bench.ram.testbenches(), greedy],
    )
    assert len(bench.results) == 20
    assert served.count("snoop") > 10
    assert not any(pair == ("snoop", "snoop") for pair in pairwise(served))


def test_cleaning_writes_every_dirty_line_back_and_drops_when_told_to():
    bench = Bench()
    idle = []

    async def program(ctx):
        await bench.hart([store(A, 1), store(B, 2), store(OTHER_SET, 3), load(LINES[3])])(ctx)
        await bench.clean(ctx, 0)
        assert [bench.ram.read(line) for line in (A, B, OTHER_SET)] == [1, 2, 3]
        bench.ram.memory[OTHER_SET] = 30
        await bench.hart([load(OTHER_SET), store(OTHER_SET + 8, 4)])(ctx)
        assert bench.results[-2][2] == 3
        await bench.clean(ctx, 1)
        assert (bench.ram.read(OTHER_SET), bench.ram.read(OTHER_SET + 8)) == (3, 4)
        bench.ram.memory[OTHER_SET] = 30
        await bench.hart([load(OTHER_SET)])(ctx)
        assert bench.results[-1][2] == 30
        idle.append(ctx.get(bench.dut.idle))

    bench.run(program)
    assert idle == [1]


def test_accesses_wait_while_the_cache_is_cleaned():
    bench = Bench(latency=range(10, 11))
    cleaned = []

    async def program(ctx):
        await bench.hart([store(A, 1), store(OTHER_SET, 2)])(ctx)
        await bench.clean(ctx, 1)
        cleaned.append(bench.clock.cycle)

    async def others(ctx):
        while not ctx.get(bench.dut.i_clean.valid):
            await ctx.tick()
        await wait(ctx, 3)
        await bench.snoop([SnoopOp(A)])(ctx)

    bench.run(program, others)
    ((_, span, response),) = bench.snooped
    assert span.start >= cleaned[0]
    assert (response.data, response.hit) == (1, 0)


def test_reset_leaves_the_cache_empty():
    bench = Bench()
    reset = Signal()

    async def program(ctx):
        await bench.hart([store(A, 1)])(ctx)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        await bench.hart([load(A)])(ctx)
        await bench.clean(ctx, 0)

    bench.run(program, reset=reset)
    assert bench.results[-1][2] == word(A, 0)
    assert [kind for kind, *_ in bench.ram.requests] == ["read", "read"]


def test_geometries_that_cannot_be_built_are_refused():
    for size, ways in ((8192, 1), (64, 1), (768, 2), (256, 3), (256, 0), (384, 2)):
        message = refusal(lambda size=size, ways=ways: DataCache(size=size, ways=ways))
        assert f"{size} bytes in {ways} ways" in message


@settings(max_examples=4, deadline=None)
@given(st.sampled_from(((128, 1), (512, 4), (8192, 2), (384, 3))), hart_ops)
def test_other_geometries_work_too(geometry, ops):
    size, ways = geometry
    bench = Bench(size=size, ways=ways)
    bench.run(bench.hart([HartOp(op.address, op.write, op.mask, op.data) for op in ops]))
    bench.check()

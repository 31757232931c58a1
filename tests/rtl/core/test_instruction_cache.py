"""The instruction cache: what other masters write is seen at once, own stores after a flush."""

import random

from amaranth import Elaboratable, Module
from amaranth.lib.wiring import connect
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.bus.axi4_arbiter import Axi4Arbiter
from rtl.bus.request_arbiter import RequestArbiter
from rtl.bus.snoop import SnoopPort
from rtl.core.frontend.instruction_cache import InstructionCache
from rtl.core.lsu.data_cache import DataCache
from tests.axi_ram import AxiRam
from tests.rtl.core.cache_drivers import Clock, HartOp, SnoopOp, drive_hart, drive_snoop, word
from tests.rtl.core.coherence import History, Span
from tests.streams import get, put, refusal, simulate, wait

# Four lines of one set and one of the other in a cache of two ways; and one that is not there.
LINES = (0x8000_0000, 0x8000_1000, 0x8000_2000, 0x8000_0080, 0x8000_1040)
NOWHERE = 0x9000_0000
A, B, C, OTHER_SET = LINES[0], LINES[1], LINES[2], LINES[4]


def fitted(address):
    return address < NOWHERE


def ram_contents():
    """Every word of the lines, each different."""
    return {line + offset: word(line, offset) for line in LINES for offset in range(0, 64, 8)}


class Bench:
    """A small cache; beside it RAM and a stand-in for the data cache that others write through.

    ``held`` are the lines the data cache is said to hold: their words in RAM are wrong. ``fickle``
    is the chance, at each probe, that it loses or gains the line.
    """

    def __init__(self, *, size=256, ways=2, latency=range(1, 2), pause=0.0, fickle=0.0, seed=0):
        self.dut = InstructionCache(size=size, ways=ways)
        self.memory = ram_contents()
        self.ram = AxiRam(
            self.dut.bus,
            memory=dict(self.memory),
            fitted=fitted,
            latency=latency,
            pause=pause,
            seed=seed,
        )
        self.history = History(self.memory)
        self.clock = Clock()
        self.results = []
        self.probes = []
        self.held = set()
        self._random = random.Random(seed)
        self._latency = latency
        self._fickle = fickle

    def hold(self, line):
        """The data cache takes the line."""
        self.held.add(line)
        for address in range(line, line + 64, 8):
            self.ram.memory[address] = self._random.getrandbits(64)

    def release(self, line):
        """The data cache writes the line back."""
        self.held.discard(line)
        for address in range(line, line + 64, 8):
            self.ram.memory[address] = self.memory[address]

    def fetch(self, ops):
        def done(op, span, data, error):
            self.results.append((op, span, data))
            assert error == (not fitted(op.address))
            if not error:
                self.history.load(span, op.address, data)

        async def run(ctx):
            await drive_hart(ctx, self.dut, ops, self.clock, done)

        return run

    async def write(self, ctx, address, data, strobe=True):
        """Another master's write, or with ``strobe`` false one of the hart."""
        self.memory[address] = data
        if address & ~63 not in self.held:
            self.ram.memory[address] = data
        if strobe:
            self.history.write(Span(self.clock.cycle, self.clock.cycle), address, data, 0xFF)
            ctx.set(self.dut.written, {"valid": 1, "address": address})
            await ctx.tick()
            ctx.set(self.dut.written, {"valid": 0, "address": 0})

    async def flush(self, ctx):
        ctx.set(self.dut.flush, 1)
        await ctx.tick()
        ctx.set(self.dut.flush, 0)

    async def _data_cache(self, ctx):
        while True:
            request = await get(ctx, self.dut.snoop.request)
            assert (request.write, request.forward) == (0, 0)
            self.probes.append(request.address)
            line = request.address & ~63
            await wait(ctx, self._random.choice(self._latency))
            if line in LINES and self._random.random() < self._fickle:
                (self.release if line in self.held else self.hold)(line)
            hit = line in self.held
            data = self.memory[request.address] if hit else self._random.getrandbits(64)
            await put(ctx, self.dut.snoop.response, {"data": data, "hit": hit, "error": 0})

    def run(self, *testbenches, cycles=8_000):
        simulate(
            self.dut,
            *testbenches,
            background=[self.clock.run, self._data_cache, *self.ram.testbenches()],
            cycles=cycles,
        )


addresses = st.builds(
    lambda line, offset: line + offset, st.sampled_from(LINES), st.sampled_from((0, 8, 56))
)
some_nowhere = st.one_of(addresses, addresses, addresses, addresses, st.just(NOWHERE + 8))
gaps = st.sampled_from((0, 0, 0, 1, 2, 9))
fetches = st.lists(
    st.builds(
        HartOp,
        address=some_nowhere,
        gap=gaps,
        drop=st.sampled_from((False, False, False, True)),
    ),
    max_size=50,
)


@settings(max_examples=15, deadline=None)
@given(
    fetches,
    st.lists(st.tuples(st.integers(0, 12), st.one_of(addresses, st.none())), max_size=40),
    st.sampled_from((range(1, 2), range(1, 5), range(8, 20))),
    st.sampled_from((0.0, 0.3)),
    st.sampled_from((0.0, 0.1, 0.5)),
    st.integers(0, 1000),
)
def test_fetches_see_what_other_masters_write(ops, writes, latency, pause, fickle, seed):
    bench = Bench(latency=latency, pause=pause, fickle=fickle, seed=seed)

    async def others(ctx):
        for index, (gap, address) in enumerate(writes):
            await wait(ctx, gap)
            if address is None:
                await bench.flush(ctx)
            else:
                await bench.write(ctx, address, word("write", index))

    bench.run(bench.fetch(ops), others)
    bench.history.check()


def test_hits_are_answered_in_phase_1_one_per_cycle():
    bench = Bench()
    bench.run(bench.fetch([HartOp(A), HartOp(OTHER_SET), HartOp(A, gap=60), HartOp(A + 8)]))
    bench.history.check()
    start = bench.results[2][1].start
    assert [span for _, span, _ in bench.results[2:]] == [Span(n, n) for n in (start, start + 1)]


def test_a_line_comes_from_the_data_cache_where_it_holds_it_else_from_memory():
    bench = Bench()
    bench.hold(A)
    bench.run(bench.fetch([HartOp(A + 8), HartOp(B + 8)]))
    bench.history.check()
    assert bench.probes == [*range(A, A + 64, 8), B]
    assert bench.ram.requests == [("read", B, 8, 0)]


def test_a_line_the_data_cache_loses_half_way_is_read_again_from_memory():
    bench = Bench()
    bench.hold(A)

    async def others(ctx):
        while len(bench.probes) < 4:
            await ctx.tick()
        bench.release(A)

    bench.run(bench.fetch([HartOp(A + offset) for offset in range(0, 64, 8)]), others)
    bench.history.check()
    assert len(bench.probes) < 8
    assert bench.ram.requests == [("read", A, 8, 0)]


def test_a_bus_error_is_answered_and_keeps_nothing():
    bench = Bench()
    ops = [HartOp(A), HartOp(B), HartOp(NOWHERE), HartOp(NOWHERE + 8), HartOp(A), HartOp(B)]
    bench.run(bench.fetch(ops))
    bench.history.check()
    assert sum(address == NOWHERE for _, address, _, _ in bench.ram.requests) == 2


def test_own_stores_are_seen_after_a_flush():
    bench = Bench()

    async def program(ctx):
        await bench.fetch([HartOp(A)])(ctx)
        await bench.write(ctx, A, 1, strobe=False)
        await bench.fetch([HartOp(A)])(ctx)
        await bench.flush(ctx)
        await bench.fetch([HartOp(A)])(ctx)

    bench.run(program)
    assert [data for _, _, data in bench.results] == [word(A, 0), word(A, 0), 1]


def test_a_refill_during_a_flush_is_answered_but_not_kept():
    again = HartOp(A, gap=30)
    undisturbed = Bench(latency=range(3, 4))
    undisturbed.run(undisturbed.fetch([HartOp(A), again]))
    span = undisturbed.results[0][1]
    for moment in range(span.start + 1, span.end + 3):
        bench = Bench(latency=range(3, 4))

        async def flusher(ctx, bench=bench, moment=moment):
            await wait(ctx, moment)
            await bench.flush(ctx)

        bench.run(bench.fetch([HartOp(A), again]), flusher)
        bench.history.check()
        assert bench.results[0][1] == span
        assert len(bench.ram.requests) == 2


def test_a_write_during_a_refill_makes_it_start_again():
    undisturbed = Bench(latency=range(3, 4))
    undisturbed.run(undisturbed.fetch([HartOp(A)]))
    start, end = undisturbed.results[0][1]
    for moment in range(start + 1, end + 1):
        for address, refills in ((A + 8, 2), (B + 8, 1)):
            bench = Bench(latency=range(3, 4))

            async def other(ctx, bench=bench, moment=moment, address=address):
                await wait(ctx, moment)
                await bench.write(ctx, address, 1)

            bench.run(bench.fetch([HartOp(A + 8)]), other)
            bench.history.check()
            # With the answer itself it comes too late to matter.
            assert len(bench.ram.requests) == (refills if moment < end else 1)


def test_a_write_drops_the_line_in_every_way():
    bench = Bench(size=512, ways=4)

    async def program(ctx):
        await bench.fetch([HartOp(line) for line in LINES])(ctx)
        before = len(bench.ram.requests)
        await bench.write(ctx, A + 16, 1)
        await bench.fetch([HartOp(A + 16)])(ctx)
        assert len(bench.ram.requests) == before + 1

    bench.run(program)
    assert bench.results[-1][2] == 1


def test_geometries_that_cannot_be_built_are_refused():
    message = refusal(lambda: InstructionCache(size=8192, ways=1))
    assert "8192 bytes in 1 ways" in message


class Caches(Elaboratable):
    """Both caches on one bus, joined as in the hart."""

    def __init__(self):
        self.instruction = InstructionCache(size=256, ways=2)
        self.data = DataCache(size=256, ways=2)
        self.arbiter = Axi4Arbiter(readers=1, writers=1, id_width=1)
        self.snoops = RequestArbiter(signature=SnoopPort(), count=2)

    def elaborate(self, platform):
        m = Module()
        m.submodules.instruction = self.instruction
        m.submodules.data = self.data
        m.submodules.arbiter = self.arbiter
        m.submodules.snoops = self.snoops
        connect(m, self.instruction.snoop, self.snoops.initiators[0])
        connect(m, self.snoops.bus, self.data.snoop)
        connect(m, self.instruction.bus, self.arbiter.readers[0])
        connect(m, self.data.bus, self.arbiter.writers[0])
        m.d.comb += self.instruction.written.eq(self.data.written)
        return m


# The hart loads from everywhere, but does not write what it executes: that needs a fence.
CODE, DATA = (A, B, OTHER_SET), (C, LINES[3])


def words_of(lines):
    return st.builds(
        lambda line, offset: line + offset, st.sampled_from(lines), st.sampled_from((0, 8, 56))
    )


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.builds(HartOp, address=words_of(CODE), gap=gaps), max_size=40),
    st.lists(
        st.one_of(
            st.builds(HartOp, address=words_of(LINES), gap=gaps),
            st.builds(HartOp, address=words_of(DATA), write=st.just(1), gap=gaps),
        ),
        max_size=40,
    ),
    st.lists(
        st.builds(SnoopOp, address=words_of(LINES), write=st.sampled_from((0, 1, 1)), gap=gaps),
        max_size=30,
    ),
    st.sampled_from((range(1, 2), range(1, 5), range(8, 20))),
    st.sampled_from((0.0, 0.3)),
    st.integers(0, 1000),
)
def test_both_caches_and_other_masters_see_one_memory(code, hart, snoop, latency, pause, seed):
    dut = Caches()
    memory = ram_contents()
    history = History(memory)
    clock = Clock()
    ram = AxiRam(dut.arbiter.bus, memory=memory, latency=latency, pause=pause, seed=seed)
    for name, ops in (("hart", hart), ("snoop", snoop)):
        for index, op in enumerate(ops):
            op.data = word(name, index)

    def note(op, span, data):
        if op.write:
            history.write(span, op.address, op.data, op.mask)
        else:
            history.load(span, op.address, data)

    def accessed(op, span, data, error):
        assert not error
        note(op, span, data)

    def snooped(op, span, response):
        assert not response.error
        note(op, span, response.data)

    async def fetches(ctx):
        await drive_hart(ctx, dut.instruction, code, clock, accessed)

    async def accesses(ctx):
        await drive_hart(ctx, dut.data, hart, clock, accessed)

    async def others(ctx):
        await drive_snoop(ctx, dut.snoops.initiators[1], snoop, clock, snooped)

    simulate(dut, fetches, accesses, others, background=[clock.run, *ram.testbenches()])
    history.check()
    assert {identifier for *_, identifier in ram.requests} <= {0, 1}

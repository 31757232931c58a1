"""The AXI4 arbiter: nothing lost, nothing mixed up, nobody starved."""

import random

from amaranth import Cat
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.bus.axi4 import Burst, Response
from rtl.bus.axi4_arbiter import Axi4Arbiter
from tests.streams import get, put, refusal, simulate, wait


def beat_data(address, beat):
    """What the target answers, and what initiators write."""
    return random.Random((address << 8) + beat).getrandbits(64)


def burst(address, beats):
    return {"id": 0, "address": address, "len": beats - 1, "size": 3, "burst": Burst.INCR}


class Target:
    """Answers in any order that AXI allows: of one identifier in order, of others mixed."""

    def __init__(self, bus, *, pause, seed):
        self.bus = bus
        self.reads = []
        self.writes = []
        self._pause = pause
        self._random = random.Random(seed)
        self._pending_reads = []
        self._pending_writes = []
        self._acknowledge = []

    def testbenches(self):
        return [self._ar, self._r, self._aw, self._w, self._b]

    async def _take(self, ctx, stream):
        """One payload; it must have held still, and must have waited, until it was taken."""
        held = None
        bits = Cat(stream.payload.as_value())
        while True:
            ready = self._random.random() >= self._pause
            ctx.set(stream.ready, ready)
            _, _, valid, whole, payload = await ctx.tick().sample(
                stream.valid, bits, stream.payload
            )
            assert held is None or (valid and whole == held)
            held = whole if valid else None
            if valid and ready:
                ctx.set(stream.ready, 0)
                return payload

    async def _ar(self, ctx):
        while True:
            request = await self._take(ctx, self.bus.ar)
            self.reads.append((request.id, request.address))
            self._pending_reads.append([request.id, request.address, request.len + 1, 0])

    async def _r(self, ctx):
        while True:
            if not self._pending_reads or self._random.random() < self._pause:
                await ctx.tick()
                continue
            identifier = self._random.choice(self._pending_reads)[0]
            entry = next(entry for entry in self._pending_reads if entry[0] == identifier)
            _, address, beats, beat = entry
            last = beat == beats - 1
            if last:
                self._pending_reads.remove(entry)
            entry[3] += 1
            answer = {
                "id": identifier,
                "data": beat_data(address, beat),
                "resp": Response.DECERR if address & 8 else Response.OKAY,
                "last": last,
            }
            await put(ctx, self.bus.r, answer)

    async def _aw(self, ctx):
        while True:
            request = await self._take(ctx, self.bus.aw)
            self._pending_writes.append((request.id, request.address, request.len + 1))

    async def _w(self, ctx):
        beats = []
        while True:
            beat = await self._take(ctx, self.bus.w)
            beats.append(beat.data)
            if beat.last:
                while not self._pending_writes:
                    await ctx.tick()
                identifier, address, count = self._pending_writes.pop(0)
                assert beats == [beat_data(address, beat) for beat in range(count)]
                self.writes.append((identifier, address))
                self._acknowledge.append((identifier, address))
                beats = []

    async def _b(self, ctx):
        while True:
            if not self._acknowledge or self._random.random() < self._pause:
                await ctx.tick()
                continue
            identifier = self._random.choice(self._acknowledge)[0]
            entry = next(entry for entry in self._acknowledge if entry[0] == identifier)
            self._acknowledge.remove(entry)
            resp = Response.DECERR if entry[1] & 8 else Response.OKAY
            await put(ctx, self.bus.b, {"id": identifier, "resp": resp})


gaps = st.integers(0, 3)
bursts = st.lists(st.tuples(st.integers(0, 1), st.sampled_from((1, 8)), gaps), max_size=6)
ports = st.tuples(bursts, bursts)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(bursts, max_size=2),
    st.lists(ports, min_size=1, max_size=3),
    st.sampled_from((0.0, 0.3)),
    st.integers(0, 100),
    st.booleans(),
)
def test_every_initiator_gets_its_own_answers(readers, writers, pause, seed, data_first):
    dut = Axi4Arbiter(readers=len(readers), writers=len(writers), id_width=3)
    target = Target(dut.bus, pause=pause, seed=seed)
    read_bursts = [*readers, *(reads for reads, _ in writers)]
    read_ports = list(zip([*dut.readers, *dut.writers], read_bursts, strict=True))
    write_ports = list(zip(dut.writers, (writes for _, writes in writers), strict=True))

    def address_of(number, index, error):
        return number << 20 | index << 8 | error << 3

    def addresses(number, port, todo, channel):
        async def run(ctx):
            for index, (error, beats, gap) in enumerate(todo):
                await wait(ctx, gap)
                await put(ctx, channel(port), burst(address_of(number, index, error), beats))

        return run

    def answers(number, port, todo):
        async def run(ctx):
            for index, (error, beats, gap) in enumerate(todo):
                for beat in range(beats):
                    await wait(ctx, gap)
                    answer = await get(ctx, port.r)
                    assert answer.data == beat_data(address_of(number, index, error), beat)
                    assert answer.resp == (Response.DECERR if error else Response.OKAY)
                    assert (answer.last, answer.id) == (beat == beats - 1, number)

        return run

    def data(number, port, todo):
        async def run(ctx):
            for index, (error, beats, gap) in enumerate(todo):
                await wait(ctx, 0 if data_first else 3 * gap)
                for beat in range(beats):
                    word = beat_data(address_of(number, index, error), beat)
                    await put(ctx, port.w, {"data": word, "strb": 0xFF, "last": beat == beats - 1})

        return run

    def acknowledgements(number, port, todo):
        async def run(ctx):
            for error, _, gap in todo:
                await wait(ctx, gap)
                answer = await get(ctx, port.b)
                assert answer.resp == (Response.DECERR if error else Response.OKAY)
                assert answer.id == number

        return run

    testbenches = []
    for number, (port, todo) in enumerate(read_ports):
        testbenches.append(addresses(number, port, todo, lambda port: port.ar))
        testbenches.append(answers(number, port, todo))
    for number, (port, todo) in enumerate(write_ports, len(readers)):
        testbenches.append(addresses(number, port, todo, lambda port: port.aw))
        testbenches.append(data(number, port, todo))
        testbenches.append(acknowledgements(number, port, todo))
    simulate(dut, *testbenches, background=target.testbenches(), cycles=3_000)
    for done, ports in ((target.reads, read_ports), (target.writes, write_ports)):
        first = len(read_ports) - len(ports)
        for number, (_, todo) in enumerate(ports, first):
            own = [address for who, address in done if who == number]
            assert own == [address_of(number, i, error) for i, (error, _, _) in enumerate(todo)]


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2), st.integers(1, 3), st.sampled_from((0.0, 0.5)))
def test_initiators_that_always_ask_are_served_in_turn(readers, writers, pause):
    dut = Axi4Arbiter(readers=readers, writers=writers, id_width=3)
    target = Target(dut.bus, pause=pause, seed=0)
    count = readers + writers

    async def ask(ctx):
        for port in [*dut.readers, *dut.writers]:
            ctx.set(port.ar.valid, 1)
            ctx.set(port.r.ready, 1)
        for port in dut.writers:
            ctx.set(port.aw.valid, 1)
            ctx.set(port.w.valid, 1)
            ctx.set(port.w.p.data, beat_data(0, 0))
            ctx.set(port.w.p.last, 1)
            ctx.set(port.b.ready, 1)
        while len(target.reads) < 6 * count or len(target.writes) < 6 * writers:
            await ctx.tick()

    simulate(dut, ask, background=target.testbenches(), cycles=1_000)
    for done, first, every in ((target.reads, 0, count), (target.writes, readers, writers)):
        served = [who for who, _ in done]
        for start in range(len(served) - every + 1):
            assert set(served[start : start + every]) == set(range(first, first + every))


def test_a_request_passes_in_the_cycle_it_is_made():
    dut = Axi4Arbiter(readers=1, writers=1, id_width=1)

    async def ask(ctx):
        ctx.set(dut.bus.ar.ready, 1)
        for port, number in ((dut.writers[0], 1), (dut.readers[0], 0)):
            ctx.set(port.ar.payload, burst(0x8000_0040, 8))
            ctx.set(port.ar.valid, 1)
            assert ctx.get(dut.bus.ar.valid) and ctx.get(port.ar.ready)
            assert ctx.get(dut.bus.ar.p.id) == number
            assert ctx.get(dut.bus.ar.p.address) == 0x8000_0040
            await ctx.tick()
            ctx.set(port.ar.valid, 0)

    simulate(dut, ask)


def test_arbiters_that_cannot_be_built_are_refused():
    assert "0 readers" in refusal(lambda: Axi4Arbiter(readers=0, writers=0, id_width=1))
    assert "3 initiators" in refusal(lambda: Axi4Arbiter(readers=1, writers=2, id_width=1))

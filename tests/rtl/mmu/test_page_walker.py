"""The page walker against the manual's algorithm: answers, refills, and the reads it makes."""

import random

from hypothesis import event, given, settings
from hypothesis import strategies as st

from rtl.mmu.context import Fault
from rtl.mmu.page_walker import PageWalker
from tests.rtl.mmu import sv39_reference as sv39
from tests.rtl.mmu.tables import SLOTS, memories, queries
from tests.streams import get, put, simulate, wait

RIGHTS = {"r": "readable", "w": "writable", "x": "executable", "u": "user", "a": "accessed",
          "d": "dirty"}  # fmt: skip


class Memory:
    """Answers the walker after random delays; ``reads`` lists the addresses asked for."""

    def __init__(self, words, errors, schedule):
        self.words, self.errors, self.schedule, self.reads = words, errors, schedule, []

    def read(self, address):
        if address in self.errors:
            raise sv39.AccessFault("bus error")
        return self.words.get(address, 0)

    def server(self, port):
        async def serve(ctx):
            while True:
                await wait(ctx, 1 + self.schedule.choice([0, 0, 3]))
                request = await get(ctx, port.request)
                assert (request.write, request.forward, request.mask) == (0, 1, 0xFF)
                assert request.address % 8 == 0
                self.reads.append(request.address)
                await wait(ctx, self.schedule.choice([0, 1, 5]))
                try:
                    response = {"data": self.read(request.address)}
                except sv39.AccessFault:
                    # The data of an error means nothing.
                    response = {"data": self.schedule.getrandbits(64), "error": 1}
                await put(ctx, port.response, response)

        return serve


def wanted_of(memory, query):
    """Fault, leaf and reads, by the reference."""
    reads, leaf, context = [], None, query["context"]

    def read(address):
        reads.append(address)
        return memory.read(address)

    try:
        leaf = sv39.find_leaf(read, context["root"], query["gva"])
    except sv39.PageFault:
        return Fault.PAGE, None, reads
    except sv39.AccessFault:
        return Fault.ACCESS, None, reads
    rules = (context["privilege"], context["sum"], context["mxr"])
    if not sv39.permits(leaf, query["access"], *rules):
        return Fault.PAGE, None, reads
    return Fault.NONE, leaf, reads


def watch_refills(dut, refills):
    async def watch(ctx):
        tick = ctx.tick().sample(dut.refill.valid, dut.refill.entry, dut.o_fault.valid)
        while True:
            _, _, valid, entry, answered = await tick
            if valid:
                assert not answered
                refills.append(entry)

    return watch


def check_entry(entry, leaf, query):
    context, tag, frames = query["context"], entry.tag, leaf.size // 4096
    for name in ("world", "vpid", "ept_tag", "asid"):
        assert int(tag[name].value if name == "world" else tag[name]) == context[name]
    assert tag.global_ == leaf.is_global
    assert 512**tag.level == 512**tag.guest_level == frames
    assert tag.page // frames * frames == leaf.virtual // 4096
    assert entry.frame == leaf.physical // 4096
    assert {k: bool(entry.rights[k]) for k in RIGHTS} == {
        k: getattr(leaf, name) for k, name in RIGHTS.items()
    }


@settings(max_examples=60, deadline=None)
@given(
    memories,
    st.sets(st.sampled_from(SLOTS), max_size=2),
    st.lists(queries, min_size=10, max_size=25),
    st.integers(0, 2**32),
)
def test_walk_is_the_manuals(words, errors, asked, seed):
    dut = PageWalker()
    memory, refills, faults = Memory(words, errors, random.Random(seed)), [], set()

    async def testbench(ctx):
        for query in asked:
            fault, leaf, reads = wanted_of(memory, query)
            assert ctx.get(dut.idle)
            await put(ctx, dut.i_query, query)
            assert not ctx.get(dut.idle)
            assert await get(ctx, dut.o_fault) == fault
            assert memory.reads == reads
            assert len(refills) == (fault == Fault.NONE)
            if refills:
                check_entry(refills.pop(), leaf, query)
            memory.reads.clear()
            faults.add(fault.name)

    background = [memory.server(dut.memory), watch_refills(dut, refills)]
    simulate(dut, testbench, background=background)
    event(f"answers: {sorted(faults)}")


@settings(max_examples=40, deadline=None)
@given(
    memories,
    st.lists(st.tuples(queries, st.integers(0, 15)), min_size=15, max_size=30),
    st.integers(0, 2**32),
)
def test_abandoned_walk_leaves_nothing(words, asked, seed):
    """After ``abandon`` a walk under way answers NONE without a refill; others are untouched."""
    dut = PageWalker()
    memory, refills, caught = Memory(words, (), random.Random(seed)), [], []

    async def testbench(ctx):
        for query, cycle in asked:
            wanted, leaf, _ = wanted_of(memory, query)
            ctx.set(dut.i_query.payload, query)
            ctx.set(dut.i_query.valid, 1)
            under_way = False
            for now in range(1000):
                # Cycle 0 is the one in which the query is taken.
                offered = ctx.get(dut.o_fault.valid)
                ctx.set(dut.abandon, now == cycle)
                under_way |= now == cycle and now > 0 and not offered
                await ctx.tick()
                ctx.set(dut.i_query.valid, 0)
                if offered:
                    break
            ctx.set(dut.abandon, 0)
            fault = await get(ctx, dut.o_fault)
            assert fault == (Fault.NONE if under_way else wanted)
            assert len(refills) == (wanted == Fault.NONE and not under_way)
            if refills:
                check_entry(refills.pop(), leaf, query)
            caught.append(under_way)

    background = [memory.server(dut.memory), watch_refills(dut, refills)]
    simulate(dut, testbench, background=background)
    event(f"some were abandoned: {any(caught)}")

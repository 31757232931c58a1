"""Inside the simulator: two requesters, a memory with delays, and guests that come and go."""

import os
import random
from collections import Counter

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Combine, FallingEdge, ReadOnly

from rtl.arch.paging import Access
from rtl.mmu.context import Fault, Invalidation, Translation, TranslationQuery
from rtl.mmu.ports import PteRequest, PteResponse
from tests.rtl.mmu.guests import Guest, random_guest
from tests.rtl.mmu.tables import translated
from tests.rtl.mmu.walker_bench import EVERYTHING, Memory, wanted_of

GUESTS, QUERIES = 12, 25


async def settled(dut, *names):
    """Outputs as they stand before the next rising edge; returns behind that edge."""
    await ReadOnly()
    values = [int(getattr(dut, name).value) for name in names]
    await FallingEdge(dut.clk)
    return values


async def reset(dut):
    for side in ("instruction", "data"):
        getattr(dut, f"{side}__query").value = 0
        getattr(dut, f"{side}__walk__valid").value = 0
        getattr(dut, f"{side}__walk__payload").value = 0
        getattr(dut, f"{side}__walked__ready").value = 0
    dut.i_invalidate__valid.value = 0
    dut.tables__request__ready.value = 0
    dut.tables__response__valid.value = 0
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="ns").start(start_high=False)
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    await FallingEdge(dut.clk)


class Bus:
    """Answers reads and updates of entries of ``memory``, after random delays."""

    def __init__(self, dut, choose):
        self.memory, self.reads = Memory({}), 0
        self._dut, self._choose = dut, choose

    async def serve(self):
        dut = self._dut
        while True:
            dut.tables__request__ready.value = int(self._choose.random() < 0.6)
            valid, ready, bits = await settled(
                dut, "tables__request__valid", "tables__request__ready", "tables__request__payload"
            )
            if not (valid and ready):
                continue
            dut.tables__request__ready.value = 0
            for _ in range(self._choose.choice((0, 0, 1, 6))):
                await FallingEdge(dut.clk)
            request = PteRequest.from_bits(bits)
            response = {"data": self.memory.words.get(request.address, 0)}
            if request.set:
                self.memory.update(request.address, request.expected, request.set)
            self.reads += not request.set
            dut.tables__response__payload.value = PteResponse.const(response).as_bits()
            dut.tables__response__valid.value = 1
            while not (await settled(dut, "tables__response__ready"))[0]:
                pass
            dut.tables__response__valid.value = 0


async def translate(dut, side, query):
    """Fault and frame of a query, whatever it takes, and how many walks that was."""
    bits = TranslationQuery.const(query).as_bits()
    getattr(dut, f"{side}__query").value = bits
    getattr(dut, f"{side}__walk__payload").value = bits
    for walks in range(5):
        # The answer comes in the next cycle.
        await settled(dut)
        hit, answer = await settled(dut, f"{side}__hit", f"{side}__translation")
        if hit:
            translation = Translation.from_bits(answer)
            return translation.fault, translation.frame, walks
        getattr(dut, f"{side}__walk__valid").value = 1
        while not (await settled(dut, f"{side}__walk__ready"))[0]:
            pass
        getattr(dut, f"{side}__walk__valid").value = 0
        getattr(dut, f"{side}__walked__ready").value = 1
        while True:
            valid, answer = await settled(dut, f"{side}__walked__valid", f"{side}__walked__payload")
            if valid:
                break
        getattr(dut, f"{side}__walked__ready").value = 0
        if Fault(answer) != Fault.NONE:
            return Fault(answer), None, walks + 1
    raise AssertionError(f"walked again and again: {query}")


async def invalidate(dut, what):
    dut.i_invalidate__payload.value = Invalidation.const(what).as_bits()
    dut.i_invalidate__valid.value = 1
    await FallingEdge(dut.clk)
    dut.i_invalidate__valid.value = 0


async def ask(dut, side, queries, memory, expected, choose, seen):
    """Each answer is the reference's, whatever has been asked, cached and marked before."""
    for query in queries:
        fault, mapping, after = wanted_of(memory, query)
        for address, word in after.words.items():
            expected[address] = expected.get(address, 0) | word
        found, frame, walks = await translate(dut, side, query)
        assert found == fault, (query, fault)
        assert fault != Fault.NONE or frame == translated(mapping.frame), query
        seen[fault.name] += 1
        seen["hits"] += not walks
        for _ in range(choose.choice((0, 0, 3))):
            await FallingEdge(dut.clk)


async def disturb(dut, pool, kept, choose):
    """Invalidations, of all or of pages in use; nothing has changed, so they change nothing."""
    for _ in range(choose.choice((0, 3))):
        for _ in range(choose.randrange(200)):
            await FallingEdge(dut.clk)
        what = choose.choice(pool)
        page = {"match_page": 1, "page": what["gva"] >> 12 & (1 << 27) - 1}
        world = {"world": what["context"]["world"], "vpid": kept["vpid"]}
        await invalidate(dut, {**world, **choose.choice(({}, page))})


def like(query, side, context):
    """The query as that side may ask it."""
    access = query["access"]
    if (access == Access.FETCH) != (side == "instruction"):
        access = Access.FETCH if side == "instruction" else Access.READ
    return {**query, "access": access, "context": {**query["context"], **context}}


@cocotb.test()
async def both_sides_agree_with_the_reference(dut):
    """With A and D kept alike for all queries, no answer depends on the order of the others."""
    choose = random.Random(int(os.environ["SEED"]))
    await reset(dut)
    bus, seen = Bus(dut, choose), Counter()
    cocotb.start_soon(bus.serve())
    for _ in range(GUESTS):
        guest, make_query = random_guest(choose, nested=choose.random() < 0.7)
        # The guest before has gone: its frames hold other tables now.
        bus.memory = Memory(dict(guest.words))
        await invalidate(dut, EVERYTHING)
        kept = {"adue": choose.getrandbits(1), "ept_ad": choose.getrandbits(1)}
        kept |= {"asid": choose.getrandbits(1), "vpid": choose.getrandbits(1)}
        first, expected = Memory(dict(guest.words)), dict(guest.words)
        pool = [make_query() for _ in range(QUERIES)]

        tasks = [disturb(dut, pool, kept, choose)]
        for name in ("instruction", "data"):
            queries = [like(choose.choice(pool), name, kept) for _ in range(QUERIES)]
            tasks.append(ask(dut, name, queries, first, expected, choose, seen))
        await Combine(*(cocotb.start_soon(task) for task in tasks))
        assert {a: w for a, w in bus.memory.words.items() if w} == {
            a: w for a, w in expected.items() if w
        }
    # The two other faults are rare in so few guests.
    assert {"NONE", "PAGE", "EPT_VIOLATION"} <= seen.keys()
    assert seen["hits"] > GUESTS


@cocotb.test()
async def a_cold_walk_of_small_pages_over_small_pages_reads_15_entries(dut):
    choose = random.Random(int(os.environ["SEED"]))
    await reset(dut)
    bus = Bus(dut, choose)
    cocotb.start_soon(bus.serve())
    guest = Guest(choose, ept_levels=(0,))
    gpa_frame = guest.place(0x8_0400, 0)
    guest.map(0x12345000, gpa_frame)
    bus.memory = Memory(guest.words)
    await invalidate(dut, EVERYTHING)
    query = {"gva": 0x12345678, "access": Access.READ, "context": guest.context()}
    assert await translate(dut, "data", query) == (Fault.NONE, 0x8_0400, 1)
    assert bus.reads == 15
    # The other side's first level does not know it, the second does.
    fetch = {**query, "access": Access.FETCH}
    assert await translate(dut, "instruction", fetch) == (Fault.NONE, 0x8_0400, 1)
    assert bus.reads == 15

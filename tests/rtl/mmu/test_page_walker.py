"""The page walker against the manual's algorithm: answers, refills, and what it does to memory."""

import random
from collections import Counter

import pytest
from amaranth.lib import data
from hypothesis import event, given, settings
from hypothesis import strategies as st

from rtl.arch.paging import PTE, Access
from rtl.arch.traps import Privilege
from rtl.mmu.context import Fault
from rtl.mmu.page_walker import PageWalker, WalkEvents
from tests.rtl.mmu.guests import Guest, random_guest
from tests.rtl.mmu.tables import SLOTS, memories, queries
from tests.rtl.mmu.walker_bench import (
    EVERYTHING,
    Memory,
    check_walk,
    invalidate,
    walk,
    wanted_of,
    watch_refills,
)
from tests.streams import get, refusal, simulate


@settings(max_examples=25, deadline=None)
@given(
    memories,
    st.sets(st.sampled_from(SLOTS), max_size=2),
    st.lists(queries, min_size=10, max_size=25),
    st.integers(0, 2**32),
)
def test_walk_of_odd_tables_is_the_manuals(words, errors, asked, seed):
    dut = PageWalker(walk_cache_entries=2, nested_entries=1)
    memory, refills, faults = Memory(words, errors, random.Random(seed)), [], set()

    async def testbench(ctx):
        for query in asked:
            fault = await check_walk(ctx, dut, memory, refills, query, cold=True)
            faults.add(fault.name)

    background = [memory.server(dut.memory), watch_refills(dut, refills)]
    simulate(dut, testbench, background=background)
    event(f"answers: {sorted(faults)}")


def run_guest(seed, *, nested, cold, count=40):
    """Walk for a random guest; how often each answer came."""
    schedule = random.Random(seed)
    guest, make_query = random_guest(schedule, nested=nested)
    dut = PageWalker(walk_cache_entries=4, nested_entries=3)
    errors = [schedule.choice(sorted(guest.words))] if schedule.random() < 0.2 else []
    memory, refills, answers = Memory(guest.words, errors, schedule), [], Counter()

    async def testbench(ctx):
        for _ in range(count):
            query = make_query()
            # Sometimes again: then all that can be remembered is.
            for _ in range(schedule.choice([1, 1, 2])):
                fault = await check_walk(ctx, dut, memory, refills, query, cold=cold)
                answers[fault.name] += 1

    background = [memory.server(dut.memory), watch_refills(dut, refills)]
    simulate(dut, testbench, background=background)
    return answers


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_walk_for_a_guest_is_the_manuals(seed, nested, cold):
    answers = run_guest(seed, nested=nested, cold=cold)
    for name, number in answers.items():
        event(f"{name}: {number // 10 * 10}+ (nested: {nested})")


def test_random_guests_meet_every_outcome():
    answers = sum(
        (run_guest(seed, nested=True, cold=False, count=30) for seed in range(6)), Counter()
    )
    assert {fault.name for fault in Fault} <= answers.keys()
    assert answers["NONE"] > 20


COLD_READS = [
    # guest level, EPT level of tables and page, reads if no two lie in the same page of the EPT
    (0, 0, 15),
    (0, 1, 11),
    (0, 2, 7),
    (1, 0, 11),
    (1, 1, 8),
    (2, 0, 7),
    (2, 2, 3),
]


@pytest.mark.parametrize(("guest_level", "ept_level", "reads"), COLD_READS)
def test_reads_of_cold_and_warm_walks(guest_level, ept_level, reads):
    """4 KiB pages over 4 KiB pages cost 15 reads cold; then the leaf's and the EPT's for the page.

    What lies in one large page of the EPT is looked up once.
    """
    guest = Guest(random.Random(1), ept_levels=(ept_level,))
    gpa_frame = guest.place(0x80400, ept_level)
    gva = gpa_frame % 512**guest_level << 12
    guest.map(gva, gpa_frame, guest_level)
    dut, memory = PageWalker(), Memory(guest.words)
    seen = Counter()
    touched = [*list(guest.tables)[: 3 - guest_level], gpa_frame]
    shared = len(touched) - len({frame >> 9 * ept_level for frame in touched})
    reads -= shared * (3 - ept_level)
    assert ept_level or not shared
    warm = 1 + (0 if ept_level else 3)

    async def count(ctx):
        while True:
            _, _, events = await ctx.tick().sample(dut.events)
            for name, _ in data.Layout.cast(WalkEvents):
                seen[name] += getattr(events, name)

    async def testbench(ctx):
        query = {"gva": gva, "access": Access.READ, "context": guest.context()}
        assert await walk(ctx, dut, query) == Fault.NONE
        assert len(memory.reads) == reads
        assert seen["walk_cache_hit"] == 0 and seen["nested_hit"] == shared
        memory.log.clear()
        assert await walk(ctx, dut, query) == Fault.NONE
        assert len(memory.reads) == warm
        assert seen["walk_cache_hit"] == (guest_level < 2)
        assert seen["nested_hit"] == shared + 1 + (ept_level > 0)
        await ctx.tick()
        assert seen["pte_read"] == reads + warm

    simulate(dut, testbench, background=[memory.server(dut.memory), count])


def test_an_entry_that_changes_before_its_update_is_read_again():
    """The update looks at the entry as it is: an old frame never gets a D that a new one lacks."""
    for nested in (0, 1):
        for what in ("remapped", "removed", "read-only"):
            guest = Guest(random.Random(2), ept_levels=(0,) * nested)
            pages = [guest.place(0x80400), guest.place(0x80500)]
            guest.map(0x1000, pages[0], a=0, d=0)
            (slot,) = [
                slot
                for slot, word in guest.words.items()
                if not PTE.decode(word)["a"] and PTE.decode(word)["r"]
            ]
            new = {
                "remapped": PTE.encode(v=1, r=1, w=1, ppn=pages[1]),
                "removed": 0,
                "read-only": PTE.encode(v=1, r=1, ppn=pages[0]),
            }[what]
            dut, memory, refills = PageWalker(), Memory(guest.words), []

            def before(request, memory=memory, slot=slot, new=new):
                if request.set and not any(entry[0] == "update" for entry in memory.log):
                    assert request.address == slot
                    memory.words[slot] = new

            memory.before = before
            context = guest.context(adue=1)
            query = {"gva": 0x1000, "access": Access.WRITE, "context": context}

            async def testbench(ctx, dut=dut, query=query, what=what, memory=memory, slot=slot,
                                new=new, refills=refills):  # fmt: skip
                remapped = what == "remapped"
                assert await walk(ctx, dut, query) == (Fault.NONE if remapped else Fault.PAGE)
                assert memory.words[slot] == (new | 0xC0 if remapped else new)
                assert [entry.frame for entry in refills] == [0x80500] * remapped

            background = [memory.server(dut.memory), watch_refills(dut, refills)]
            simulate(dut, testbench, background=background)


TABLES_WRITTEN = [
    # A and D of the guest's leaf, menvcfg.ADUE, EPT A/D, how the table's page is mapped: outcome
    (1, 0, 0, {"w": 0}, None),
    (1, 0, 1, {"w": 0}, None),
    (1, 1, 0, {"w": 0}, None),
    (0, 1, 0, {"w": 0}, Access.WRITE),
    (0, 1, 0, {"d": 0}, Access.WRITE),
    (0, 1, 0, {}, None),
    # Reads of tables are writes when both stages keep A and D, even if nothing is to be set.
    (1, 1, 1, {"w": 0}, Access.WRITE),
    (1, 1, 1, {"d": 0}, None),
    (1, 1, 1, {"r": 0, "w": 0}, Access.WRITE),
    (1, 1, 0, {"r": 0, "w": 0}, Access.READ),
    (1, 0, 0, {"a": 0}, Access.READ),
    (1, 0, 1, {"a": 0}, None),
    (1, 1, 1, {"u": 0}, Access.WRITE),
]


@pytest.mark.parametrize(("marked", "adue", "ept_ad", "rights", "refused"), TABLES_WRITTEN)
@pytest.mark.parametrize("widened", [False, True])
def test_when_guests_tables_are_written(marked, adue, ept_ad, rights, refused, widened):
    guest = Guest(random.Random(3), ept_levels=(0,))
    # The page is larger there than its tables, so that their levels are not taken for each other.
    guest.map(0x1000, guest.place(0x80400, level=1), a=marked, d=marked)
    # The page of the last table, in the EPT.
    frame = max(guest.tables.values())
    (slot,) = [
        slot
        for slot, word in guest.words.items()
        if PTE["ppn"].extract(word) == frame and PTE.decode(word)["r"]
    ]
    table_gpa = next(gpa for gpa, hpa in guest.tables.items() if hpa == frame)
    full, held = guest.words[slot], PTE.decode(guest.words[slot])
    guest.words[slot] = PTE.encode(**{**held, **rights})
    dut, memory = PageWalker(), Memory(guest.words)
    context = guest.context(adue=adue, ept_ad=ept_ad)
    query = {"gva": 0x1000, "access": Access.WRITE, "context": context}

    async def testbench(ctx):
        if widened:
            # With what was refused, or remembered as restricted, nothing has to be invalidated.
            reading = {**query, "access": Access.READ, "context": {**context, "adue": 0}}
            await walk(ctx, dut, reading)
            await walk(ctx, dut, query)
            memory.words[slot] = full
            assert await walk(ctx, dut, query) == Fault.NONE
            return
        fault = await walk(ctx, dut, query)
        assert fault == (Fault.NONE if refused is None else Fault.EPT_VIOLATION)
        if refused is not None:
            about = ctx.get(dut.ept_fault)
            assert about.page_table
            assert about.access.value == refused
            assert about.gpa == table_gpa * 4096 + 8
            assert about.level == 0
            now = PTE.decode(memory.words[slot])
            assert (about.readable, about.writable) == (now["r"], now["w"])

    simulate(dut, testbench, background=[memory.server(dut.memory)])


def test_what_is_remembered_is_dropped_when_it_is_named():
    """An upper table is used until an invalidation names a page, ASID or VPID it leads to."""
    cases = [
        ({"match_page": 1, "page": 0x1}, True),
        ({"match_page": 1, "page": 0x1FF}, True),
        ({"match_page": 1, "page": 0x200}, False),
        ({"match_asid": 1, "asid": 5}, True),
        ({"match_asid": 1, "asid": 6}, False),
        ({}, True),
        ({"vpid": 1}, False),
        ({"any_vpid": 1, "match_ept": 1, "ept_tag": 2}, True),
        ({"any_vpid": 1, "match_ept": 1, "ept_tag": 1}, False),
    ]
    for what, dropped in cases:
        guest = Guest(random.Random(4), ept_levels=(0,))
        pages = [guest.place(0x80400), guest.place(0x80500)]
        guest.map(0x1000, pages[0])
        guest.map(0x40001000, pages[1])
        root = guest.tables[guest.root] * 4096
        dut, memory, refills = PageWalker(), Memory(guest.words), []
        context = guest.context(asid=5, ept_tag=2)

        async def testbench(
            ctx, dut=dut, memory=memory, refills=refills, root=root, context=context, what=what,
            dropped=dropped,
        ):  # fmt: skip
            query = {"gva": 0x1000, "access": Access.READ, "context": context}
            assert await walk(ctx, dut, query) == Fault.NONE
            # The region of the first page now has the tables of the second.
            memory.words[root] = memory.words[root + 8]
            await invalidate(ctx, dut, {"world": 1, **what})
            memory.log.clear()
            assert await walk(ctx, dut, query) == Fault.NONE
            await ctx.tick()
            assert [entry.frame for entry in refills] == [0x80400, 0x80500 if dropped else 0x80400]
            # Who is not named loses nothing.
            assert dropped or len(memory.reads) == 4

        simulate(
            dut, testbench, background=[memory.server(dut.memory), watch_refills(dut, refills)]
        )


def test_faults_come_from_the_tables_as_they_are():
    """What is remembered can be used for a translation, never for a fault."""
    guest = Guest(random.Random(5), ept_levels=(0,))
    pages = [guest.place(0x80400), guest.place(0x80500)]
    guest.map(0x1000, pages[0])
    guest.map(0x40002000, pages[1])
    root = guest.tables[guest.root] * 4096
    dut, memory = PageWalker(), Memory(guest.words)

    async def testbench(ctx):
        query = {"gva": 0x1000, "access": Access.READ, "context": guest.context()}
        assert await walk(ctx, dut, query) == Fault.NONE
        memory.words[root] = memory.words[root + 8]
        # Not in the table that is remembered, but in the one that is there now; and the reverse.
        assert await walk(ctx, dut, {**query, "gva": 0x2000}) == Fault.NONE
        assert await walk(ctx, dut, query) == Fault.PAGE

    simulate(dut, testbench, background=[memory.server(dut.memory)])


def ept_slot(guest, frame):
    """Where the EPT's leaf for a frame stands."""
    (slot,) = (
        slot
        for slot, word in guest.words.items()
        if PTE["ppn"].extract(word) == frame and PTE.decode(word)["u"]
    )
    return slot


def test_where_a_table_lies_is_remembered_when_the_page_is_refused():
    """An EPT violation drops what is cached of the gpa that was refused, and comes from entries
    that have just been read.
    """
    guest = Guest(random.Random(5), ept_levels=(0,))
    guest.map(0x1000, guest.place(0x80400))
    table = max(guest.tables.values())
    leaf, slot, page_slot = table * 4096 + 8, ept_slot(guest, table), ept_slot(guest, 0x80400)
    dut, memory = PageWalker(), Memory(guest.words)

    async def testbench(ctx):
        query = {"gva": 0x1000, "access": Access.READ, "context": guest.context()}
        assert await walk(ctx, dut, query) == Fault.NONE
        pointer, memory.words[slot] = memory.words[slot], 0
        # The guest's own fault says nothing about the EPT: the table is where it was.
        entry, memory.words[leaf] = memory.words[leaf], 0
        assert await walk(ctx, dut, query) == Fault.PAGE
        memory.words[leaf] = entry
        assert await walk(ctx, dut, query) == Fault.NONE
        page, memory.words[page_slot] = memory.words[page_slot], 0
        assert await walk(ctx, dut, query) == Fault.EPT_VIOLATION
        assert not ctx.get(dut.ept_fault.page_table)
        memory.words[page_slot] = page
        assert await walk(ctx, dut, query) == Fault.NONE
        memory.words[slot] = pointer
        assert await walk(ctx, dut, query) == Fault.NONE

    simulate(dut, testbench, background=[memory.server(dut.memory)])


def test_where_a_table_lies_is_forgotten_when_it_may_not_be_written():
    """That D cannot be set in the guest's leaf is a refusal of its table."""
    guest = Guest(random.Random(6), ept_levels=(0,))
    guest.map(0x1000, guest.place(0x80400), d=0)
    table = max(guest.tables.values())
    slot = ept_slot(guest, table)
    guest.words[slot] &= ~PTE["w"].mask
    dut, memory = PageWalker(), Memory(guest.words)

    async def testbench(ctx):
        query = {"gva": 0x1000, "access": Access.READ, "context": guest.context(adue=1)}
        assert await walk(ctx, dut, query) == Fault.NONE
        assert await walk(ctx, dut, {**query, "access": Access.WRITE}) == Fault.EPT_VIOLATION
        memory.words[slot] = 0
        assert await walk(ctx, dut, query) == Fault.EPT_VIOLATION

    simulate(dut, testbench, background=[memory.server(dut.memory)])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_invalidated_walk_leaves_nothing(seed, nested):
    """A walk under way ends without a refill, and updates nothing from then on."""
    schedule = random.Random(seed)
    guest, make_query = random_guest(schedule, nested=nested, flaws=0)
    dut = PageWalker(walk_cache_entries=2, nested_entries=2)
    memory, refills, caught = Memory(guest.words, schedule=schedule), [], []

    async def testbench(ctx):
        for _ in range(25):
            query, moment = make_query(), schedule.choice([*range(30), 60])
            wanted, _, _ = wanted_of(memory, query)
            memory.log.clear()
            ctx.set(dut.i_query.payload, query)
            ctx.set(dut.i_query.valid, 1)
            ctx.set(dut.i_invalidate.payload, EVERYTHING)
            under_way = False
            for now in range(1000):
                # Cycle 0 is the one in which the query is taken.
                offered = ctx.get(dut.o_fault.valid)
                ctx.set(dut.i_invalidate.valid, now == moment)
                if now == moment and now > 0 and not offered:
                    under_way = True
                if under_way:
                    assert not (ctx.get(dut.memory.request.valid) and
                                ctx.get(dut.memory.request.payload.set))  # fmt: skip
                await ctx.tick()
                ctx.set(dut.i_query.valid, 0)
                if offered:
                    break
            ctx.set(dut.i_invalidate.valid, 0)
            fault = await get(ctx, dut.o_fault) if ctx.get(dut.o_fault.valid) else Fault.NONE
            if under_way:
                assert fault == Fault.NONE
                assert not refills
            else:
                assert fault == wanted
            refills.clear()
            caught.append(under_way)

    background = [memory.server(dut.memory), watch_refills(dut, refills)]
    simulate(dut, testbench, background=background)
    event(f"some were invalidated: {any(caught)}")


@pytest.mark.parametrize("number", [0, -1, 1.5])
def test_numbers_of_entries_are_checked(number):
    assert "at least 1 entry" in refusal(lambda: PageWalker(walk_cache_entries=number))
    assert "at least 1 entry" in refusal(lambda: PageWalker(nested_entries=number))


def test_unpaged_guests_go_through_the_ept_alone():
    guest = Guest(random.Random(6), ept_levels=(0,))
    gpa = guest.place(0x80400) << 12
    dut, memory, refills = PageWalker(), Memory(guest.words), []
    context = guest.context(paged=0, privilege=Privilege.MACHINE)

    async def testbench(ctx):
        query = {"gva": gpa, "access": Access.FETCH, "context": context}
        await check_walk(ctx, dut, memory, refills, query, cold=True)
        assert len(memory.reads) == 3
        for bit in (41, 55, 56, 63):
            beyond = {**query, "gva": gpa | 1 << bit}
            fault = await check_walk(ctx, dut, memory, refills, beyond, cold=True)
            assert (fault, memory.reads) == (Fault.EPT_VIOLATION, [])

    simulate(dut, testbench, background=[memory.server(dut.memory), watch_refills(dut, refills)])


@pytest.mark.parametrize("nested", [0, 1])
def test_invalidation_in_every_cycle_of_a_walk(nested):
    """Up to the cycle of its answer, a walk leaves nothing, and it updates nothing afterwards."""
    marks = {"a": 0, "d": 0}
    guest = Guest(random.Random(7), ept_levels=(0,) * nested)
    guest.map(0x1000, guest.place(0x80400, **marks), **marks)
    dut, refills = PageWalker(), []
    memory = Memory(dict(guest.words), schedule=random.Random(0))
    memory.schedule.choice = min
    context = guest.context(adue=1, ept_ad=1)
    query = {"gva": 0x1000, "access": Access.WRITE, "context": context}

    async def testbench(ctx):
        for moment in range(1, 400):
            memory.words = dict(guest.words)
            ctx.set(dut.i_query.payload, query)
            ctx.set(dut.i_query.valid, 1)
            ctx.set(dut.o_fault.ready, 1)
            cycle, updates = 0, 0
            while not ctx.get(dut.o_fault.valid):
                ctx.set(dut.i_invalidate.payload, EVERYTHING)
                ctx.set(dut.i_invalidate.valid, cycle == moment)
                if cycle >= moment and ctx.get(dut.memory.request.valid):
                    updates += ctx.get(dut.memory.request.payload.set) != 0
                await ctx.tick()
                ctx.set(dut.i_query.valid, 0)
                ctx.set(dut.i_invalidate.valid, 0)
                cycle += 1
            assert ctx.get(dut.o_fault.payload) == Fault.NONE
            await ctx.tick()
            assert len(refills) == (cycle <= moment)
            refills.clear()
            if cycle <= moment:
                break
            assert not updates
            await invalidate(ctx, dut)
        assert cycle > (40 if nested else 10)

    background = [memory.server(dut.memory), watch_refills(dut, refills)]
    simulate(dut, testbench, background=background)

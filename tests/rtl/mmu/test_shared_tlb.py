"""The second-level TLB against a list of what was refilled and not invalidated since."""

import random
from itertools import pairwise

import pytest
from amaranth import ResetInserter, Signal
from hypothesis import event, given, settings
from hypothesis import strategies as st

from rtl.arch.paging import Access
from rtl.arch.traps import Privilege, World
from rtl.mmu.shared_tlb import SharedTlb
from tests.rtl.mmu.test_tlb import (
    SPACE,
    TAG,
    answers,
    entries,
    invalidations,
    is_named,
    like,
    overlaps,
    pages_of,
    permits,
    plain,
    queries,
    set_invalidation,
    set_query,
    set_refill,
    tick,
)
from tests.streams import refusal, simulate

WAYS = 2
_which = st.integers(0, 7)
_kept = st.sets(st.sampled_from(["world", "vpid", "asid", "ept_tag", "page", "paged"]), min_size=5)
_neighbours = st.sets(st.sampled_from(["world", "vpid", "ept_tag", "page"]))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("refill"), st.tuples(_which, _neighbours, entries)),
        st.tuples(st.just("query"), st.tuples(_which, _kept, queries)),
        st.tuples(st.just("query"), st.tuples(_which, _kept, queries)),
        st.tuples(st.just("invalidate"), st.tuples(_which, _kept, invalidations)),
        st.tuples(st.just("invalidate"), st.tuples(_which, _kept, invalidations)),
    ),
    min_size=15,
    max_size=40,
)


async def look_up(ctx, dut, query, invalidation=None, at=None):
    """The frame, or None; an invalidation may come ``at`` some cycle of it."""
    ctx.set(dut.page, query["page"])
    ctx.set(dut.look_up, 1)
    for cycle in range(6):
        if cycle == 1:
            set_query(ctx, dut, query)
        if cycle == at:
            set_invalidation(ctx, dut, invalidation)
        if cycle and ctx.get(dut.done):
            hit, entry = ctx.get(dut.hit), ctx.get(dut.entry)
            await tick(ctx, dut)
            return entry if hit else None
        await tick(ctx, dut)
        ctx.set(dut.look_up, 0)
    raise AssertionError("no answer")


async def settle(ctx, dut):
    while not ctx.get(dut.settled):
        await ctx.tick()


def check_found(found, candidates, query):
    """What is found is one of the candidates, whole."""
    assert any(
        found.frame == entry["frame"]
        and all(found.tag[k] == entry[k] for k in TAG)
        and all(int(found.tag.space[k].value if k == "world" else found.tag.space[k])
                == entry[k] for k in SPACE)
        for entry in candidates
    )  # fmt: skip


def probe_of(entry):
    """The query that an entry is most likely to answer."""
    privilege = Privilege.USER if entry["u"] else Privilege.SUPERVISOR
    return {**entry, "access": Access.READ, "sum": 1, "mxr": 1, "privilege": privilege}


def matching(model, query):
    return [entry for entry in model if answers(entry, query) and permits(entry, query)]


@settings(max_examples=30, deadline=None)
@given(steps, st.integers(0, 2**32), st.booleans())
def test_finds_what_was_refilled_and_not_invalidated(actions, seed, patient):
    """Whoever waits for a sweep's end finds all the others again, as long as there is room."""
    dut = SharedTlb(entry_count=16, ways=WAYS)
    schedule, model, hits = random.Random(seed), [], []

    async def testbench(ctx):
        # Entries that cannot have been displaced, nor swept out by more than they had to be.
        sure, refills, gone = [], [], []
        for (kind, recipe), (after, _) in pairwise([*actions, ("end", None)]):
            what = like(model[-3:], recipe)
            if kind == "refill":
                pause = schedule.randrange(4) if after == "invalidate" else 3
                size, older = what["level"], list(model)
                if pause == 3:
                    older = [e for e in model if e["level"] != size or not overlaps(e, what)]
                # What an invalidation catches on its way in is lost, named or not, and then takes
                # nobody's place.
                model[:] = [*older, what]
                refills.append(what)
                others = [old for old in sure if not overlaps(old, what)]
                sure[:] = [*(others if len(refills) <= WAYS else ()), what]
                set_refill(ctx, dut, what)
                swept = not ctx.get(dut.settled)
                await tick(ctx, dut)
                for _ in range(pause):
                    await ctx.tick()
                if swept or pause < 3:
                    sure.clear()
            elif kind == "query":
                found = await look_up(ctx, dut, what)
                if found is not None:
                    check_found(found, matching(model, what), what)
                assert found is not None or not matching(sure, what)
                hits.append(found is not None)
            else:
                if patient:
                    await settle(ctx, dut)
                elif not ctx.get(dut.settled):
                    sure.clear()
                query = like(model[-3:], (recipe[0], recipe[1], {**plain(0), "mxr": 1}))
                before = list(model)
                model[:] = [entry for entry in model if not is_named(entry, what)]
                sure[:] = [entry for entry in sure if not is_named(entry, what)]
                if schedule.random() < 0.5:
                    set_invalidation(ctx, dut, what)
                    await tick(ctx, dut)
                else:
                    found = await look_up(ctx, dut, query, what, at=schedule.choice([0, 1, 2]))
                    if found is not None:
                        check_found(found, matching(before, query), query)
                for _ in range(schedule.choice([0, 0, 1, 2, 5])):
                    await ctx.tick()
                # What was named is gone at once, however far the sweep is.
                gone.extend(entry for entry in before if entry not in model)
                if after == "invalidate" and schedule.random() < 0.7:
                    continue
                for entry in gone[-2:]:
                    probe = probe_of(entry)
                    found = await look_up(ctx, dut, probe)
                    if found is not None:
                        check_found(found, matching(model, probe), probe)
        await settle(ctx, dut)
        for entry in sure:
            probe = probe_of(entry)
            assert await look_up(ctx, dut, probe) is not None or not permits(entry, probe)

    simulate(dut, testbench)
    event(f"queries that hit: {10 * sum(hits) // max(1, len(hits)) * 10} %")


def large(page, level, guest_level):
    return {
        **plain(page // pages_of(level) * pages_of(level)),
        **{"level": level, "guest_level": guest_level},
    }


@pytest.mark.parametrize("level", [0, 1, 2])
def test_pages_of_every_size_are_held_whole(level):
    dut = SharedTlb(entry_count=64, ways=2)
    entry = large(0x1234567, level, level)

    async def testbench(ctx):
        await settle(ctx, dut)
        set_refill(ctx, dut, entry)
        await tick(ctx, dut)
        for _ in range(3):
            await ctx.tick()
        inside = entry["page"] + pages_of(level) - 1
        for page, there in ((entry["page"], True), (inside, True), (inside + 1, False)):
            found = await look_up(ctx, dut, plain(page))
            assert (found is not None) == there
            assert not there or (found.frame, found.tag.level) == (entry["frame"], level)

    simulate(dut, testbench)


@pytest.mark.parametrize("fractured", [False, True])
def test_a_pages_invalidation_is_short_unless_pages_are_in_pieces(fractured):
    """Pieces of a guest's large page go with it, wherever they are held."""
    dut = SharedTlb(entry_count=64, ways=2)
    pieces = [large(0x200 + k, 0, int(fractured)) for k in (0, 5, 77)]
    other = large(0x400, 0, 0)

    async def testbench(ctx):
        await settle(ctx, dut)
        for entry in (*pieces, other):
            set_refill(ctx, dut, entry)
            await tick(ctx, dut)
            for _ in range(3):
                await ctx.tick()
        set_invalidation(ctx, dut, {"match_page": 1, "page": 0x205})
        await tick(ctx, dut)
        cycles = 0
        while not ctx.get(dut.settled):
            await ctx.tick()
            cycles += 1
        assert cycles == (32 if fractured else 3) + 2
        there = [await look_up(ctx, dut, plain(e["page"])) is not None for e in (*pieces, other)]
        assert there == ([False, False, False, True] if fractured else [True, False, True, True])
        # An empty TLB needs no sweep.
        set_invalidation(ctx, dut, {"any_world": 1, "any_vpid": 1})
        await tick(ctx, dut)
        await settle(ctx, dut)
        set_invalidation(ctx, dut, {"any_world": 1, "any_vpid": 1})
        await tick(ctx, dut)
        assert ctx.get(dut.settled)

    simulate(dut, testbench)


@pytest.mark.parametrize("named", [{"match_page": 1}, {}])
@pytest.mark.parametrize("later", range(6))
def test_an_invalidation_catches_a_refill_on_its_way_in(named, later):
    """Its set may be the first that is swept: what would be written then must not be."""
    dut = SharedTlb(entry_count=16, ways=WAYS)

    async def testbench(ctx):
        # Whole sweeps begin with set 0, those of a page with the set of its smallest size.
        for page in range(0, 8):
            entry = large(page, 0, 0)
            set_refill(ctx, dut, entry)
            await tick(ctx, dut)
            for _ in range(later):
                await ctx.tick()
            set_invalidation(ctx, dut, {**named, "page": page})
            await tick(ctx, dut)
            # A look-up would hold the sweep up.
            if page % 2:
                assert await look_up(ctx, dut, probe_of(entry)) is None
            await settle(ctx, dut)
            assert await look_up(ctx, dut, probe_of(entry)) is None, page

    simulate(dut, testbench)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("world", list(World))
def test_nothing_is_found_after_a_reset(world, waits):
    """The memories still hold it all; the sweep does not end early by what comes meanwhile."""
    dut, reset = SharedTlb(entry_count=64, ways=2), Signal()
    held = [{**plain(page), "world": world.value, "vpid": page} for page in range(0x40, 0x60)]

    async def testbench(ctx):
        await settle(ctx, dut)
        for entry in held:
            set_refill(ctx, dut, entry)
            await tick(ctx, dut)
            for _ in range(3):
                await ctx.tick()
        assert await look_up(ctx, dut, probe_of(held[-1])) is not None
        ctx.set(reset, 1)
        await tick(ctx, dut)
        ctx.set(reset, 0)
        set_invalidation(ctx, dut, {"match_page": 1, "page": 0x41})
        await tick(ctx, dut)
        if waits:
            await settle(ctx, dut)
        for entry in held:
            assert await look_up(ctx, dut, probe_of(entry)) is None

    simulate(ResetInserter(reset)(dut), testbench)


@pytest.mark.parametrize(("entries_", "ways"), [(0, 2), (24, 2), (6, 2), (16, 0), (17, 2)])
def test_size_is_checked(entries_, ways):
    assert "power of two" in refusal(lambda: SharedTlb(entry_count=entries_, ways=ways))

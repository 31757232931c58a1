"""The TLB against a list of entries that are searched one by one."""

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from rtl.arch.paging import Access
from rtl.arch.traps import Privilege
from rtl.mmu.context import FRAME_BITS
from rtl.mmu.tlb import Tlb
from tests.rtl.mmu import sv39_reference as sv39
from tests.streams import refusal, simulate

ENTRY_COUNT = 4
SPACE = ("world", "vpid", "ept_tag", "asid", "paged")
TAG = ("global_", "page", "level", "guest_level")


def pages_of(level):
    return 512**level


def same_page(page, other, level):
    return page // pages_of(level) == other // pages_of(level)


def answers(entry, query):
    """Whether the entry is the translation of the query, whatever the permissions."""
    return (
        all(entry[name] == query[name] for name in ("world", "vpid", "ept_tag", "paged"))
        and (entry["global_"] or entry["asid"] == query["asid"])
        and same_page(entry["page"], query["page"], entry["level"])
    )


def permits(entry, query):
    rights = {name: bool(entry[name]) for name in "rwxuad"}
    if query["mxr"] and entry["mxr_read"]:
        rights["r"] = True
    if not query["paged"]:
        rights["u"] = query["privilege"] == Privilege.USER
    leaf = sv39.Leaf(0, 0, 4096, *(rights[name] for name in "rwxuad"), False)
    return sv39.permits(leaf, *(query[k] for k in ("access", "privilege", "sum")), 0)


def overlaps(entry, other):
    """Whether some query could be answered by both."""
    return (
        all(entry[name] == other[name] for name in ("world", "vpid", "ept_tag", "paged"))
        and (entry["global_"] or other["global_"] or entry["asid"] == other["asid"])
        and same_page(entry["page"], other["page"], max(entry["level"], other["level"]))
    )


def is_named(entry, invalidation):
    for name in ("world", "vpid"):
        if entry[name] != invalidation[name] and not invalidation[f"any_{name}"]:
            return False
    if invalidation["match_ept"] and entry["ept_tag"] != invalidation["ept_tag"]:
        return False
    if invalidation["keep_global"] and entry["global_"]:
        return False
    if invalidation["match_asid"] and (entry["global_"] or entry["asid"] != invalidation["asid"]):
        return False
    return not invalidation["match_page"] or same_page(
        entry["page"] % 2**27, invalidation["page"], entry["guest_level"]
    )


# Few values of each kind, neighbours among them, so that everything meets everything.
_page = st.builds(
    lambda a, b, c: a << 18 | b << 9 | c,
    st.sampled_from([0, 1, 511, 0x7FF]),
    st.sampled_from([0, 1, 256]),
    st.sampled_from([0, 1, 256]),
)
_space = {
    "world": st.integers(0, 1),
    "vpid": st.sampled_from([0, 1, 0x8000]),
    "asid": st.sampled_from([0, 1, 0x8000]),
}
_home = {"world": st.just(0), "vpid": st.just(0), "asid": st.sampled_from([0, 1])}
_bit = st.integers(0, 1)


def _entry(fields):
    page, level, guest_extra = fields.pop("page"), fields["level"], fields.pop("guest_extra")
    fields["page"] = page // pages_of(level) * pages_of(level)
    fields["guest_level"] = min(2, level + guest_extra)
    fields["frame"] = fields["frame"] // pages_of(level) * pages_of(level)
    return fields


def _either(build):
    """Mostly in one address space, sometimes in any."""
    home, anywhere = build(_home), build(_space)
    return st.sampled_from([home, home, home, anywhere]).flatmap(lambda strategy: strategy)


def _entries(space):
    rights = {name: st.sampled_from([0, *7 * [1]]) for name in (*"rwxad", "mxr_read", "paged")}
    return st.fixed_dictionaries(
        {
            **space,
            **rights,
            "u": _bit,
            "ept_tag": st.sampled_from([0, 0, 0, 3]),
            "global_": st.sampled_from([0, 0, 1]),
            "page": _page,
            "level": st.integers(0, 2),
            "guest_extra": st.sampled_from([0, 0, 1, 2]),
            "frame": st.integers(0, 2**FRAME_BITS - 1),
        }
    ).map(_entry)


def _queries(space):
    return st.fixed_dictionaries(
        {
            **space,
            "ept_tag": st.sampled_from([0, 0, 0, 3]),
            "page": _page,
            "access": st.sampled_from(list(Access)),
            "privilege": st.sampled_from([Privilege.SUPERVISOR, Privilege.USER]),
            "sum": _bit,
            "mxr": _bit,
            "paged": st.sampled_from([0, *7 * [1]]),
        }
    )


def _invalidations(space):
    rare = st.sampled_from([0, 0, 0, 0, 1])
    wide = {name: rare for name in ("any_world", "any_vpid", "keep_global", "match_ept")}
    page = _page.map(lambda page: page % 2**27)
    return st.fixed_dictionaries(
        {
            **space,
            **wide,
            "ept_tag": st.sampled_from([0, 3]),
            "match_page": _bit,
            "match_asid": _bit,
            "page": page,
        }
    )


entries = _either(_entries)
queries = _either(_queries)
invalidations = _either(_invalidations)
#: A query or an invalidation, made from an entry that was refilled before: which one, the fields
#: that are the entry's, and values for the others.
_kept = st.sets(st.sampled_from(["world", "vpid", "asid", "ept_tag", "page"]), min_size=4)
_which = st.integers(0, 7)
#: Many refills overlap an entry, in every way: another ASID, another size, global or not.
_neighbours = st.sets(st.sampled_from(["world", "vpid", "ept_tag", "page"]))
refills = st.tuples(_which, _neighbours, entries)
_what = {
    "refill": refills,
    "query": st.tuples(_which, _kept, queries),
    "invalidate": st.tuples(_which, _kept, invalidations),
    # Both at once: the invalidation wins.
    "both": st.tuples(refills, invalidations),
}
steps = st.lists(
    st.sampled_from(["refill", "query", "refill", "query", "query", "invalidate", "both"]).flatmap(
        lambda kind: st.tuples(st.just(kind), _what[kind])
    ),
    min_size=20,
    max_size=60,
)


def like(model, recipe):
    """The refill, query or invalidation of a recipe."""
    which, kept, values = recipe
    if not model:
        return values
    entry = model[which % len(model)]
    merged = {name: entry[name] if name in kept else values[name] for name in values}
    if "page" in kept:
        # Anywhere in the page, not only at its beginning.
        size = pages_of(entry["guest_level" if "match_page" in values else "level"])
        merged["page"] = entry["page"] // size * size + values["page"] % size
        if "match_page" in values:
            merged["page"] %= 2**27
        if "level" in values:
            merged["page"] -= merged["page"] % pages_of(values["level"])
    return merged


def set_refill(ctx, dut, entry):
    ctx.set(
        dut.refill.entry,
        {
            "tag": {
                "space": {name: entry[name] for name in SPACE},
                **{name: entry[name] for name in TAG},
            },
            "frame": entry["frame"],
            "rights": {"mxr": entry["mxr_read"], **{name: entry[name] for name in "rwxuad"}},
        },
    )
    ctx.set(dut.refill.valid, 1)


async def announce_refill(ctx, dut, entry):
    """Returns in the cycle of the refill; ``tick`` ends it."""
    set_refill(ctx, dut, entry)
    ctx.set(dut.refill.valid, 0)
    ctx.set(dut.refilling, 1)
    await ctx.tick()
    ctx.set(dut.refill.valid, 1)


def set_invalidation(ctx, dut, invalidation):
    assert ctx.get(dut.i_invalidate.ready)
    ctx.set(dut.i_invalidate.payload, invalidation)
    ctx.set(dut.i_invalidate.valid, 1)


async def tick(ctx, dut):
    await ctx.tick()
    ctx.set(dut.refill.valid, 0)
    if isinstance(dut, Tlb):
        ctx.set(dut.refilling, 0)
    ctx.set(dut.i_invalidate.valid, 0)


def set_query(ctx, dut, query):
    names = ("world", "vpid", "ept_tag", "asid", "privilege", "sum", "mxr", "paged")
    # Bits outside the page number are the caller's business, the TLB does not look at them.
    ctx.set(
        dut.query,
        {
            "gva": (query["page"] << 12) + 0xABC,
            "access": query["access"],
            # What is not paged goes through an EPT.
            "context": {name: query[name] for name in names} | {"ept": 1 - query["paged"]},
        },
    )


async def look_up(ctx, dut, query):
    """The frame, or None. The query stands until the next one."""
    set_query(ctx, dut, query)
    await ctx.tick()
    return ctx.get(dut.frame) if ctx.get(dut.hit) else None


def wanted_frame(model, query):
    """The frame by the model, None for a miss."""
    found = [entry for entry in model if answers(entry, query) and permits(entry, query)]
    assert len(found) <= 1
    return found[0]["frame"] + query["page"] % pages_of(found[0]["level"]) if found else None


@settings(max_examples=40, deadline=None)
@given(steps)
def test_hits_are_exactly_the_live_entries(actions):
    """While no more than its entries are live, the TLB is a list of entries that never forgets."""
    dut = Tlb(entry_count=ENTRY_COUNT)
    model, seen = [], []

    def drop(invalidation):
        model[:] = [entry for entry in model if not is_named(entry, invalidation)]

    async def testbench(ctx):
        for kind, what in actions:
            what = (like(model, what[0]), what[1]) if kind == "both" else like(model, what)
            if kind == "refill":
                live = [entry for entry in model if not overlaps(entry, what)]
                if len(live) == ENTRY_COUNT:
                    continue
                model[:] = [*live, what]
                await announce_refill(ctx, dut, what)
                await tick(ctx, dut)
            elif kind == "query":
                got, wanted = await look_up(ctx, dut, what), wanted_frame(model, what)
                assert got == wanted
                seen.append(wanted is not None)
            else:
                entry, invalidation = what if kind == "both" else (None, what)
                if entry:
                    await announce_refill(ctx, dut, entry)
                set_invalidation(ctx, dut, invalidation)
                await tick(ctx, dut)
                drop(invalidation)
            # After every change, each live entry is asked for by its own space and first page.
            for entry in model if kind != "query" else ():
                probe = {**entry, "access": Access.READ, "sum": 1, "mxr": 1}
                probe["privilege"] = Privilege.USER if entry["u"] else Privilege.SUPERVISOR
                assert await look_up(ctx, dut, probe) == wanted_frame(model, probe)

    simulate(dut, testbench)
    event(f"queries that hit: {10 * sum(seen) // max(1, len(seen)) * 10} %")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(refills, st.lists(st.tuples(_which, _kept, queries), max_size=3)),
        min_size=10,
        max_size=40,
    )
)
def test_replacement_forgets_but_never_invents(actions):
    """With more refills than entries, a hit is still the newest translation of its page."""
    dut = Tlb(entry_count=2)
    model, hits = [], []

    async def testbench(ctx):
        for refill, probes in actions:
            entry = like(model, refill)
            model[:] = [*(old for old in model if not overlaps(old, entry)), entry]
            await announce_refill(ctx, dut, entry)
            await tick(ctx, dut)
            for recipe in probes:
                query = like(model[-2:], recipe)
                got = await look_up(ctx, dut, query)
                assert got in (None, wanted_frame(model, query))
                hits.append(got is not None)
            newest = {**entry, "access": Access.READ, "sum": 1, "mxr": 1}
            newest["privilege"] = Privilege.USER if entry["u"] else Privilege.SUPERVISOR
            assert await look_up(ctx, dut, newest) == wanted_frame([entry], newest)

    simulate(dut, testbench)
    event(f"queries that hit: {10 * sum(hits) // max(1, len(hits)) * 10} %")


_plain = dict.fromkeys(
    ("world", "vpid", "ept_tag", "asid", "global_", "level", "guest_level", "u", "sum", "mxr"), 0
) | dict.fromkeys((*"rwxad", "mxr_read", "paged"), 1)


def plain(page):
    """A small page, and the query that reads it."""
    return {
        **_plain,
        "page": page,
        # Another one for each page, whichever index says so.
        "frame": 7 + page % 511,
        "access": Access.READ,
        "privilege": Privilege.SUPERVISOR,
    }


@pytest.mark.parametrize("entry_count", [2, 3, 8])
@pytest.mark.parametrize("stride", [pages_of(level) for level in range(3)])
def test_entry_used_last_is_not_the_victim(entry_count, stride):
    """Pages whose numbers differ in one table's index only are still different pages."""
    dut = Tlb(entry_count=entry_count)

    def at(number):
        return plain(number * stride)

    async def refill(ctx, page):
        await announce_refill(ctx, dut, at(page))
        await tick(ctx, dut)

    async def use(ctx, page):
        assert await look_up(ctx, dut, at(page)) == at(page)["frame"]

    async def testbench(ctx):
        # As many pages as entries stay, whatever the order of their use.
        for page in range(entry_count):
            await refill(ctx, page)
        for page in (*range(entry_count), *reversed(range(entry_count))):
            await use(ctx, page)
        # The entry used last stays, each in turn.
        pages = list(range(entry_count))
        for turn in range(2 * entry_count):
            await use(ctx, kept := pages[turn % entry_count])
            await look_up(ctx, dut, at(300))
            await refill(ctx, new := 100 + turn)
            assert await look_up(ctx, dut, at(kept)) == at(kept)["frame"]
            present = [page for page in pages if await look_up(ctx, dut, at(page)) is not None]
            assert len(present) == entry_count - 1
            await look_up(ctx, dut, at(300))
            (gone,) = set(pages) - set(present)
            pages[pages.index(gone)] = new
        # An entry that was just refilled stays as well.
        for page in range(200, 200 + 4 * entry_count, 2):
            await refill(ctx, page)
            await refill(ctx, page + 1)
            assert await look_up(ctx, dut, at(page)) is not None
            await look_up(ctx, dut, at(300))

    simulate(dut, testbench)


@pytest.mark.parametrize("entry_count", [-1, 0, 1, 2.0, None])
def test_entry_count_is_checked(entry_count):
    assert "at least 2 entries" in refusal(lambda: Tlb(entry_count=entry_count))

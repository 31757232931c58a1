"""Cached translations answer what they were made for, as long as nobody has dropped them."""

import itertools
from types import SimpleNamespace

from amaranth import *

from rtl.arch.paging import LEVELS, PAGE_BITS, VPN_BITS, Access
from rtl.mmu.context import TranslationQuery
from rtl.mmu.permissions import Permits
from rtl.mmu.ports import AddressSpace, TlbEntry, TlbTag
from tests.proofs.permissions import page_faults
from tests.proofs.properties import Fault, Proof

__all__ = ["PROOFS", "TAG_FAULTS", "answers", "low_bits", "named", "permits", "within"]

_ENTRIES = 3


def within(page: Value, other: Value, level: Value) -> Value:
    """Two page numbers are the same when what lies within a page of that size is shifted out."""
    differences = Cat(page ^ other[: len(page)], C(0, max(0, len(page) - len(other))))
    return (differences >> (level * VPN_BITS)) == 0


def answers(tag, query) -> Value:
    """Every tag of the translation is that of the query; ASIDs only where they count."""
    context = query.context
    page = query.gva[PAGE_BITS : PAGE_BITS + len(tag.page)]
    space = tag.space
    different = (
        (space.world.as_value() ^ context.world.as_value()).any()
        | (space.vpid ^ context.vpid).any()
        | (space.ept_tag ^ context.ept_tag).any()
        | ((space.asid ^ context.asid).any() & ~tag.global_)
        | (space.paged ^ context.paged)
    )
    return ~different & within(tag.page, page, tag.level)


def named(tag, wanted) -> Value:
    """SFENCE.VMA, INVVPID and INVEPT: what they do not spare."""
    space = tag.space
    spared = (
        (~wanted.any_world & (space.world.as_value() != wanted.world.as_value()))
        | (~wanted.any_vpid & (space.vpid != wanted.vpid))
        | (wanted.match_asid & (space.asid != wanted.asid))
        | ((wanted.match_asid | wanted.keep_global) & tag.global_)
        | (wanted.match_ept & (space.ept_tag != wanted.ept_tag))
        | (wanted.match_page & ~within(tag.page[: len(wanted.page)], wanted.page, tag.guest_level))
    )
    return ~spared


def permits(entry, query) -> Value:
    return ~Cat(page_faults(entry.rights, query.access.as_value(), query.context)).any()


def _share(tag, other) -> Value:
    """Some query is answered by both."""
    space, others = tag.space, other.space
    level = Mux(tag.level > other.level, tag.level, other.level)
    return (
        (space.world.as_value() == others.world.as_value())
        & (space.vpid == others.vpid)
        & (space.ept_tag == others.ept_tag)
        & (space.paged == others.paged)
        & (tag.global_ | other.global_ | (space.asid == others.asid))
        & within(tag.page, other.page, level)
    )


def _held(inside, number):
    """The tag of an entry, put together from where the TLB keeps its parts."""
    sizes = [
        sum(vector[number] for vector in inside[vectors]) for vectors in ("larger", "guest_larger")
    ]
    return SimpleNamespace(
        space=AddressSpace(inside[f"tag_{number}_space"]),
        global_=inside[f"tag_{number}_global_"],
        page=inside[f"tag_{number}_page"],
        level=sizes[0],
        guest_level=sizes[1],
    )


def _same(inside, number, tag, place, newest) -> Value:
    """An entry is this translation; ``place`` is what the TLB keeps of its frame."""
    allowed, pairs = newest.rights, Permits(inside[f"permits_{number}"])
    kinds = pairs.kinds
    return (
        (tag.space.as_value() == newest.tag.space.as_value())
        & (tag.global_ == newest.tag.global_)
        & (tag.page == newest.tag.page)
        & (tag.level == newest.tag.level)
        & (tag.guest_level == newest.tag.guest_level)
        & (place.frame == newest.frame)
        & (place.larger == Cat(newest.tag.level > k for k in range(LEVELS - 1)))
        & (pairs.user == allowed.u)
        & (kinds.read == (allowed.r & allowed.a))
        & (kinds.read_mxr == (allowed.mxr & allowed.a))
        & (kinds.write == (allowed.w & allowed.a & allowed.d))
        & (kinds.fetch == (allowed.x & allowed.a))
    )


def low_bits(level: Value) -> Value:
    """The bits of a frame that lie within a page of that size."""
    return Mux(level == 0, 0, Mux(level == 1, (1 << VPN_BITS) - 1, (1 << 2 * VPN_BITS) - 1))


def _tlb(p, unit_class):
    m = p.m
    tlb = unit_class(entry_count=_ENTRIES)
    inside = p.unit("tlb", tlb)
    places = [inside.memory_word("places", number) for number in range(_ENTRIES)]
    new, refilled = tlb.refill.entry, tlb.refill.valid & ~tlb.i_invalidate.valid
    p.assume(tlb.refilling | ~tlb.refill.valid)
    p.assume(tlb.query.access.as_value() <= max(Access))
    p.assume((new.tag.level <= new.tag.guest_level) & (new.tag.guest_level < LEVELS))
    p.assume((new.frame & low_bits(new.tag.level)) == 0)

    # What holds for any one query holds for all.
    query = TranslationQuery(p.any_constant(TranslationQuery, "query").as_value())
    p.assume(query.context.paged | query.context.ept)
    known, newest = Signal(), Signal(TlbEntry)
    with m.If(tlb.i_invalidate.valid & named(newest.tag, tlb.i_invalidate.payload)):
        m.d.sync += known.eq(0)
    with m.If(refilled & answers(new.tag, query)):
        m.d.sync += [known.eq(1), newest.eq(new)]
    # What is asked in one cycle is answered in the next.
    asks, asked = tlb.query.as_value() == query.as_value(), Signal()
    m.d.comb += asked.eq(p.before(asks))
    permitted = permits(newest, query)
    page = query.gva[PAGE_BITS:]
    low = low_bits(newest.tag.level)
    frame = newest.frame | (page[: 2 * VPN_BITS] & low)
    p.always(
        ~(asked & tlb.hit) | p.before(known & answers(newest.tag, query)),
        "a hit was refilled for this query, and not invalidated since",
    )
    p.always(~(asked & tlb.hit) | p.before(permitted), "a hit permits the access")
    p.always(~(asked & tlb.hit) | (tlb.frame == p.before(frame)), "a hit gives the newest frame")
    p.always(tlb.i_invalidate.ready, "an invalidation never waits")
    responds = ~tlb.refilling & ~tlb.i_invalidate.valid
    p.always(p.before(responds) | ~tlb.hit, "while it changes it does not answer")
    fresh = p.before(refilled & answers(new.tag, query))
    p.always(
        ~(asked & p.before(fresh & permitted & responds)) | tlb.hit, "what was refilled is there"
    )

    valid = inside["valid"]
    entries = [_held(inside, number) for number in range(_ENTRIES)]
    holds = [valid[number] & answers(tag, query) for number, tag in enumerate(entries)]
    p.always(
        ~asked | (tlb.hit == p.before(Cat(holds).any() & permitted & responds)),
        "it hits exactly when an entry is for this query and permits it",
    )
    p.always(sum(holds) <= 1, "no two entries answer one query")
    for number, tag in enumerate(entries):
        p.invariant(
            ~holds[number] | (known & _same(inside, number, tag, places[number], newest)),
            "an entry for the query is the newest",
        )
        for vectors in ("larger", "guest_larger"):
            some, more = (vector[number] for vector in inside[vectors])
            p.invariant(~valid[number] | some | ~more, "sizes of pages")
        p.invariant(~valid[number] | (tag.level <= tag.guest_level), "pieces of guests' pages")
    p.invariant(~known | answers(newest.tag, query), "the newest is for the query")
    p.invariant(~(fresh & known) | Cat(holds).any(), "what was refilled is held")
    p.invariant(~inside["used"].all(), "there is always one to replace")
    for first, second in itertools.combinations(range(_ENTRIES), 2):
        p.invariant(
            ~(valid[first] & valid[second] & _share(entries[first], entries[second])),
            "no two entries answer any query",
        )


def _invalidation(p, unit_class):
    unit = unit_class()
    p.unit("match", unit)
    p.assume((unit.tag.level <= unit.tag.guest_level) & (unit.tag.guest_level < LEVELS))
    p.always(
        unit.match == named(unit.tag, unit.invalidation), "named exactly when nothing spares it"
    )


def _union(p, unit_class):
    unit = unit_class()
    p.unit("union", unit)
    tag = TlbTag(p.any_constant(TlbTag, "tag").as_value())
    p.assume(tag.guest_level < LEVELS)
    either = named(tag, unit.first) | named(tag, unit.second)
    p.always(~either | named(tag, unit.union), "both together name what either does")


_TAGS, _RIGHTS = "rtl.mmu.tags", "rtl.mmu.permissions"
#: Mistakes in comparing tags that every unit that holds translations must show.
TAG_FAULTS = (
    Fault(
        "worlds are not compared",
        "        (space.world.as_value().any() & ~wanted.any_world)\n        |",
        "        ",
        _TAGS,
    ),
    Fault(
        "VPIDs are not compared",
        "        | (space.vpid.any() & ~wanted.any_vpid)\n",
        "",
        _TAGS,
    ),
)
PROOFS = (
    Proof(
        "first-level TLB",
        "rtl.mmu.tlb:Tlb",
        _tlb,
        (
            *TAG_FAULTS,
            Fault(
                "the upper half of an ASID is not compared",
                "space.asid.any()",
                "space.asid[:8].any()",
                _TAGS,
            ),
            Fault("an invalidation drops nothing", "valid.eq(valid & ~matched)", "valid.eq(valid)"),
            Fault(
                "a refill keeps what it overlaps", "(valid & ~matched) | victim", "valid | victim"
            ),
            Fault("a hit without permission", "matched & permitted & answers", "matched & answers"),
            Fault(
                "a page's own bits are those of another query",
                "m.d.sync += within.eq(page)",
                "m.d.comb += within.eq(page)",
            ),
            Fault(
                "writes to clean pages",
                "rights.a & rights.d & rights.w",
                "rights.a & rights.w",
                _RIGHTS,
            ),
            Fault(
                "a refill during an invalidation",
                "refills.eq(self.refill.valid & ~invalidates)",
                "refills.eq(self.refill.valid)",
            ),
        ),
        fault_depth=5,
    ),
    Proof(
        "invalidation of a tag",
        "rtl.mmu.invalidate:InvalidationMatch",
        _invalidation,
        (
            Fault(
                "global entries die with an ASID",
                "(invalidation.match_asid | invalidation.keep_global)",
                "(invalidation.keep_global)",
                _TAGS,
            ),
            Fault("pages of their own size", "tag.guest_level)", "tag.level)"),
        ),
        depth=1,
        fault_depth=1,
    ),
    Proof(
        "union of invalidations",
        "rtl.mmu.invalidate:InvalidationUnion",
        _union,
        (
            Fault("one page for both", "& (a.page == b.page)", ""),
            Fault("globals are kept for both", "kept[0] & kept[1]", "kept[0] | kept[1]"),
        ),
        depth=1,
        fault_depth=1,
    ),
)

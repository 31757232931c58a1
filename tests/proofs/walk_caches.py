"""What the page walker remembers is what it found, as long as nobody has dropped it."""

from amaranth import *
from amaranth.lib import data

from rtl.arch.paging import LEVELS
from rtl.arch.vmx.ept import EPT_TAG_BITS
from rtl.mmu.context import World
from rtl.mmu.ports import PAGE_NUMBER_BITS
from rtl.mmu.walk_cache import NestedTranslation
from tests.proofs.properties import Fault, Proof
from tests.proofs.translation import low_bits, within

__all__ = ["PROOFS"]

_ENTRIES = 3


class _Key(data.Struct):
    world: World
    ept_tag: EPT_TAG_BITS
    page: PAGE_NUMBER_BITS


def _nested(p, unit_class):
    m = p.m
    cache = unit_class(entry_count=_ENTRIES)
    inside = p.unit("cache", cache)
    new, wanted = cache.i, cache.i_invalidate.payload
    p.assume(new.level < LEVELS)

    # What holds for any page and any answer about it holds for all.
    key = _Key(p.any_constant(_Key, "key").as_value())
    told = NestedTranslation(p.any_constant(NestedTranslation, "told").as_value())
    p.assume(told.level < LEVELS)

    def asks_in_page(level):
        """Whether the port is about the key's page, taken as one of this size."""
        return (
            (cache.world.as_value() == key.world.as_value())
            & (cache.ept_tag == key.ept_tag)
            & within(cache.gpa_frame, key.page, level)
        )

    def tells(translation):
        """Whether a translation of the key's page says what ``told`` says."""
        low = low_bits(translation.level)
        frame = (translation.frame | low) ^ low | (key.page & low)
        return (
            (translation.level == told.level)
            & (frame[: len(told.frame)] == told.frame)
            & (translation.rights.as_value() == told.rights.as_value())
        )

    invalidated = cache.i_invalidate.valid & (
        # It comes from the EPT alone: what names one VPID leaves it.
        wanted.any_vpid
        & (wanted.any_world | (wanted.world.as_value() == key.world.as_value()))
        & (~wanted.match_ept | (wanted.ept_tag == key.ept_tag))
    )
    fills = cache.fill & ~cache.i_invalidate.valid
    known = Signal()
    with m.If(invalidated | (cache.drop & asks_in_page(told.level))):
        m.d.sync += known.eq(0)
    with m.If(fills & asks_in_page(new.level) & tells(new)):
        m.d.sync += known.eq(1)

    asked = asks_in_page(0)
    answered = asked & cache.hit & (cache.o.as_value() == told.as_value())
    p.always(~answered | known, "an answer was filled in for this page, and not dropped since")
    p.always(cache.i_invalidate.ready, "an invalidation never waits")
    filled = p.before(fills & ~cache.drop & asks_in_page(new.level))
    p.always(~(asked & filled) | cache.hit, "what was filled in is there")
    gone = p.before(cache.i_invalidate.valid & wanted.any_vpid & wanted.any_world)
    spared = p.before(wanted.match_ept)
    p.always(~(gone & ~spared) | ~cache.hit, "an invalidation of everything leaves nothing")

    valid, turn = inside["valid"], inside["turn"]
    p.invariant((turn != 0) & ((turn & (turn - 1)) == 0), "it is the turn of one")
    covers = []
    for number in range(_ENTRIES):
        entry = NestedTranslation(inside[f"entry_{number}"])
        matches = (
            valid[number]
            & (inside[f"world_{number}"] == key.world.as_value())
            & (inside[f"tag_{number}"] == key.ept_tag)
            & within(inside[f"page_{number}"], key.page, entry.level)
        )
        covers.append(matches)
        p.invariant(~(matches & tells(entry)) | known, "an entry that says so was filled in")
        p.invariant(~valid[number] | (entry.level < LEVELS), "sizes of pages")
        p.invariant(
            ~valid[number] | ((entry.frame & low_bits(entry.level)) == 0), "frames are aligned"
        )
    p.invariant(~filled | Cat(covers).any(), "what was filled in is held")
    p.invariant(~(gone & ~spared) | (valid == 0), "an invalidation of everything empties it")


_CACHE = "rtl.mmu.walk_cache"
PROOFS = (
    Proof(
        "cache of guests' memory",
        f"{_CACHE}:NestedCache",
        _nested,
        (
            Fault(
                "a fill during an invalidation",
                "with m.If(fills & victim[i]):\n                m.d.sync += [\n",
                "with m.If(self.fill & victim[i]):\n                m.d.sync += [\n",
            ),
            Fault("EPT tags are not compared", "& (ept_tag == self.ept_tag)", ""),
            Fault("worlds are not compared", "& (world == self.world)", ""),
            Fault(
                "every page is the smallest",
                "(differs == below(differs, entry.level))",
                "(differs == 0)",
            ),
            Fault(
                "a large page gives its first frame",
                "self.o.frame.eq(found.frame | below(self.gpa_frame, found.level))",
                "self.o.frame.eq(found.frame)",
            ),
            Fault("nothing is dropped", "dropped[i].eq(named | (self.drop & asked[i]))", "dropped[i].eq(named)"),
            Fault(
                "an invalidation of one EPT drops nothing of it",
                "| (ept_tag == wanted.ept_tag)",
                "& (ept_tag == wanted.ept_tag)",
            ),
        ),
        fault_depth=4,
    ),
)  # fmt: skip

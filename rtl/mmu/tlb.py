"""The first-level TLB: fully associative, tags in flip-flops."""

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.paging import LEVELS, VPN_BITS
from rtl.lib.apart import apart, set_apart
from rtl.lib.one_hot import number_of
from rtl.mmu.context import FRAME_BITS, Invalidation, TranslationQuery
from rtl.mmu.permissions import AccessNeeds, Permits, allows, set_needs, set_permits
from rtl.mmu.ports import Refill, TlbTag
from rtl.mmu.tags import (
    TagQuery,
    matches,
    page_of,
    set_for,
    set_named,
    set_overlapping,
    sizes,
)

__all__ = ["Tlb"]


class _Place(data.Struct):
    """Where a page lies; bit k of ``larger`` is set if it is larger than one of size k."""

    frame: FRAME_BITS
    larger: LEVELS - 1


class Tlb(wiring.Component):
    """Hold translations and answer queries from them in the next cycle.

    An entry that does not permit the query does not hit: faults are never answered from here,
    only by a walk of the tables as they are now. No two entries ever answer one query: a refill
    drops what it overlaps. Replacement is bit-PLRU.

    Parameters
    ----------
    entry_count : int
        Number of entries, at least 2.

    Members
    -------
    query : In(TranslationQuery)
        A paged query of a canonical address, or one that goes through an EPT.
    hit, frame : Out(1), Out(FRAME_BITS)
        The answer to the query of the cycle before. A query in a cycle with ``refilling`` or an
        invalidation does not hit. Without a hit ``frame`` means nothing.
    refilling : In(1)
        A refill comes in this cycle or may come soon. It replaces what its entry overlaps, if that
        stood in ``refill`` in the cycle before.
    refill : In(Refill)
        Comes with ``refilling``. Ignored in a cycle in which an invalidation is taken.
    i_invalidate : In(stream.Signature(Invalidation))
        Always ready; the matching entries are gone in the next cycle.
    """

    def __init__(self, *, entry_count):
        if not isinstance(entry_count, int) or entry_count < 2:
            raise ValueError(f"A TLB needs at least 2 entries, not {entry_count!r}")
        self._entry_count = entry_count
        super().__init__(
            {
                "query": In(TranslationQuery),
                "hit": Out(1),
                "frame": Out(FRAME_BITS),
                "refilling": In(1),
                "refill": In(Refill),
                "i_invalidate": In(stream.Signature(Invalidation)),
            }
        )

    @property
    def entry_count(self) -> int:
        return self._entry_count

    def elaborate(self, platform):
        m = Module()
        count = self._entry_count
        page, new = page_of(self.query.gva), self.refill.entry
        invalidates, refills = self.i_invalidate.valid, Signal()
        m.d.comb += refills.eq(self.refill.valid & ~invalidates)

        # Comparators are most of what a TLB is made of. Each entry has one set, for queries, for what
        # a refill overlaps, and for invalidations.
        wanted, needs = apart(TagQuery, "wanted"), Signal(AccessNeeds)
        m.d.comb += [
            *set_for(wanted, self.query),
            *set_needs(needs, self.query.access, self.query.context),
        ]
        with m.If(invalidates):
            m.d.comb += set_named(wanted, self.i_invalidate.p)
        with m.Elif(self.refilling):
            m.d.comb += set_overlapping(wanted, new.tag)

        # Nobody asks while nothing is translated, and simulation has nothing to compare.
        asked = Signal()
        context = self.query.context
        m.d.comb += asked.eq(context.paged | context.ept | invalidates | self.refilling)

        valid, used = Signal(count), Signal(count)
        matched, permitted = Signal(count), Signal(count)
        # What the query of the cycle before has hit, what is about to be overlapped, and what is
        # replaced.
        hits, overlapped, victim = (Signal(count) for _ in range(3))
        # Of each size k, the entries whose page, or whose guest's, is larger.
        larger = [Signal(count, name=f"larger_{k}") for k in range(LEVELS - 1)]
        guest_larger = [Signal(count, name=f"guest_larger_{k}") for k in range(LEVELS - 1)]
        wholes = [
            own | (guest & invalidates.replicate(count))
            for own, guest in zip(larger, guest_larger, strict=True)
        ]
        matching, permitting = [], []
        for i in range(count):
            # Its sizes are kept below.
            tag = apart(TlbTag, f"tag_{i}", but=("level", "guest_level"))
            permits = Signal(Permits, name=f"permits_{i}")
            matching.append(matches(tag, [whole[i] for whole in wholes], wanted))
            # The permission is decided beside the match.
            permitting.append(allows(permits, needs))
            with m.If(refills & victim[i]):
                m.d.sync += [*set_apart(tag, new.tag), *set_permits(permits, new.rights)]
        with m.If(asked):
            m.d.comb += [matched.eq(valid & Cat(matching)), permitted.eq(Cat(permitting))]
        with m.If(refills):
            for vectors, level in ((larger, new.tag.level), (guest_larger, new.tag.guest_level)):
                for k, vector in enumerate(vectors):
                    m.d.sync += vector.eq(Mux(level > k, vector | victim, vector & ~victim))
        answers = ~self.refilling & ~invalidates
        hits_next = matched & permitted & answers.replicate(count)
        number = Signal(range(count))
        m.d.sync += [
            hits.eq(hits_next),
            number.eq(number_of(hits_next)),
            overlapped.eq(matched & self.refilling.replicate(count)),
        ]

        # Frames wait in a memory for what has hit.
        m.submodules.places = places = memory.Memory(shape=_Place, depth=count, init=())
        place, write = places.read_port(domain="comb"), places.write_port()
        m.d.comb += [
            place.addr.eq(number),
            write.addr.eq(number_of(victim)),
            write.data.frame.eq(new.frame),
            write.data.larger.eq(sizes(new.tag.level)),
            write.en.eq(refills),
        ]
        # Frames of large pages are aligned, so the page's own bits are added by OR.
        within = Signal(VPN_BITS * (LEVELS - 1))
        m.d.sync += within.eq(page)
        offset = Cat(
            within[k * VPN_BITS :][:VPN_BITS] & place.data.larger[k].replicate(VPN_BITS)
            for k in range(LEVELS - 1)
        )
        m.d.comb += [self.hit.eq(hits.any()), self.frame.eq(place.data.frame | offset)]

        candidates = Signal(count)
        touched, used_next = Signal(count), Signal(count)
        m.d.comb += [
            self.i_invalidate.ready.eq(1),
            candidates.eq(Mux(overlapped.any(), overlapped, Mux(valid.all(), ~used, ~valid))),
            victim.eq(candidates & -candidates),
            touched.eq(Mux(refills, victim, hits)),
            used_next.eq(used | touched),
        ]
        with m.If(invalidates):
            m.d.sync += valid.eq(valid & ~matched)
        with m.Elif(refills):
            m.d.sync += valid.eq((valid & ~matched) | victim)
        with m.If(touched.any()):
            # Bit-PLRU: when all would be marked as used, only the newest stays marked.
            m.d.sync += used.eq(Mux(used_next.all(), touched, used_next))
        return m

"""The first-level TLB: fully associative, in flip-flops."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.paging import LEVELS, VPN_BITS
from rtl.lib.apart import apart, set_apart
from rtl.mmu.context import Invalidation, TranslationQuery
from rtl.mmu.permissions import AccessNeeds, Permits, allows, set_needs, set_permits
from rtl.mmu.ports import Refill, TlbTag
from rtl.mmu.tags import TagQuery, matches, page_of, set_for, set_named, set_overlapping

__all__ = ["Tlb"]


class Tlb(wiring.Component):
    """Hold translations and answer queries from them in the same cycle.

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
    hit, frame : Out(1), Out(44)
        Combinational answer, except in a cycle with a refill or an invalidation: then nothing
        hits. Without a hit ``frame`` means nothing.
    refill : In(Refill)
        Ignored in a cycle in which an invalidation is taken.
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
                "frame": Out(44),
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
        refills, invalidates = self.refill.valid, self.i_invalidate.valid

        # Comparators are most of what a TLB is made of. Each entry has one set, for queries, for what
        # a refill overlaps, and for invalidations.
        wanted, needs = apart(TagQuery, "wanted"), Signal(AccessNeeds)
        m.d.comb += [
            *set_for(wanted, self.query),
            *set_needs(needs, self.query.access, self.query.context),
        ]
        with m.If(invalidates):
            m.d.comb += set_named(wanted, self.i_invalidate.p)
        with m.Elif(refills):
            m.d.comb += set_overlapping(wanted, new.tag)

        valid, used = Signal(count), Signal(count)
        matched, hits, victim = (Signal(count) for _ in range(3))
        frame = Const(0, 44)
        # Of each size k, the entries whose page, or whose guest's, is larger.
        larger = [Signal(count, name=f"larger_{k}") for k in range(LEVELS - 1)]
        guest_larger = [Signal(count, name=f"guest_larger_{k}") for k in range(LEVELS - 1)]
        wholes = [
            own | (guest & invalidates.replicate(count))
            for own, guest in zip(larger, guest_larger, strict=True)
        ]
        for i in range(count):
            tag = apart(TlbTag, f"tag_{i}")
            entry_frame = Signal(44, name=f"frame_{i}")
            permits = Signal(Permits, name=f"permits_{i}")
            m.d.comb += [
                matched[i].eq(valid[i] & matches(tag, [whole[i] for whole in wholes], wanted)),
                # The permission is decided beside the match, not behind a multiplexer after it.
                hits[i].eq(matched[i] & allows(permits, needs)),
            ]
            frame |= entry_frame & hits[i].replicate(44)
            with m.If(refills & ~invalidates & victim[i]):
                m.d.sync += [
                    *set_apart(tag, new.tag),
                    entry_frame.eq(new.frame),
                    *set_permits(permits, new.rights),
                ]

        with m.If(refills & ~invalidates):
            for vectors, level in ((larger, new.tag.level), (guest_larger, new.tag.guest_level)):
                for k, vector in enumerate(vectors):
                    m.d.sync += vector.eq(Mux(level > k, vector | victim, vector & ~victim))

        # Frames of large pages are aligned, so the page's own bits are added by OR.
        offset = Cat(
            page[k * VPN_BITS :][:VPN_BITS] & (hits & larger[k]).any().replicate(VPN_BITS)
            for k in range(LEVELS - 1)
        )
        answers = ~refills & ~invalidates
        m.d.comb += [self.hit.eq(hits.any() & answers), self.frame.eq(frame | offset)]

        candidates = Signal(count)
        touched, used_next = Signal(count), Signal(count)
        m.d.comb += [
            candidates.eq(~used),
            victim.eq(candidates & -candidates),
            touched.eq(hits),
            used_next.eq(used | touched),
        ]
        with m.If((~valid | matched).any()):
            m.d.comb += candidates.eq(~valid | matched)
        m.d.comb += self.i_invalidate.ready.eq(1)
        with m.If(invalidates):
            m.d.comb += touched.eq(0)
            m.d.sync += valid.eq(valid & ~matched)
        with m.Elif(refills):
            m.d.comb += touched.eq(victim)
            m.d.sync += valid.eq((valid & ~matched) | victim)
        with m.If(touched.any()):
            # Bit-PLRU: when all would be marked as used, only the newest stays marked.
            m.d.sync += used.eq(Mux(used_next.all(), touched, used_next))
        return m

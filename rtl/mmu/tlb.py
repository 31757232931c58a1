"""The first-level TLB: fully associative, in flip-flops."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.paging import LEVELS, VPN_BITS
from rtl.mmu.context import Invalidation, TranslationQuery
from rtl.mmu.permissions import LeafPermission
from rtl.mmu.ports import Refill, TlbEntry, TlbTag
from rtl.mmu.tags import page_of

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
        context, page = self.query.context, page_of(self.query.gva)
        new, named = self.refill.entry, self.i_invalidate.payload
        refills, invalidates = self.refill.valid, self.i_invalidate.valid

        # Comparators are most of what a TLB is made of. Each entry has one set, for queries, for what
        # a refill overlaps, and for invalidations.
        wanted = Signal(TlbTag)
        m.d.comb += [
            wanted.world.eq(context.world),
            wanted.vpid.eq(context.vpid),
            wanted.ept_tag.eq(context.ept_tag),
            wanted.asid.eq(context.asid),
            wanted.paged.eq(context.paged),
            wanted.page.eq(page),
        ]
        with m.If(invalidates):
            m.d.comb += [
                wanted.world.eq(named.world),
                wanted.vpid.eq(named.vpid),
                wanted.ept_tag.eq(named.ept_tag),
                wanted.asid.eq(named.asid),
                wanted.page.eq(named.page),
            ]
        with m.Elif(refills):
            m.d.comb += wanted.eq(new.tag)

        valid, used = Signal(count), Signal(count)
        matches, hits, victim = (Signal(count) for _ in range(3))
        frame = Const(0, 44)
        within = Const(0, LEVELS - 1)
        for i in range(count):
            entry = Signal(TlbEntry, name=f"entry_{i}")
            tag = entry.tag
            same_asid = tag.asid == wanted.asid
            in_asid = Mux(
                invalidates,
                ~(tag.global_ & (named.match_asid | named.keep_global))
                & (~named.match_asid | same_asid),
                tag.global_ | wanted.global_ | same_asid,
            )
            # At the size of the larger, or at the guest leaf's.
            parts = Cat(
                (tag.page[k * VPN_BITS :][:VPN_BITS] == wanted.page[k * VPN_BITS :][:VPN_BITS])
                | (tag.level > k)
                | (wanted.level > k)
                | (invalidates & (tag.guest_level > k))
                for k in range(LEVELS)
            )
            # Addresses of a guest that does not page are wider; invalidations name no such bits.
            above = tag.page[LEVELS * VPN_BITS :] == wanted.page[LEVELS * VPN_BITS :]
            # The permission is decided beside the match, not behind a multiplexer after it.
            m.submodules[f"permission_{i}"] = permission = LeafPermission()
            m.d.comb += [
                permission.rights.eq(entry.rights),
                permission.access.eq(self.query.access),
                permission.context.eq(context),
                matches[i].eq(
                    valid[i]
                    & ((tag.world == wanted.world) | (invalidates & named.any_world))
                    & ((tag.vpid == wanted.vpid) | (invalidates & named.any_vpid))
                    & ((tag.ept_tag == wanted.ept_tag) | (invalidates & ~named.match_ept))
                    & (((tag.paged == wanted.paged) & above) | invalidates)
                    & in_asid
                    & (parts.all() | (invalidates & ~named.match_page))
                ),
                hits[i].eq(matches[i] & permission.allowed),
            ]
            frame |= entry.frame & hits[i].replicate(44)
            within |= Cat(tag.level > k for k in range(LEVELS - 1)) & hits[i].replicate(LEVELS - 1)
            with m.If(refills & ~invalidates & victim[i]):
                m.d.sync += entry.eq(new)

        # Frames of large pages are aligned, so the page's own bits are added by OR.
        offset = Cat(
            page[k * VPN_BITS :][:VPN_BITS] & within[k].replicate(VPN_BITS)
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
        with m.If((~valid | matches).any()):
            m.d.comb += candidates.eq(~valid | matches)
        m.d.comb += self.i_invalidate.ready.eq(1)
        with m.If(invalidates):
            m.d.comb += touched.eq(0)
            m.d.sync += valid.eq(valid & ~matches)
        with m.Elif(refills):
            m.d.comb += touched.eq(victim)
            m.d.sync += valid.eq((valid & ~matches) | victim)
        with m.If(touched.any()):
            # Bit-PLRU: when all would be marked as used, only the newest stays marked.
            m.d.sync += used.eq(Mux(used_next.all(), touched, used_next))
        return m

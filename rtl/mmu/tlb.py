"""The first-level TLB: fully associative, in flip-flops."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.mmu.context import Invalidation, TranslationQuery
from rtl.mmu.invalidate import InvalidationMatch
from rtl.mmu.permissions import LeafPermission
from rtl.mmu.ports import Refill, TlbEntry
from rtl.mmu.tags import answers, below, overlaps, page_of

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
        Combinational answer; ``frame`` is 0 without a hit.
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
        new = self.refill.entry
        valid, used = Signal(count), Signal(count)
        hits, overlapping, dropped, victim = (Signal(count) for _ in range(4))
        frame = 0

        for i in range(count):
            entry = Signal(TlbEntry, name=f"entry_{i}")
            tag = entry.tag

            # The permission is decided beside the match, not behind a multiplexer after it.
            m.submodules[f"permission_{i}"] = permission = LeafPermission()
            m.d.comb += [
                permission.rights.eq(entry.rights),
                permission.access.eq(self.query.access),
                permission.context.eq(context),
                hits[i].eq(valid[i] & permission.allowed & answers(tag, self.query)),
            ]
            # Frames of large pages are aligned, so the page's own bits are added by OR.
            frame |= (entry.frame | below(page, tag.level)) & hits[i].replicate(44)
            m.d.comb += overlapping[i].eq(overlaps(tag, new.tag))
            m.submodules[f"invalidation_{i}"] = invalidation = InvalidationMatch()
            m.d.comb += [
                invalidation.tag.eq(tag),
                invalidation.invalidation.eq(self.i_invalidate.payload),
                dropped[i].eq(invalidation.match),
            ]
            with m.If(self.refill.valid & ~self.i_invalidate.valid & victim[i]):
                m.d.sync += entry.eq(new)

        m.d.comb += [self.hit.eq(hits.any()), self.frame.eq(frame)]

        free = ~valid | overlapping
        candidates = Signal(count)
        touched, used_next = Signal(count), Signal(count)
        m.d.comb += [
            candidates.eq(Mux(free.any(), free, ~used)),
            victim.eq(candidates & -candidates),
            touched.eq(hits),
            used_next.eq(used | touched),
        ]
        m.d.comb += self.i_invalidate.ready.eq(1)
        with m.If(self.i_invalidate.valid):
            m.d.sync += valid.eq(valid & ~dropped)
        with m.Elif(self.refill.valid):
            m.d.comb += touched.eq(victim)
            m.d.sync += valid.eq((valid & ~overlapping) | victim)
        with m.If(touched.any()):
            # Bit-PLRU: when all would be marked as used, only the newest stays marked.
            m.d.sync += used.eq(Mux(used_next.all(), touched, used_next))
        return m

"""Pure checks of page-table entries: what an entry is, and what a leaf allows.

Source: Privileged Architecture, "Virtual Address Translation Process", steps 3 to 7.
"""

from amaranth import *
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch import paging
from rtl.lib.layouts import struct_of
from rtl.mmu.context import Access, Privilege, TranslationContext

__all__ = ["LeafPermission", "PageRights", "Pte", "PteCheck", "PteKind"]

Pte = struct_of(paging.PTE)


class PteKind(enum.Enum, shape=2):
    """What a walk does with an entry."""

    FAULT = 0
    POINTER = 1
    LEAF = 2


class PageRights(data.Struct):
    """The bits of a leaf that its permission check needs."""

    r: 1
    w: 1
    x: 1
    u: 1
    a: 1
    d: 1


class PteCheck(wiring.Component):
    """Tell a leaf from a pointer from an entry that no access may use.

    Members
    -------
    pte : In(Pte)
        The entry as it stands in memory.
    level : In(range(LEVELS))
        Level of the table that holds it.
    kind : Out(PteKind)
        FAULT for entries that are invalid, reserved, misaligned, or pointers at level 0.
    """

    pte: In(Pte)
    level: In(range(paging.LEVELS))
    kind: Out(PteKind)

    def elaborate(self, platform):
        m = Module()
        pte = self.pte
        reserved = (pte.as_value() & paging.PTE_RESERVED).any() | (pte.w & ~pte.r)
        misaligned = Cat(
            (self.level > k) & pte.ppn[k * paging.VPN_BITS :][: paging.VPN_BITS].any()
            for k in range(paging.LEVELS - 1)
        ).any()
        with m.If(pte.v & ~reserved):
            with m.If(pte.r | pte.x):
                with m.If(~misaligned):
                    m.d.comb += self.kind.eq(PteKind.LEAF)
            # D, A and U are reserved in pointers.
            with m.Elif((self.level != 0) & ~(pte.d | pte.a | pte.u)):
                m.d.comb += self.kind.eq(PteKind.POINTER)
        return m


class LeafPermission(wiring.Component):
    """Decide whether a leaf allows an access. The only place that knows this rule.

    Svade: a leaf whose A is 0 allows nothing, and one whose D is 0 no write. Every privilege but
    USER is held to the rules of S-mode.
    """

    rights: In(PageRights)
    access: In(Access)
    context: In(TranslationContext)
    allowed: Out(1)

    def elaborate(self, platform):
        m = Module()
        rights, context = self.rights, self.context
        fetch = self.access == Access.FETCH
        # SUM opens user pages for data only: S-mode never fetches from them.
        privileged = Mux(
            context.privilege == Privilege.USER, rights.u, ~rights.u | (context.sum & ~fetch)
        )
        granted = (
            ((self.access == Access.READ) & (rights.r | (rights.x & context.mxr)))
            | ((self.access == Access.WRITE) & rights.w & rights.d)
            | (fetch & rights.x)
        )
        m.d.comb += self.allowed.eq(rights.a & privileged & granted)
        return m

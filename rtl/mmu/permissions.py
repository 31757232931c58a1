"""Pure checks of page-table entries: what an entry is, and what a leaf allows.

Source: Privileged Architecture, "Virtual Address Translation Process", steps 3 to 7.
"""

from amaranth import *
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch import paging
from rtl.lib.layouts import struct_of
from rtl.mmu.context import Access, Privilege, TranslationContext

__all__ = ["EptPermission", "LeafPermission", "PageRights", "Pte", "PteCheck", "PteKind"]

Pte = struct_of(paging.PTE)


class PteKind(enum.Enum, shape=2):
    """What an entry is to a walk. Only the second stage tells the first two apart."""

    INVALID = 0
    MALFORMED = 1
    POINTER = 2
    LEAF = 3


class PageRights(data.Struct):
    """The bits of a leaf that its permission check needs.

    ``mxr``: readable while MXR is set. It is r or x, but for translations through two stages.
    """

    mxr: 1
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
        INVALID when V is 0; MALFORMED for entries that are reserved, misaligned, or pointers at
        level 0.
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
        with m.If(pte.v):
            m.d.comb += self.kind.eq(PteKind.MALFORMED)
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

    Every privilege but USER is held to the rules of S-mode; unpaged queries have none.

    Members
    -------
    rights, access, context : In
    granted : Out(1)
        It does, apart from A and D.
    allowed : Out(1)
        It does, as it stands: A is set, and D for a write.
    """

    rights: In(PageRights)
    access: In(Access)
    context: In(TranslationContext)
    granted: Out(1)
    allowed: Out(1)

    def elaborate(self, platform):
        m = Module()
        rights, context = self.rights, self.context
        fetch, write = self.access == Access.FETCH, self.access == Access.WRITE
        # SUM opens user pages for data only: S-mode never fetches from them.
        privileged = ~context.paged | Mux(
            context.privilege == Privilege.USER, rights.u, ~rights.u | (context.sum & ~fetch)
        )
        granted = (
            ((self.access == Access.READ) & (rights.r | (rights.mxr & context.mxr)))
            | (write & rights.w)
            | (fetch & rights.x)
        )
        m.d.comb += [
            self.granted.eq(privileged & granted),
            self.allowed.eq(privileged & granted & rights.a & (~write | rights.d)),
        ]
        return m


class EptPermission(wiring.Component):
    """Decide whether a leaf of an EPT allows an access: each counts as one of U-mode.

    MXR does not reach the second stage.

    Members
    -------
    pte, access : In
    granted, allowed : Out(1)
        As those of ``LeafPermission``.
    """

    pte: In(Pte)
    access: In(Access)
    granted: Out(1)
    allowed: Out(1)

    def elaborate(self, platform):
        m = Module()
        pte, write = self.pte, self.access == Access.WRITE
        m.d.comb += [
            self.granted.eq(
                pte.u
                & (
                    ((self.access == Access.READ) & pte.r)
                    | (write & pte.w)
                    | ((self.access == Access.FETCH) & pte.x)
                )
            ),
            self.allowed.eq(self.granted & pte.a & (~write | pte.d)),
        ]
        return m

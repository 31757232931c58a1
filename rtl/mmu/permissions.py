"""Pure checks of page-table entries: what an entry is, and what a leaf allows. No other place
knows these rules.

Source: Privileged Architecture, "Virtual Address Translation Process", steps 3 to 7.
"""

from amaranth import *
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch import paging
from rtl.lib.layouts import struct_of
from rtl.mmu.context import Access, Privilege, TranslationContext

__all__ = [
    "AccessKinds",
    "AccessNeeds",
    "EptPermission",
    "LeafPermission",
    "PageRights",
    "Permits",
    "Pte",
    "PteCheck",
    "PteKind",
    "allows",
    "set_needs",
    "set_permits",
]

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


class AccessKinds(data.Struct):
    """Ways to access a page; ``read_mxr`` is a read while MXR is set."""

    read: 1
    read_mxr: 1
    write: 1
    fetch: 1


class AccessNeeds(data.Struct):
    """What an access asks of a leaf: one of ``kinds``, and a page with U, or one without."""

    kinds: AccessKinds
    user: 1
    supervisor: 1


class Permits(data.Struct):
    """What a leaf permits as it stands: ``kinds`` of access, to a page with or without U."""

    kinds: AccessKinds
    user: 1


def set_needs(needs, access, context) -> list:
    """Assignments of AccessNeeds.

    Every privilege but USER is held to the rules of S-mode; unpaged queries have none.
    """
    read, fetch = access == Access.READ, access == Access.FETCH
    user = context.privilege == Privilege.USER
    return [
        needs.kinds.read.eq(read),
        needs.kinds.read_mxr.eq(read & context.mxr),
        needs.kinds.write.eq(access == Access.WRITE),
        needs.kinds.fetch.eq(fetch),
        # SUM opens user pages for data only: S-mode never fetches from them.
        needs.user.eq(~context.paged | user | (context.sum & ~fetch)),
        needs.supervisor.eq(~context.paged | ~user),
    ]


def set_permits(permits, rights) -> list:
    """Assignments of Permits: nothing without A, no write without D."""
    return [
        permits.kinds.read.eq(rights.a & rights.r),
        permits.kinds.read_mxr.eq(rights.a & rights.mxr),
        permits.kinds.write.eq(rights.a & rights.d & rights.w),
        permits.kinds.fetch.eq(rights.a & rights.x),
        permits.user.eq(rights.u),
    ]


def allows(permits, needs) -> Value:
    """1 if what a leaf permits is what an access needs."""
    kinds = permits.kinds.as_value() & needs.kinds.as_value()
    return kinds.any() & Mux(permits.user, needs.user, needs.supervisor)


class LeafPermission(wiring.Component):
    """Decide whether a leaf allows an access.

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
        needs, marked = Signal(AccessNeeds), Signal(PageRights)
        m.d.comb += [
            *set_needs(needs, self.access, self.context),
            marked.eq(self.rights),
            marked.a.eq(1),
            marked.d.eq(1),
        ]
        for name, rights in (("granted", marked), ("allowed", self.rights)):
            permits = Signal(Permits, name=f"permits_{name}")
            m.d.comb += [
                *set_permits(permits, rights),
                getattr(self, name).eq(allows(permits, needs)),
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

"""Which cached translations an invalidation names."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.paging import LEVELS, VPN_BITS
from rtl.mmu.context import Invalidation
from rtl.mmu.ports import TlbTag

__all__ = ["InvalidationMatch", "same_page"]


def same_page(page: Value, other: Value, level: Value) -> Value:
    """1 if two page numbers lie in one page of size ``level``."""
    return Cat(
        (page[k * VPN_BITS :][:VPN_BITS] == other[k * VPN_BITS :][:VPN_BITS]) | (level > k)
        for k in range(LEVELS)
    ).all()


class InvalidationMatch(wiring.Component):
    """Decide whether an invalidation drops the translation with this tag.

    World and VPID are always compared; a page is compared at the size of the guest's leaf, so
    that no piece of a page outlives it.
    """

    tag: In(TlbTag)
    invalidation: In(Invalidation)
    match: Out(1)

    def elaborate(self, platform):
        m = Module()
        tag, wanted = self.tag, self.invalidation
        m.d.comb += self.match.eq(
            (tag.world == wanted.world)
            & (tag.vpid == wanted.vpid)
            & (~wanted.match_asid | (~tag.global_ & (tag.asid == wanted.asid)))
            & (~wanted.match_page | same_page(tag.page, wanted.page, tag.guest_level))
        )
        return m

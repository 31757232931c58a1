"""Which cached translations an invalidation names."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.mmu.context import Invalidation
from rtl.mmu.ports import TlbTag
from rtl.mmu.tags import TagQuery, matches, set_named, sizes

__all__ = ["InvalidationMatch", "InvalidationUnion"]


class InvalidationMatch(wiring.Component):
    """Decide whether an invalidation drops the translation with this tag."""

    tag: In(TlbTag)
    invalidation: In(Invalidation)
    match: Out(1)

    def elaborate(self, platform):
        m = Module()
        wanted = Signal(TagQuery)
        m.d.comb += [
            *set_named(wanted, self.invalidation),
            self.match.eq(matches(self.tag, sizes(self.tag.guest_level), wanted)),
        ]
        return m


class InvalidationUnion(wiring.Component):
    """The narrowest invalidation that drops all that either of two drops."""

    first: In(Invalidation)
    second: In(Invalidation)
    union: Out(Invalidation)

    def elaborate(self, platform):
        m = Module()
        a, b, union = self.first, self.second, self.union
        kept = [one.match_asid | one.keep_global for one in (a, b)]
        m.d.comb += [
            union.eq(a),
            union.match_page.eq(a.match_page & b.match_page & (a.page == b.page)),
            union.match_asid.eq(a.match_asid & b.match_asid & (a.asid == b.asid)),
            union.keep_global.eq(kept[0] & kept[1]),
            union.match_ept.eq(a.match_ept & b.match_ept & (a.ept_tag == b.ept_tag)),
            union.any_vpid.eq(a.any_vpid | b.any_vpid | (a.vpid != b.vpid)),
            union.any_world.eq(a.any_world | b.any_world | (a.world != b.world)),
        ]
        return m

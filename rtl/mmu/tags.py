"""Which tags are asked for: by a query, by what is about to be cached, by an invalidation."""

from amaranth import *
from amaranth.lib import data

from rtl.arch.paging import LEVELS, PAGE_BITS, VPN_BITS
from rtl.arch.vmx.ept import EPT_GPA_BITS
from rtl.mmu.context import World
from rtl.mmu.ports import PAGE_NUMBER_BITS, AddressSpace

__all__ = [
    "TagQuery",
    "below",
    "matches",
    "page_of",
    "set_for",
    "set_named",
    "set_overlapping",
    "set_root",
    "set_space",
    "sizes",
]


class TagQuery(data.Struct):
    """Which tags are asked for: those that agree in every field whose ``any_*`` is 0.

    ``any_part`` stands for the parts of the page number, ``any_above`` for what is above Sv39's. Global
    tags agree with any ASID, but with ``spare_global`` they are never asked for.
    """

    space: AddressSpace
    page: PAGE_NUMBER_BITS
    any_world: 1
    any_vpid: 1
    any_ept: 1
    any_asid: 1
    any_paged: 1
    any_part: LEVELS
    any_above: 1
    spare_global: 1


def page_of(gva: Value) -> Value:
    """The page number of an address, as tags hold it."""
    return gva[PAGE_BITS:EPT_GPA_BITS]


def sizes(level: Value) -> Value:
    """Bit k is set if a page of size ``level`` is larger than one of size k."""
    return Cat(level > k for k in range(LEVELS - 1))


def below(page: Value, level: Value) -> Value:
    """The bits of a page number that say where in a page of size ``level`` it is."""
    return Cat(
        page[k * VPN_BITS :][:VPN_BITS] & (level > k).replicate(VPN_BITS) for k in range(LEVELS - 1)
    )


def set_space(space, context) -> list:
    """Assignments of AddressSpace: that of a TranslationContext."""
    return [space[name].eq(context[name]) for name, _ in AddressSpace.as_shape()]


def set_root(space) -> list:
    """Assignments of AddressSpace, or of what has its fields: where there are no guests, the only
    one. In a constant nothing has to be kept or compared.
    """
    return [space.world.eq(World.ROOT), space.vpid.eq(0), space.ept_tag.eq(0)]


def set_for(wanted, query) -> list:
    """Assignments of TagQuery: what answers a TranslationQuery, whatever the permissions."""
    return [*set_space(wanted.space, query.context), wanted.page.eq(page_of(query.gva))]


def set_overlapping(wanted, tag) -> list:
    """Assignments of TagQuery: what could answer a query that this tag answers."""
    return [
        wanted.space.eq(tag.space),
        wanted.page.eq(tag.page),
        wanted.any_asid.eq(tag.global_),
        wanted.any_part.eq(sizes(tag.level)),
    ]


def set_named(wanted, invalidation) -> list:
    """Assignments of TagQuery: what an invalidation drops.

    A page is to be compared at the size of the guest's leaf, so that no piece of it outlives it.
    """
    return [
        wanted.space.world.eq(invalidation.world),
        wanted.space.vpid.eq(invalidation.vpid),
        wanted.space.ept_tag.eq(invalidation.ept_tag),
        wanted.space.asid.eq(invalidation.asid),
        wanted.page.eq(invalidation.page),
        wanted.any_world.eq(invalidation.any_world),
        wanted.any_vpid.eq(invalidation.any_vpid),
        wanted.any_ept.eq(~invalidation.match_ept),
        wanted.any_asid.eq(~invalidation.match_asid),
        wanted.any_paged.eq(1),
        wanted.any_part.eq((~invalidation.match_page).replicate(LEVELS)),
        wanted.any_above.eq(1),
        wanted.spare_global.eq(invalidation.match_asid | invalidation.keep_global),
    ]


def matches(tag, whole, wanted) -> Value:
    """1 if a TlbTag, of which ``whole`` are the ``sizes`` that count, is asked for."""
    # The fields are compared at once, and looked at apart.
    space = AddressSpace(tag.space.as_value() ^ wanted.space.as_value())
    page = tag.page ^ wanted.page
    differs = (
        (space.world.as_value().any() & ~wanted.any_world)
        | (space.vpid.any() & ~wanted.any_vpid)
        | (space.ept_tag.any() & ~wanted.any_ept)
        | (space.asid.any() & ~(tag.global_ | wanted.any_asid))
        | (space.paged & ~wanted.any_paged)
        | (tag.global_ & wanted.spare_global)
        | (page[LEVELS * VPN_BITS :].any() & ~wanted.any_above)
    )
    for k in range(LEVELS):
        ignored = wanted.any_part[k] | (whole[k] if k < LEVELS - 1 else 0)
        differs |= page[k * VPN_BITS :][:VPN_BITS].any() & ~ignored
    return ~differs

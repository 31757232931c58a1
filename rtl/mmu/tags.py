"""Which queries a tag answers, and whether two tags could answer one query."""

from amaranth import *

from rtl.arch.paging import LEVELS, PAGE_BITS, VPN_BITS
from rtl.arch.vmx.ept import EPT_GPA_BITS

__all__ = ["answers", "below", "overlaps", "page_of", "same_page"]


def page_of(gva: Value) -> Value:
    """The page number of an address, as tags hold it."""
    return gva[PAGE_BITS:EPT_GPA_BITS]


def same_page(page: Value, other: Value, level: Value) -> Value:
    """1 if two page numbers of equal width lie in one page of size ``level``."""
    parts = [slice(k * VPN_BITS, (k + 1) * VPN_BITS) for k in range(LEVELS - 1)]
    parts.append(slice((LEVELS - 1) * VPN_BITS, len(page)))
    return Cat((page[part] == other[part]) | (level > k) for k, part in enumerate(parts)).all()


def below(page: Value, level: Value) -> Value:
    """The bits of a page number that say where in a page of size ``level`` it is."""
    return Cat(
        page[k * VPN_BITS :][:VPN_BITS] & (level > k).replicate(VPN_BITS) for k in range(LEVELS - 1)
    )


def answers(tag, query) -> Value:
    """1 if what has this tag is a translation of the query, whatever the permissions."""
    context = query.context
    return (
        (tag.world == context.world)
        & (tag.vpid == context.vpid)
        & (tag.ept_tag == context.ept_tag)
        & (tag.global_ | (tag.asid == context.asid))
        & (tag.paged == context.paged)
        & same_page(tag.page, page_of(query.gva), tag.level)
    )


def overlaps(tag, other) -> Value:
    """1 if some query could be answered by both."""
    return (
        (tag.world == other.world)
        & (tag.vpid == other.vpid)
        & (tag.ept_tag == other.ept_tag)
        & (tag.global_ | other.global_ | (tag.asid == other.asid))
        & (tag.paged == other.paged)
        & same_page(tag.page, other.page, Mux(tag.level > other.level, tag.level, other.level))
    )

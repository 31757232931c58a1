"""What travels with every translation: who asks, for what, and what came of it."""

from amaranth.lib import data, enum

from rtl.arch import paging, traps
from rtl.lib.layouts import enum_of

__all__ = [
    "Access",
    "Fault",
    "Invalidation",
    "Privilege",
    "Translation",
    "TranslationContext",
    "TranslationQuery",
    "World",
]

Access = enum_of(paging.Access, width=2)
World = enum_of(traps.World, width=1)


class Privilege(enum.Enum, shape=2):
    """Effective privilege of an access; 2 never occurs."""

    USER = 0
    SUPERVISOR = 1
    RESERVED = 2
    MACHINE = 3


class Fault(enum.Enum, shape=2):
    """How a translation failed; the access says which of the three exceptions follows."""

    NONE = 0
    PAGE = 1
    ACCESS = 2


class TranslationContext(data.Struct):
    """Everything a translation depends on besides the address. No unit reads it from elsewhere.

    ``paged`` = 0 means that gva is the address itself (M-mode, or satp Bare); ``root`` is the
    frame of the root table.
    """

    hart: 4
    world: World
    vpid: 16
    ept_tag: 2
    asid: 16
    privilege: Privilege
    sum: 1
    mxr: 1
    paged: 1
    root: 44


class TranslationQuery(data.Struct):
    """One address to translate. ``gva`` is the whole 64-bit virtual address."""

    gva: 64
    access: Access
    context: TranslationContext


class Translation(data.Struct):
    """Answer of a query: the frame (hpa bits 55:12), or the fault."""

    frame: 44
    fault: Fault


class Invalidation(data.Struct):
    """Which translations to drop: those that match every ``match_*`` criterion that is set.

    Global entries survive ``match_asid``. Page matches are made at the guest leaf's size.
    """

    match_page: 1
    match_asid: 1
    page: 27
    asid: 16
    world: World
    vpid: 16

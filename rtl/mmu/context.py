"""What travels with every translation: who asks, for what, and what came of it."""

from amaranth import Cat
from amaranth.lib import data, enum

from rtl.arch import paging, traps
from rtl.arch.memory_map import BUS_ADDRESS_BITS
from rtl.arch.vmx.ept import EPT_TAG_BITS
from rtl.lib.layouts import enum_of

__all__ = [
    "FRAME_BITS",
    "Access",
    "EptFault",
    "Fault",
    "Invalidation",
    "Privilege",
    "Translation",
    "TranslationContext",
    "TranslationQuery",
    "World",
    "frame_of",
]

#: Bits of a frame as translations give it: that of a bus address, and above it one that stands
#: for all addresses beyond the bus, where nobody is.
FRAME_BITS = BUS_ADDRESS_BITS - paging.PAGE_BITS + 1

Access = enum_of(paging.Access, width=2)
World = enum_of(traps.World, width=1)


class Privilege(enum.Enum, shape=2):
    """Effective privilege of an access; 2 never occurs."""

    USER = 0
    SUPERVISOR = 1
    RESERVED = 2
    MACHINE = 3


class Fault(enum.Enum, shape=3):
    """How a translation failed; the access says which of the three exceptions follows.

    The last two never occur without an EPT: ``EptFault`` says more about them.
    """

    NONE = 0
    PAGE = 1
    ACCESS = 2
    EPT_VIOLATION = 3
    EPT_MISCONFIGURATION = 4


class EptFault(data.Struct):
    """Where the second stage refused.

    ``page_table``: what was refused is an access to a page table of the guest, and ``gpa`` is
    that of its entry. ``readable``, ``writable`` and ``executable`` are those of the EPT's leaf,
    0 without one. ``level`` is that of the EPT's entry at which the walk ended.
    """

    gpa: 64
    access: Access
    page_table: 1
    readable: 1
    writable: 1
    executable: 1
    level: range(paging.LEVELS)


class TranslationContext(data.Struct):
    """Everything a translation depends on besides the address. No unit reads it from elsewhere.

    ``paged`` = 0 means that gva is the address itself (M-mode, or satp Bare); ``root`` is the
    frame of the root table. ``adue``: the walk sets A and D, else they are a page fault when they
    would have to be set. With ``ept`` the addresses found so far are gpas, and the table at the
    frame ``ept_root`` (its two low bits count as 0) translates them; ``ept_ad`` is its ``adue``.
    """

    hart: 4
    world: World
    vpid: 16
    ept_tag: EPT_TAG_BITS
    asid: 16
    privilege: Privilege
    sum: 1
    mxr: 1
    paged: 1
    adue: 1
    root: 44
    ept: 1
    ept_ad: 1
    ept_root: 44


class TranslationQuery(data.Struct):
    """One address to translate. ``gva`` is the whole 64-bit virtual address."""

    gva: 64
    access: Access
    context: TranslationContext


class Translation(data.Struct):
    """Answer of a query: the frame, see ``frame_of``, or the fault."""

    frame: FRAME_BITS
    fault: Fault


class Invalidation(data.Struct):
    """Which translations to drop: those of the world and VPID that match every ``match_*``
    criterion that is set.

    Global entries survive ``match_asid`` and ``keep_global``. Page matches are made at the guest
    leaf's size. ``any_world`` and ``any_vpid`` widen the choice: INVEPT is ``any_vpid`` with
    ``match_ept``. What is cached of the EPT alone has no VPID, page or ASID: only ``any_vpid``
    drops it.
    """

    match_page: 1
    match_asid: 1
    page: 27
    asid: 16
    world: World
    vpid: 16
    any_world: 1
    any_vpid: 1
    keep_global: 1
    match_ept: 1
    ept_tag: EPT_TAG_BITS


def frame_of(number):
    """A frame number (hpa bits 55:12) as translations give it."""
    return Cat(number[: FRAME_BITS - 1], number[FRAME_BITS - 1 :].any())

"""Sv39 and EPT: satp, page-table entries and addresses (Privileged Architecture, chapter 12).

An extended page table has the format of the G-stage, Sv39x4: its root is four pages long and
indexed by two bits more.
"""

from enum import IntEnum

from rtl.arch.layout import Field, Layout

__all__ = [
    "LEVELS",
    "PAGE_BITS",
    "PTE",
    "PTE_RESERVED",
    "SATP",
    "VIRTUAL_BITS",
    "VPN_BITS",
    "Access",
    "SatpMode",
]

#: A page is 4 KiB.
PAGE_BITS = 12
#: Bits of one virtual page number, the index into one table.
VPN_BITS = 9
#: Levels of tables; a leaf at level 0 maps 4 KiB, at level 1 2 MiB, at level 2 1 GiB.
LEVELS = 3
#: A virtual address is the sign extension of this many bits.
VIRTUAL_BITS = PAGE_BITS + LEVELS * VPN_BITS


class SatpMode(IntEnum):
    """satp.MODE; writes of any other value leave satp unchanged."""

    BARE = 0
    SV39 = 8


class Access(IntEnum):
    """What an access does with the memory it touches."""

    READ = 0
    WRITE = 1
    FETCH = 2


# fmt: off
SATP = Layout("satp", 64, (
    Field("ppn", 0, 44, "Frame of the root table."),
    Field("asid", 44, 16, "Address-space identifier."),
    Field("mode", 60, 4, "Translation mode: 0 Bare, 8 Sv39."),
))

PTE = Layout("pte", 64, (
    Field("v", 0, 1, "The entry is valid."),
    Field("r", 1, 1, "Reads are allowed."),
    Field("w", 2, 1, "Writes are allowed."),
    Field("x", 3, 1, "Fetches are allowed."),
    Field("u", 4, 1, "U-mode may use it; EPT leaves need it."),
    Field("g", 5, 1, "The mapping exists in every address space."),
    Field("a", 6, 1, "Accessed."),
    Field("d", 7, 1, "Dirty."),
    Field("rsw", 8, 2, "Left to software."),
    Field("ppn", 10, 44, "Frame of the page or of the next table."),
))
# fmt: on
#: Bits 63:54 are reserved (no Svnapot, no Svpbmt): an entry with one of them set faults.
PTE_RESERVED = ((1 << 64) - 1) & ~PTE.mask()

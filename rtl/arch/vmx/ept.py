"""Extended page tables: the format of RISC-V's G-stage, Sv39x4 (Privileged Architecture, "Two-Stage
Address Translation"). Entries have the layout of ``rtl.arch.paging.PTE``.
"""

from enum import IntEnum

from rtl.arch.layout import Field, Layout
from rtl.arch.paging import LEVELS, PAGE_BITS, VPN_BITS

__all__ = ["EPTP", "EPT_GPA_BITS", "EPT_ROOT_BITS", "EPT_TAGS", "EPT_TAG_BITS", "EptMode"]

#: The index into the root table is two bits wider than into the others.
_ROOT_EXTRA = 2
#: Bits of a guest-physical address; the bits above are zero or the access is a violation.
EPT_GPA_BITS = PAGE_BITS + LEVELS * VPN_BITS + _ROOT_EXTRA
#: The root table is this many bytes' logarithm, and aligned to that: 16 KiB.
EPT_ROOT_BITS = PAGE_BITS + _ROOT_EXTRA
#: Translations name the EPT they came from by a tag of this many bits.
EPT_TAG_BITS = 2
#: EPTs whose translations the hart can hold at a time.
EPT_TAGS = 1 << EPT_TAG_BITS


class EptMode(IntEnum):
    """EPTP.mode; every other value fails an entry check."""

    SV39X4 = 8


# fmt: off
EPTP = Layout("eptp", 64, (
    Field("ppn", 0, 44, "Frame of the root table, a multiple of 4."),
    Field("ad", 59, 1, "The hart sets A and D in EPT leaves; otherwise a leaf that lacks one is a "
                       "violation."),
    Field("mode", 60, 4, "Format of the tables (EptMode)."),
))
# fmt: on

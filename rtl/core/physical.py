"""What a frame number (hpa bits 55:12) says about the memory behind it."""

from rtl.arch.memory_map import BUS_ADDRESS_BITS, MEMORY_MAP
from rtl.arch.paging import PAGE_BITS

__all__ = ["fits_bus", "is_ram"]

_RAM = MEMORY_MAP["ram"]
if _RAM.base % _RAM.size:
    raise AssertionError("RAM must be aligned to its size, for a short address decode")


def fits_bus(frame):
    """The address exists on the bus at all; others are access faults."""
    return ~frame[BUS_ADDRESS_BITS - PAGE_BITS :].any()


def is_ram(frame):
    """The frame lies in RAM: cached, and free to be accessed on speculation. Needs fits_bus."""
    size_bits = _RAM.size.bit_length() - 1 - PAGE_BITS
    return frame[size_bits : BUS_ADDRESS_BITS - PAGE_BITS] == _RAM.base // _RAM.size

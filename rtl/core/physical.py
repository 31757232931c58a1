"""What a frame number (hpa bits 55:12) says about the memory behind it."""

from rtl.arch.memory_map import BUS_ADDRESS_BITS, MEMORY_MAP
from rtl.arch.paging import PAGE_BITS

__all__ = ["fits_bus", "is_ram", "is_rom"]

_RAM, _ROM = MEMORY_MAP["ram"], MEMORY_MAP["rom"]
if _RAM.base % _RAM.size:
    raise AssertionError("RAM must be aligned to its size, for a short address decode")
if {region for region in MEMORY_MAP.values() if region.executable} != {_RAM, _ROM}:
    raise AssertionError("code is fetched from RAM and ROM, and from nowhere else")


def fits_bus(frame):
    """The address exists on the bus at all; others are access faults."""
    return ~frame[BUS_ADDRESS_BITS - PAGE_BITS :].any()


def is_ram(frame):
    """The frame lies in RAM: cached, and free to be accessed on speculation. Needs fits_bus."""
    size_bits = _RAM.size.bit_length() - 1 - PAGE_BITS
    return frame[size_bits : BUS_ADDRESS_BITS - PAGE_BITS] == _RAM.base // _RAM.size


def is_rom(frame):
    """The frame lies in ROM: besides RAM the only place code is fetched from. Needs fits_bus."""
    frame = frame[: BUS_ADDRESS_BITS - PAGE_BITS]
    return (frame >= _ROM.base >> PAGE_BITS) & (frame < _ROM.end >> PAGE_BITS)

"""Which bytes of a device hold registers, and what an access touches; facts from the bindings."""

from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import NamedTuple

from sw_vmm.errors import BusError

__all__ = ["Part", "Place", "RegisterFile", "mask_of", "place_of"]


class Place(NamedTuple):
    """Where a register is; one that stands ``alone`` is not accessed together with others."""

    offset: int
    size: int
    alone: bool = False


class Part(NamedTuple):
    """The bytes of one register that an access touches; ``shift`` is their place in the data."""

    register: int
    byte: int
    size: int
    shift: int

    def read(self, value: int) -> int:
        """The register's value as this part of what is read."""
        return (value >> 8 * self.byte & (1 << 8 * self.size) - 1) << self.shift

    def write(self, value: int, data: int) -> int:
        """The register's value after this part of ``data`` was written."""
        mask = (1 << 8 * self.size) - 1 << 8 * self.byte
        return value & ~mask | data >> self.shift << 8 * self.byte & mask


def place_of(bindings: ModuleType, register, *, alone: bool = False) -> Place:
    """Where a register of the generated bindings is."""
    return Place(bindings.address_of(register), register._width // 8, alone)


def mask_of(register, *names: str) -> int:
    """The bits of the named fields of a register of the bindings; of all when none is named."""
    fields = register._fields
    return sum((1 << fields[name].width) - 1 << fields[name].lsb for name in names or fields)


class RegisterFile:
    """The registers of one device."""

    def __init__(self, places: Iterable[Place]):
        self._bytes = {place.offset + byte: place for place in places for byte in range(place.size)}
        self._known: dict[tuple[int, int], tuple[Part, ...]] = {}

    def parts(self, offset: int, size: int) -> tuple[Part, ...]:
        """What an access touches. Raises BusError when one of its bytes holds nothing."""
        parts = self._known.get((offset, size))
        if parts is None:
            parts = self._known[offset, size] = tuple(self._find(offset, size))
        return parts

    def _find(self, offset: int, size: int) -> Iterator[Part]:
        touched: dict[Place, int] = {}
        for at in range(offset, offset + size):
            place = self._bytes.get(at)
            if place is None:
                raise BusError(f"bus error: no register at offset {at:#x}")
            touched[place] = touched.get(place, 0) + 1
        if len(touched) > 1 and any(place.alone for place in touched):
            raise BusError(f"bus error: the register at offset {offset:#x} stands alone")
        for place, count in touched.items():
            first = max(offset, place.offset)
            yield Part(place.offset, first - place.offset, count, 8 * (first - offset))

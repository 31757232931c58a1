"""Guest memory as the VMM sees it: the machine's RAM, or a copy of its own."""

import sys
from collections.abc import Callable, Iterable
from typing import Protocol

from rtl.arch.paging import PAGE_BITS
from sw_vmm.machine import Machine

__all__ = ["GuestMemory", "LocalMemory", "MachineMemory", "MappedMemory"]

_PAGE = 1 << PAGE_BITS


class GuestMemory(Protocol):
    """Bytes of guest RAM by guest-physical address; the caller has checked the range."""

    base: int
    end: int

    def read(self, gpa: int, size: int) -> int: ...
    def write(self, gpa: int, size: int, value: int) -> None: ...
    def read_bytes(self, gpa: int, length: int) -> bytes: ...
    def write_bytes(self, gpa: int, data: bytes) -> None: ...


class MachineMemory:
    """Guest RAM in the machine's RAM, ``offset`` bytes behind its gpa; the hart must be parked."""

    def __init__(self, machine: Machine, base: int, size: int, offset: int = 0):
        self._machine = machine
        self._offset = offset
        self.base = base
        self.end = base + size

    def read(self, gpa: int, size: int) -> int:
        return int.from_bytes(self._machine.read_memory(gpa + self._offset, size), "little")

    def write(self, gpa: int, size: int, value: int) -> None:
        self._machine.write_memory(gpa + self._offset, value.to_bytes(size, "little"))

    def read_bytes(self, gpa: int, length: int) -> bytes:
        return self._machine.read_memory(gpa + self._offset, length)

    def write_bytes(self, gpa: int, data: bytes) -> None:
        self._machine.write_memory(gpa + self._offset, data)


class MappedMemory:
    """Guest RAM in the machine's RAM, page by page where ``hpa_of`` says; the hart must be parked."""

    def __init__(self, machine: Machine, base: int, size: int, hpa_of: Callable[[int], int]):
        self._machine = machine
        self._hpa_of = hpa_of
        self.base = base
        self.end = base + size

    def _pieces(self, gpa: int, length: int) -> Iterable[tuple[int, int]]:
        while length > 0:
            piece = min(length, _PAGE - gpa % _PAGE)
            yield self._hpa_of(gpa), piece
            gpa, length = gpa + piece, length - piece

    def read(self, gpa: int, size: int) -> int:
        return int.from_bytes(self.read_bytes(gpa, size), "little")

    def write(self, gpa: int, size: int, value: int) -> None:
        self.write_bytes(gpa, value.to_bytes(size, "little"))

    def read_bytes(self, gpa: int, length: int) -> bytes:
        read = self._machine.read_memory
        return b"".join(read(hpa, piece) for hpa, piece in self._pieces(gpa, length))

    def write_bytes(self, gpa: int, data: bytes) -> None:
        done = 0
        for hpa, piece in self._pieces(gpa, len(data)):
            self._machine.write_memory(hpa, data[done : done + piece])
            done += piece


class LocalMemory:
    """A copy in this process, with views by width for accesses that are naturally aligned."""

    def __init__(self, base: int, size: int, images: Iterable[tuple[int, bytes]] = ()):
        if sys.byteorder != "little":
            raise RuntimeError("the interpreter needs a little-endian host")
        self.base = base
        self.end = base + size
        self._bytes = bytearray(size)
        view = memoryview(self._bytes)
        self._views = {
            (8 << index, signed): view.cast(code)
            for signed, codes in ((False, "BHIQ"), (True, "bhiq"))
            for index, code in enumerate(codes)
        }
        for gpa, data in images:
            self._bytes[gpa - base : gpa - base + len(data)] = data

    def view(self, size: int, signed: bool) -> memoryview:
        """Elements of ``size`` bytes from ``base`` upwards."""
        return self._views[8 * size, signed]

    def read(self, gpa: int, size: int) -> int:
        offset = gpa - self.base
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def write(self, gpa: int, size: int, value: int) -> None:
        offset = gpa - self.base
        self._bytes[offset : offset + size] = value.to_bytes(size, "little")

    def read_bytes(self, gpa: int, length: int) -> bytes:
        return bytes(self._bytes[gpa - self.base : gpa - self.base + length])

    def write_bytes(self, gpa: int, data: bytes) -> None:
        self._bytes[gpa - self.base : gpa - self.base + len(data)] = data

"""Split virtqueues in guest memory, read and written with nothing the driver says believed.

Virtual I/O Device specification 1.2, section 2.7. Whatever a driver gets wrong raises BadQueue; no
byte outside guest RAM is ever touched.
"""

import struct
from dataclasses import dataclass, field
from enum import IntFlag

from sw_vmm.memory import GuestMemory

__all__ = ["LONGEST_CHAIN", "QUEUE_SIZE", "BadQueue", "Chain", "VirtQueue"]

#: The largest queue a driver may ask for, and the most bytes a chain may hold.
QUEUE_SIZE = 128
LONGEST_CHAIN = 4 << 20

_DESCRIPTOR = struct.Struct("<QIHH")
_ELEMENT = struct.Struct("<II")
_HEADER = 4  # flags and idx, before the ring
_IDX = 2


class _Flag(IntFlag):
    NEXT = 1
    WRITE = 2
    INDIRECT = 4


class _AvailableFlag(IntFlag):
    NO_INTERRUPT = 1


class BadQueue(Exception):
    """The driver broke the rules; the device needs a reset. The message says how."""


@dataclass
class Chain:
    """A chain of buffers: ``readable`` and ``writable`` are (gpa, length), in order."""

    head: int
    readable: list[tuple[int, int]] = field(default_factory=list)
    writable: list[tuple[int, int]] = field(default_factory=list)

    @property
    def length(self) -> int:
        return sum(length for _, length in [*self.readable, *self.writable])


@dataclass
class VirtQueue:
    """One queue as the driver has set it up; ``taken`` counts the chains taken, modulo 2^16."""

    size: int = 0
    ready: bool = False
    descriptors: int = 0
    available: int = 0
    used: int = 0
    taken: int = 0
    given: int = 0

    def check(self, memory: GuestMemory) -> None:
        """Raises BadQueue when it cannot be used as it is set up."""
        size = self.size
        if not 0 < size <= QUEUE_SIZE or size & size - 1:
            raise BadQueue(f"a queue of {size} descriptors")
        for what, gpa, length, alignment in (
            ("descriptor table", self.descriptors, _DESCRIPTOR.size * size, 16),
            ("available ring", self.available, _HEADER + 2 * size, 2),
            ("used ring", self.used, _HEADER + _ELEMENT.size * size, 4),
        ):
            if gpa % alignment or not _inside(memory, gpa, length):
                raise BadQueue(f"a {what} at {gpa:#x}")

    def take(self, memory: GuestMemory) -> Chain | None:
        """The next available chain, or None. Raises BadQueue."""
        if not self.ready or not self._available(memory):
            return None
        entry = self.available + _HEADER + 2 * (self.taken % self.size)
        chain = self._chain(memory, memory.read(entry, 2))
        self.taken = self.taken + 1 & 0xFFFF
        return chain

    def give(self, memory: GuestMemory, chain: Chain, written: int) -> bool:
        """Return a chain of which ``written`` bytes were written; whether to interrupt."""
        element = _ELEMENT.pack(chain.head, written)
        memory.write_bytes(self.used + _HEADER + _ELEMENT.size * (self.given % self.size), element)
        self.given = self.given + 1 & 0xFFFF
        memory.write(self.used + _IDX, 2, self.given)
        return not memory.read(self.available, 2) & _AvailableFlag.NO_INTERRUPT

    def _available(self, memory: GuestMemory) -> int:
        count = memory.read(self.available + _IDX, 2) - self.taken & 0xFFFF
        if count > self.size:
            raise BadQueue(f"{count} chains available in a queue of {self.size}")
        return count

    def _chain(self, memory: GuestMemory, head: int) -> Chain:
        chain = Chain(head)
        index, total = head, 0
        for _ in range(self.size):
            if index >= self.size:
                raise BadQueue(f"descriptor {index} of {self.size}")
            row = memory.read_bytes(self.descriptors + _DESCRIPTOR.size * index, _DESCRIPTOR.size)
            gpa, length, flags, index = _DESCRIPTOR.unpack(row)
            total += length
            if flags & _Flag.INDIRECT:
                raise BadQueue("an indirect descriptor, which was not agreed on")
            if not length or not _inside(memory, gpa, length):
                raise BadQueue(f"a buffer of {length} bytes at {gpa:#x}")
            if total > LONGEST_CHAIN:
                raise BadQueue(f"a chain of more than {LONGEST_CHAIN} bytes")
            if flags & _Flag.WRITE:
                chain.writable.append((gpa, length))
            elif chain.writable:
                raise BadQueue("a buffer to read behind one to write")
            else:
                chain.readable.append((gpa, length))
            if not flags & _Flag.NEXT:
                return chain
        raise BadQueue("a chain without an end")


def _inside(memory: GuestMemory, gpa: int, length: int) -> bool:
    return memory.base <= gpa and gpa + length <= memory.end

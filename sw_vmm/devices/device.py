"""What every emulated device offers its bus."""

from typing import Protocol

__all__ = ["Device", "in_place", "merge"]


class Device(Protocol):
    """Registers in one region; accesses are naturally aligned and 1, 2, 4 or 8 bytes wide.

    ``now`` is the machine cycle of the access and never goes back. Raises BusError where nobody
    answers.
    """

    def read(self, offset: int, size: int, now: int) -> int: ...
    def write(self, offset: int, size: int, data: int, now: int) -> None: ...


def in_place(value: int, offset: int, size: int) -> int:
    """The ``size`` bytes at ``offset`` of a register, read little-endian."""
    return value >> 8 * offset & (1 << 8 * size) - 1


def merge(value: int, offset: int, size: int, data: int) -> int:
    """The register with the ``size`` bytes at ``offset`` replaced."""
    mask = (1 << 8 * size) - 1 << 8 * offset
    return value & ~mask | data << 8 * offset & mask

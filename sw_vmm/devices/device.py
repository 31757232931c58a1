"""What every emulated device offers its bus."""

from typing import Protocol

__all__ = ["Device"]


class Device(Protocol):
    """Registers in one region; accesses are naturally aligned and 1, 2, 4 or 8 bytes wide.

    ``now`` is the machine cycle of the access and never goes back. Raises BusError where nobody
    answers, as the hardware's device does.
    """

    def read(self, offset: int, size: int, now: int) -> int: ...
    def write(self, offset: int, size: int, data: int, now: int) -> None: ...

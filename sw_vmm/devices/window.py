"""The device window without a device in it."""

__all__ = ["EmptyWindow"]


class EmptyWindow:
    """Slots without a device: every register reads zero, which virtio defines as "no device"."""

    def read(self, offset: int, size: int, now: int) -> int:
        return 0

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        pass

    @property
    def interrupts(self) -> int:
        """Interrupt lines of the slots; bit n is slot n."""
        return 0

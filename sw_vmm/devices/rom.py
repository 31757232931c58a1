"""The boot ROM."""

from sw_vmm.errors import BadImage, BusError

__all__ = ["Rom"]


class Rom:
    """Read-only memory of ``size`` bytes that begins with ``image``; writes are bus errors.

    Raises BadImage when the image is larger.
    """

    def __init__(self, image: bytes, *, base: int, size: int):
        if len(image) > size:
            raise BadImage(f"the boot ROM's image has {len(image)} bytes, and {size} fit")
        self._base = base
        self.content = bytes(image).ljust(size, b"\0")

    def read(self, offset: int, size: int, now: int) -> int:
        return int.from_bytes(self.content[offset : offset + size], "little")

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        raise BusError(f"the boot ROM cannot be written (at {self._base + offset:#x})")

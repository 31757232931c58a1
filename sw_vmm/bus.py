"""Who answers at a guest-physical address."""

from rtl.arch.memory_map import Region
from rtl.arch.paging import PAGE_BITS
from sw_vmm.devices.device import Device
from sw_vmm.errors import BusError

__all__ = ["Bus"]


class Bus:
    """Devices by guest-physical address; at most one device in a page.

    Accesses that nobody answers, and accesses that are not naturally aligned, raise BusError.
    """

    def __init__(self):
        self._pages: dict[int, tuple[int, int, Device]] = {}

    def attach(self, region: Region, device: Device) -> None:
        """Let ``device`` answer in ``region``. Raises ValueError when a page is taken."""
        pages = range(region.base >> PAGE_BITS, (region.end - 1 >> PAGE_BITS) + 1)
        if any(page in self._pages for page in pages):
            raise ValueError(f"{region.name} overlaps another device")
        for page in pages:
            self._pages[page] = (region.base, region.end, device)

    def device_at(self, gpa: int) -> Device | None:
        base, end, device = self._pages.get(gpa >> PAGE_BITS, (0, 0, None))
        return device if base <= gpa < end else None

    def read(self, gpa: int, size: int, now: int) -> int:
        device, offset = self._find(gpa, size)
        return device.read(offset, size, now)

    def write(self, gpa: int, size: int, data: int, now: int) -> None:
        device, offset = self._find(gpa, size)
        device.write(offset, size, data, now)

    def _find(self, gpa: int, size: int) -> tuple[Device, int]:
        base, end, device = self._pages.get(gpa >> PAGE_BITS, (0, 0, None))
        if device is None or not base <= gpa <= end - size or gpa & size - 1:
            raise BusError(f"bus error: nobody answers {size} bytes at {gpa:#x}")
        return device, gpa - base

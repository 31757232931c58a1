"""The platform's physical address space (hpa): who answers where, and with which attributes."""

from dataclasses import dataclass

__all__ = [
    "BUS_ADDRESS_BITS",
    "DEVICE_WINDOW_SLOTS",
    "DEVICE_WINDOW_SLOT_SIZE",
    "MEMORY_MAP",
    "PHYSICAL_BITS",
    "UART_INTERRUPT",
    "WINDOW_INTERRUPTS",
    "Region",
    "region_of",
]

#: Width of a physical address in the architecture (44-bit frames).
PHYSICAL_BITS = 56
#: Width of the addresses that leave the hart: everything that exists lies below 4 GiB, and an
#: access above that is an access fault.
BUS_ADDRESS_BITS = 32
#: virtio-mmio slots of the device window, each one page.
DEVICE_WINDOW_SLOTS = 8
DEVICE_WINDOW_SLOT_SIZE = 0x1000
#: PLIC source of the UART, and of the device window's slots.
UART_INTERRUPT = 10
WINDOW_INTERRUPTS = tuple(range(1, 1 + DEVICE_WINDOW_SLOTS))


@dataclass(frozen=True)
class Region:
    """``size`` bytes from ``base``; ``cached`` memory alone is fetched and walked speculatively."""

    name: str
    base: int
    size: int
    text: str
    cached: bool = False
    executable: bool = False

    @property
    def end(self) -> int:
        """The first address behind the region."""
        return self.base + self.size

    def __contains__(self, address: int) -> bool:
        return self.base <= address < self.end


# fmt: off
MEMORY_MAP = {region.name: region for region in (
    Region("rom", 0x0000_1000, 0x0000_8000, "Reset code and device tree.", executable=True),
    Region("finisher", 0x0010_0000, 0x1000, "Test finisher (sifive,test)."),
    Region("clint", 0x0200_0000, 0x0001_0000, "Core-local interruptor."),
    Region("plic", 0x0C00_0000, 0x0060_0000, "Platform-level interrupt controller."),
    Region("uart", 0x1000_0000, 0x0000_0100, "UART 16550."),
    Region("window", 0x1000_1000, DEVICE_WINDOW_SLOTS * DEVICE_WINDOW_SLOT_SIZE,
           "virtio-mmio slots, answered outside the SoC."),
    Region("ram", 0x8000_0000, 0x8000_0000, "RAM; what is not fitted answers with a bus error.",
           cached=True, executable=True),
)}
# fmt: on


def region_of(address: int) -> Region | None:
    """The region that answers at ``address`` (hpa), or None."""
    for region in MEMORY_MAP.values():
        if address in region:
            return region
    return None

"""The device window: slots for virtio-mmio devices, answered by the VMM under every technique."""

from collections.abc import Sequence

from rtl.arch.memory_map import DEVICE_WINDOW_SLOT_SIZE, DEVICE_WINDOW_SLOTS
from sw_vmm.devices.virtio_console import VirtioConsole
from sw_vmm.devices.virtio_mmio import VirtioMmio
from sw_vmm.memory import GuestMemory

__all__ = ["DeviceWindow"]


class DeviceWindow:
    """Devices by slot. A slot without one reads zero, which virtio defines as "no device".

    Register accesses never touch guest memory; ``advance`` does, and needs a parked hart.

    Raises ValueError when there are more devices than slots.
    """

    def __init__(self, devices: Sequence[VirtioMmio] = ()):
        if len(devices) > DEVICE_WINDOW_SLOTS:
            raise ValueError(f"{len(devices)} devices for {DEVICE_WINDOW_SLOTS} slots")
        self._devices = tuple(devices)
        self._memory: GuestMemory | None = None

    def connect(self, memory: GuestMemory) -> None:
        """Guest RAM as the technique keeps it."""
        self._memory = memory

    def read(self, offset: int, size: int, now: int) -> int:
        slot, register = divmod(offset, DEVICE_WINDOW_SLOT_SIZE)
        return self._devices[slot].read(register, size) if slot < len(self._devices) else 0

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        slot, register = divmod(offset, DEVICE_WINDOW_SLOT_SIZE)
        if slot < len(self._devices):
            self._devices[slot].write(register, size, data, now, self._memory)

    @property
    def interrupts(self) -> int:
        """Interrupt lines of the slots; bit n is slot n."""
        return sum(device.interrupt << slot for slot, device in enumerate(self._devices))

    def next_event(self, now: int) -> int | None:
        """The cycle at which ``advance`` has something to do, if there is one; perhaps past."""
        return min((at for device in self._devices if (at := device.due) is not None), default=None)

    def advance(self, now: int) -> None:
        """Let the devices do all work that is due; the hart is parked."""
        for device in self._devices:
            device.advance(now, self._memory)

    @property
    def console(self) -> bytes:
        """What the virtio consoles were told."""
        return b"".join(
            bytes(device.output) for device in self._devices if isinstance(device, VirtioConsole)
        )

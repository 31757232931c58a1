"""A virtio console that keeps what it is told (virtio 1.2, section 5.3)."""

from sw_vmm.devices.virtio_mmio import VirtioMmio
from sw_vmm.devices.virtqueue import Chain
from sw_vmm.memory import GuestMemory

__all__ = ["VirtioConsole"]

_RECEIVE, _TRANSMIT = 0, 1


class VirtioConsole(VirtioMmio):
    """One port; ``output`` grows by what the driver transmits. Nobody types on it."""

    device_id = 3
    queue_count = 2

    def __init__(self, *, latency: int = 500, cycles_per_byte: int = 16):
        super().__init__(latency=latency, cycles_per_byte=cycles_per_byte)
        self.output = bytearray()

    def _serves(self, queue: int) -> bool:
        # Buffers for input stay where they are: there is none.
        return queue == _TRANSMIT

    def serve(self, queue: int, chain: Chain, memory: GuestMemory) -> int:
        for gpa, length in chain.readable:
            self.output += memory.read_bytes(gpa, length)
        return 0

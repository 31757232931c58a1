"""A virtio device behind memory-mapped registers (virtio 1.2, section 4.2, version 2)."""

from abc import ABC, abstractmethod
from enum import IntEnum, IntFlag

from sw_vmm.devices.virtqueue import QUEUE_SIZE, BadQueue, Chain, VirtQueue
from sw_vmm.memory import GuestMemory

__all__ = ["DeviceStatus", "InterruptStatus", "Register", "VirtioMmio"]

_MAGIC = int.from_bytes(b"virt", "little")
_VERSION = 2
_VENDOR = int.from_bytes(b"vmxl", "little")
_VERSION_1 = 1 << 32
_WORD = (1 << 32) - 1


class Register(IntEnum):
    """Offsets of the registers."""

    MAGIC = 0x000
    VERSION = 0x004
    DEVICE_ID = 0x008
    VENDOR_ID = 0x00C
    DEVICE_FEATURES = 0x010
    DEVICE_FEATURES_SELECT = 0x014
    DRIVER_FEATURES = 0x020
    DRIVER_FEATURES_SELECT = 0x024
    QUEUE_SELECT = 0x030
    QUEUE_SIZE_MAX = 0x034
    QUEUE_SIZE = 0x038
    QUEUE_READY = 0x044
    QUEUE_NOTIFY = 0x050
    INTERRUPT_STATUS = 0x060
    INTERRUPT_ACKNOWLEDGE = 0x064
    STATUS = 0x070
    QUEUE_DESCRIPTORS_LOW = 0x080
    QUEUE_DESCRIPTORS_HIGH = 0x084
    QUEUE_AVAILABLE_LOW = 0x090
    QUEUE_AVAILABLE_HIGH = 0x094
    QUEUE_USED_LOW = 0x0A0
    QUEUE_USED_HIGH = 0x0A4
    SHARED_MEMORY_LENGTH_LOW = 0x0B0
    SHARED_MEMORY_LENGTH_HIGH = 0x0B4
    CONFIGURATION = 0x100


class DeviceStatus(IntFlag):
    """Bits of the status register."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class InterruptStatus(IntFlag):
    """Bits of the interrupt status register."""

    USED_BUFFER = 1
    CONFIGURATION = 2


_ADDRESSES = {
    Register.QUEUE_DESCRIPTORS_LOW: ("descriptors", 0),
    Register.QUEUE_DESCRIPTORS_HIGH: ("descriptors", 32),
    Register.QUEUE_AVAILABLE_LOW: ("available", 0),
    Register.QUEUE_AVAILABLE_HIGH: ("available", 32),
    Register.QUEUE_USED_LOW: ("used", 0),
    Register.QUEUE_USED_HIGH: ("used", 32),
}


class VirtioMmio(ABC):
    """Registers, status and queues; a subclass knows what a chain of buffers means.

    Memory is touched by ``advance`` only, never by register accesses: under ``native`` the hart
    waits in them, and the machine lets nobody else at its memory. A chain is worked on ``latency``
    cycles after the driver has notified, or after the chain before it, plus ``cycles_per_byte`` for
    each byte in that one; so what a guest sees depends on machine cycles alone, and a driver that
    fills queues without end is slowed down by them.

    A driver that breaks the rules gets DEVICE_NEEDS_RESET and nothing more until it resets.
    """

    device_id: int
    queue_count: int
    features: int = 0

    def __init__(self, *, latency: int, cycles_per_byte: int):
        if latency < 1 or cycles_per_byte < 0:
            raise ValueError("a device takes at least one cycle")
        self._latency = latency
        self._cycles_per_byte = cycles_per_byte
        self._offered = self.features | _VERSION_1
        #: Why the device needs a reset, for whoever debugs a driver.
        self.complaint: str | None = None
        self._reset()

    def _reset(self) -> None:
        self._status = DeviceStatus(0)
        self._interrupt = InterruptStatus(0)
        self._queues = [VirtQueue() for _ in range(self.queue_count)]
        self._select = self._device_select = self._driver_select = 0
        self._accepted = 0
        self._due: int | None = None

    # -- what the subclass knows -------------------------------------------------------------------

    @abstractmethod
    def serve(self, queue: int, chain: Chain, memory: GuestMemory) -> int | None:
        """Do what the chain asks; the bytes written to it, or None to leave it for later.

        Raises BadQueue when it makes no sense.
        """

    def configuration(self) -> bytes:
        """The device's configuration space."""
        return b""

    # -- what the window asks ----------------------------------------------------------------------

    @property
    def interrupt(self) -> bool:
        return bool(self._interrupt)

    @property
    def due(self) -> int | None:
        """The cycle at which ``advance`` has something to do."""
        return self._due

    def advance(self, now: int, memory: GuestMemory) -> None:
        """Do all work that is due."""
        while self._due is not None and self._due <= now:
            at, self._due = self._due, None
            try:
                length = self._work(memory)
            except BadQueue as error:
                self._break(str(error))
                return
            if length is not None:
                self._due = at + self._latency + length * self._cycles_per_byte

    def _work(self, memory: GuestMemory) -> int | None:
        """Serve one chain; its length, or None when there is nothing to do."""
        for number, queue in enumerate(self._queues):
            if not self._serves(number):
                continue
            chain = queue.take(memory)
            if chain is None:
                continue
            written = self.serve(number, chain, memory)
            if queue.give(memory, chain, written):
                self._interrupt |= InterruptStatus.USED_BUFFER
            return chain.length
        return None

    def _serves(self, queue: int) -> bool:
        """Whether the device looks into that queue by itself."""
        return True

    def _break(self, why: str) -> None:
        self.complaint = why
        self._due = None
        self._status |= DeviceStatus.NEEDS_RESET
        if self._status & DeviceStatus.DRIVER_OK:
            self._interrupt |= InterruptStatus.CONFIGURATION

    # -- registers ---------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if offset >= Register.CONFIGURATION:
            data = self.configuration()[offset - Register.CONFIGURATION :][:size]
            return int.from_bytes(data, "little")
        if size != 4:
            return 0
        match offset:
            case Register.MAGIC:
                return _MAGIC
            case Register.VERSION:
                return _VERSION
            case Register.DEVICE_ID:
                return self.device_id
            case Register.VENDOR_ID:
                return _VENDOR
            case Register.DEVICE_FEATURES:
                select = self._device_select
                return self._offered >> 32 * select & _WORD if select < 2 else 0
            case Register.QUEUE_SIZE_MAX:
                return QUEUE_SIZE if self._queue else 0
            case Register.QUEUE_READY:
                return int(bool(self._queue and self._queue.ready))
            case Register.INTERRUPT_STATUS:
                return self._interrupt
            case Register.STATUS:
                return self._status
            case Register.SHARED_MEMORY_LENGTH_LOW | Register.SHARED_MEMORY_LENGTH_HIGH:
                return _WORD  # there is none
        return 0

    def write(self, offset: int, size: int, data: int, now: int, memory: GuestMemory) -> None:
        """``memory`` is asked for its bounds only."""
        if size != 4:
            return
        match offset:
            case Register.DEVICE_FEATURES_SELECT:
                self._device_select = data
            case Register.DRIVER_FEATURES_SELECT:
                self._driver_select = data
            case Register.DRIVER_FEATURES if self._driver_select < 2:
                if not self._status & DeviceStatus.FEATURES_OK:
                    shift = 32 * self._driver_select
                    self._accepted = self._accepted & ~(_WORD << shift) | data << shift
            case Register.QUEUE_SELECT:
                self._select = data
            case Register.QUEUE_NOTIFY:
                self._notify(now)
            case Register.INTERRUPT_ACKNOWLEDGE:
                self._interrupt &= ~data
            case Register.STATUS:
                self._write_status(data)
            case _ if self._queue is not None:
                self._write_queue(self._queue, offset, data, memory)

    @property
    def _queue(self) -> VirtQueue | None:
        return self._queues[self._select] if self._select < len(self._queues) else None

    def _write_queue(self, queue, offset, data, memory):
        if offset == Register.QUEUE_READY:
            queue.ready = bool(data & 1)
            if queue.ready:
                try:
                    queue.check(memory)
                except BadQueue as error:
                    queue.ready = False
                    self._break(str(error))
        elif queue.ready:
            return  # a queue is set up before it is ready
        elif offset == Register.QUEUE_SIZE:
            queue.size = data & 0xFFFF_FFFF
        elif offset in _ADDRESSES:
            name, shift = _ADDRESSES[Register(offset)]
            setattr(queue, name, getattr(queue, name) & ~(_WORD << shift) | data << shift)

    def _write_status(self, data: int) -> None:
        if data == 0:
            self._reset()
            return
        status = DeviceStatus(data & 0xFF) | self._status & DeviceStatus.NEEDS_RESET
        agreed = self._accepted & _VERSION_1 and not self._accepted & ~self._offered
        if not agreed:
            status &= ~DeviceStatus.FEATURES_OK
        self._status = status

    def _notify(self, now: int) -> None:
        live = self._status & DeviceStatus.DRIVER_OK and not self._status & DeviceStatus.NEEDS_RESET
        if live and self._due is None:
            self._due = now + self._latency

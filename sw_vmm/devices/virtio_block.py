"""A virtio block device on an image in memory (virtio 1.2, section 5.2)."""

import struct
from enum import IntEnum

from sw_vmm.devices.virtio_mmio import VirtioMmio
from sw_vmm.devices.virtqueue import BadQueue, Chain
from sw_vmm.memory import GuestMemory

__all__ = ["SECTOR", "VirtioBlock"]

SECTOR = 512
_HEADER = struct.Struct("<IIQ")
_IDENTITY = b"vmxlab"
_IDENTITY_SIZE = 20


class _Request(IntEnum):
    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8


class _Status(IntEnum):
    OK = 0
    IO_ERROR = 1
    UNSUPPORTED = 2


class VirtioBlock(VirtioMmio):
    """A disk whose sectors are the bytes of ``image``, read and written in place.

    Raises ValueError when the image is no whole number of sectors.
    """

    device_id = 2
    queue_count = 1
    features = 1 << 9  # flush

    def __init__(self, image: bytearray, *, latency: int = 2000, cycles_per_byte: int = 1):
        if not image or len(image) % SECTOR:
            raise ValueError(f"a disk of {len(image)} bytes is no whole number of sectors")
        super().__init__(latency=latency, cycles_per_byte=cycles_per_byte)
        self.image = image

    def configuration(self) -> bytes:
        return (len(self.image) // SECTOR).to_bytes(8, "little")

    def serve(self, queue: int, chain: Chain, memory: GuestMemory) -> int:
        # Where a buffer ends means nothing: header, data and status are places in the byte stream.
        sent = b"".join(memory.read_bytes(gpa, length) for gpa, length in chain.readable)
        if len(sent) < _HEADER.size or not chain.writable:
            raise BadQueue("a request without header or status")
        kind, _, sector = _HEADER.unpack_from(sent)
        *parts, (last, length) = chain.writable
        room = sum(size for _, size in parts) + length - 1
        status, answer = self._answer(kind, sector * SECTOR, sent[_HEADER.size :], room)
        at = 0
        for gpa, size in (*parts, (last, length - 1)):
            piece = answer[at : at + size]
            if piece:
                memory.write_bytes(gpa, piece)
            at += size
        memory.write(last + length - 1, 1, status)
        return len(answer) + 1

    def _answer(self, kind: int, place: int, data: bytes, room: int) -> tuple[_Status, bytes]:
        match kind:
            case _Request.IN:
                if room % SECTOR or place + room > len(self.image):
                    return _Status.IO_ERROR, b""
                return _Status.OK, bytes(self.image[place : place + room])
            case _Request.OUT:
                if len(data) % SECTOR or place + len(data) > len(self.image):
                    return _Status.IO_ERROR, b""
                self.image[place : place + len(data)] = data
                return _Status.OK, b""
            case _Request.FLUSH:
                return _Status.OK, b""
            case _Request.GET_ID:
                return _Status.OK, _IDENTITY.ljust(_IDENTITY_SIZE, b"\0")[:room]
        return _Status.UNSUPPORTED, b""

"""The register bus: single 64-bit accesses to devices, in order, one at a time."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS

__all__ = ["RegisterBus", "RegisterRequest", "RegisterResponse"]


class RegisterRequest(data.Struct):
    """One access to the aligned eight bytes at ``address`` (a multiple of 8).

    ``mask`` names the bytes wanted, of a read as of a write: devices with side effects act on
    these bytes only. ``data`` is the write data, in place.
    """

    address: BUS_ADDRESS_BITS
    write: 1
    mask: 8
    data: 64


class RegisterResponse(data.Struct):
    """``data`` in place of the bytes asked for; ``error`` when nobody answers there."""

    data: 64
    error: 1


class RegisterBus(wiring.Signature):
    """Requests go out, each is answered by exactly one response, in order.

    The initiator sends no second request before it has taken the response of the first, and is
    always ready for that response.
    """

    def __init__(self):
        super().__init__(
            {
                "request": Out(stream.Signature(RegisterRequest)),
                "response": In(stream.Signature(RegisterResponse)),
            }
        )

"""The coherent port: how everything but the hart's own loads and stores reaches RAM."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS

__all__ = ["SnoopPort", "SnoopRequest", "SnoopResponse"]


class SnoopRequest(data.Struct):
    """One access to the aligned eight bytes at ``address`` (hpa, a multiple of 8, in RAM).

    With ``forward``, an access that misses the data cache goes on to memory; without it (reads
    only) the response says ``hit`` = 0 and memory is not asked.
    """

    address: BUS_ADDRESS_BITS
    write: 1
    forward: 1
    mask: 8
    data: 64


class SnoopResponse(data.Struct):
    """``hit``: the data cache held the line. ``error``: memory answered with a bus error."""

    data: 64
    hit: 1
    error: 1


class SnoopPort(wiring.Signature):
    """Same rules as the register bus: one access at a time, the initiator takes the response.

    The data cache never allocates for it: a write that hits changes the cached line (and makes it
    dirty), a write that misses goes to memory; the response to a write means every later access
    of any master sees it.
    """

    def __init__(self):
        super().__init__(
            {
                "request": Out(stream.Signature(SnoopRequest)),
                "response": In(stream.Signature(SnoopResponse)),
            }
        )

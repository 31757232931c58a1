"""The boot ROM: reset code and device tree, loaded at run time."""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In

from rtl.arch.memory_map import MEMORY_MAP
from rtl.bus.register_bus import RegisterBus

__all__ = ["Rom"]


class Rom(wiring.Component):
    """Memory that only the parked host may write. It answers in the cycle after a request.

    Addresses are relative to the ROM's region.

    Members
    -------
    bus : In(RegisterBus())
    writable : In(1)
        The access in this cycle may write: it comes from the host. Any other write is answered
        with an error and changes nothing.
    """

    bus: In(RegisterBus())
    writable: In(1)

    def __init__(self):
        super().__init__()
        depth = MEMORY_MAP["rom"].size // 8
        #: The words, for testbenches.
        self.words = memory.MemoryData(shape=64, depth=depth, init=[])

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = memory.Memory(self.words)
        write = words.write_port(granularity=8)
        # A write and a read never meet: the bus has one access at a time.
        read = words.read_port()
        request = self.bus.request
        response = self.bus.response
        taken = Signal()
        error = Signal()

        m.d.comb += [
            # A response that is being taken makes room for the next.
            request.ready.eq(~response.valid | response.ready),
            taken.eq(request.valid & request.ready),
            read.addr.eq(request.p.address[3:]),
            read.en.eq(taken),
            write.addr.eq(request.p.address[3:]),
            write.data.eq(request.p.data),
            write.en.eq(Mux(taken & request.p.write & self.writable, request.p.mask, 0)),
            response.p.data.eq(read.data),
            response.p.error.eq(error),
        ]
        with m.If(response.ready):
            m.d.sync += response.valid.eq(0)
        with m.If(taken):
            m.d.sync += [
                response.valid.eq(1),
                error.eq(request.p.write & ~self.writable),
            ]
        return m

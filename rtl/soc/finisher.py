"""The test finisher: how a guest ends the run."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.register_bus import RegisterBus
from rtl.lib.register_block import RegisterBlock
from rtl.maps import map_path

__all__ = ["Finisher"]


class Finisher(wiring.Component):
    """The register of ``rtl/maps/finisher.rdl``: keeps the first write that ends the run.

    Such a write has one of the known values in its low half; what it leaves out of the high half
    counts as 0.

    Members
    -------
    bus : In(RegisterBus())
        Addresses relative to the region.
    o : Out(valid, word)
        ``word`` is what was written; both hold from then on until reset.
    """

    bus: In(RegisterBus())
    o: Out(wiring.Signature({"valid": Out(1), "word": Out(32)}))

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = RegisterBlock(map_path("finisher"))
        connect(m, flipped(self.bus), registers.bus)

        request, response = registers.finish.request, registers.finish.response
        write = request.payload
        m.d.comb += [request.ready.eq(1), response.valid.eq(request.valid)]
        with m.If(request.valid & write.write & write.mask[:2].all() & ~self.o.valid):
            with m.Switch(write.data[:16]), m.Case(*registers.enums["finish"]):
                m.d.sync += [
                    self.o.valid.eq(1),
                    self.o.word.eq(Cat(byte.replicate(8) for byte in write.mask) & write.data),
                ]
        return m

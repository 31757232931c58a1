"""The stage between aligner and issue: compressed instructions become whole ones."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.core.expand import Expander
from rtl.core.frontend.aligner import FetchedInstruction

__all__ = ["ExpandStage", "ExpandedInstruction"]


class ExpandedInstruction(data.Struct):
    """``instruction`` is what to decode, 32 bits whatever its length in memory."""

    fetched: FetchedInstruction
    instruction: 32


class ExpandStage(wiring.Component):
    """Expand each instruction and hold it for the issue stage in a register.

    Members
    -------
    clear : In(1)
        Drops what is held and what comes in this cycle.
    """

    i: In(stream.Signature(FetchedInstruction))
    o: Out(stream.Signature(ExpandedInstruction))
    clear: In(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.expander = expander = Expander()
        fetched = self.i.payload
        expanded = Mux(fetched.compressed, expander.expanded, fetched.bits)
        m.d.comb += [
            expander.compressed.eq(fetched.bits[:16]),
            self.i.ready.eq(~self.o.valid | self.o.ready),
        ]
        with m.If(self.i.ready):
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                self.o.payload.fetched.eq(fetched),
                self.o.payload.instruction.eq(expanded),
            ]
        with m.If(self.clear):
            m.d.sync += self.o.valid.eq(0)
        return m

"""The integer registers."""

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RegisterFile"]


class RegisterFile(wiring.Component):
    """31 registers of 64 bits and x0, which reads zero; two reads and one write per cycle.

    A read in the cycle of a write to the same register gives the new value. Writes to x0 are
    ignored.
    """

    rs1: In(5)
    rs2: In(5)
    rs1_value: Out(64)
    rs2_value: Out(64)
    rd: In(5)
    value: In(64)

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = memory.Memory(shape=64, depth=32, init=[])
        write = rows.write_port()
        m.d.comb += [
            write.addr.eq(self.rd),
            write.data.eq(self.value),
            write.en.eq(self.rd != 0),
        ]
        for number, value in ((self.rs1, self.rs1_value), (self.rs2, self.rs2_value)):
            read = rows.read_port(domain="comb")
            m.d.comb += [
                read.addr.eq(number),
                value.eq(Mux((number == self.rd) & write.en, self.value, read.data)),
            ]
        return m

"""Branch conditions."""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.instructions import INSTRUCTIONS

__all__ = ["BranchCondition", "BranchUnit"]


def _funct3(name):
    return INSTRUCTIONS[name].match >> 12 & 7


class BranchCondition(enum.Enum, shape=3):
    """funct3 of the branch instructions."""

    EQ = _funct3("beq")
    NE = _funct3("bne")
    LT = _funct3("blt")
    GE = _funct3("bge")
    LTU = _funct3("bltu")
    GEU = _funct3("bgeu")


class BranchUnit(wiring.Component):
    """Decide whether a branch on ``a`` and ``b`` is taken; combinational."""

    condition: In(BranchCondition)
    a: In(64)
    b: In(64)
    taken: Out(1)

    def elaborate(self, platform):
        m = Module()
        funct3 = self.condition.as_value()
        # Bit 0 inverts, bit 1 asks for the unsigned order, bit 2 for an order at all.
        equal = self.a == self.b
        below = Mux(self.a[63] == self.b[63], self.a[:63] < self.b[:63], self.a[63] ^ funct3[1])
        m.d.comb += self.taken.eq(Mux(funct3[2], below, equal) ^ funct3[0])
        return m

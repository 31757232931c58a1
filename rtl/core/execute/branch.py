"""The branch unit: decides conditional branches."""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BranchCondition", "BranchUnit"]


class BranchCondition(enum.Enum, shape=3):
    """Condition of a branch, encoded as in funct3."""

    EQ = 0
    NE = 1
    LT = 4
    GE = 5
    LTU = 6
    GEU = 7


class BranchUnit(wiring.Component):
    """Say combinationally whether ``a`` and ``b`` meet the condition.

    The two codes that no branch uses are those of EQ and NE again.
    """

    condition: In(BranchCondition)
    a: In(64)
    b: In(64)
    taken: Out(1)

    def elaborate(self, platform):
        m = Module()
        # funct3: bit 0 inverts, bit 1 asks for an unsigned comparison, bit 2 for an order.
        negate, unsigned, order = self.condition.as_value()
        # Both numbers moved by 2**63 keep their signed order as unsigned numbers.
        flip = ~unsigned
        less = Cat(self.a[:63], self.a[63] ^ flip) < Cat(self.b[:63], self.b[63] ^ flip)
        m.d.comb += self.taken.eq(Mux(order, less, self.a == self.b) ^ negate)
        return m

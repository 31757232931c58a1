"""The multiplier of the commit stage."""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Multiplier", "MultiplyOperation"]


class MultiplyOperation(enum.Enum, shape=3):
    """The multiplications of the M extension; the low two bits are those of funct3."""

    MUL = 0
    MULH = 1
    MULHSU = 2
    MULHU = 3
    MULW = 4


class Multiplier(wiring.Component):
    """Multiply ``a`` (rs1) by ``b`` (rs2); combinational.

    The factors come from registers and the result goes into one, so that the products can use
    those of the DSP blocks. Four unsigned products of 32 by 32 bits make the unsigned product of
    128 bits; a negative signed factor counts 2^64 too much, which its high half is corrected for.
    """

    operation: In(MultiplyOperation)
    a: In(64)
    b: In(64)
    result: Out(64)

    def elaborate(self, platform):
        m = Module()
        a, b = self.a, self.b
        products = []
        for a_half in (a[:32], a[32:]):
            for b_half in (b[:32], b[32:]):
                product = Signal(64, name=f"product{len(products)}")
                m.d.comb += product.eq(a_half * b_half)
                products.append(product)
        low_low, low_high, high_low, high_high = products
        middle = Signal(34)
        low, high = Signal(64), Signal(64)
        a_signed = (self.operation == MultiplyOperation.MULH) | (
            self.operation == MultiplyOperation.MULHSU
        )
        b_signed = self.operation == MultiplyOperation.MULH
        m.d.comb += [
            middle.eq(low_low[32:] + low_high[:32] + high_low[:32]),
            low.eq(Cat(low_low[:32], middle[:32])),
            high.eq(
                high_high
                + low_high[32:]
                + high_low[32:]
                + middle[32:]
                - Mux(a_signed & a[63], b, 0)
                - Mux(b_signed & b[63], a, 0)
            ),
        ]
        with m.Switch(self.operation):
            with m.Case(MultiplyOperation.MUL):
                m.d.comb += self.result.eq(low)
            with m.Case(MultiplyOperation.MULW):
                m.d.comb += self.result.eq(low[:32].as_signed())
            with m.Default():
                m.d.comb += self.result.eq(high)
        return m

"""The multiplier: products in the execute stage, their sum in the commit stage."""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Multiplier", "MultiplyOperation"]

#: Factors are cut into parts that the FPGA's multipliers take whole.
_PART = 16
_COUNT = 64 // _PART


class MultiplyOperation(enum.Enum, shape=3):
    """The multiplications of the M extension; the low two bits are those of funct3."""

    MUL = 0
    MULH = 1
    MULHSU = 2
    MULHU = 3
    MULW = 4


class Multiplier(wiring.Component):
    """Multiply ``a`` (rs1) by ``b`` (rs2), one multiplication per cycle.

    Members
    -------
    load : In(1)
        Take factors and operation at the end of this cycle.
    operation, a, b : In
    result : Out(64)
        Of what was taken last, from the next cycle on.
    """

    load: In(1)
    operation: In(MultiplyOperation)
    a: In(64)
    b: In(64)
    result: Out(64)

    def elaborate(self, platform):
        m = Module()
        a_signed = (self.operation == MultiplyOperation.MULH) | (
            self.operation == MultiplyOperation.MULHSU
        )
        b_signed = self.operation == MultiplyOperation.MULH

        whole = Signal(128)

        def parts(factor, is_signed):
            """The highest part has the sign."""
            cut = [factor[n * _PART : (n + 1) * _PART] for n in range(_COUNT)]
            return [*cut[:-1], Cat(cut[-1], is_signed & factor[63]).as_signed()]

        a_parts, b_parts = parts(self.a, a_signed), parts(self.b, b_signed)
        operation = Signal(MultiplyOperation)
        with m.If(self.load):
            m.d.sync += operation.eq(self.operation)

        # Products that do not overlap stand side by side in one term of the sum: those of parts
        # n and n + distance, from bit 16 * distance on. Above a signed product stands its sign.
        def term(distance):
            places = []
            for n in range(_COUNT):
                if 0 <= n + distance < _COUNT:
                    made = a_parts[n] * b_parts[n + distance]
                    product = Signal(made.shape(), name=f"product_{n}_{n + distance}")
                    with m.If(self.load):
                        m.d.sync += product.eq(made)
                    places.append(product)
            return Cat(*(product[: 2 * _PART] for product in places[:-1]), places[-1]).as_signed()

        # From the highest place down, each with what stands above it. The sums are cut into pieces
        # between two additions: one addition of many terms would be built without carry chains.
        total = Const(0, signed(1))
        for distance in reversed(range(1, _COUNT)):
            width = 128 - _PART * distance
            both = Signal(signed(width), name=f"both_{distance}")
            above = Signal(signed(width), name=f"above_{distance}")
            m.d.comb += [
                both.eq(term(distance) + term(-distance)),
                above.eq(Cat(both[:_PART], (total + both[_PART:])[: width - _PART])),
            ]
            total = above
        products = term(0)
        m.d.comb += whole.eq(Cat(products[:_PART], (products[_PART:] + total)[: 128 - _PART]))
        with m.Switch(operation):
            with m.Case(MultiplyOperation.MUL):
                m.d.comb += self.result.eq(whole[:64])
            with m.Case(MultiplyOperation.MULW):
                m.d.comb += self.result.eq(whole[:32].as_signed())
            with m.Default():
                m.d.comb += self.result.eq(whole[64:])
        return m

"""The multiplier: pipelined, made of products that fit one DSP block each."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Multiplier", "MultiplyOperation", "MultiplyRequest"]

#: Factors are cut into pieces of 17 bits: with a sign they fill an 18x18 multiplier (ECP5:
#: MULT18X18D). The last piece has 65 - 3 * 17 bits and is signed, the others are not.
_PIECE_BITS = 17
_PIECE_COUNT = 4


class MultiplyOperation(enum.Enum, shape=3):
    """The multiplications of the M extension; the low two bits are those of funct3."""

    MUL = 0
    MULH = 1
    MULHSU = 2
    MULHU = 3
    MULW = 4


class MultiplyRequest(data.Struct):
    """``a`` is the value of rs1, ``b`` that of rs2."""

    operation: MultiplyOperation
    a: 64
    b: 64


def _pieces(factor):
    """The pieces of a 65-bit signed factor, the signed one last."""
    lower = [factor[k * _PIECE_BITS :][:_PIECE_BITS] for k in range(_PIECE_COUNT - 1)]
    return [*lower, factor[(_PIECE_COUNT - 1) * _PIECE_BITS :].as_signed()]


class Multiplier(wiring.Component):
    """Multiply: one request may be taken per cycle, and answers keep their order.

    The answer is offered 3 cycles after the cycle in which the request was taken, later by the
    cycles in which an answer waits to be taken.

    Members
    -------
    i : In(stream.Signature(MultiplyRequest))
        Factors; not taken while an answer waits.
    o : Out(stream.Signature(64))
        Value for rd.
    """

    i: In(stream.Signature(MultiplyRequest))
    o: Out(stream.Signature(64))

    def elaborate(self, platform):
        m = Module()
        asked = self.i.p.operation
        moves = Signal()
        m.d.comb += [moves.eq(~self.o.valid | self.o.ready), self.i.ready.eq(moves)]

        # Stage 1: both factors as signed numbers of 65 bits.
        a_signed = (asked == MultiplyOperation.MULH) | (asked == MultiplyOperation.MULHSU)
        b_signed = asked == MultiplyOperation.MULH
        a, b = Signal(signed(65)), Signal(signed(65))
        with m.If(moves & self.i.valid):
            m.d.sync += [
                a.eq(Cat(self.i.p.a, self.i.p.a[63] & a_signed)),
                b.eq(Cat(self.i.p.b, self.i.p.b[63] & b_signed)),
            ]

        # Stage 2: the partial products. Those on a diagonal lie side by side without overlap,
        # a signed one only at the top: each diagonal is one number.
        stages = Signal(3)
        diagonals = []
        for offset in range(1 - _PIECE_COUNT, _PIECE_COUNT):
            products = []
            for i, j in ((i, i - offset) for i in range(_PIECE_COUNT)):
                if 0 <= j < _PIECE_COUNT:
                    value = _pieces(a)[i] * _pieces(b)[j]
                    product = Signal(value.shape(), name=f"product_{i}_{j}")
                    with m.If(moves & stages[0]):
                        m.d.sync += product.eq(value)
                    products.append(product)
            diagonals.append(Cat(*products).as_signed() << abs(offset) * _PIECE_BITS)

        # Stage 3: two sums; the last addition and the choice of the half follow its registers.
        halves = []
        for number, terms in enumerate((diagonals[:3], diagonals[3:])):
            half = Signal(128, name=f"half_{number}")
            with m.If(moves & stages[1]):
                m.d.sync += half.eq(sum(terms))
            halves.append(half)
        product = Signal(128)
        m.d.comb += product.eq(halves[0] + halves[1])

        operations = [asked]
        for number in range(3):
            operation = Signal(MultiplyOperation, name=f"operation_{number}")
            with m.If(moves):
                m.d.sync += operation.eq(operations[-1])
            operations.append(operation)
        with m.If(moves):
            m.d.sync += stages.eq(Cat(self.i.valid, stages[:2]))
        m.d.comb += self.o.valid.eq(stages[2])
        with m.Switch(operations[-1]):
            with m.Case(MultiplyOperation.MUL):
                m.d.comb += self.o.p.eq(product[:64])
            with m.Case(MultiplyOperation.MULW):
                m.d.comb += self.o.p.eq(product[:32].as_signed())
            with m.Default():
                m.d.comb += self.o.p.eq(product[64:])
        return m

"""The multiplier: three registered stages around four partial products."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Multiplier", "MultiplyOperation", "MultiplyRequest"]


class MultiplyOperation(enum.Enum, shape=3):
    """funct3[1:0] of the instruction; bit 2 for mulw."""

    MUL = 0
    MULH = 1
    MULHSU = 2
    MULHU = 3
    MULW = 4


class MultiplyRequest(data.Struct):
    """Operands as they stand in rs1 (``a``) and rs2 (``b``)."""

    operation: MultiplyOperation
    a: 64
    b: 64


class Multiplier(wiring.Component):
    """Multiply; the result is on ``o`` three cycles after ``i`` was taken, and waits there.

    One multiplication at a time. The 65-bit signed product is made from four products of 33 by
    33 bits, so that each fits the DSP blocks' registers.
    """

    i: In(stream.Signature(MultiplyRequest))
    o: Out(stream.Signature(64))

    def elaborate(self, platform):
        m = Module()
        request = self.i.payload
        busy = Signal()
        partial_stage, sum_stage = Signal(), Signal()
        operation = Signal(MultiplyOperation)
        # Low halves are unsigned; high halves carry the sign the operation gives the operand.
        a_low, b_low = Signal(signed(33)), Signal(signed(33))
        a_high, b_high = Signal(signed(33)), Signal(signed(33))
        products = [Signal(signed(66), name=f"product{n}") for n in range(4)]

        m.d.comb += self.i.ready.eq(~busy)
        m.d.sync += [partial_stage.eq(0), sum_stage.eq(partial_stage)]
        with m.If(self.i.valid & self.i.ready):
            a_signed = request.operation != MultiplyOperation.MULHU
            b_signed = a_signed & (request.operation != MultiplyOperation.MULHSU)
            m.d.sync += [
                busy.eq(1),
                partial_stage.eq(1),
                operation.eq(request.operation),
                a_low.eq(request.a[:32]),
                b_low.eq(request.b[:32]),
                a_high.eq(Cat(request.a[32:], request.a[63] & a_signed).as_signed()),
                b_high.eq(Cat(request.b[32:], request.b[63] & b_signed).as_signed()),
            ]
        with m.If(partial_stage):
            for product, (a, b) in zip(
                products,
                ((a_low, b_low), (a_low, b_high), (a_high, b_low), (a_high, b_high)),
                strict=True,
            ):
                m.d.sync += product.eq(a * b)
        low_low, low_high, high_low, high_high = products
        middle = Signal(signed(68))
        high, low = Signal(64), Signal(64)
        m.d.comb += [
            middle.eq(low_high + high_low + low_low[32:64].as_unsigned()),
            low.eq(Cat(low_low[:32], middle[:32])),
            high.eq(high_high + middle[32:].as_signed()),
        ]
        with m.If(sum_stage):
            m.d.sync += self.o.valid.eq(1)
            with m.Switch(operation):
                with m.Case(MultiplyOperation.MUL):
                    m.d.sync += self.o.payload.eq(low)
                with m.Case(MultiplyOperation.MULW):
                    m.d.sync += self.o.payload.eq(low[:32].as_signed())
                with m.Default():
                    m.d.sync += self.o.payload.eq(high)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [self.o.valid.eq(0), busy.eq(0)]
        return m

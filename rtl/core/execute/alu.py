"""The arithmetic and logic unit: every integer result that takes no memory of its own."""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Alu", "AluOperation"]


class AluOperation(enum.Enum, shape=4):
    """What the unit computes from ``a`` and ``b``; the names are the instructions'.

    The low three bits are funct3 and bit 3 is bit 30 of the register forms. Codes 9 to 12, 14 and
    15 are free for operations to come.
    """

    ADD = 0
    SLL = 1
    SLT = 2
    SLTU = 3
    XOR = 4
    SRL = 5
    OR = 6
    AND = 7
    SUB = 8
    SRA = 13


class Alu(wiring.Component):
    """Compute one operation combinationally.

    Members
    -------
    operation : In(AluOperation)
        What to compute.
    word : In(1)
        For ADD, SUB and the shifts: use the low 32 bits (5 bits of the shift amount) and
        sign-extend the 32-bit result. 0 for the others.
    a, b : In(64)
        The operands; shifts use the low 6 bits of ``b``.
    result : Out(64)
        In the same cycle.
    """

    operation: In(AluOperation)
    word: In(1)
    a: In(64)
    b: In(64)
    result: Out(64)

    def elaborate(self, platform):
        m = Module()
        a, b, word, operation = self.a, self.b, self.word, self.operation

        # One adder serves sums, differences and both comparisons: a - b = a + ~b + 1, and its
        # carry is 1 exactly when a >= b, unsigned.
        subtract = Signal()
        total = Signal(65)
        less_unsigned, less = Signal(), Signal()
        m.d.comb += [
            subtract.eq(
                (operation == AluOperation.SUB)
                | (operation == AluOperation.SLT)
                | (operation == AluOperation.SLTU)
            ),
            total.eq(a + (b ^ subtract.replicate(64)) + subtract),
            less_unsigned.eq(~total[64]),
            less.eq(Mux(a[63] ^ b[63], a[63], less_unsigned)),
        ]

        # One right shifter serves all shifts: to the left, the operand goes through it reversed.
        left, arithmetic = Signal(), Signal()
        amount = Signal(6)
        operand, shifted, shift_result = Signal(64), Signal(64), Signal(64)
        upper = Mux(word, (a[31] & arithmetic).replicate(32), a[32:])
        m.d.comb += [
            left.eq(operation == AluOperation.SLL),
            arithmetic.eq(operation == AluOperation.SRA),
            amount.eq(Cat(b[:5], b[5] & ~word)),
            operand.eq(Mux(left, a[::-1], Cat(a[:32], upper))),
            shifted.eq(Cat(operand, arithmetic & operand[63]).as_signed() >> amount),
            shift_result.eq(Mux(left, shifted[::-1], shifted)),
        ]

        wide = Signal(64)
        with m.Switch(operation):
            with m.Case(AluOperation.ADD, AluOperation.SUB):
                m.d.comb += wide.eq(total[:64])
            with m.Case(AluOperation.SLL, AluOperation.SRL, AluOperation.SRA):
                m.d.comb += wide.eq(shift_result)
            with m.Case(AluOperation.SLT):
                m.d.comb += wide.eq(less)
            with m.Case(AluOperation.SLTU):
                m.d.comb += wide.eq(less_unsigned)
            with m.Case(AluOperation.XOR):
                m.d.comb += wide.eq(a ^ b)
            with m.Case(AluOperation.OR):
                m.d.comb += wide.eq(a | b)
            with m.Case(AluOperation.AND):
                m.d.comb += wide.eq(a & b)
        m.d.comb += self.result.eq(Cat(wide[:32], Mux(word, wide[31].replicate(32), wide[32:])))
        return m

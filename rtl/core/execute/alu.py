"""The arithmetic and logic unit: every integer result that takes no memory of its own."""

import functools
import operator

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Alu", "AluOperation"]


class AluOperation(enum.Enum, shape=5):
    """What the unit computes from ``a`` and ``b``; the names are the instructions'.

    From 16 on, and REV8, they are those of Zba, Zbb and Zbs. Below 16 the low three bits are funct3
    and bit 3 is bit 30 of the register forms.
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
    ROL = 9
    XNOR = 12
    SRA = 13
    ORN = 14
    ANDN = 15

    SEXT_B = 16
    BSET = 17
    SH1ADD = 18
    BINV = 19
    SH2ADD = 20
    ROR = 21
    SH3ADD = 22
    BEXT = 23
    SEXT_H = 24
    BCLR = 25
    ZEXT_H = 26
    ORC_B = 27
    MIN = 28
    MINU = 29
    MAX = 30
    MAXU = 31
    REV8 = 11


_BASE = ("ADD", "SLL", "SLT", "SLTU", "XOR", "SRL", "OR", "AND", "SUB", "SRA")
_ROW_COUNT = 8


class _Function(enum.Enum, shape=2):
    """What the logic makes of every bit of ``a`` and of the other operand."""

    ANDN = 0
    XOR = 1
    OR = 2
    NOT = 3  # of the other operand alone


def _rows(bits, columns=None):
    """Eight rows of eight bits: row n is ``bits[n]``, and ``columns``."""
    rows = Cat(bit.replicate(8) for bit in bits)
    return rows if columns is None else rows & columns.replicate(_ROW_COUNT)


class Alu(wiring.Component):
    """Compute one operation combinationally.

    Parameters
    ----------
    bit_manipulation : bool
        With the operations of Zba, Zbb and Zbs.

    Members
    -------
    operation : In(AluOperation)
        What to compute.
    word : In(1)
        For ADD, SUB, shifts and rotations: use the low 32 bits (5 bits of the shift amount) and
        sign-extend the 32-bit result. 0 for the others.
    unsigned_word : In(1)
        For ADD, SH1ADD to SH3ADD and SLL: only the low 32 bits of ``a`` count. 0 for the others.
    a, b : In(64)
        The operands; shifts use the low 6 bits of ``b``.
    result : Out(64)
        In the same cycle.
    """

    operation: In(AluOperation)
    word: In(1)
    unsigned_word: In(1)
    a: In(64)
    b: In(64)
    result: Out(64)

    def __init__(self, *, bit_manipulation):
        self._bit_manipulation = bit_manipulation
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        a = Signal(64)
        upper_half = self.a[32:]
        if self._bit_manipulation:
            upper_half &= ~self.unsigned_word.replicate(32)
        m.d.comb += a.eq(Cat(self.a[:32], upper_half))
        # One inversion serves differences, comparisons and logic: a AND b is a ANDN ~b.
        comparisons = ("SLT", "SLTU", "MIN", "MINU", "MAX", "MAXU")
        b, inverts = Signal(64), Signal()
        m.d.comb += [
            inverts.eq(self._is("SUB", *comparisons, "AND", "ORN", "XNOR")),
            b.eq(self.b ^ inverts.replicate(64)),
        ]
        total, less = self._sum(m, a, b, inverts)
        # Every term is zero unless it is asked for: that is cheaper than to choose.
        terms = [less & self._is("SLT", "SLTU"), self._shift(m, a), self._logic(m, b)]
        if self._bit_manipulation:
            terms += self._bytes()
        wide, adds = Signal(64), self._is("ADD", "SUB", "SH1ADD", "SH2ADD", "SH3ADD")
        rest = functools.reduce(operator.or_, terms)
        m.d.comb += wide.eq(Mux(adds, total, rest))
        result = Cat(wide[:32], Mux(self.word, wide[31].replicate(32), wide[32:]))
        if self._bit_manipulation:
            # Which one is less is known last, and no word is chosen by it.
            chooses = self._is("MIN", "MINU", "MAX", "MAXU")
            first = less ^ self._is("MAX", "MAXU")
            result = Mux(chooses, Mux(first, self.a, self.b), result)
        m.d.comb += self.result.eq(result)
        return m

    def _is(self, *names):
        """Whether the operation is one of those, as far as the unit has them."""
        there = [name for name in names if self._bit_manipulation or name in _BASE]
        return Cat(self.operation == AluOperation[name] for name in there).any()

    def _sum(self, m, a, b, inverts):
        """a + b, a - b or a multiple of a + b; and whether a is less than b.

        One adder serves sums, differences and comparisons: a - b = a + ~b + 1, and its carry is 1
        exactly when a >= b, unsigned.
        """
        addend, total, less = a, Signal(65), Signal()
        if self._bit_manipulation:
            # Bits 2:1 of these operations say how often a is doubled.
            multiple = self._is("SH1ADD", "SH2ADD", "SH3ADD")
            for bit in range(2):
                doubled = Signal(64, name=f"doubled_{bit}")
                doubles = multiple & self.operation.as_value()[1 + bit]
                m.d.comb += doubled.eq(Mux(doubles, addend << (1 << bit), addend))
                addend = doubled
        unsigned = self._is("SLTU", "MINU", "MAXU")
        m.d.comb += [
            total.eq(addend + b + inverts),
            less.eq(Mux(~unsigned & (self.a[63] ^ self.b[63]), self.a[63], ~total[64])),
        ]
        return total[:64], less

    def _shift(self, m, a):
        """One rotation to the right serves all shifts; a mask keeps what they do not shift in.

        By n to the left is by -n to the right, and keeps what is not below n; to the right, what
        is below -n is kept. Words are rotated as two of the same.
        """
        word = self.word
        left, rotates = self._is("SLL", "ROL"), self._is("ROL", "ROR")
        right, single = self._is("SRL", "SRA", "ROR"), self._is("BEXT")
        amount, negated = Signal(6), Signal(6)
        steps, border = Signal(6), Signal(6)
        straight = Signal(64)
        m.d.comb += [
            amount.eq(Cat(self.b[:5], self.b[5] & ~word)),
            negated.eq(-amount),
            steps.eq(Mux(left, negated, amount)),
            border.eq(Mux(left, amount, Cat(negated[:5], negated[5] & ~word))),
            straight.eq(Cat(a[:32], Mux(word, a[:32], a[32:]))),
        ]
        value = straight
        for bit in range(6):
            rotated = Signal(64, name=f"rotated_{1 << bit}")
            m.d.comb += rotated.eq(Mux(steps[bit], value.rotate_right(1 << bit), value))
            value = rotated
        # The border lies in one row of eight bits; the others are kept whole, or not at all.
        whole, cut, columns = Signal(8), Signal(8), Signal(8)
        shifts, everything = left | right, rotates | (right & (amount == 0))
        row, column = border[3:], border[:3]
        for n in range(_ROW_COUNT):
            there = shifts & ~word if n >= _ROW_COUNT // 2 else shifts
            m.d.comb += [
                whole[n].eq(there & (everything | Mux(left, row < n, row > n))),
                cut[n].eq(there & (row == n)),
                columns[n].eq(left ^ (column > n)),
            ]
        if self._bit_manipulation:
            with m.If(single):
                m.d.comb += [cut[0].eq(1), columns.eq(1)]
        kept, sign = Signal(64), Signal()
        with m.If(shifts | single):
            m.d.comb += kept.eq(_rows(whole) | _rows(cut, columns))
        m.d.comb += sign.eq(self._is("SRA") & Mux(word, a[31], a[63]))
        return (value & kept) | (~kept & sign.replicate(64))

    def _logic(self, m, b):
        """What every bit does by itself, with a bit of b or of a mask made of rows and columns."""
        a = self.a
        other, function = Signal(64), Signal(_Function)
        high, low = Signal(8), Signal(8)
        result = Signal(64)
        with m.If(self._is("XOR", "XNOR", "BINV")):
            m.d.comb += function.eq(_Function.XOR)
        with m.Elif(self._is("OR", "ORN", "BSET")):
            m.d.comb += function.eq(_Function.OR)
        with m.Elif(self._is("ORC_B")):
            m.d.comb += function.eq(_Function.NOT)
        # Without a second operand and without a mask nothing is left of a.
        masked = ~self._is("XOR", "XNOR", "OR", "ORN", "AND", "ANDN")
        m.d.comb += [high.eq(masked.replicate(8)), low.eq(~0)]
        if self._bit_manipulation:
            with m.If(self._is("BSET", "BINV", "BCLR")):
                # One bit of 64, from two factors: that is cheaper than a decoder.
                m.d.comb += [high.eq(1 << self.b[3:6]), low.eq(1 << self.b[:3])]
            with m.If(self._is("SEXT_B")):
                m.d.comb += high[:1].eq(0)
            with m.If(self._is("SEXT_H", "ZEXT_H")):
                m.d.comb += high[:2].eq(0)
            with m.If(self._is("ORC_B")):
                m.d.comb += high.eq(Cat(~a.word_select(n, 8).any() for n in range(_ROW_COUNT)))
        mask = Signal(64)
        with m.If(masked):
            m.d.comb += mask.eq(_rows(high, low))
        m.d.comb += other.eq((b & ~masked.replicate(64)) | mask)
        with m.Switch(function):
            with m.Case(_Function.ANDN):
                m.d.comb += result.eq(a & ~other)
            with m.Case(_Function.XOR):
                m.d.comb += result.eq(a ^ other)
            with m.Case(_Function.OR):
                m.d.comb += result.eq(a | other)
            with m.Case(_Function.NOT):
                m.d.comb += result.eq(~other)
        return result

    def _bytes(self):
        """Bytes in reverse order, and the sign above a byte or a halfword."""
        a = self.a
        byte_sign, half_sign = self._is("SEXT_B") & a[7], self._is("SEXT_H") & a[15]
        signs = Cat(Const(0, 1), byte_sign, (byte_sign | half_sign).replicate(6))
        octets = [a.word_select(n, 8) for n in range(_ROW_COUNT)]
        return [Cat(reversed(octets)) & self._is("REV8").replicate(64), _rows(signs)]

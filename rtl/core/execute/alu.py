"""The arithmetic and logic unit: every integer result that takes no memory of its own."""

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
        total, less = self._sum(m, a)
        shifted = self._shift(m, a)
        logic = self._logic(m)

        wide, greatest = Signal(64), Signal()
        m.d.comb += greatest.eq(self._is("MAX", "MAXU"))
        with m.Switch(self.operation):
            for names, value in (
                (("SLT", "SLTU"), less),
                (("ADD", "SUB", "SH1ADD", "SH2ADD", "SH3ADD"), total),
                (("SLL", "SRL", "SRA", "ROL", "ROR"), shifted),
                (("BEXT",), shifted[0]),
                (("MIN", "MINU", "MAX", "MAXU"), Mux(less ^ greatest, self.a, self.b)),
            ):
                self._case(m, names, wide, value)
            with m.Default():
                m.d.comb += wide.eq(logic)
        word = self.word
        m.d.comb += self.result.eq(Cat(wide[:32], Mux(word, wide[31].replicate(32), wide[32:])))
        return m

    def _there(self, names):
        return [AluOperation[name] for name in names if self._bit_manipulation or name in _BASE]

    def _is(self, *names):
        """Whether the operation is one of those, as far as the unit has them."""
        return Cat(self.operation == operation for operation in self._there(names)).any()

    def _case(self, m, names, output, value):
        """For the operations named, as far as the unit has them, ``output`` is ``value``."""
        if operations := self._there(names):
            with m.Case(*operations):
                m.d.comb += output.eq(value)

    def _sum(self, m, a):
        """a + b, a - b or a multiple of a + b; and whether a is less than b.

        One adder serves sums, differences and comparisons: a - b = a + ~b + 1, and its carry is 1
        exactly when a >= b, unsigned.
        """
        subtract, unsigned = Signal(), Signal()
        addend, total = Signal(64), Signal(65)
        less_unsigned, less = Signal(), Signal()
        with m.Switch(self.operation):
            for by in (1, 2, 3):
                self._case(m, [f"SH{by}ADD"], addend, a << by)
            with m.Default():
                m.d.comb += addend.eq(a)
        m.d.comb += [
            subtract.eq(self._is("SUB", "SLT", "SLTU", "MIN", "MINU", "MAX", "MAXU")),
            unsigned.eq(self._is("SLTU", "MINU", "MAXU")),
            total.eq(addend + (self.b ^ subtract.replicate(64)) + subtract),
            less_unsigned.eq(~total[64]),
            less.eq(Mux(~unsigned & (self.a[63] ^ self.b[63]), self.a[63], less_unsigned)),
        ]
        return total[:64], less

    def _shift(self, m, a):
        """One right shifter serves all shifts: to the left, the operand goes through it reversed."""
        b, word = self.b, self.word
        left, arithmetic, rotate = Signal(), Signal(), Signal()
        amount = Signal(6)
        operand, result = Signal(64), Signal(64)
        # A word is rotated as two of the same.
        above = Mux(rotate, a[:32], (a[31] & arithmetic).replicate(32))
        straight = Cat(a[:32], Mux(word, above, a[32:]))
        m.d.comb += [
            left.eq(self._is("SLL", "ROL")),
            arithmetic.eq(self._is("SRA")),
            rotate.eq(self._is("ROL", "ROR")),
            amount.eq(Cat(b[:5], b[5] & ~word)),
            operand.eq(Mux(left, straight[::-1], straight)),
        ]
        # What comes in from above: the sign, or what goes out below.
        value, sign = operand, arithmetic & operand[63]
        for bit in range(6):
            count = 1 << bit
            incoming = Mux(rotate, value[:count], sign.replicate(count))
            shifted = Signal(64, name=f"shifted_{count}")
            m.d.comb += shifted.eq(Mux(amount[bit], Cat(value[count:], incoming), value))
            value = shifted
        m.d.comb += result.eq(Mux(left, value[::-1], value))
        return result

    def _logic(self, m):
        """What every bit or byte does by itself."""
        a, b = self.a, self.b
        result, other = Signal(64), Signal(64)
        if not self._bit_manipulation:
            m.d.comb += other.eq(b)
        else:
            # One bit of 64, from two factors: that is cheaper than a decoder.
            low, high = Signal(8), Signal(8)
            chosen = Signal(64)
            m.d.comb += [
                low.eq(1 << b[:3]),
                high.eq(1 << b[3:6]),
                chosen.eq(
                    Mux(
                        self._is("BSET", "BINV", "BCLR"),
                        Cat(low & row.replicate(8) for row in high),
                        b,
                    )
                ),
                other.eq(chosen ^ self._is("ANDN", "ORN", "XNOR", "BCLR").replicate(64)),
            ]
        octets = [a.word_select(n, 8) for n in range(8)]
        with m.Switch(self.operation):
            for names, value in (
                (("XOR", "XNOR", "BINV"), a ^ other),
                (("OR", "ORN", "BSET"), a | other),
                (("AND", "ANDN", "BCLR"), a & other),
                (("SEXT_B",), a[:8].as_signed()),
                (("SEXT_H",), a[:16].as_signed()),
                (("ZEXT_H",), a[:16]),
                (("ORC_B",), Cat(octet.any().replicate(8) for octet in octets)),
                (("REV8",), Cat(reversed(octets))),
            ):
                self._case(m, names, result, value)
        return result

"""The integer unit."""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Alu", "AluOperation"]


class AluOperation(enum.Enum, shape=4):
    """What the unit computes; SLL, SRL and SRA use the low bits of b."""

    ADD = 0
    SUB = 1
    SLL = 2
    SLT = 3
    SLTU = 4
    XOR = 5
    SRL = 6
    SRA = 7
    OR = 8
    AND = 9


class Alu(wiring.Component):
    """Compute ``result`` from ``a`` and ``b``; combinational.

    With ``word`` the operation is on bits 31:0 and its result is sign-extended (ADD, SUB and the
    shifts; the others have no such form).
    """

    operation: In(AluOperation)
    word: In(1)
    a: In(64)
    b: In(64)
    result: Out(64)

    def elaborate(self, platform):
        m = Module()
        operation, a, b = self.operation, self.a, self.b
        subtract = (
            (operation == AluOperation.SUB)
            | (operation == AluOperation.SLT)
            | (operation == AluOperation.SLTU)
        )
        total = Signal(65)
        m.d.comb += total.eq(a + Mux(subtract, ~b, b) + subtract)
        signed = operation == AluOperation.SLT
        less = Mux(a[63] == b[63], total[63], Mux(signed, a[63], b[63]))

        # One shifter to the right serves all: a left shift is reversed before and after.
        left = operation == AluOperation.SLL
        arithmetic = operation == AluOperation.SRA
        amount = Signal(6)
        source, fill = Signal(64), Signal()
        m.d.comb += [
            amount.eq(Mux(self.word, b[:5], b[:6])),
            fill.eq(arithmetic & Mux(self.word, a[31], a[63])),
            source.eq(a),
        ]
        with m.If(left):
            m.d.comb += source.eq(a[::-1])
        with m.Elif(self.word):
            m.d.comb += source.eq(Cat(a[:32], fill.replicate(32)))
        shifted = Signal(64)
        m.d.comb += shifted.eq(Cat(source, fill).as_signed() >> amount)

        full = Signal(64)
        with m.Switch(operation):
            with m.Case(AluOperation.ADD, AluOperation.SUB):
                m.d.comb += full.eq(total)
            with m.Case(AluOperation.SLT, AluOperation.SLTU):
                m.d.comb += full.eq(less)
            with m.Case(AluOperation.SLL):
                m.d.comb += full.eq(shifted[::-1])
            with m.Case(AluOperation.SRL, AluOperation.SRA):
                m.d.comb += full.eq(shifted)
            with m.Case(AluOperation.XOR):
                m.d.comb += full.eq(a ^ b)
            with m.Case(AluOperation.OR):
                m.d.comb += full.eq(a | b)
            with m.Case(AluOperation.AND):
                m.d.comb += full.eq(a & b)
        m.d.comb += self.result.eq(full)
        with m.If(self.word):
            m.d.comb += self.result.eq(full[:32].as_signed())
        return m

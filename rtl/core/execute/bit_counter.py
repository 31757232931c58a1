"""Counting bits, for the commit stage: a result nobody can wait for less than for a product."""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BitCounter", "CountOperation"]


class CountOperation(enum.Enum, shape=2):
    """The counts of Zbb; the values are bits 21:20 of the instructions."""

    CLZ = 0
    CTZ = 1
    CPOP = 2


class BitCounter(wiring.Component):
    """Count the zeros above the highest one, those below the lowest, or the ones of ``a``.

    Combinational. With ``word`` only the low 32 bits count. Zeros below the lowest one are the ones
    of a & -a, less 1; those above the highest one are counted in the operand reversed.
    """

    operation: In(CountOperation)
    word: In(1)
    a: In(64)
    result: Out(7)

    def elaborate(self, platform):
        m = Module()
        low, high = self.a[:32], self.a[32:]
        leading = self.operation == CountOperation.CLZ
        straight, zeros, counted = Signal(64), Signal(64), Signal(64)
        # A word's highest bit comes lowest, too.
        doubled = Signal(64)
        m.d.comb += doubled.eq(Cat(low, Mux(self.word, low, high)))
        with m.If(leading):
            m.d.comb += straight.eq(doubled[::-1])
        with m.Else():
            m.d.comb += straight.eq(doubled)
        m.d.comb += [
            zeros.eq(~straight & (straight - 1)),
            counted.eq(Mux(self.operation == CountOperation.CPOP, straight, zeros)),
        ]
        # Behind a word nothing is counted.
        bits = Cat(counted[:32], counted[32:] & ~self.word.replicate(32))
        sums = [bits[at : at + 4] for at in range(0, 64, 4)]
        sums = [part[0] + part[1] + part[2] + part[3] for part in sums]
        while len(sums) > 1:
            sums = [one + other for one, other in zip(sums[::2], sums[1::2], strict=True)]
        m.d.comb += self.result.eq(sums[0])
        return m

"""The arithmetic of atomic memory operations."""

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.instructions import INSTRUCTIONS

__all__ = ["AtomicAlu", "AtomicFunction"]


def _funct5(name):
    return INSTRUCTIONS[f"{name}.d"].match >> 27


class AtomicFunction(enum.Enum, shape=5):
    """funct5 of the AMO instructions."""

    ADD = _funct5("amoadd")
    SWAP = _funct5("amoswap")
    XOR = _funct5("amoxor")
    OR = _funct5("amoor")
    AND = _funct5("amoand")
    MIN = _funct5("amomin")
    MAX = _funct5("amomax")
    MINU = _funct5("amominu")
    MAXU = _funct5("amomaxu")


class AtomicAlu(wiring.Component):
    """What an AMO stores, from ``memory`` (the loaded value, sign-extended) and ``register``.

    With ``double`` = 0 only bits 31:0 of the result mean anything. Combinational.
    """

    function: In(5)
    double: In(1)
    memory: In(64)
    register: In(64)
    result: Out(64)

    def elaborate(self, platform):
        m = Module()
        a, b = Signal(64), Signal(64)
        unsigned = self.function[3]
        m.d.comb += [a.eq(self.memory), b.eq(self.register)]
        with m.If(~self.double):
            # The upper halves only decide comparisons: extend both alike.
            m.d.comb += [
                a[32:].eq((a[31] & ~unsigned).replicate(32)),
                b[32:].eq((b[31] & ~unsigned).replicate(32)),
            ]
        # One adder: a - b = a + ~b + 1, and its carry is 1 exactly when a >= b, unsigned.
        adds = self.function == AtomicFunction.ADD.value
        total = Signal(65)
        less, takes_memory = Signal(), Signal()
        maximum = self.function[2]
        m.d.comb += [
            total.eq(a + (b ^ (~adds).replicate(64)) + ~adds),
            less.eq(Mux(~unsigned & (a[63] ^ b[63]), a[63], ~total[64])),
            takes_memory.eq(less ^ maximum),
        ]
        with m.Switch(self.function):
            with m.Case(AtomicFunction.SWAP.value):
                m.d.comb += self.result.eq(b)
            with m.Case(AtomicFunction.ADD.value):
                m.d.comb += self.result.eq(total[:64])
            with m.Case(AtomicFunction.XOR.value):
                m.d.comb += self.result.eq(a ^ b)
            with m.Case(AtomicFunction.OR.value):
                m.d.comb += self.result.eq(a | b)
            with m.Case(AtomicFunction.AND.value):
                m.d.comb += self.result.eq(a & b)
            with m.Default():
                m.d.comb += self.result.eq(Mux(takes_memory, a, b))
        return m

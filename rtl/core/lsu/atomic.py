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
    """What an AMO stores, from the value it has loaded and that of ``register``.

    With ``double`` = 0 only bits 31:0 of operands and result mean anything. Combinational.
    """

    function: In(5)
    double: In(1)
    memory: In(64)
    register: In(64)
    result: Out(64)

    def elaborate(self, platform):
        m = Module()
        inverts = Signal()
        unsigned, maximum = self.function[3], self.function[2]
        adds = self.function == AtomicFunction.ADD.value
        swaps = self.function == AtomicFunction.SWAP.value
        # a OR b is both: where they differ, and where both are one.
        differ = (self.function == AtomicFunction.XOR.value) | (
            self.function == AtomicFunction.OR.value
        )
        agree = (self.function == AtomicFunction.AND.value) | (
            self.function == AtomicFunction.OR.value
        )
        chooses = ~(adds | swaps | differ | agree)
        # One adder: a - b = a + ~b + 1, and its carry is 1 exactly when a >= b, unsigned. Words that
        # are both sign-extended keep their unsigned order.
        total = Signal(65)
        less, takes_memory = Signal(), Signal()
        a, b = (
            Cat(value[:32], Mux(self.double, value[32:], value[31].replicate(32)))
            for value in (self.memory, self.register)
        )
        b ^= inverts.replicate(64)
        m.d.comb += [
            inverts.eq(chooses | swaps),
            total.eq(a + b + inverts),
            less.eq(Mux(~unsigned & (a[63] ^ b[63] ^ inverts), a[63], ~total[64])),
            takes_memory.eq(less ^ maximum),
        ]
        # Every term is zero unless it is asked for.
        bitwise = Mux(agree, Mux(differ, a | b, a & b), Mux(differ, a ^ b, 0))
        chosen = Mux(chooses & takes_memory, a, Mux(chooses | swaps, ~b, bitwise))
        m.d.comb += self.result.eq(Mux(adds, total[:64], chosen))
        return m

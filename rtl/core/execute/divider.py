"""The divider: one quotient bit per cycle, leading zeros skipped."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DivideOperation", "DivideRequest", "Divider"]


class DivideOperation(enum.Enum, shape=3):
    """funct3[1:0] of the instruction; bit 2 for the forms on 32 bits."""

    DIV = 0
    DIVU = 1
    REM = 2
    REMU = 3
    DIVW = 4
    DIVUW = 5
    REMW = 6
    REMUW = 7


class DivideRequest(data.Struct):
    """Operands as they stand in rs1 (``a``, the dividend) and rs2 (``b``, the divisor)."""

    operation: DivideOperation
    a: 64
    b: 64


class _State(enum.Enum, shape=2):
    IDLE = 0
    ALIGN = 1
    DIVIDE = 2
    FINISH = 3


class Divider(wiring.Component):
    """Divide; the result is on ``o`` after 3 cycles plus one per significant bit of |dividend|.

    Division by zero gives a quotient of all ones and the dividend as remainder; the most negative
    number divided by -1 gives itself and remainder 0 (Unprivileged ISA, "Division Operations").
    """

    i: In(stream.Signature(DivideRequest))
    o: Out(stream.Signature(64))

    def elaborate(self, platform):
        m = Module()
        request = self.i.payload
        code = request.operation.as_value()
        state = Signal(_State)
        word, remainder_wanted = Signal(), Signal()
        negative_quotient, negative_remainder = Signal(), Signal()
        # ``low`` holds the dividend's bits still to come, and below them the quotient's so far.
        low, high, divisor = Signal(64), Signal(64), Signal(64)
        count = Signal(7)

        signed_ = ~code[0]
        a, b = Signal(64), Signal(64)
        m.d.comb += [a.eq(request.a), b.eq(request.b)]
        with m.If(code[2]):
            m.d.comb += [
                a.eq(Cat(request.a[:32], (request.a[31] & signed_).replicate(32))),
                b.eq(Cat(request.b[:32], (request.b[31] & signed_).replicate(32))),
            ]
        a_negative, b_negative = signed_ & a[63], signed_ & b[63]

        m.d.comb += self.i.ready.eq((state == _State.IDLE) & ~self.o.valid)
        with m.Switch(state):
            with m.Case(_State.IDLE):
                with m.If(self.i.valid & self.i.ready):
                    m.d.sync += [
                        state.eq(_State.ALIGN),
                        word.eq(code[2]),
                        remainder_wanted.eq(code[1]),
                        negative_quotient.eq((a_negative ^ b_negative) & (b != 0)),
                        negative_remainder.eq(a_negative),
                        low.eq(Mux(a_negative, -a, a)),
                        divisor.eq(Mux(b_negative, -b, b)),
                        high.eq(0),
                    ]
            with m.Case(_State.ALIGN):
                # Shift the dividend's leading zeros out, in powers of two.
                shifted, zeros = low, []
                for step in reversed(range(6)):
                    empty = Signal(name=f"empty{step}")
                    m.d.comb += empty.eq(~shifted[64 - (1 << step) :].any())
                    shifted_next = Signal(64, name=f"shifted{step}")
                    m.d.comb += shifted_next.eq(Mux(empty, shifted << (1 << step), shifted))
                    shifted = shifted_next
                    zeros.insert(0, empty)
                m.d.sync += [low.eq(shifted), count.eq(64 - Cat(*zeros)), state.eq(_State.DIVIDE)]
            with m.Case(_State.DIVIDE):
                difference = Signal(66)
                partial = Cat(low[63], high)
                m.d.comb += difference.eq(partial - divisor)
                fits = ~difference[65]
                m.d.sync += [
                    high.eq(Mux(fits, difference, partial)),
                    low.eq(Cat(fits, low[:63])),
                    count.eq(count - 1),
                ]
                with m.If(count == 1):
                    m.d.sync += state.eq(_State.FINISH)
            with m.Case(_State.FINISH):
                # Bits above the skipped ones are quotient zeros; a zero divisor makes them ones.
                quotient = Mux(divisor == 0, Const(2**64 - 1, 64), low)
                chosen = Signal(64)
                negative = Mux(remainder_wanted, negative_remainder, negative_quotient)
                magnitude = Mux(remainder_wanted, high, quotient)
                m.d.comb += chosen.eq(Mux(negative, -magnitude, magnitude))
                m.d.sync += [
                    self.o.valid.eq(1),
                    self.o.payload.eq(Mux(word, chosen[:32].as_signed(), chosen)),
                    state.eq(_State.IDLE),
                ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m

"""The divider: one bit of the quotient per cycle, and few cycles for its leading zeros."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DivideOperation", "DivideRequest", "Divider"]


class DivideOperation(enum.Enum, shape=3):
    """The divisions of the M extension; bits 1:0 are those of funct3, bit 2 is the W form."""

    DIV = 0
    DIVU = 1
    REM = 2
    REMU = 3
    DIVW = 4
    DIVUW = 5
    REMW = 6
    REMUW = 7


class DivideRequest(data.Struct):
    """``a``, the value of rs1, is divided by ``b``, that of rs2."""

    operation: DivideOperation
    a: 64
    b: 64


#: The divisor is brought below the dividend by so many digits at a time, at first.
_STRIDE = 4


class Divider(wiring.Component):
    """Divide, one request at a time.

    The divisor goes up in strides until it is more than the dividend or reaches the top, and comes
    down digit by digit. Let n be the digits it goes up and s the steps it takes for that. The answer
    is offered n + s + 4 cycles after the cycle in which the request was taken, or 2 after it when the
    divisor is more than the dividend or is 0.

    Members
    -------
    i : In(stream.Signature(DivideRequest))
        Dividend and divisor; taken when no division is under way.
    o : Out(stream.Signature(64))
        Value for rd; division by zero and overflow as the manual says.
    """

    i: In(stream.Signature(DivideRequest))
    o: Out(stream.Signature(64))

    def elaborate(self, platform):
        m = Module()
        unsigned, wants_remainder, word = self.i.p.operation.as_value()

        def operand(value):
            """Sign and magnitude."""
            sign = ~unsigned & Mux(word, value[31], value[63])
            wide = Cat(value[:32], Mux(word, sign.replicate(32), value[32:]))
            return sign, ((wide ^ sign.replicate(64)) + sign)[:64]

        a_sign, a_magnitude = operand(self.i.p.a)
        b_sign, b_magnitude = operand(self.i.p.b)

        remainder, divisor, quotient = Signal(64), Signal(64), Signal(64)
        steps = Signal(6)
        remainder_wanted, word_wanted, negate = Signal(), Signal(), Signal()

        difference = Signal(65)
        m.d.comb += difference.eq(remainder - divisor)
        fits = ~difference[64]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [
                        remainder.eq(a_magnitude),
                        divisor.eq(b_magnitude),
                        remainder_wanted.eq(wants_remainder),
                        word_wanted.eq(word),
                        negate.eq(a_sign ^ (b_sign & ~wants_remainder)),
                    ]
                    m.next = "BEGIN"

            with m.State("BEGIN"):
                m.d.sync += [quotient.eq(0), steps.eq(0)]
                m.next = "RISE"
                with m.If(~divisor.any()):
                    # Division by zero: the quotient is -1, the remainder the dividend.
                    m.d.sync += quotient.eq(~0)
                    with m.If(~remainder_wanted):
                        m.d.sync += negate.eq(0)
                    m.next = "DONE"
                with m.Elif(~fits):
                    m.next = "DONE"

            with m.State("RISE"):
                with m.If(fits & ~divisor[-_STRIDE:].any()):
                    m.d.sync += [divisor.eq(divisor << _STRIDE), steps.eq(steps + _STRIDE)]
                with m.Elif(fits & ~divisor[-1]):
                    m.d.sync += [divisor.eq(divisor << 1), steps.eq(steps + 1)]
                with m.Else():
                    m.next = "SUBTRACT"

            with m.State("SUBTRACT"):
                m.d.sync += [
                    quotient.eq(Cat(fits, quotient)),
                    divisor.eq(divisor >> 1),
                    steps.eq(steps - 1),
                ]
                with m.If(fits):
                    m.d.sync += remainder.eq(difference)
                with m.If(steps == 0):
                    m.next = "DONE"

            with m.State("DONE"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"

        chosen, signed_value = Signal(64), Signal(64)
        m.d.comb += [
            chosen.eq(Mux(remainder_wanted, remainder, quotient)),
            signed_value.eq((chosen ^ negate.replicate(64)) + negate),
            self.o.p.eq(
                Cat(
                    signed_value[:32],
                    Mux(word_wanted, signed_value[31].replicate(32), signed_value[32:]),
                )
            ),
        ]
        return m

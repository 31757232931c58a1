"""Quotient and remainder, judged by multiplication."""

from amaranth import *

from tests.proofs.properties import Fault, Proof

__all__ = ["PROOFS"]

#: Significant bits of the operands, with the sign: z3 multiplies few bits quickly only.
_WIDTH = 4
#: Cycles after which the answer to such operands is there (the unit's docstring).
_CYCLES = 4 + 1 + 4


def _divider(p, unit_class):
    m = p.m
    a, b = p.any_constant(signed(_WIDTH), "a"), p.any_constant(signed(_WIDTH), "b")
    is_unsigned, word = p.any_constant(1, "is_unsigned"), p.any_constant(1, "word")
    dividend, divisor = Signal(signed(_WIDTH + 1)), Signal(signed(_WIDTH + 1))
    m.d.comb += [
        dividend.eq(Mux(is_unsigned, a.as_unsigned(), a)),
        divisor.eq(Mux(is_unsigned, b.as_unsigned(), b)),
    ]
    answers, offered = [], []
    for name, remainder in (("quotient", 0), ("remainder", 1)):
        unit = unit_class()
        p.unit(name, unit, inputs=(unit.i.payload, unit.i.valid, unit.o.ready))
        asks = unit.i.payload
        operation = Cat(is_unsigned, C(remainder, 1), word)
        m.d.comb += [unit.i.valid.eq(1), asks.operation.as_value().eq(operation)]
        for operand, value in ((asks.a, dividend), (asks.b, divisor)):
            wide = Signal(signed(64))
            # W forms do not look at the upper half.
            upper = p.any_constant(32, "upper")
            m.d.comb += [wide.eq(value), operand.eq(Cat(wide[:32], Mux(word, upper, wide[32:])))]
        answers.append(unit.o.payload.as_signed())
        offered.append(unit.o.valid)
    age = Signal(range(_CYCLES + 1))
    m.d.sync += age.eq(age + (age != _CYCLES))
    p.always((age != _CYCLES) | Cat(offered).all(), "both answers come in time")

    quotient, remainder = Signal(signed(2 * _WIDTH)), Signal(signed(2 * _WIDTH))
    m.d.comb += [quotient.eq(answers[0]), remainder.eq(answers[1])]
    fits = (answers[0] == quotient) & (answers[1] == remainder)
    divides = (
        fits
        & (quotient * divisor + remainder == dividend)
        & (abs(remainder) < abs(divisor))
        & ((remainder == 0) | ((remainder < 0) == (dividend < 0)))
    )
    by_zero = (answers[0] == -1) & (answers[1] == dividend)
    given = Cat(offered).all()
    p.always(
        ~given | (divisor == 0) | divides,
        "dividend = quotient * divisor + remainder, rounded towards zero",
    )
    p.always(~given | (divisor != 0) | by_zero, "division by zero gives -1 and the dividend")


PROOFS = (
    Proof(
        f"divider, {_WIDTH}-bit operands, first division",
        "rtl.core.execute.divider:Divider",
        _divider,
        (
            Fault("the remainder has the divisor's sign", "(b_sign & ~wants_remainder)", "b_sign"),
            Fault("one step too few", "m.If(steps == 0)", "m.If(steps <= 1)"),
            Fault(
                "equal is too small", "fits = ~difference[64]", "fits = (difference - 1)[64] == 0"
            ),
            Fault("zero is not seen", "m.If(~divisor.any())", "m.If(C(0))"),
        ),
        depth=_CYCLES + 1,
        fault_depth=_CYCLES + 1,
        bounded=True,
    ),
)

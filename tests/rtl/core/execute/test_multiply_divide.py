"""Multiplier and divider against Python's integers, with their latencies."""

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from rtl.arch.instructions import INSTRUCTIONS
from rtl.core.execute.divider import DivideOperation, Divider
from rtl.core.execute.multiplier import Multiplier, MultiplyOperation
from tests.rtl.core.execute.operands import MASK, operands, pairs, sext
from tests.streams import get, put, simulate

PRODUCTS = {
    MultiplyOperation.MUL: lambda a, b: a * b,
    MultiplyOperation.MULH: lambda a, b: sext(a, 64) * sext(b, 64) >> 64,
    MultiplyOperation.MULHSU: lambda a, b: sext(a, 64) * b >> 64,
    MultiplyOperation.MULHU: lambda a, b: a * b >> 64,
    MultiplyOperation.MULW: lambda a, b: sext(a * b, 32),
}


def divide(operation, a, b):
    """Quotient or remainder as the M extension defines it: rounded towards zero."""
    bits = 32 if operation.name.endswith("W") else 64
    unsigned = "U" in operation.name
    a, b = (value % 2**bits if unsigned else sext(value, bits) for value in (a, b))
    if b == 0:
        quotient, remainder = -1, a
    else:
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        remainder = a - b * quotient
    return sext(quotient if "DIV" in operation.name else remainder, bits) & MASK


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(list(MultiplyOperation)), pairs), min_size=30, max_size=80)
)
@example([(k, (1 << i, MASK)) for k in MultiplyOperation for i in range(64)])
def test_products(drawn):
    """One per cycle; what is not loaded makes no difference."""
    dut = Multiplier()

    async def testbench(ctx):
        wanted = None
        for index, (operation, (a, b)) in enumerate(drawn):
            for port, value in ((dut.operation, operation), (dut.a, a), (dut.b, b)):
                ctx.set(port, value)
            ctx.set(dut.load, load := index % 5 != 4)
            await ctx.tick()
            if load:
                wanted = PRODUCTS[operation](a, b) & MASK
            assert ctx.get(dut.result) == wanted, (operation, a, b)

    simulate(dut, testbench)


_quotients = st.builds(
    # Dividends made from their quotients, so that remainders of 0 and close to the divisor occur.
    lambda b, quotient, rest: (b * quotient + rest & MASK, b),
    operands,
    operands,
    st.integers(-1, 1),
)
_corners = [
    (a, b)
    for a in (0, 1, MASK, 1 << 63, 1 << 31, (1 << 64) - (1 << 31), 0xFFFF_FFFF)
    for b in (0, 1, MASK, 0xFFFF_FFFF, 1 << 32, 1 << 63)
]


def latency_of(operation, a, b):
    """In how many cycles the answer comes: the divisor goes up, by four digits while they are free,
    to above the dividend or to the top; then each digit is one of the quotient.
    """
    bits = 32 if operation.name.endswith("W") else 64
    unsigned = "U" in operation.name
    a, b = (value % 2**bits if unsigned else abs(sext(value, bits)) for value in (a, b))
    if b == 0 or a < b:
        return 2
    digits = rises = 0
    while a >= b << digits and digits + b.bit_length() < 64:
        digits += 4 if digits + b.bit_length() <= 60 else 1
        rises += 1
    return digits + rises + 4


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(DivideOperation)), pairs | _quotients),
        min_size=10,
        max_size=30,
    )
)
@example([(operation, pair) for operation in DivideOperation for pair in _corners])
def test_quotients_and_remainders(drawn):
    dut, latencies = Divider(), []

    async def testbench(ctx):
        for operation, (a, b) in drawn:
            assert ctx.get(dut.i.ready)
            await put(ctx, dut.i, {"operation": operation, "a": a, "b": b})
            latency = 1
            while not ctx.get(dut.o.valid):
                assert not ctx.get(dut.i.ready)
                await ctx.tick()
                latency += 1
            assert await get(ctx, dut.o) == divide(operation, a, b), (operation, a, b)
            assert latency == latency_of(operation, a, b)
            latencies.append(latency)

    simulate(dut, testbench)
    event(f"longest division: {max(latencies) // 10 * 10}+ cycles")


def test_codes_are_those_of_funct3():
    for operation in (*MultiplyOperation, *DivideOperation):
        assert operation.value & 3 == INSTRUCTIONS[operation.name.lower()].match >> 12 & 3

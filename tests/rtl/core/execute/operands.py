"""Operands of 64-bit operations: any, and those at which something changes."""

from amaranth.sim import Simulator
from hypothesis import strategies as st

__all__ = ["MASK", "combinational", "operands", "pairs", "sext"]

MASK = (1 << 64) - 1


def sext(value, width):
    """The low ``width`` bits of ``value`` as a signed number."""
    value &= (1 << width) - 1
    return value - (value >> width - 1 << width)


def combinational(dut, cases, inputs, output):
    """The output for each case."""
    results = []

    async def testbench(ctx):
        for case in cases:
            for port, value in zip(inputs, case, strict=True):
                ctx.set(port, value)
            await ctx.delay(1e-9)
            results.append(ctx.get(output))

    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()
    return results


_edges = st.builds(
    lambda bit, delta, high: ((1 << bit) + delta ^ high << 32) & MASK,
    st.integers(0, 64),
    st.integers(-2, 2),
    st.sampled_from([0, 0, 0xFFFF_FFFF, 0x8000_0000, 1]),
)
_short = st.builds(lambda value, keep: value >> keep, st.integers(0, MASK), st.integers(0, 63))
operands = st.one_of(_edges, _short, st.integers(0, MASK))
#: Two operands, sometimes the same or neighbours.
pairs = st.one_of(
    st.tuples(operands, operands),
    st.tuples(operands, operands),
    st.builds(lambda a, delta: (a, a + delta & MASK), operands, st.integers(-1, 1)),
)

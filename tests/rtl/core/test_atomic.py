"""The ALU of atomics against Python's integers."""

from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.instructions import INSTRUCTIONS
from rtl.core.lsu.atomic import AtomicAlu, AtomicFunction

OPERATIONS = {
    "amoswap": lambda old, new: new,
    "amoadd": lambda old, new: old + new,
    "amoxor": lambda old, new: old ^ new,
    "amoand": lambda old, new: old & new,
    "amoor": lambda old, new: old | new,
    "amomin": min,
    "amomax": max,
    "amominu": min,
    "amomaxu": max,
}


def sext(value, bits):
    return (value & (1 << bits) - 1 ^ 1 << bits - 1) - (1 << bits - 1)


def wanted(name, bits, old, new):
    """The ``bits`` bits stored, from the operands as numbers of the instruction's kind."""
    if name in ("amomin", "amomax"):
        old, new = sext(old, bits), sext(new, bits)
    else:
        old, new = old % 2**bits, new % 2**bits
    return OPERATIONS[name](old, new) % 2**bits


def compute(cases):
    dut = AtomicAlu()
    results = []

    async def testbench(ctx):
        for name, bits, old, new in cases:
            ctx.set(dut.function, INSTRUCTIONS[f"{name}.d"].match >> 27)
            ctx.set(dut.double, bits == 64)
            ctx.set(dut.memory, old)
            ctx.set(dut.register, new)
            await ctx.delay(1e-9)
            results.append(ctx.get(dut.result) % 2**bits)

    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()
    return results


edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
values = st.sampled_from(edges) | st.integers(0, 2**64 - 1)
cases = st.tuples(st.sampled_from(list(OPERATIONS)), st.sampled_from([32, 64]), values, values)


@settings(max_examples=20, deadline=None)
@given(st.lists(cases, min_size=100, max_size=200))
def test_what_is_stored_is_what_the_instruction_says(drawn):
    drawn = [
        # The loaded word comes sign-extended; the register as it is.
        (name, bits, sext(old, bits) % 2**64, new)
        for name, bits, old, new in drawn
    ]
    assert compute(drawn) == [wanted(*case) for case in drawn]


def test_every_edge_with_every_edge():
    drawn = [
        (name, bits, sext(old, bits) % 2**64, new)
        for name in OPERATIONS
        for bits in (32, 64)
        for old in edges
        for new in edges
    ]
    assert compute(drawn) == [wanted(*case) for case in drawn]


def test_functions_are_those_of_the_instructions():
    assert {f"amo{f.name.lower()}" for f in AtomicFunction} == set(OPERATIONS)

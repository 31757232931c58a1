"""What is carried out on symbols is what Python makes of the numbers."""

import pytest
from amaranth import *
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.golden.vmx import entry_checks
from tests.proofs.symbolic import Explorer, Symbol, symbolic_copy


def _chained(word, mask):
    return mask <= word & 0xF0 < 0x80 or word % 8 == 0


def _with_ways(word, mask):
    found = (word >> 2, mask) if word & 1 else None
    if found is None:
        return mask != 7
    return not found[0] & ~found[1]


def _each_bit(word, mask):
    return all(word & bit for bit in (1, 2) if mask & bit)


def _beyond_the_mask(word, mask):
    return word & 0x1FF & ~(mask & 0xF0) == word << 1


def _agrees(function, symbolic, width, pairs):
    m, explorer = Module(), Explorer()
    word, mask, result = Signal(width), Signal(width), Signal()
    symbols = [Symbol(signal, explorer) for signal in (word, mask)]
    m.d.comb += result.eq(explorer.truth(lambda: symbolic(*symbols)))

    async def testbench(ctx):
        for numbers in pairs:
            ctx.set(Cat(word, mask), numbers[0] | numbers[1] << width)
            assert ctx.get(result) == bool(function(*numbers)), numbers

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("function", [_chained, _with_ways, _each_bit, _beyond_the_mask])
@given(pairs=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1))
@settings(max_examples=20)
def test_a_function_of_symbols_is_that_of_numbers(function, pairs):
    _agrees(function, function, 8, pairs)


def test_symbols_are_found_in_sets():
    def asked_of(module):
        predicates = {check.name: passes for check, passes in module._PREDICATES}
        return lambda word, _: predicates["injection_cause"]({"entry_interruption": word})

    words = [valid << 31 | low for valid in (0, 1) for low in range(1 << 11)]
    symbolic = asked_of(symbolic_copy(entry_checks))
    _agrees(asked_of(entry_checks), symbolic, 32, [(word, 0) for word in words])

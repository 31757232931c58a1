"""Which interrupt is taken, against the rule of the Privileged Architecture."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.traps import Interrupt
from rtl.core.traps import InterruptSelect
from tests.rtl.core.interrupt_rule import CODES, LEVEL, wanted
from tests.streams import simulate

lines = st.lists(st.sampled_from(list(CODES.values()))).map(lambda c: sum(1 << n for n in set(c)))
cases = st.tuples(
    lines,
    lines | st.just(sum(1 << n for n in CODES.values())),
    lines,
    st.sampled_from(list(LEVEL)),
    st.integers(0, 1),
    st.integers(0, 1),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(cases, min_size=40, max_size=80))
def test_the_interrupt_is_the_one_the_rule_chooses(drawn):
    dut = InterruptSelect()

    async def testbench(ctx):
        for case in drawn:
            names = ("pending", "enabled", "delegated", "privilege", "mie", "sie")
            for name, value in zip(names, case, strict=True):
                ctx.set(getattr(dut, name), value)
            await ctx.tick()
            valid, code, wake = wanted(*case)
            assert (ctx.get(dut.valid), ctx.get(dut.wake)) == (valid, wake), case
            assert not valid or ctx.get(dut.code) == code, case

    simulate(dut, testbench)


def test_the_codes_are_those_of_the_facts():
    names = {name[0] for name in CODES}, {name[1] for name in CODES}
    assert names == ({"M", "S"}, {"E", "S", "T"})
    assert {
        f"{i.name.split('_')[0][0]}{i.name.split('_')[1][0]}": i.value for i in Interrupt
    } == CODES

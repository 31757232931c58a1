"""Which interrupt is taken, against the rule of the Privileged Architecture."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.traps import Interrupt
from rtl.core.traps import InterruptSelect
from rtl.mmu.context import Privilege
from tests.streams import simulate

#: "Simultaneous interrupts destined for M-mode are handled in the following decreasing priority
#: order: MEI, MSI, MTI, SEI, SSI, STI", and those for S-mode: SEI, SSI, STI.
ORDER = ["ME", "MS", "MT", "SE", "SS", "ST"]
CODES = {"ME": 11, "MS": 3, "MT": 7, "SE": 9, "SS": 1, "ST": 5}
LEVEL = {Privilege.USER: 0, Privilege.SUPERVISOR: 1, Privilege.MACHINE: 3}


def wanted(pending, enabled, delegated, privilege, mie, sie):
    """(valid, code, wake); the code is None when none is taken."""
    level = LEVEL[privilege]
    ready = pending & enabled
    for destination, enable in ((3, mie), (1, sie)):
        for name in ORDER:
            code = CODES[name]
            if not ready >> code & 1:
                continue
            if (1 if delegated >> code & 1 else 3) != destination:
                continue
            # Taken below the level it is for, and at that level when it is enabled there.
            if level < destination or (level == destination and enable):
                return 1, code, 1
    return 0, None, int(any(ready >> code & 1 for code in CODES.values()))


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

"""The guest's time from the machine's, and back (docs/isa/vmx.md#time)."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtl.arch.vmx.fields import TIME_SCALE_FRACTION
from sim.golden.vmx.virtual_time import machine_ticks, virtual_ticks
from sw_vmm.assembler import encode
from tests.golden.vmx.world import World, controls, number

WORD = st.integers(0, (1 << 64) - 1) | st.integers(0, 63).map(lambda bit: 1 << bit)
UNIT = 1 << TIME_SCALE_FRACTION


def fields(scale, offset):
    names = [] if scale is None else ["use_time_scale"]
    return {
        "execution_controls": controls(*names),
        "time_scale": scale or 0,
        "time_offset": offset,
    }


SCALES = st.none() | WORD.filter(bool)


@pytest.mark.model_only
@given(SCALES, WORD, WORD)
@example(UNIT // 3, 0, (1 << 64) - 1)
def test_the_formula(scale, offset, ticks):
    rate = Fraction(1) if scale is None else Fraction(scale, UNIT)
    expected = (floor(ticks * rate) + offset) % (1 << 64)
    assert virtual_ticks(fields(scale, offset), ticks) == expected


@pytest.mark.model_only
@given(SCALES, WORD, WORD, st.integers(0, 1 << 20))
@example((1 << 64) - 1, 0, (1 << 64) - 1, 0)
@example(1, 5, 1 << 63, 3)
def test_what_the_guest_reads_tells_the_time(scale, offset, ticks, before):
    """The first time that fits, which is not before what is known."""
    state = fields(scale, offset)
    value, since = virtual_ticks(state, ticks), max(0, ticks - before)
    found = machine_ticks(state, value, since)
    assert found is not None and since <= found <= ticks
    assert virtual_ticks(state, found) == value
    if found > since:
        assert virtual_ticks(state, found - 1) != value


@pytest.mark.model_only
@pytest.mark.parametrize(
    ("scale", "since", "value"),
    [(UNIT, 100, 99), (2 * UNIT, 100, 201), (UNIT // 2, 102, 50)],
)
def test_what_cannot_be_read_any_more(scale, since, value):
    """Nor ever, in the 64 bits that the machine counts."""
    assert machine_ticks(fields(scale, 0), value, since) is None


@pytest.mark.parametrize(
    ("scale", "offset", "ticks", "seen"),
    [
        (None, 0, 77, 77),
        (None, (1 << 64) - 7, 77, 70),
        (UNIT, 3, 77, 80),
        (3 * UNIT // 2, 0, 5, 7),
        (1, 0, UNIT * 9 - 1, 8),
    ],
)
def test_the_guest_reads_it(scale, offset, ticks, seen):
    world = World()
    world.launch(code=[encode("csrrs", rd=5, csr=number("time"))], **fields(scale, offset))
    world.time(ticks)
    world.run()
    # On the machine, time goes on until the guest looks.
    later = 20 if world.on_machine else 0
    state = world.hart.vmx.vmcs.fields
    assert seen == virtual_ticks(state, ticks)
    assert world.hart.x[5] in {virtual_ticks(state, ticks + n) for n in range(later + 1)}

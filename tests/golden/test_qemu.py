"""The model against QEMU: the directed programs, and random privileged programs with Sv39."""

import pytest

from sim.elf import load_elf
from tests.golden.qemu import RAM_SIZE, follow, needs_qemu, run_qemu
from tests.programs.directed import PROGRAMS, build_directed

pytestmark = needs_qemu


@pytest.mark.parametrize("name", PROGRAMS)
def test_directed_programs(name):
    program = build_directed(name, flags=("-DQEMU",))
    image = load_elf(program, ram_size=RAM_SIZE)
    states = run_qemu(program)
    assert follow(states, image.segments) > 100

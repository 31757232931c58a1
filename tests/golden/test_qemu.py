"""The model against QEMU: the directed programs, and random privileged programs with Sv39."""

import pytest

from rtl.arch.instructions import BIT_MANIPULATION, INSTRUCTIONS
from sim.elf import load_elf
from tests.golden.bit_manipulation import TRIES, bit_manipulation_program
from tests.golden.qemu import RAM, RAM_SIZE, Difference, follow, needs_qemu, run_qemu
from tests.golden.random_privileged import privileged_program
from tests.programs.directed import PROGRAMS, build_directed

pytestmark = needs_qemu


@pytest.mark.parametrize("name", PROGRAMS)
def test_directed_programs(name):
    program = build_directed(name, flags=("-DQEMU",))
    image = load_elf(program, ram_size=RAM_SIZE)
    states = run_qemu(program)
    assert follow(states, image.segments) > 100


@pytest.mark.parametrize("seed", range(6))
def test_random_privileged_programs(seed):
    program = privileged_program(seed)
    states = run_qemu(program)
    assert follow(states, [(RAM.base, program)]) > 2000


@pytest.mark.parametrize("seed", range(2))
def test_bit_manipulation(seed):
    program = bit_manipulation_program(seed)
    count = sum(row.extension in BIT_MANIPULATION for row in INSTRUCTIONS.values())
    assert follow(run_qemu(program), [(RAM.base, program)]) > 4 * TRIES * count


def test_a_wrong_register_is_noticed():
    program = privileged_program(0)
    states = run_qemu(program)
    wrong = next(n for n, state in enumerate(states) if n > 500 and not state.traps)
    states[wrong].x[10] ^= 1
    with pytest.raises(Difference, match="x10"):
        follow(states, [(RAM.base, program)])

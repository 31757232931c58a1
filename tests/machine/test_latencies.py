"""What instructions cost beyond their cycle, in loops about nothing else.

Once caches and predictors know a loop, it runs twice more, the second time for twice as many turns; the difference counts.
"""

import random

import pytest

from rtl.arch.performance import HPM_COUNTERS, PERFORMANCE_EVENTS
from sw_vmm.assembler import Assembler
from tests.machine.board import RAM

EVENTS = {event.name: event.number for event in PERFORMANCE_EVENTS}
TURNS, POINTER, VALUE, OTHER = 5, 9, 6, 7
TABLE, TABLE_LENGTH = RAM + 0x8000, 2048
COPIES = 8


def program(body):
    """COPIES of ``body(code, number)`` in each of the turns that TURNS counts; then an ebreak."""
    code = Assembler(RAM)
    code.label("again")
    for number in range(COPIES):
        body(code, number)
    code.add("addi", rd=TURNS, rs1=TURNS, imm=-1)
    code.add("bne", rs1=TURNS, rs2=0, to="again")
    code.add("ebreak")
    return code.assemble()


def totals(board, turns, names):
    """Cycles and events of a run of the program that is there."""
    for index, name in zip(HPM_COUNTERS, names, strict=False):
        board.set_csr(f"mhpmevent{index}", EVENTS[name])
        board.set_csr(f"mhpmcounter{index}", 0)
    before = board.machine.park.cycle
    board.run(RAM, registers={TURNS: turns, POINTER: TABLE}, cycles=1_000_000)
    counters = [board.csr(f"mhpmcounter{index}") for index in HPM_COUNTERS]
    return [board.machine.park.cycle - before, *counters[: len(names)]]


def costs(board, body, *names, turns=256):
    """Cycles, and events by name, of ``turns`` turns."""
    board.machine.write_memory(RAM, program(body))
    # The end of a loop moves the counters that say it goes on: some more times than one.
    for _ in range(4):
        totals(board, turns, names)
    few = totals(board, turns, names)
    many = totals(board, 2 * turns, names)
    return [more - less for more, less in zip(many, few, strict=True)]


def test_a_loaded_value_is_used_one_cycle_later(board):
    def use(code, _number):
        code.add("ld", rd=VALUE, rs1=POINTER)
        code.add("add", rd=OTHER, rs1=VALUE, rs2=VALUE)

    def keep(code, _number):
        code.add("ld", rd=VALUE, rs1=POINTER)
        code.add("add", rd=OTHER, rs1=POINTER, rs2=POINTER)

    waiting, stalls = costs(board, use, "stall_load_use")
    going_on, _ = costs(board, keep, "stall_load_use")
    assert waiting - going_on == stalls == 256 * COPIES


def test_a_taken_branch_predicted_right_costs_nothing(board):
    def block(taken):
        def body(code, number):
            for _ in range(5):
                code.add("add", rd=OTHER, rs1=VALUE, rs2=VALUE)
            code.add("beq" if taken else "bne", rs1=VALUE, rs2=VALUE, to=f"next_{number}")
            if taken:
                code.add("ebreak")
                code.add("ebreak")
            code.label(f"next_{number}")

        return body

    straight, _ = costs(board, block(False), "mispredict")
    jumping, wrong = costs(board, block(True), "mispredict")
    assert (jumping, wrong) == (straight, 0)


@pytest.mark.parametrize("draw", [random.Random(1), random.Random(2)])
def test_a_branch_predicted_wrongly_costs_four_cycles(board, draw):
    """Branches by bits that nobody can guess; both ways are alike and meet again."""
    bits = [draw.getrandbits(1) for _ in range(TABLE_LENGTH * 2)]
    board.machine.write_memory(TABLE, bytes(bits))

    def body(code, number):
        code.add("lbu", rd=VALUE, rs1=POINTER)
        code.add("addi", rd=POINTER, rs1=POINTER, imm=1)
        code.add("add", rd=OTHER, rs1=OTHER, rs2=OTHER)
        code.add("beq", rs1=VALUE, rs2=0, to=f"clear_{number}")
        code.add("addi", rd=OTHER, rs1=OTHER, imm=1)
        code.add("addi", rd=OTHER, rs1=OTHER, imm=1)
        code.label(f"clear_{number}")

    names = ("mispredict", "stall_mispredict")
    _, wrong, cycles = costs(board, body, *names, turns=TABLE_LENGTH // COPIES)
    assert wrong > TABLE_LENGTH / 8
    assert cycles == 4 * wrong

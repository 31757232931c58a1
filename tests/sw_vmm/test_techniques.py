"""Bare programs that look the same under every technique that emulates the devices."""

import pytest

from tests.sw_vmm import golden_machine, soft_machine
from tests.sw_vmm.machines import make_vm, run, run_hello
from tests.sw_vmm.programs import (
    CLINT,
    CSR,
    DATA,
    UART,
    finish,
    program,
    sv39_register,
    words,
)
from tests.sw_vmm.soft_machine import RAM

EVERY = pytest.mark.parametrize("technique", ["interpret", "trap-emulate", "vmx-ept"])
#: Those that let the hart run, with the cycles of the shortest way out and back.
ON_THE_HART = pytest.mark.parametrize(
    ("technique", "way"),
    [
        ("trap-emulate", soft_machine.ENTER + soft_machine.LEAVE),
        ("vmx-ept", golden_machine.ENTER + golden_machine.LEAVE),
    ],
)


# -- whole guests ----------------------------------------------------------------------------------


@ON_THE_HART
def test_hello_has_the_same_outcome_as_interpreted(technique, way):
    _, interpreted_signature, interpreted = run_hello("interpret")
    _, signature, result = run_hello(technique)
    assert result.outcome.exit_code == interpreted.outcome.exit_code == 0
    assert result.outcome.console == interpreted.outcome.console
    assert b"goodbye" in result.outcome.console
    assert signature == interpreted_signature


@ON_THE_HART
def test_a_run_repeated_is_identical_in_every_cycle(technique, way):
    assert run_hello(technique)[2] == run_hello(technique)[2]


@ON_THE_HART
def test_cycles_add_up_and_every_exit_is_timed(technique, way):
    rows = []
    _, _, result = run_hello(technique, on_exit=rows.append)
    cycles = result.cycles
    assert cycles.total == cycles.guest + cycles.transition + cycles.charged
    # The way into the guest at the very beginning belongs to no exit.
    first = way - golden_machine.ENTER if technique == "vmx-ept" else 0
    assert sum(row["cycles"] for row in rows) + first == cycles.transition + sum(
        row["charged"] for row in rows
    )
    assert len(rows) == sum(exits.count for exits in result.exits.values())
    for reason, exits in result.exits.items():
        taken = [row["cycles"] for row in rows if row["reason"] == reason]
        assert exits.count == len(taken)
        assert exits.cycles.min == min(taken) and exits.cycles.max == max(taken)
        assert exits.cycles.mean == pytest.approx(sum(taken) / len(taken))
        assert exits.charged == sum(row["charged"] for row in rows if row["reason"] == reason)
    # No exit takes less than the way in and out. The last one has no way out.
    assert min(row["cycles"] - row["charged"] for row in rows[:-1]) == way


@ON_THE_HART
def test_rows_count_the_instructions_before_the_exit(technique, way):
    rows = []
    _, _, result = run_hello(technique, on_exit=rows.append)
    assert rows[0]["instret"] < 50
    counts = [row["instret"] for row in rows]
    assert counts == sorted(counts)
    # The write that ends the run is the last instruction.
    assert counts[-1] == result.instructions - 1


@ON_THE_HART
def test_a_vmm_without_cost_changes_no_outcome(technique, way):
    free = run_hello(technique, factor=0)[2]
    double = run_hello(technique, factor=2)[2]
    assert free.cycles.charged == free.cycles.idle
    assert free.outcome == double.outcome
    assert double.cycles.charged > free.cycles.charged


# -- small guests ----------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize(
    ("cause", "tval", "build"),
    [
        (5, 0x5000_0000, lambda code: (code.add("lui", rd=6, imm=0x5000_0000), code.add("lw", rd=7, rs1=6))),
        (7, 0x5000_0000, lambda code: (code.add("lui", rd=6, imm=0x5000_0000), code.add("sb", rs2=7, rs1=6))),
        (7, 0x1000, lambda code: (code.add("lui", rd=6, imm=0x1000), code.add("sw", rs2=7, rs1=6))),
        (7, UART, lambda code: (code.add("lui", rd=6, imm=UART), code.add("amoadd.w", rd=7, rs1=6))),
        (5, UART, lambda code: (code.add("lui", rd=6, imm=UART), code.add("lr.w", rd=7, rs1=6))),
        (7, UART + 1, lambda code: (code.add("lui", rd=6, imm=UART), code.add("sw", rs2=7, rs1=6, imm=1))),
        (5, (1 << 64) - 16, lambda code: code.add("ld", rd=7, rs1=0, imm=-16)),
        (5, 1 << 40, lambda code: (code.add("addi", rd=6, rs1=0, imm=1), code.add("slli", rd=6, rs1=6, imm=40), code.add("lb", rd=7, rs1=6))),
        (6, DATA + 2, lambda code: (code.add("addi", rd=6, rs1=8, imm=2), code.add("amoadd.w", rd=7, rs1=6))),
        (1, 0x5000_0000, lambda code: (code.add("lui", rd=6, imm=0x5000_0000), code.add("jalr", rd=0, rs1=6))),
        (11, 0, lambda code: code.add("ecall")),
        (2, 0x30401073 | 0xFFF << 20, lambda code: code.add("csrrw", rd=0, rs1=0, csr=0xFFF)),
    ],
)  # fmt: skip
def test_faults_look_as_on_the_bare_machine(technique, cause, tval, build):
    runner, result = run(technique, make_vm(program(build), technique=technique))
    assert result.outcome.exit_code == cause
    assert words(runner, 2)[1] == tval & (1 << 64) - 1


@EVERY
def test_device_values_are_extended_like_memory(technique):
    def build(code):
        code.load_address(6, CLINT + 0x4000)
        code.add("addi", rd=7, rs1=0, imm=-2)
        code.add("sd", rs1=6, rs2=7)
        for slot, name in enumerate(("lw", "lwu", "ld")):
            code.add(name, rd=9, rs1=6)
            code.add("sd", rs1=8, rs2=9, imm=8 * slot)
        finish(code, 0)

    runner, result = run(technique, make_vm(program(build), technique=technique))
    assert result.outcome.exit_code == 0
    assert words(runner, 3) == [(1 << 64) - 2, (1 << 32) - 2, (1 << 64) - 2]


@EVERY
def test_timer_interrupts_reach_a_guest_that_spins(technique):
    def build(code):
        code.load_address(6, CLINT + 0x4000)
        code.add("addi", rd=7, rs1=0, imm=500)
        code.add("sd", rs1=6, rs2=7)
        code.add("addi", rd=7, rs1=0, imm=128)
        code.add("csrrw", rd=0, rs1=7, csr=CSR["mie"])
        code.add("csrrsi", rd=0, rs1=8, csr=CSR["mstatus"])
        code.label("spin")
        code.add("addi", rd=9, rs1=9, imm=1)
        code.add("jal", rd=0, to="spin")

    def handler(code):
        code.add("csrrs", rd=27, rs1=0, csr=CSR["mcause"])
        code.add("csrrs", rd=26, rs1=0, csr=CSR["time"])
        code.add("sd", rs1=8, rs2=27)
        code.add("sd", rs1=8, rs2=26, imm=8)
        finish(code, 0)

    runner, result = run(technique, make_vm(program(build, handler), technique=technique))
    assert result.outcome.exit_code == 0
    cause, time = words(runner, 2)
    assert cause == 1 << 63 | 7
    assert 500 <= time < 700
    if technique == "trap-emulate":
        assert result.exits["interrupt_supervisor_timer"].count == 1
    if technique == "vmx-ept":
        assert {name: row.count for name, row in result.exits.items()} == {
            "ept_violation": 1,
            "mmio_write": 2,
        }


@EVERY
def test_wfi_passes_the_time_to_the_timer(technique):
    def build(code):
        code.load_address(6, CLINT + 0x4000)
        code.load_address(7, 100_000)
        code.add("sd", rs1=6, rs2=7)
        code.add("addi", rd=7, rs1=0, imm=128)
        code.add("csrrw", rd=0, rs1=7, csr=CSR["mie"])
        code.add("wfi")
        code.add("csrrs", rd=10, rs1=0, csr=CSR["time"])
        code.add("sd", rs1=8, rs2=10)
        finish(code, 0)

    runner, result = run(technique, make_vm(program(build), technique=technique), 50_000_000)
    assert result.outcome.exit_code == 0
    assert 100_000 <= words(runner, 1)[0] < 100_100
    waited = result.cycles.guest if technique == "vmx-ept" else result.cycles.idle
    assert waited > 900_000
    assert result.cycles.total == runner._vm.machine.cycle


@EVERY
def test_wfi_for_ever_ends_with_the_budget(technique):
    _, result = run(
        technique, make_vm(program(lambda code: code.add("wfi")), technique=technique), 3_000_000
    )
    assert not result.outcome.finished
    assert result.outcome.exit_code is None
    assert 3_000_000 <= result.cycles.total < 3_010_000


@EVERY
def test_an_endless_loop_ends_with_the_budget(technique):
    def build(code):
        code.label("spin")
        code.add("jal", rd=0, to="spin")

    _, result = run(technique, make_vm(program(build), technique=technique), 200_000)
    assert not result.outcome.finished
    assert 200_000 <= result.cycles.total < 201_000


@EVERY
def test_a_budget_may_end_anywhere_around_an_exit(technique):
    """The cycles left can come to nothing, or less, while an exit is handled and charged."""

    def build(code):
        code.label("again")
        code.add("csrrs", rd=5, rs1=0, csr=CSR["mscratch"])
        code.add("jal", rd=0, to="again")

    for budget in range(2000, 2200):
        _, result = run(technique, make_vm(program(build), technique=technique), budget)
        assert not result.outcome.finished
        assert budget <= result.cycles.total < budget + 1000


@EVERY
@pytest.mark.parametrize("factor", [0, 1])
def test_a_handler_that_is_nowhere_ends_with_the_budget(technique, factor):
    def build(code):
        code.add("csrrw", rd=0, rs1=0, csr=CSR["mtvec"])
        code.add("ecall")

    _, result = run(technique, make_vm(program(build), technique=technique), 100_000, factor=factor)
    assert not result.outcome.finished
    assert 100_000 <= result.cycles.total < 101_000


@EVERY
def test_tohost_ends_the_run(technique):
    def build(code):
        code.add("addi", rd=6, rs1=0, imm=2 * 5 + 1)
        code.add("sw", rs1=8, rs2=6)
        code.label("spin")
        code.add("jal", rd=0, to="spin")

    vm = make_vm(program(build), technique=technique)
    vm.stop_at_tohost(DATA)
    _, result = run(technique, vm)
    assert result.outcome.exit_code == 5


@EVERY
def test_the_console_ends_with_the_text_that_stops_the_run(technique):
    def build(code):
        code.load_address(6, UART)
        for letter in b"abc> trailing":
            code.add("addi", rd=7, rs1=0, imm=letter)
            code.label(f"wait{code.here}")
            code.add("lbu", rd=9, rs1=6, imm=5)
            code.add("andi", rd=9, rs1=9, imm=0x20)
            code.add("beq", rs1=9, rs2=0, to=f"wait{code.here - 8}")
            code.add("sb", rs1=6, rs2=7)
        code.label("spin")
        code.add("jal", rd=0, to="spin")

    vm = make_vm(program(build), technique=technique)
    vm.stop_at_text(b"c> ")
    _, result = run(technique, vm)
    assert result.outcome.text_seen
    assert result.outcome.console == b"abc> "


@EVERY
def test_accesses_under_mprv_go_through_the_guests_tables(technique):
    """Map one gigabyte at 0x4000_0000 to RAM, store and load through it, see both views agree."""
    tables = DATA + 0x1000

    def build(code):
        sv39_register(code, 6, tables)
        code.add("csrrw", rd=0, rs1=6, csr=CSR["satp"])
        code.load_address(9, tables)
        code.load_address(7, (RAM >> 2) | 0xC7)
        code.add("sd", rs1=9, rs2=7, imm=8)
        code.load_address(10, 0x4000_0000 + DATA - RAM)
        code.add("addi", rd=11, rs1=0, imm=1234)
        code.add("addi", rd=13, rs1=0, imm=3)
        code.load_address(12, 1 << 17 | 1 << 11)
        code.add("csrrs", rd=0, rs1=12, csr=CSR["mstatus"])
        code.add("sd", rs1=10, rs2=11)
        code.add("ld", rd=14, rs1=10)
        code.add("add", rd=13, rs1=13, rs2=14)
        code.add("csrrc", rd=15, rs1=12, csr=CSR["mstatus"])
        code.add("ld", rd=16, rs1=8)
        code.add("sd", rs1=8, rs2=13, imm=8)
        code.add("sd", rs1=8, rs2=16, imm=16)
        code.add("sd", rs1=8, rs2=15, imm=24)
        # The same address without MPRV is nobody's.
        code.add("ld", rd=14, rs1=10)

    runner, result = run(technique, make_vm(program(build), technique=technique))
    assert result.outcome.exit_code == 5
    seen = words(runner, 4)
    assert seen[2] == 1234
    assert seen[3] & (1 << 17 | 3 << 11) == 1 << 17 | 1 << 11


@EVERY
def test_mprv_windows_store_what_they_load(technique):
    """As above, with results that the fault's handler does not overwrite."""
    tables = DATA + 0x1000

    def build(code):
        sv39_register(code, 6, tables)
        code.add("csrrw", rd=0, rs1=6, csr=CSR["satp"])
        code.load_address(9, tables)
        code.load_address(7, (RAM >> 2) | 0xC7)
        code.add("sd", rs1=9, rs2=7, imm=8)
        code.load_address(10, 0x4000_0000 + DATA - RAM)
        code.load_address(12, 1 << 17 | 1 << 11)
        code.add("addi", rd=11, rs1=0, imm=77)
        code.add("csrrs", rd=0, rs1=12, csr=CSR["mstatus"])
        code.add("sd", rs1=10, rs2=11, imm=32)
        code.add("ld", rd=14, rs1=10, imm=32)
        code.add("addi", rd=14, rs1=14, imm=1)
        code.add("csrrc", rd=0, rs1=12, csr=CSR["mstatus"])
        code.add("sd", rs1=8, rs2=14, imm=40)
        finish(code, 0)

    runner, result = run(technique, make_vm(program(build), technique=technique))
    assert result.outcome.exit_code == 0
    assert words(runner, 2, DATA + 32) == [77, 78]

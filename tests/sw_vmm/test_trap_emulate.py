"""trap-emulate end to end on ``soft_machine``, a hart that can run nothing but U-mode."""

import pytest

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.soc.config import SocConfig
from sim.device_tree import boot_rom
from sim.elf import load_elf
from sim.guests import hello_elf
from sw_vmm.assembler import Assembler
from sw_vmm.charge import ChargeModel
from sw_vmm.errors import GuestPages
from sw_vmm.techniques import make_technique
from sw_vmm.vm import MONITOR_SIZE, Vm
from tests.sw_vmm.machines import CHARGES, GUEST_RAM, make_vm, run
from tests.sw_vmm.soft_machine import ENTER, LEAVE, RAM, SoftMachine

CSR = {name: csr.number for name, csr in CSRS.items()}
FINISHER, UART, CLINT = (MEMORY_MAP[name].base for name in ("finisher", "uart", "clint"))
HANDLER = RAM + 0x400
DATA = RAM + 0x10000
BOTH = pytest.mark.parametrize("technique", ["interpret", "trap-emulate"])


def program(build, handler=None):
    """A program at RAM whose mtvec is set to ``handler`` (default: finish with mcause)."""
    code = Assembler(RAM)
    code.load_address(5, HANDLER)
    code.add("csrrw", rd=0, rs1=5, csr=CSR["mtvec"])
    code.load_address(8, DATA)
    build(code)
    text = code.assemble()
    assert len(text) <= HANDLER - RAM
    trap = Assembler(HANDLER)
    (handler or finish_with_cause)(trap)
    return text.ljust(HANDLER - RAM, b"\0") + trap.assemble()


def finish(code, register):
    """End with the register as exit code."""
    code.load_address(30, FINISHER)
    code.add("slli", rd=29, rs1=register, imm=16)
    code.add("lui", rd=28, imm=0x3000)
    code.add("addi", rd=28, rs1=28, imm=0x333)
    code.add("add", rd=29, rs1=29, rs2=28)
    code.add("sw", rs1=30, rs2=29)


def finish_with_cause(code):
    code.add("csrrs", rd=27, rs1=0, csr=CSR["mcause"])
    code.add("csrrs", rd=26, rs1=0, csr=CSR["mepc"])
    code.add("csrrs", rd=25, rs1=0, csr=CSR["mtval"])
    code.add("sd", rs1=8, rs2=26, imm=0)
    code.add("sd", rs1=8, rs2=25, imm=8)
    finish(code, 27)


def words(technique, count, gpa=DATA):
    data = technique.read_memory(gpa, 8 * count)
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]


# -- whole guests ----------------------------------------------------------------------------------


def run_hello(name, factor=1.0, on_exit=None):
    ram = 8 << 20
    image = load_elf(hello_elf(), ram_size=ram)
    machine = SoftMachine(ram + MONITOR_SIZE)
    vm = Vm(machine, rom=boot_rom(SocConfig(), ram_size=ram, entry=image.entry))
    for gpa, data in image.segments:
        vm.load(gpa, data, "hello")
    technique, result = run(name, vm, 50_000_000, factor=factor, on_exit=on_exit)
    first, end = image.signature
    return machine, technique.read_memory(first, end - first), result


def test_hello_has_the_same_outcome_deprivileged_and_interpreted():
    _, interpreted_signature, interpreted = run_hello("interpret")
    machine, signature, result = run_hello("trap-emulate")
    assert result.outcome.exit_code == interpreted.outcome.exit_code == 0
    assert result.outcome.console == interpreted.outcome.console
    assert b"goodbye" in result.outcome.console
    assert signature == interpreted_signature
    assert machine.privileges_seen == {0}


def test_a_run_repeated_is_identical_in_every_cycle():
    assert run_hello("trap-emulate")[2] == run_hello("trap-emulate")[2]


def test_cycles_add_up_and_every_exit_is_timed():
    rows = []
    _, _, result = run_hello("trap-emulate", on_exit=rows.append)
    cycles = result.cycles
    assert cycles.total == cycles.guest + cycles.transition + cycles.charged
    assert sum(row["cycles"] for row in rows) == cycles.transition + sum(
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
    assert min(row["cycles"] - row["charged"] for row in rows[:-1]) == ENTER + LEAVE


def test_a_vmm_without_cost_changes_no_outcome():
    free = run_hello("trap-emulate", factor=0)[2]
    double = run_hello("trap-emulate", factor=2)[2]
    assert free.cycles.charged == free.cycles.idle
    assert free.outcome == double.outcome
    assert double.cycles.charged > free.cycles.charged


# -- exits -----------------------------------------------------------------------------------------


def test_a_simple_exit_makes_no_other_access_of_the_machine():
    """A thousand CSR reads: the host port sees a resume for each, and nothing else."""

    def build(code):
        code.add("addi", rd=9, rs1=0, imm=1000)
        code.label("again")
        code.add("csrrs", rd=10, rs1=0, csr=CSR["mhartid"])
        code.add("addi", rd=9, rs1=9, imm=-1)
        code.add("bne", rs1=9, rs2=0, to="again")
        finish(code, 9)

    vm = make_vm(program(build))
    technique = make_technique("trap-emulate", vm, ChargeModel(CHARGES))
    before = vm.machine.accesses
    result = technique.run(10_000_000)
    assert result.outcome.exit_code == 0
    assert result.exits["csr_read"].count == 1000
    assert vm.machine.accesses - before < 1000 + 30


@BOTH
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
    runner, result = run(technique, make_vm(program(build)))
    assert result.outcome.exit_code == cause
    assert words(runner, 2)[1] == tval & (1 << 64) - 1


@BOTH
def test_device_values_are_extended_like_memory(technique):
    def build(code):
        code.load_address(6, CLINT + 0x4000)
        code.add("addi", rd=7, rs1=0, imm=-2)
        code.add("sd", rs1=6, rs2=7)
        for slot, name in enumerate(("lw", "lwu", "ld")):
            code.add(name, rd=9, rs1=6)
            code.add("sd", rs1=8, rs2=9, imm=8 * slot)
        finish(code, 0)

    runner, result = run(technique, make_vm(program(build)))
    assert result.outcome.exit_code == 0
    assert words(runner, 3) == [(1 << 64) - 2, (1 << 32) - 2, (1 << 64) - 2]


@BOTH
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

    runner, result = run(technique, make_vm(program(build, handler)))
    assert result.outcome.exit_code == 0
    cause, time = words(runner, 2)
    assert cause == 1 << 63 | 7
    assert 500 <= time < 700
    if technique == "trap-emulate":
        assert result.exits["interrupt_supervisor_timer"].count == 1


@BOTH
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

    runner, result = run(technique, make_vm(program(build)), 50_000_000)
    assert result.outcome.exit_code == 0
    assert 100_000 <= words(runner, 1)[0] < 100_100
    assert result.cycles.idle > 900_000
    assert result.cycles.total == runner._vm.machine.cycle


@BOTH
def test_wfi_for_ever_ends_with_the_budget(technique):
    _, result = run(technique, make_vm(program(lambda code: code.add("wfi"))), 3_000_000)
    assert not result.outcome.finished
    assert result.outcome.exit_code is None
    assert 3_000_000 <= result.cycles.total < 3_010_000


@BOTH
def test_an_endless_loop_ends_with_the_budget(technique):
    def build(code):
        code.label("spin")
        code.add("jal", rd=0, to="spin")

    _, result = run(technique, make_vm(program(build)), 200_000)
    assert not result.outcome.finished
    assert 200_000 <= result.cycles.total < 201_000


@BOTH
def test_a_budget_may_end_anywhere_around_an_exit(technique):
    """The cycles left can come to nothing, or less, while an exit is handled and charged."""

    def build(code):
        code.label("again")
        code.add("csrrs", rd=5, rs1=0, csr=CSR["mscratch"])
        code.add("jal", rd=0, to="again")

    for budget in range(2000, 2200):
        _, result = run(technique, make_vm(program(build)), budget)
        assert not result.outcome.finished
        assert budget <= result.cycles.total < budget + 1000


@BOTH
@pytest.mark.parametrize("factor", [0, 1])
def test_a_handler_that_is_nowhere_ends_with_the_budget(technique, factor):
    def build(code):
        code.add("csrrw", rd=0, rs1=0, csr=CSR["mtvec"])
        code.add("ecall")

    _, result = run(technique, make_vm(program(build)), 100_000, factor=factor)
    assert not result.outcome.finished
    assert 100_000 <= result.cycles.total < 101_000


def test_a_loop_in_an_mprv_window_ends_with_the_budget():
    def build(code):
        sv39_register(code, 6, DATA)
        code.add("csrrw", rd=0, rs1=6, csr=CSR["satp"])
        code.load_address(12, 1 << 17 | 1 << 11)
        code.add("csrrs", rd=0, rs1=12, csr=CSR["mstatus"])
        code.label("spin")
        code.add("jal", rd=0, to="spin")

    _, result = run("trap-emulate", make_vm(program(build)), 10_000, factor=0)
    assert not result.outcome.finished
    assert 10_000 <= result.cycles.total < 11_000


@BOTH
def test_tohost_ends_the_run(technique):
    def build(code):
        code.add("addi", rd=6, rs1=0, imm=2 * 5 + 1)
        code.add("sw", rs1=8, rs2=6)
        code.label("spin")
        code.add("jal", rd=0, to="spin")

    vm = make_vm(program(build))
    vm.stop_at_tohost(DATA)
    _, result = run(technique, vm)
    assert result.outcome.exit_code == 5


@BOTH
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

    vm = make_vm(program(build))
    vm.stop_at_text(b"c> ")
    _, result = run(technique, vm)
    assert result.outcome.text_seen
    assert result.outcome.console == b"abc> "


# -- paging ----------------------------------------------------------------------------------------


def enter_supervisor(code, satp_register):
    """mret to S right behind this code, with satp written before."""
    code.add("csrrw", rd=0, rs1=satp_register, csr=CSR["satp"])
    code.add("lui", rd=7, imm=0x1000)
    code.add("srli", rd=7, rs1=7, imm=1)
    code.add("csrrs", rd=0, rs1=7, csr=CSR["mstatus"])
    code.add("auipc", rd=7, imm=0)
    code.add("addi", rd=7, rs1=7, imm=16)
    code.add("csrrw", rd=0, rs1=7, csr=CSR["mepc"])
    code.add("mret")


def sv39_register(code, register, table):
    code.add("addi", rd=register, rs1=0, imm=8)
    code.add("slli", rd=register, rs1=register, imm=60)
    code.load_address(7, table >> 12)
    code.add("or", rd=register, rs1=register, rs2=7)


def test_a_guest_that_pages_is_refused_in_one_line():
    def build(code):
        sv39_register(code, 6, DATA)
        enter_supervisor(code, 6)
        code.add("addi", rd=9, rs1=9, imm=1)

    with pytest.raises(GuestPages, match="turned paging on") as caught:
        run("trap-emulate", make_vm(program(build)))
    assert "\n" not in str(caught.value)


def test_satp_alone_is_no_paging():
    def build(code):
        sv39_register(code, 6, DATA)
        code.add("csrrw", rd=0, rs1=6, csr=CSR["satp"])
        code.add("csrrw", rd=0, rs1=0, csr=CSR["satp"])
        enter_supervisor(code, 0)
        code.add("ecall")

    # ecall from S: cause 9.
    assert run("trap-emulate", make_vm(program(build)))[1].outcome.exit_code == 9


@BOTH
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

    runner, result = run(technique, make_vm(program(build)))
    assert result.outcome.exit_code == 5
    seen = words(runner, 4)
    assert seen[2] == 1234
    assert seen[3] & (1 << 17 | 3 << 11) == 1 << 17 | 1 << 11


@BOTH
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

    runner, result = run(technique, make_vm(program(build)))
    assert result.outcome.exit_code == 0
    assert words(runner, 2, DATA + 32) == [77, 78]


# -- atomics ---------------------------------------------------------------------------------------


def test_an_exit_between_lr_and_sc_makes_the_sc_fail():
    def build(code):
        code.add("lr.d", rd=6, rs1=8)
        code.add("sc.d", rd=10, rs1=8, rs2=0)
        code.add("lr.d", rd=6, rs1=8)
        code.add("csrrs", rd=7, rs1=0, csr=CSR["mhartid"])
        code.add("sc.d", rd=11, rs1=8, rs2=0)
        code.add("sd", rs1=8, rs2=10, imm=8)
        code.add("sd", rs1=8, rs2=11, imm=16)
        finish(code, 0)

    runner, result = run("trap-emulate", make_vm(program(build)))
    assert result.outcome.exit_code == 0
    assert words(runner, 2, DATA + 8) == [0, 1]


def test_guest_memory_ends_where_the_vms_does():
    def build(code):
        code.load_address(6, RAM + GUEST_RAM)
        code.add("sd", rs1=6, rs2=6, imm=-8)
        code.add("sd", rs1=6, rs2=6)

    runner, result = run("trap-emulate", make_vm(program(build)))
    assert result.outcome.exit_code == 7
    assert words(runner, 2)[1] == RAM + GUEST_RAM

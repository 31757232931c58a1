"""Guests that start in S-mode, and the SBI calls of theirs that the VMM answers."""

import pytest

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.traps import Exception_, Privilege
from sw_vmm.assembler import Assembler
from sw_vmm.charge import ChargeModel
from sw_vmm.errors import GuestStopped
from sw_vmm.sbi import Error
from sw_vmm.supervisor_guest import SupervisorStart
from sw_vmm.techniques.vmx_ept import VmxEpt
from sw_vmm.vm import MONITOR_SIZE, Vm
from tests.sw_vmm.golden_machine import GoldenMachine
from tests.sw_vmm.machines import CHARGES, GUEST_RAM
from tests.sw_vmm.programs import CSR, DATA, UART, finish, sv39_register, words
from tests.sw_vmm.soft_machine import RAM

BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN = (
    0x10,
    *(int.from_bytes(name, "big") for name in (b"TIME", b"sPI", b"RFNC", b"HSM", b"SRST", b"DBCN")),
)
TREE = MEMORY_MAP["rom"].base + 32
ALL = (1 << 64) - 1
HANDLER = RAM + 0x800
SUCCESS, NOT_SUPPORTED = int(Error.SUCCESS), int(Error.NOT_SUPPORTED) & ALL
INVALID_PARAM = int(Error.INVALID_PARAM) & ALL


def call(code, extension, function, *arguments):
    """Arguments are numbers below 4 GiB, -1, or names of registers."""
    for register, value in enumerate(arguments, start=10):
        if isinstance(value, str):
            code.add("addi", rd=register, rs1=int(value[1:]))
        elif value == -1:
            code.add("addi", rd=register, rs1=0, imm=-1)
        else:
            code.load_address(register, value)
    code.load_address(16, function)
    code.load_address(17, extension)
    code.add("ecall")


def keep(code, slot, register=10):
    code.add("sd", rs1=8, rs2=register, imm=8 * slot)


def finish_with_scause(code):
    code.add("csrrs", rd=27, rs1=0, csr=CSR["scause"])
    code.add("csrrs", rd=26, rs1=0, csr=CSR["stval"])
    code.add("sd", rs1=8, rs2=26)
    finish(code, 27)


def make(build, handler=finish_with_scause, **parameters):
    machine = GoldenMachine(GUEST_RAM + MONITOR_SIZE, **parameters)
    vm = Vm(machine)
    code = Assembler(RAM)
    code.add("addi", rd=18, rs1=10)
    code.add("addi", rd=19, rs1=11)
    code.load_address(5, HANDLER)
    code.add("csrrw", rd=0, rs1=5, csr=CSR["stvec"])
    code.load_address(8, DATA)
    build(code)
    text = code.assemble()
    assert len(text) <= HANDLER - RAM
    trap = Assembler(HANDLER)
    handler(trap)
    vm.load(RAM, text.ljust(HANDLER - RAM, b"\0") + trap.assemble())
    technique = VmxEpt(vm, ChargeModel(CHARGES), start=SupervisorStart(RAM, TREE))
    return vm, technique


def run(build, handler=finish_with_scause, cycles=1_000_000):
    _, technique = make(build, handler)
    return technique, technique.run(cycles)


def test_the_kernel_finds_what_sbi_promises():
    """S-mode with paging and interrupts off, its number in a0, the device tree in a1."""

    def build(code):
        code.add("sd", rs1=8, rs2=18)
        code.add("sd", rs1=8, rs2=19, imm=8)
        for slot, name in enumerate(("sstatus", "satp", "sie", "time", "stimecmp"), start=2):
            code.add("csrrs", rd=9, rs1=0, csr=CSR[name])
            keep(code, slot, 9)
        finish(code, 0)

    technique, result = run(build)
    assert result.outcome.exit_code == 0
    hart, tree, status, satp, enabled, _, deadline = words(technique, 7)
    assert (hart, tree, satp, enabled, deadline) == (0, TREE, 0, 0, ALL)
    assert not status & 2


@pytest.mark.parametrize("csr", ["mstatus", "mhartid", "medeleg"])
def test_what_belongs_to_firmware_is_illegal(csr):
    _, result = run(lambda code: code.add("csrrs", rd=9, rs1=0, csr=CSR[csr]))
    assert result.outcome.exit_code == Exception_.ILLEGAL_INSTRUCTION


@pytest.mark.parametrize(
    ("cause", "build"),
    [
        (3, lambda code: code.add("ebreak")),
        (1, lambda code: code.add("jalr", rs1=0)),
        (5, lambda code: code.add("lw", rd=7, rs1=0)),
        (6, lambda code: (code.add("addi", rd=9, rs1=8, imm=1), code.add("amoadd.w", rd=7, rs1=9))),
    ],
)  # fmt: skip
def test_exceptions_are_the_kernels_own(cause, build):
    assert run(build)[1].outcome.exit_code == cause


def test_base_calls_and_unknown_ones():
    def build(code):
        call(code, BASE, 0)
        keep(code, 0), keep(code, 1, 11)
        call(code, BASE, 3, TIME)
        keep(code, 2), keep(code, 3, 11)
        call(code, 0x1234, 0)
        keep(code, 4), keep(code, 5, 11)
        finish(code, 0)

    technique, result = run(build)
    assert result.outcome.exit_code == 0
    assert words(technique, 6) == [SUCCESS, 2 << 24, SUCCESS, 1, NOT_SUPPORTED, 0]
    assert result.exits["ecall_from_supervisor"].count == 3


def test_the_timer_fires_in_the_guest_without_an_exit():
    def build(code):
        code.add("csrrs", rd=9, rs1=0, csr=CSR["time"])
        code.add("addi", rd=9, rs1=9, imm=300)
        call(code, TIME, 0, "x9")
        code.add("addi", rd=7, rs1=0, imm=32)
        code.add("csrrw", rd=0, rs1=7, csr=CSR["sie"])
        code.add("csrrsi", rd=0, rs1=2, csr=CSR["sstatus"])
        code.label("wait")
        code.add("wfi")
        code.add("jal", to="wait")

    def handler(code):
        code.add("csrrs", rd=10, rs1=0, csr=CSR["scause"])
        code.add("csrrs", rd=11, rs1=0, csr=CSR["time"])
        code.add("sub", rd=11, rs1=11, rs2=9)
        keep(code, 0), keep(code, 1, 11)
        call(code, TIME, 0, -1)
        code.add("csrrs", rd=11, rs1=0, csr=CSR["sip"])
        keep(code, 2, 11)
        finish(code, 0)

    technique, result = run(build, handler)
    assert result.outcome.exit_code == 0
    cause, late, pending = words(technique, 3)
    assert cause == 1 << 63 | 5 and late < 20 and pending == 0
    assert result.exits["ecall_from_supervisor"].count == 2
    assert "preemption_timer" not in result.exits


def test_an_interrupt_to_itself():
    def build(code):
        code.add("csrrwi", rd=0, rs1=2, csr=CSR["sie"])
        code.add("csrrsi", rd=0, rs1=2, csr=CSR["sstatus"])
        call(code, IPI, 0, 1, 0)
        code.add("ebreak")

    def handler(code):
        code.add("csrrs", rd=27, rs1=0, csr=CSR["scause"])
        keep(code, 0, 27)
        code.add("csrrwi", rd=0, rs1=0, csr=CSR["sip"])
        code.add("csrrs", rd=27, rs1=0, csr=CSR["sip"])
        keep(code, 1, 27)
        finish(code, 0)

    technique, result = run(build, handler)
    assert result.outcome.exit_code == 0
    assert words(technique, 2) == [1 << 63 | 1, 0]


def paged(code):
    """Sv39 with one gigabyte at its own address, and one page at 0x4000_0000 that leads to DATA."""
    tables = DATA + 0x1000

    def store(place, value):
        code.load_address(9, place)
        code.load_address(7, value)
        code.add("sd", rs1=9, rs2=7)

    store(tables + 8 * 2, (RAM >> 2) | 0xCF)
    store(tables + 8 * 1, (tables + 0x1000 >> 2) | 1)
    store(tables + 0x1000, (tables + 0x2000 >> 2) | 1)
    store(tables + 0x2000, (DATA >> 2) | 0xC7)
    sv39_register(code, 6, tables)
    code.add("csrrw", rd=0, rs1=6, csr=CSR["satp"])
    return tables + 0x2000


VPID, ONE_PAGE, ALL_PAGES = 1, 0 << 16, 1 << 16


@pytest.mark.parametrize(
    ("function", "arguments", "dropped"),
    [
        (1, (1, 0, 0x4000_0000, 0x1000), [(ONE_PAGE, 0x4000_0000)]),
        (1, (1, 0, 0x4000_0FFF, 2), [(ONE_PAGE, 0x4000_0000), (ONE_PAGE, 0x4000_1000)]),
        (1, (1, 0, 0, 0), [(ALL_PAGES, 0)]),
        (1, (1, 0, 0, -1), [(ALL_PAGES, 0)]),
        (2, (0, -1, 0x4000_0000, 8 << 20, 0), [(ALL_PAGES, 0)]),
        (1, (0, 0, 0x4000_0000, 0x1000), []),
    ],
)
def test_fences_by_call(function, arguments, dropped):
    """A page leads elsewhere after its entry was changed, and the fence called for."""

    def build(code):
        entry = paged(code)
        code.load_address(20, 0x4000_0000)
        code.add("addi", rd=7, rs1=0, imm=111)
        code.add("sd", rs1=20, rs2=7, imm=64)
        code.load_address(9, entry)
        code.load_address(7, (DATA + 0x8000 >> 2) | 0xC7)
        code.add("sd", rs1=9, rs2=7)
        call(code, RFENCE, function, *arguments)
        keep(code, 0)
        code.load_address(20, 0x4000_0000)
        code.add("addi", rd=7, rs1=0, imm=222)
        code.add("sd", rs1=20, rs2=7, imm=64)
        finish_unpaged(code)

    vm, technique = make(build)
    # The golden model sees no translation that is older than the tables: see what is asked for.
    asked = []
    carry_out = vm.machine.vmx
    vm.machine.vmx = lambda *row: asked.append(row) or carry_out(*row)
    result = technique.run(1_000_000)
    assert result.outcome.exit_code == 0
    fences = [row[1:] for row in asked if row[0] == "invvpid"]
    assert fences == [(kind | VPID, gva) for kind, gva in dropped]
    assert words(technique, 1) == [SUCCESS]
    assert words(technique, 1, DATA + 64) == [111]
    assert words(technique, 1, DATA + 0x8000 + 64) == [222]


def finish_unpaged(code):
    code.add("csrrw", rd=0, rs1=0, csr=CSR["satp"])
    finish(code, 0)


def test_new_code_by_call():
    def build(code):
        call(code, RFENCE, 0, 1, 0)
        keep(code, 0)
        finish(code, 0)

    technique, result = run(build)
    assert result.outcome.exit_code == 0 and words(technique, 1) == [SUCCESS]


def test_the_console_by_call():
    text = b"by a call, "

    def build(code):
        code.load_address(6, UART)
        code.add("addi", rd=7, rs1=0, imm=ord("<"))
        code.add("sb", rs1=6, rs2=7)
        call(code, DBCN, 0, len(text), DATA + 0x100, 0)
        keep(code, 0), keep(code, 1, 11)
        call(code, DBCN, 2, ord(">"))
        call(code, DBCN, 0, 5, GUEST_RAM + RAM, 0)
        keep(code, 2)
        code.label("key")
        call(code, DBCN, 1, 8, DATA + 0x200, 0)
        code.add("beq", rs1=11, rs2=0, to="key")
        keep(code, 3, 11)
        call(code, DBCN, 0, 1, DATA + 0x200, 0)
        call(code, DBCN, 1, 8, DATA + 0x200, 0)
        keep(code, 4, 11)
        call(code, SRST, 0, 0, 0)

    vm, technique = make(build, uart_cycles_per_byte=1000)
    vm.load(DATA + 0x100, text)
    vm.type_after(b">", b"k")
    result = technique.run(1_000_000)
    assert result.outcome.exit_code == 0
    assert result.outcome.console == b"<" + text + b">k"
    assert words(technique, 5) == [SUCCESS, len(text), INVALID_PARAM, 1, 0]


def test_the_text_that_stops_a_run_may_come_by_calls():
    def build(code):
        for letter in b"a=> b":
            call(code, DBCN, 2, letter)
        code.label("spin")
        code.add("jal", to="spin")

    vm, technique = make(build)
    vm.stop_at_text(b"=> ")
    result = technique.run(100_000)
    assert result.outcome.text_seen and result.outcome.console == b"a=> "


@pytest.mark.parametrize(("reason", "exit_code"), [(0, 0), (1, 1)])
def test_a_shutdown_ends_the_run(reason, exit_code):
    _, result = run(lambda code: call(code, SRST, 0, 0, reason))
    assert result.outcome.exit_code == exit_code


def test_a_reboot_and_the_last_harts_stop_end_the_guest_by_name():
    with pytest.raises(GuestStopped, match="cold_reboot"):
        run(lambda code: call(code, SRST, 0, 1, 0))
    with pytest.raises(GuestStopped, match="hart_stopped") as caught:
        run(lambda code: call(code, HSM, 1))
    assert f"{HSM:016x}" in caught.value.registers


@pytest.mark.parametrize("retentive", [True, False])
def test_a_hart_that_suspends_itself(retentive):
    """It waits for the timer; then it goes on behind the call, or begins elsewhere."""

    def build(code):
        code.add("csrrs", rd=9, rs1=0, csr=CSR["time"])
        code.add("addi", rd=9, rs1=9, imm=400)
        call(code, TIME, 0, "x9")
        code.add("addi", rd=7, rs1=0, imm=32)
        code.add("csrrw", rd=0, rs1=7, csr=CSR["sie"])
        paged(code)
        if not retentive:
            code.add("csrrsi", rd=0, rs1=2, csr=CSR["sstatus"])
        kind = 0 if retentive else 0x8000_0000
        call(code, HSM, 3, kind, HANDLER, 77)
        code.add("csrrs", rd=20, rs1=0, csr=CSR["time"])
        keep(code, 0), keep(code, 1, 20)
        code.add("csrrs", rd=20, rs1=0, csr=CSR["satp"])
        keep(code, 2, 20)
        finish_unpaged(code)

    def resumed(code):
        code.add("csrrs", rd=20, rs1=0, csr=CSR["time"])
        code.load_address(8, DATA)
        keep(code, 0), keep(code, 1, 20), keep(code, 3, 11)
        for slot, name in ((2, "satp"), (4, "scause")):
            code.add("csrrs", rd=20, rs1=0, csr=CSR[name])
            keep(code, slot, 20)
        finish(code, 0)

    technique, result = run(build, resumed)
    assert result.outcome.exit_code == 0
    a0, time, satp, a1, cause = words(technique, 5)
    assert cause == 0
    assert a0 == 0 and 400 <= time < 700
    assert bool(satp) == retentive
    assert a1 == (0 if retentive else 77)


def test_a_call_from_u_mode_is_the_kernels():
    def build(code):
        code.add("auipc", rd=7, imm=0)
        code.add("addi", rd=7, rs1=7, imm=16)
        code.add("csrrw", rd=0, rs1=7, csr=CSR["sepc"])
        code.add("sret")
        code.add("ecall")

    _, result = run(build)
    assert result.outcome.exit_code == Exception_.ECALL_FROM_USER
    assert "ecall_from_supervisor" not in result.exits


def test_the_guest_has_no_machine_mode():
    _, technique = make(lambda code: code.add("ecall"))
    technique.guest.prepare()
    vmcs = technique.guest.vmcs
    assert vmcs.guest_privilege == Privilege.SUPERVISOR
    assert vmcs.exception_bitmap >> Exception_.ECALL_FROM_SUPERVISOR & 1
    assert not vmcs.exception_bitmap & vmcs.guest_medeleg
    assert vmcs.guest_mideleg == CSRS["mideleg"].writable

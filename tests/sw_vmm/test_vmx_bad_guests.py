"""vmx-ept: guests that fault, are broken, or mean harm; and VMMs that go wrong."""

import random

import pytest

from rtl.arch.csrs import CSRS
from rtl.arch.paging import PAGE_BITS, PTE
from rtl.arch.traps import Exception_
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from sw_vmm.charge import ChargeModel
from sw_vmm.ept import PageAllocator
from sw_vmm.errors import GuestStopped, VmxFailure, VmxMissing
from sw_vmm.exits import EptViolation
from sw_vmm.techniques.vmx_ept import VmxEpt
from sw_vmm.vm import MONITOR_SIZE, Vm
from tests.sw_vmm.golden_machine import GoldenMachine
from tests.sw_vmm.machines import CHARGES, GUEST_RAM, make_vm, rom_jump, run
from tests.sw_vmm.programs import (
    CLINT,
    CSR,
    DATA,
    HANDLER,
    UART,
    finish,
    program,
    sv39_register,
    words,
)
from tests.sw_vmm.soft_machine import RAM
from tests.sw_vmm.test_vmx_ept import PLIC, run_program, spin, vm_of
from tests.sw_vmm.vmx_machine import vmx_word

ALL = (1 << 64) - 1

# -- faults of the guest ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(VMX_INSTRUCTIONS))
def test_a_guest_has_no_such_extension(name):
    word = vmx_word(name, rd=7, rs1=5, rs2=5)
    technique, result = run_program(lambda code: code.word(word))
    assert result.outcome.exit_code == Exception_.ILLEGAL_INSTRUCTION
    assert words(technique, 2)[1] == word


@pytest.mark.parametrize(
    ("name", "cause"),
    [("lw", 5), ("sw", 7), ("amoadd.w", 7), ("lr.w", 5)],
)
def test_page_tables_in_nowhere_are_an_access_fault(name, cause):
    """Data under MPRV, its tables where no RAM is."""

    def build(code):
        sv39_register(code, 6, RAM + 8 * GUEST_RAM)
        code.add("csrrw", rd=0, rs1=6, csr=CSR["satp"])
        code.load_address(12, 1 << 17 | 1 << 11)
        code.add("csrrs", rd=0, rs1=12, csr=CSR["mstatus"])
        code.add(name, rs1=8, **({"rs2": 7} if name == "sw" else {"rd": 7}))

    def handler(code):
        code.add("csrrw", rd=0, rs1=0, csr=CSR["satp"])
        code.add("csrrs", rd=27, rs1=0, csr=CSR["mcause"])
        code.add("csrrs", rd=25, rs1=0, csr=CSR["mtval"])
        code.add("csrrc", rd=0, rs1=12, csr=CSR["mstatus"])
        code.add("sd", rs1=8, rs2=25)
        finish(code, 27)

    technique, result = run_program(build, handler)
    assert result.outcome.exit_code == cause
    assert words(technique, 1) == [DATA]


def test_an_access_across_the_end_of_ram_faults_at_its_second_part():
    def build(code):
        code.load_address(6, RAM + GUEST_RAM - 4)
        code.add("ld", rd=7, rs1=6)

    technique, result = run_program(build)
    assert result.outcome.exit_code == Exception_.LOAD_ACCESS_FAULT
    assert words(technique, 2)[1] == RAM + GUEST_RAM


# -- what cannot go on -----------------------------------------------------------------------------


def test_a_broken_ept_ends_the_guest_with_its_registers():
    vm = vm_of(spin)
    technique = VmxEpt(vm, ChargeModel(CHARGES), ahead=True)
    root = (technique.guest.ept.eptp & (1 << 44) - 1) << PAGE_BITS
    itself = PTE.encode(v=1, ppn=root >> PAGE_BITS)
    vm.machine.write_memory(root + 8 * 2, itself.to_bytes(8, "little"))
    with pytest.raises(GuestStopped, match="ept_misconfiguration at pc 0x80000000") as caught:
        technique.run(10_000)
    assert caught.value.reason == "ept_misconfiguration"
    assert "\n" not in str(caught.value)
    shown = caught.value.registers.split()
    values = dict(zip(shown[::2], shown[1::2], strict=True))
    assert int(values["x5"], 16) == RAM and int(values["pc"], 16) == RAM
    assert int(values["mstatus"], 16) == CSRS["mstatus"].reset
    # The VMM goes on: another guest on the same machine.
    vm.machine.reset()
    other = Vm(vm.machine, rom=rom_jump())
    other.load(RAM, program(lambda code: code.add("ecall")))
    assert run("vmx-ept", other)[1].outcome.exit_code == Exception_.ECALL_FROM_MACHINE


def test_bad_guest_state_ends_the_guest_by_the_name_of_the_check():
    vm = vm_of(spin)
    technique = VmxEpt(vm, ChargeModel(CHARGES))
    technique.guest._fields = lambda fields=technique.guest._fields: {
        **fields(),
        "guest_privilege": 2,
    }
    with pytest.raises(GuestStopped, match=r"bad_guest_state .*guest_privilege_level"):
        technique.run(10_000)


def test_a_vmcs_that_is_refused_later_names_the_check():
    vm = vm_of(spin)
    technique = VmxEpt(vm, ChargeModel(CHARGES))
    handle = technique.guest._ept_violation

    def spoil(exit_):
        handle(exit_)
        technique.guest.vmcs.execution_controls = 0

    technique.guest._handlers[EptViolation] = spoil
    with pytest.raises(VmxFailure, match="vmresume failed: execution_controls_required"):
        technique.run(10_000)


def test_a_machine_without_the_extension_is_refused():
    machine = GoldenMachine(GUEST_RAM + MONITOR_SIZE, vmx=False)
    with pytest.raises(VmxMissing, match="vmx-ept needs a machine"):
        VmxEpt(Vm(machine), ChargeModel(CHARGES))


@pytest.mark.parametrize("seed", range(25))
def test_random_bytes_end_with_the_budget_at_the_latest(seed):
    """Whatever the guest is, VMM and machine go on, and the monitor's memory is not touched."""
    draw = random.Random(seed)
    vm = make_vm(draw.randbytes(64 << 10), technique="vmx-ept")
    for number in range(1, 32):
        value = draw.choice([RAM, UART, CLINT, PLIC, RAM + GUEST_RAM, draw.getrandbits(64)])
        vm.machine.write_gpr(number, value + draw.randrange(-64, 64) & ALL)
    technique = VmxEpt(vm, ChargeModel(CHARGES))
    guard = vm.monitor.stop - 0x10_0000
    before = vm.machine.read_memory(guard, 0x10_0000)
    result = technique.run(30_000)
    assert result.outcome.finished or result.cycles.total >= 30_000
    assert vm.machine.read_memory(guard, 0x10_0000) == before


@pytest.mark.parametrize("ahead", [True, False])
def test_a_budget_may_end_in_any_exit(ahead):
    """Exits that change nothing the VMM attends to, as pages and event counters, among them."""

    def build(code):
        code.load_address(6, RAM + 0x2_0000)
        code.load_address(12, 0x1000)
        code.label("again")
        code.add("sd", rs1=6, rs2=10)
        code.add("csrrs", rd=11, rs1=0, csr=CSR["mhpmcounter3"])
        code.add("csrrwi", rd=11, rs1=1, csr=CSR["mcountinhibit"])
        code.add("add", rd=6, rs1=6, rs2=12)
        code.add("jal", to="again")

    for budget in range(900, 1500, 29):
        _, result = run_program(build, cycles=budget, largest=0, ahead=ahead)
        assert not result.outcome.finished
        assert budget <= result.cycles.total < budget + 500


def test_a_trap_loop_ends_with_the_budget():
    def build(code):
        code.load_address(5, HANDLER)
        code.add("csrrw", rd=0, rs1=5, csr=CSR["mtvec"])
        code.add("ecall")

    _, result = run_program(build, lambda code: code.add("ecall"), cycles=20_000)
    assert not result.outcome.finished
    assert set(result.exits) == {"ept_violation"}


def test_an_ept_without_room_ends_the_guest_by_name():
    technique = VmxEpt(vm_of(spin), ChargeModel(CHARGES), largest=0)
    technique.guest.ept._allocator = PageAllocator(range(0))
    with pytest.raises(GuestStopped, match=r"ept_violation at .*monitor's memory is too small"):
        technique.run(10_000)


@pytest.mark.parametrize("ends", ["inside", "behind an exit"])
def test_a_budget_ends_with_the_registers(ends):
    """Stopped inside the guest the hart shows all but the CSRs."""

    def build(code):
        code.load_address(20, 0x1234_5678)
        code.load_address(6, UART)
        code.label("again")
        if ends != "inside":
            code.add("lbu", rd=7, rs1=6, imm=5)
        code.add("jal", to="again")

    _, result = run_program(build, cycles=20_000)
    assert not result.outcome.finished
    shown = result.registers.split()
    values = dict(zip(shown[::2], (int(word, 16) for word in shown[1::2]), strict=True))
    assert (values["x20"], values["privilege"]) == (0x1234_5678, 3)
    assert RAM < values["pc"] < HANDLER
    assert ("mtvec" in values) == (ends != "inside")
    assert values.get("mtvec", HANDLER) == HANDLER
    _, finished = run_program(lambda code: finish(code, 0))
    assert finished.outcome.finished and not finished.registers

"""trap-emulate end to end on ``soft_machine``, a hart that can run nothing but U-mode."""

import pytest

from sw_vmm.charge import ChargeModel
from sw_vmm.errors import GuestPages
from sw_vmm.techniques import make_technique
from tests.sw_vmm.machines import CHARGES, GUEST_RAM, make_vm, run, run_hello
from tests.sw_vmm.programs import CSR, DATA, enter_supervisor, finish, program, sv39_register, words
from tests.sw_vmm.soft_machine import RAM


def test_hello_never_leaves_u_mode():
    machine, _, result = run_hello("trap-emulate")
    assert result.outcome.exit_code == 0
    assert machine.privileges_seen == {0}


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


# -- paging ----------------------------------------------------------------------------------------


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

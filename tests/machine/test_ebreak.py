"""``park_ebreak``: an ebreak stops the hart for its host and leaves no trace in the guest."""

import itertools

import pytest

from rtl.arch.csrs import MSTATUS
from rtl.arch.records import ParkKind
from rtl.arch.traps import Exception_, Interrupt, Privilege
from sw_vmm.machine import Event
from tests.machine.board import RAM
from tests.machine.words import encode

E = Exception_
USER, SUPERVISOR, MACHINE = Privilege.USER, Privilege.SUPERVISOR, Privilege.MACHINE
TRAP_CSRS = ("mstatus", "mepc", "mcause", "mtval", "sepc", "scause", "stval")
HANDLER = RAM + 0x800


@pytest.fixture
def armed(board):
    """x1 += 1; ebreak; x1 += 2; wide and narrow, with a loop as trap handler of both modes."""
    add = [encode("addi", rd=1, rs1=1, imm=step) for step in (1, 2)]
    jump = encode("jal", imm=0)
    board.put(RAM, add[0], encode("ebreak"), add[1], jump)
    board.put(RAM + 0x100, add[0])
    board.machine.write_memory(RAM + 0x104, (0x9002).to_bytes(2, "little"))
    board.machine.write_memory(RAM + 0x106, add[1].to_bytes(4, "little"))
    board.machine.write_memory(RAM + 0x10A, jump.to_bytes(4, "little"))
    board.put(HANDLER, jump)
    for name in ("mtvec", "stvec"):
        board.set_csr(name, HANDLER)
    board.machine.park_on(0, 0)
    board.machine.host_port.park_ebreak.write(value=1)
    return board


def stopped(board, pc, privilege):
    record = board.machine.park
    assert (record.kind, record.reason, record.qualification) == (ParkKind.STOP, 0, 0)
    assert (record.pc, record.privilege) == (pc, privilege)
    return record


@pytest.mark.parametrize("start, length", [(RAM, 4), (RAM + 0x100, 2)], ids=["wide", "narrow"])
@pytest.mark.parametrize("delegated", [0, 1])
@pytest.mark.parametrize("privilege", [USER, SUPERVISOR, MACHINE], ids=lambda p: p.name)
def test_an_ebreak_stops_before_it_in_every_mode(armed, privilege, delegated, start, length):
    for number, name in enumerate(TRAP_CSRS[1:]):
        armed.set_csr(name, number * 4)
    armed.set_csr("medeleg", delegated << E.BREAKPOINT)
    before = [armed.csr(name) for name in TRAP_CSRS]
    armed.run(start, privilege=privilege, registers={1: 0})
    assert stopped(armed, start + 4, privilege).length == length
    assert armed.machine.read_gpr(1) == 1
    assert [armed.csr(name) for name in TRAP_CSRS] == before
    # Going on at it, nothing has moved.
    armed.machine.resume(start + 4)
    assert armed.machine.run(10_000) == Event.PARKED
    stopped(armed, start + 4, privilege)
    # Behind it, the program goes on.
    armed.machine.resume(start + 4 + length)
    assert armed.machine.run(1_000) == Event.BUDGET
    armed.halt()
    assert armed.machine.read_gpr(1) == 3


@pytest.mark.parametrize("privilege", [USER, SUPERVISOR, MACHINE], ids=lambda p: p.name)
def test_without_it_an_ebreak_traps(armed, privilege):
    armed.machine.host_port.park_ebreak.write(value=0)
    armed.machine.write_privilege(privilege)
    armed.machine.resume(RAM)
    assert armed.machine.run(1_000) == Event.BUDGET
    assert armed.halt().pc == HANDLER
    assert (armed.csr("mcause"), armed.csr("mepc")) == (E.BREAKPOINT, RAM + 4)


def test_a_pending_interrupt_goes_first(armed):
    """The handler runs once, not once per look at the breakpoint."""
    armed.set_csr("mie", 1 << Interrupt.SUPERVISOR_SOFTWARE)
    armed.set_csr("mip", 1 << Interrupt.SUPERVISOR_SOFTWARE)
    armed.put(HANDLER, encode("csrrci", rd=0, csr=0x344, rs1=0) | 2 << 15, encode("mret"))
    armed.set_csr("mstatus", MSTATUS.encode(mie=1))
    armed.machine.trace(100)
    record = armed.run(RAM + 4)
    stopped(armed, RAM + 4, MACHINE)
    assert record.instret == 2
    pcs = [row["pc"] for row in armed.retired() if not row["trap"]]
    assert pcs == [HANDLER, HANDLER + 4]


def test_an_ebreak_on_a_wrong_path_stops_nobody(armed):
    """It stands where a mispredicted branch falls through, for every short distance."""
    for padding, taken in itertools.product(range(4), range(2)):
        place = RAM + 0x1000 + 0x200 * padding + 0x100 * taken
        nops = [encode("addi")] * padding
        branch = encode("beq" if taken else "bne", rs1=2, rs2=2, imm=4 * padding + 8)
        body = [*nops, encode("ebreak")] if taken else [*nops, encode("addi"), encode("jal", imm=0)]
        armed.put(place, branch, *body, encode("jal", imm=0), encode("ebreak"))
        armed.machine.resume(place)
        assert armed.machine.run(500) == Event.BUDGET, (padding, taken)
        armed.halt()

"""The platform as the hart and the host see it, on the Verilated SoC."""

import pytest

from rtl.arch.csrs import CSRS, INTERRUPTS, MSTATUS
from rtl.arch.memory_map import MEMORY_MAP, UART_INTERRUPT, WINDOW_INTERRUPTS, region_of
from rtl.arch.traps import INTERRUPT_BIT, Exception_, Interrupt, Privilege
from rtl.soc.config import SocConfig
from sim.library import LibraryMachine
from sw_vmm.bindings import load as load_bindings
from sw_vmm.machine import BusError, Event
from tests.machine.board import RAM, RAM_END, RAM_SIZE, Board
from tests.machine.words import code, encode

CODE = RAM + 0x1000
EBREAK = encode("ebreak")
A0, A1, A2 = 10, 11, 12
WINDOW = MEMORY_MAP["window"]
ROM = MEMORY_MAP["rom"]


@pytest.fixture(scope="module")
def machine():
    return LibraryMachine(SocConfig(), ram_size=RAM_SIZE)


@pytest.fixture
def board(machine):
    board = Board(machine)
    board.reset()
    board.park_on(*Exception_)
    return board


def device(board, name):
    """The device's bindings, by the host's accesses to memory."""
    base = MEMORY_MAP[name].base
    bindings = load_bindings(name)
    top = getattr(bindings, name.capitalize())

    def read(address, size):
        return int.from_bytes(board.machine.read_memory(base + address, size), "little")

    def write(address, value, size):
        board.machine.write_memory(base + address, value.to_bytes(size, "little"))

    return top(read, write), lambda register: base + bindings.address_of(register)


def hart_access(board, name, place, value=0):
    """One load or store of the hart, the device window answered; reason of the park, and a0."""
    operands = {"rs1": A1} | ({"rs2": A2} if name.startswith("s") else {"rd": A0})
    board.put(CODE, encode(name, **operands), EBREAK)
    for number, content in ((A0, 0), (A1, place), (A2, value)):
        board.machine.write_gpr(number, content)
    board.machine.write_privilege(Privilege.MACHINE)
    board.machine.resume(CODE)
    event = board.machine.run(10_000)
    if event == Event.WINDOW:
        board.machine.answer_window(0x5151_5151_5151_5151)
        event = board.machine.run(10_000)
    assert event == Event.PARKED
    return board.machine.park.reason, board.machine.read_gpr(A0)


def test_every_region_answers_the_hart(board):
    clint, clint_place = device(board, "clint")
    plic, plic_place = device(board, "plic")
    places = [
        ROM.base,
        ROM.end - 4,
        MEMORY_MAP["finisher"].base,
        clint_place(clint.mtime),
        plic_place(plic.priority[0]),
        plic_place(plic.context[1].claim),
        WINDOW.base,
        WINDOW.end - 4,
        RAM,
        RAM_END - 4,
    ]
    for place in places:
        reason, _ = hart_access(board, "lw", place)
        assert reason == Exception_.BREAKPOINT, hex(place)
    assert hart_access(board, "lbu", MEMORY_MAP["uart"].base + 7)[0] == Exception_.BREAKPOINT
    assert {region_of(place).name for place in places} == set(MEMORY_MAP) - {"uart"}


def test_nobody_answers_between_the_regions(board):
    edges = {region.base - 8 for region in MEMORY_MAP.values()}
    edges |= {region.end & ~7 for region in MEMORY_MAP.values()}
    outside = sorted(place for place in edges if region_of(place) is None and place < 1 << 32)
    assert len(outside) >= 10
    for place in outside:
        assert hart_access(board, "lw", place)[0] == Exception_.LOAD_ACCESS_FAULT, hex(place)
        assert hart_access(board, "sb", place)[0] == Exception_.STORE_ACCESS_FAULT, hex(place)
        with pytest.raises(BusError):
            board.machine.read_memory(place, 4)
        with pytest.raises(BusError):
            board.machine.write_memory(place, bytes(4))


def test_hart_and_host_see_the_same_registers(board):
    clint, place = device(board, "clint")
    deadline = place(clint.mtimecmp)
    clint.mtimecmp.raw = 0x1234_5678_9ABC_DEF0
    assert hart_access(board, "ld", deadline)[1] == 0x1234_5678_9ABC_DEF0
    hart_access(board, "sw", deadline, 0x77)
    assert clint.mtimecmp.raw == 0x1234_5678_0000_0077
    assert board.csr("time") == board.machine.park.time == clint.mtime.raw > 0


def test_the_reset_vector_runs_code_of_the_rom(board):
    """Over the register bus, compressed and across eight bytes alike."""
    compressed = bytes.fromhex("0505")  # c.addi a0, 1
    body = b"".join(
        [compressed, code(encode("addi", rd=A0, rs1=A0, imm=100)), compressed * 2, code(EBREAK)]
    )
    board.machine.write_memory(ROM.base, body)
    board.machine.write_gpr(A0, 0)
    assert board.machine.park.pc == ROM.base
    record = board.run(board.machine.park.pc)
    assert (record.reason, record.pc) == (Exception_.BREAKPOINT, ROM.base + len(body) - 4)
    assert board.machine.read_gpr(A0) == 103


@pytest.mark.parametrize("slot", range(len(WINDOW_INTERRUPTS)))
def test_interrupts_of_the_window_reach_the_hart(board, slot):
    """Line, gateway, claim, and both of the PLIC's contexts."""
    source = WINDOW_INTERRUPTS[slot]
    board.put(CODE, encode("jal", imm=0))
    for context, external, privilege in (
        (0, Interrupt.MACHINE_EXTERNAL, Privilege.SUPERVISOR),
        (1, Interrupt.SUPERVISOR_EXTERNAL, Privilege.USER),
    ):
        plic, _ = device(board, "plic")
        plic.priority[source - 1].raw = 3
        plic.enable[context].word.raw = 1 << source
        plic.enable[1 - context].word.raw = 0
        board.set_csr("mie", 1 << external)
        board.park_on(*Exception_, interrupts=[external])
        board.machine.window_interrupts(0)
        board.machine.write_privilege(privilege)
        board.machine.resume(CODE)
        assert board.machine.run(500) == Event.BUDGET
        board.machine.window_interrupts(1 << slot)
        assert board.machine.run(500) == Event.PARKED
        record = board.machine.park
        assert (record.reason, record.pc) == (1 << INTERRUPT_BIT | external, CODE)
        assert board.csr("mip") == 1 << external
        assert plic.context[context].claim.raw == source
        assert board.csr("mip") == 0, "claimed"
        board.machine.window_interrupts(0)
        board.machine.charge(20)
        plic.context[context].claim.raw = source
        board.machine.charge(20)
        assert board.csr("mip") == 0, "completed, and the line is low"


def test_the_uart_interrupts_when_a_key_is_typed(board):
    plic, _ = device(board, "plic")
    uart = MEMORY_MAP["uart"].base
    plic.priority[UART_INTERRUPT - 1].raw = 1
    plic.enable[0].word.raw = 1 << UART_INTERRUPT
    board.machine.write_memory(uart + 1, b"\x01")
    board.set_csr("mie", INTERRUPTS.encode(mei=1))
    board.set_csr("mstatus", MSTATUS.encode(mie=1))
    board.park_on(*Exception_, interrupts=[Interrupt.MACHINE_EXTERNAL])
    board.put(CODE, encode("wfi"), encode("jal", imm=-4))
    board.machine.write_gpr(A0, uart)
    board.put(CODE - 8, encode("sb", rs1=A0, rs2=A1))
    board.put(CODE - 4, encode("addi"))
    board.machine.write_gpr(A1, ord("?"))
    board.machine.type_after(b"?", b"k")
    board.machine.write_privilege(Privilege.MACHINE)
    board.machine.resume(CODE - 8)
    assert board.machine.run(10_000) == Event.PARKED
    assert board.machine.park.reason == 1 << INTERRUPT_BIT | Interrupt.MACHINE_EXTERNAL
    assert board.machine.console() == b"?"
    assert plic.context[0].claim.raw == UART_INTERRUPT
    assert board.machine.read_memory(uart, 1) == b"k"


def test_the_finisher_ends_the_run_with_its_word(board):
    board.put(CODE, encode("sw", rs1=A1, rs2=A2), encode("jal", imm=0))
    board.machine.write_gpr(A1, MEMORY_MAP["finisher"].base)
    board.machine.write_gpr(A2, 0x5555)
    board.machine.write_privilege(Privilege.MACHINE)
    board.machine.resume(CODE)
    assert board.machine.run(10_000) == Event.FINISHED
    assert board.machine.finisher == 0x5555
    # The verdict stays; the hart runs on, and the host can stop it.
    board.machine.stop()
    for _ in range(100):
        if board.machine.run(100) & Event.PARKED:
            break
    assert board.machine.park.pc == CODE + 4


def test_no_number_of_a_csr_is_an_address(board):
    """The host port stands on a bus of its own: none of its offsets answers the hart."""
    for offset in (0, 8, 0x100, 0x200, 0x8000 + 8 * CSRS["mstatus"].number):
        if region_of(offset) is None:
            assert hart_access(board, "ld", offset)[0] == Exception_.LOAD_ACCESS_FAULT

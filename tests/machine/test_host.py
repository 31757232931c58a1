"""Host commands on the Verilated SoC: what they change, and their refusal while the hart runs."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtl.arch.csrs import CSRS, MSTATUS, csr_read_only
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import SATP
from rtl.arch.traps import Exception_, Privilege
from rtl.arch.vmx.capability import VMX_CSRS
from sw_vmm.machine import Event, MachineBusy, MachineError
from tests.machine.board import ALL, PAGE, RAM, RAM_END, RAM_SIZE, Tables
from tests.machine.words import encode, li

CODE = RAM
DATA = RAM + RAM_SIZE // 2
TABLES = RAM + RAM_SIZE // 4
EBREAK = encode("ebreak")
A0, A1, A2 = 10, 11, 12
E = Exception_

examples = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def running(board):
    """Let the hart run in a loop of one jump."""
    board.put(CODE, encode("jal", imm=0))
    board.machine.resume(CODE)
    assert board.machine.run(200) == Event.BUDGET


COMMANDS = {
    "gpr": lambda m, p: p.gpr[5].write(value=1),
    "read gpr": lambda m, p: p.gpr[5].value,
    "privilege": lambda m, p: p.privilege.write(value=0),
    "sfence_vma": lambda m, p: p.sfence_vma.write(asid=0, match_asid=1, match_page=0, page=0),
    "fence_i": lambda m, p: p.fence_i.write(go=1),
    "clean": lambda m, p: p.clean.write(go=1),
    "charge": lambda m, p: p.charge.write(cycles=100),
    "resume": lambda m, p: p.resume.start.write(go=1, rd=0, charge=0),
    "resume pc": lambda m, p: p.resume.pc.write(value=0),
    "park_exceptions": lambda m, p: p.park_exceptions.write(value=ALL),
    "park_interrupts": lambda m, p: p.park_interrupts.write(value=ALL),
    "memory address": lambda m, p: p.memory.address.write(value=DATA),
    "memory read": lambda m, p: p.memory.data.value,
    "memory write": lambda m, p: p.memory.data.write(value=ALL),
    "park": lambda m, p: p.park.pc.value,
    "csr": lambda m, p: m._register_read(m._csr[CSRS["mstatus"].number], 8),
    "write csr": lambda m, p: m._register_write(m._csr[CSRS["mtvec"].number], 64, 8),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_refused_while_the_hart_runs(board, name):
    machine = board.machine
    machine.host_port.memory.address.write(value=DATA)
    running(board)
    with pytest.raises(MachineBusy):
        COMMANDS[name](machine, machine.host_port)
    assert machine.run(100) == Event.BUDGET, "it runs on"
    record = board.halt()
    assert (record.pc, record.privilege) == (CODE, Privilege.MACHINE)
    assert (board.word(DATA), machine.read_gpr(5), board.csr("mtvec")) == (0, 0, 0)
    assert machine.host_port.park_interrupts.raw == 0
    COMMANDS[name](machine, machine.host_port)  # and now it is done


def test_counters_status_and_exits_answer_while_the_hart_runs(board):
    running(board)
    port = board.machine.host_port
    first = board.machine.counters()
    second = board.machine.counters()
    assert second["cycles"] > first["cycles"]
    assert port.exits.count[E.BREAKPOINT].value == 0
    assert port.status.parked == 0
    board.halt()
    assert port.status.parked == 1


def test_host_accesses_while_the_hart_takes_a_device_answer_hide_no_other_request(board):
    machine = board.machine
    board.put(
        CODE,
        *li(A0, MEMORY_MAP["window"].base),
        *(encode("lwu", rd=A1 + place, rs1=A0, imm=4 * place) for place in range(3)),
        EBREAK,
    )
    machine.resume(CODE)
    for place in range(3):
        assert machine.run(10_000) == Event.WINDOW
        _, write, mask, _ = machine.window_request()
        assert (write, mask) == (False, 0xF0 if place % 2 else 0x0F)
        machine.answer_window((100 + place) << 32 | 100 + place)
        machine.counters()
    assert machine.run(10_000) == Event.PARKED
    assert [machine.read_gpr(A1 + place) for place in range(3)] == [100, 101, 102]


@pytest.mark.parametrize("privilege", Privilege, ids=lambda p: p.name)
def test_every_csr_is_accessed_with_the_rights_of_machine_mode(board, privilege):
    """Whatever the privilege the hart was stopped in, and whatever mstatus forbids S-mode."""
    board.put(CODE, encode("jal", imm=0))
    board.set_csr("mstatus", MSTATUS.encode(tvm=1, mprv=1))
    board.machine.write_privilege(privilege)
    board.machine.resume(CODE)
    board.machine.run(200)
    assert board.halt().privilege == privilege
    existing = CSRS | VMX_CSRS if board.machine.config.vmx else CSRS
    for number in range(4096):
        known = any(csr.number == number for csr in existing.values())
        if known:
            value = board.machine.read_csr(number)
        else:
            with pytest.raises(MachineError, match="no CSR"):
                board.machine.read_csr(number)
        if known and not csr_read_only(number):
            board.machine.write_csr(number, value)
        elif known or number % 37 == 0:
            with pytest.raises(MachineError, match="no CSR"):
                board.machine.write_csr(number, 0)


def test_the_host_s_csrs_are_those_of_the_program(board):
    board.put(CODE, encode("csrrw", rd=A0, rs1=A1, csr=CSRS["mscratch"].number), EBREAK)
    board.set_csr("mscratch", 0x1234)
    board.run(CODE, registers={A1: 0x5678})
    assert (board.machine.read_gpr(A0), board.csr("mscratch")) == (0x1234, 0x5678)


def test_sfence_by_the_host_drops_what_it_names(board):
    """Each page of the table is changed behind the hart's back; only a fence shows the change."""
    old, new = DATA, DATA + 8 * PAGE
    pages = [0x40_0000, 0x41_0000]
    asids = [1, 2]
    machine = board.machine
    load = [encode("ld", rd=A0, rs1=A1), EBREAK]
    board.put(CODE, *load)
    tables = Tables(board, TABLES)
    board.set_word(old, 0x01D)
    board.set_word(new, 0x4E3)

    def read(page, asid):
        board.set_csr("satp", tables.satp | SATP.encode(asid=asid))
        record = board.run(0x10_0000, privilege=Privilege.SUPERVISOR, registers={A1: page})
        assert record.reason == E.BREAKPOINT
        return machine.read_gpr(A0)

    tables.map(0x10_0000, CODE)
    # The fence, and which pairs of page and ASID are fetched anew.
    fences = [
        ({}, lambda page, asid: True),
        ({"gva": pages[0]}, lambda page, asid: page == pages[0]),
        ({"asid": 2}, lambda page, asid: asid == 2),
        ({"gva": pages[1], "asid": 1}, lambda page, asid: (page, asid) == (pages[1], 1)),
    ]
    for fence, dropped in fences:
        machine.sfence_vma()
        for page in pages:
            tables.map(page, old)
        for page in pages:
            for asid in asids:
                assert read(page, asid) == 0x01D
        for page in pages:
            tables.map(page, new)
        machine.sfence_vma(**fence)
        for page in pages:
            for asid in asids:
                wanted = 0x4E3 if dropped(page, asid) else 0x01D
                assert read(page, asid) == wanted, (fence, page, asid)


def test_code_written_by_the_host_is_fetched(board):
    """Without a fence: the instruction cache drops what another bus master writes."""
    for round_ in range(30):
        board.put(CODE + 60, encode("addi", rd=A0, imm=round_), EBREAK)
        board.run(CODE + 60)
        assert board.machine.read_gpr(A0) == round_


def test_code_written_by_the_hart_is_fetched_after_a_fence_of_the_host(board):
    store = [encode("sw", rs1=A1, rs2=A2), EBREAK]
    board.put(CODE, *store)
    place = CODE + 0x400
    for round_ in range(1, 30):
        board.machine.fence_i()
        board.run(CODE, registers={A1: place, A2: encode("addi", rd=A0, imm=round_)})
        board.run(CODE, registers={A1: place + 4, A2: EBREAK})
        board.machine.fence_i()
        board.run(place)
        assert board.machine.read_gpr(A0) == round_


def test_clean_brings_ram_up_to_date(board):
    board.put(CODE, encode("sd", rs1=A1, rs2=A2), EBREAK)
    ram = board.machine._simulation.ram
    board.run(CODE, registers={A1: DATA, A2: 0x77})
    assert ram[DATA - RAM] == 0, "the line is dirty in the cache"
    assert board.word(DATA) == 0x77
    board.machine.clean()
    assert ram[DATA - RAM] == 0x77


@pytest.mark.parametrize("between", ["nothing", "trap", "other line", "step"])
def test_what_clears_a_reservation(board, between):
    """lr, something, sc; a step parks in between."""
    words = {
        "nothing": [encode("addi")],
        "trap": [encode("ecall")],
        "other line": [encode("sd", rs1=A1, rs2=A2, imm=128)],
        "step": [encode("addi")],
    }[between]
    vector = CODE + 0x100
    skip = [
        encode("csrrs", rd=5, csr=CSRS["mepc"].number),
        encode("addi", rd=5, rs1=5, imm=4),
        encode("csrrw", rs1=5, csr=CSRS["mepc"].number),
        encode("mret"),
    ]
    board.put(vector, *skip)
    board.set_csr("mtvec", vector)
    sc = encode("sc.d", rd=A0, rs1=A1, rs2=A2)
    board.put(CODE, encode("lr.d", rd=A0, rs1=A1), *words, sc, EBREAK)
    if between == "step":
        board.machine.write_gpr(A1, DATA)
        board.machine.write_privilege(Privilege.MACHINE)
        pc = board.step(pc=CODE).pc
        board.machine.host_port.control.write(step=0)
        board.run(pc, registers={A1: DATA, A2: 99})
    else:
        board.run(CODE, registers={A1: DATA, A2: 99})
    succeeds = between in ("nothing", "other line")
    assert board.machine.read_gpr(A0) == (0 if succeeds else 1)
    assert board.word(DATA) == (99 if succeeds else 0)


@examples
@given(
    pieces=st.lists(
        st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=24)), min_size=1, max_size=6
    )
)
def test_host_writes_are_seen_by_cached_loads(board, pieces):
    board.reset()
    board.park_on(E.BREAKPOINT)
    # Load and dirty the lines, then let the hart read all bytes written behind its back.
    board.put(CODE, encode("ld", rd=A0, rs1=A1), encode("sd", rs1=A1, rs2=A1), EBREAK)
    copy = bytearray(256)
    for place in range(0, 256, 8):
        board.run(CODE, registers={A1: DATA + place})
        copy[place : place + 8] = (DATA + place).to_bytes(8, "little")
    for place, data in pieces:
        board.machine.write_memory(DATA + place, data)
        copy[place : place + len(data)] = data
    for place in range(0, 256, 8):
        board.run(CODE, registers={A1: DATA + place})
        assert board.machine.read_gpr(A0) == int.from_bytes(copy[place : place + 8], "little")


def test_resume_by_registers_is_resume_by_the_wide_port(board):
    """The same program, both ways to send the hart on; equal but for the host's own cycles."""
    board.put(CODE, *li(A0, 77), EBREAK)
    seen = []
    for wide in (True, False):
        board.machine.write_privilege(Privilege.MACHINE)
        if wide:
            board.machine.resume(CODE, rd=9, value=5, charge=50)
        else:
            resume = board.machine.host_port.resume
            resume.value.write(value=6)
            resume.pc.write(value=CODE)
            resume.start.write(go=1, rd=9, charge=50)
            assert board.machine.host_port.status.parked == 0
        assert board.machine.run(10_000) == Event.PARKED
        assert board.machine.read_gpr(A0) == 77
        counters = board.machine.counters()
        seen.append((board.machine.read_gpr(9), counters["charged"], counters["instructions"]))
    assert seen == [(5, 50, 2), (6, 100, 4)]


def test_memory_up_to_its_last_byte(board):
    board.machine.write_memory(RAM_END - 1, b"\x5a")
    board.put(CODE, encode("lbu", rd=A0, rs1=A1), EBREAK)
    board.run(CODE, registers={A1: RAM_END - 1})
    assert board.machine.read_gpr(A0) == 0x5A

"""The commit log reads like Spike's ``-l --log-commits``."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtl.arch.csrs import MSTATUS
from rtl.arch.traps import Exception_, Interrupt, Privilege
from rtl.soc.config import SocConfig
from sim.errors import VmxlabError
from sim.library import LibraryMachine
from tests.machine.board import RAM, RAM_SIZE, Board, Tables
from tests.machine.words import encode, li

DATA = RAM + 0x8000
COMMIT = re.compile(
    r"core   0: [013] 0x[0-9a-f]{16} \(0x([0-9a-f]{4}|[0-9a-f]{8})\)"
    r"( x[0-9]+ +0x[0-9a-f]{16})?( mem 0x[0-9a-f]{16})?( mem 0x[0-9a-f]{16} 0x[0-9a-f]+)?"
)
ATOMICS = [
    "amoswap",
    "amoadd",
    "amoxor",
    "amoor",
    "amoand",
    "amomin",
    "amomax",
    "amominu",
    "amomaxu",
]


@pytest.fixture(scope="module")
def board():
    return Board(LibraryMachine(SocConfig(), ram_size=RAM_SIZE))


@pytest.fixture
def log(board, tmp_path):
    """Runs words from the start of RAM to an ebreak; gives the log without the ebreak's lines."""
    board.reset()

    def run(*words, registers=None, privilege=Privilege.MACHINE, pc=RAM):
        path = tmp_path / "commits"
        board.put(RAM, *words, encode("ebreak"))
        for number, value in (registers or {}).items():
            board.machine.write_gpr(number, value)
        board.machine.log_commits(path)
        board.run(pc, privilege=privilege)
        board.machine.log_commits(None)
        lines = path.read_text().splitlines()
        at = next(n for n, line in enumerate(lines) if "trap_breakpoint" in line)
        assert lines[at + 1].startswith("core   0:           tval ")
        return lines[:at]

    return run


def test_registers_and_memory(log):
    """As Spike prints them: digits by the size of what is shown, no rd for x0."""
    lines = log(
        encode("auipc", rd=5, imm=0),
        encode("addi", rd=0, rs1=5, imm=1),
        encode("addi", rd=10, rs1=5, imm=-1),
        encode("sd", rs1=6, rs2=7, imm=8),
        encode("sw", rs1=6, rs2=7, imm=-4),
        encode("sh", rs1=6, rs2=7, imm=2),
        encode("sb", rs1=6, rs2=7, imm=1),
        encode("lw", rd=11, rs1=6, imm=8),
        encode("lb", rd=0, rs1=6, imm=8),
        registers={6: DATA, 7: 0x1122_3344_8566_7788},
    )
    assert lines == [
        "core   0: 3 0x0000000080000000 (0x00000297) x5  0x0000000080000000",
        "core   0: 3 0x0000000080000004 (0x00128013)",
        "core   0: 3 0x0000000080000008 (0xfff28513) x10 0x000000007fffffff",
        "core   0: 3 0x000000008000000c (0x00733423) mem 0x0000000080008008 0x1122334485667788",
        "core   0: 3 0x0000000080000010 (0xfe732e23) mem 0x0000000080007ffc 0x85667788",
        "core   0: 3 0x0000000080000014 (0x00731123) mem 0x0000000080008002 0x7788",
        "core   0: 3 0x0000000080000018 (0x007300a3) mem 0x0000000080008001 0x88",
        "core   0: 3 0x000000008000001c (0x00832583) x11 0xffffffff85667788 mem 0x0000000080008008",
        "core   0: 3 0x0000000080000020 (0x00830003) mem 0x0000000080008008",
    ]


def test_compressed_instructions(log, board):
    """Four digits for the word; every compressed load and store names its address."""
    halves = [
        0xE398,  # c.sd a4, 0(a5)
        0xC7D8,  # c.sw a4, 12(a5)
        0x6394,  # c.ld a3, 0(a5)
        0x47D4,  # c.lw a3, 12(a5)
        0xE43A,  # c.sdsp a4, 8(sp)
        0xC83A,  # c.swsp a4, 16(sp)
        0x66A2,  # c.ldsp a3, 8(sp)
        0x46C2,  # c.lwsp a3, 16(sp)
    ]
    words = [low | high << 16 for low, high in zip(halves[::2], halves[1::2], strict=True)]
    lines = log(*words, registers={2: DATA + 0x100, 14: 0x8000_0000_0000_0001, 15: DATA})
    value = "0x8000000000000001"
    tails = [
        f"(0xe398) mem 0x0000000080008000 {value}",
        "(0xc7d8) mem 0x000000008000800c 0x00000001",
        f"(0x6394) x13 {value} mem 0x0000000080008000",
        "(0x47d4) x13 0x0000000000000001 mem 0x000000008000800c",
        f"(0xe43a) mem 0x0000000080008108 {value}",
        "(0xc83a) mem 0x0000000080008110 0x00000001",
        f"(0x66a2) x13 {value} mem 0x0000000080008108",
        "(0x46c2) x13 0x0000000000000001 mem 0x0000000080008110",
    ]
    assert lines == [f"core   0: 3 0x{RAM + 2 * n:016x} {tail}" for n, tail in enumerate(tails)]


def test_reservations(log):
    lines = log(
        encode("lr.w", rd=1, rs1=6),
        encode("sc.w", rd=2, rs1=6, rs2=7),
        encode("sc.w", rd=2, rs1=6, rs2=7),
        registers={6: DATA, 7: 9},
    )
    assert [line[44:] for line in lines] == [
        "x1  0x0000000000000000 mem 0x0000000080008000",
        "x2  0x0000000000000000 mem 0x0000000080008000 0x00000009",
        "x2  0x0000000000000001",
    ]


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(ATOMICS),
    st.sampled_from([".w", ".d"]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63, 2**31, 2**32 - 1]),
    st.sampled_from([0, 3]),
)
def test_an_atomic_shows_what_it_stores(log, board, name, suffix, before, operand, rd):
    """The value in the log is the one that stands in memory afterwards."""
    board.reset()
    board.set_word(DATA, before)
    (line,) = log(encode(name + suffix, rd=rd, rs1=6, rs2=7), registers={6: DATA, 7: operand})
    size = 4 if suffix == ".w" else 8
    stored = board.word(DATA) & (1 << 8 * size) - 1
    assert line.endswith(f" mem 0x{DATA:016x} mem 0x{DATA:016x} 0x{stored:0{2 * size}x}")
    assert (" x3  " in line) == (rd == 3)


def test_addresses_are_virtual(log, board):
    """The bus sees another address; U-mode is shown as 0."""
    tables = Tables(board, RAM + 0x10000)
    code, data = 0x4000_0000, 0x5000_0000
    tables.map(code, RAM, u=1)
    tables.map(data, DATA, u=1)
    board.set_csr("satp", tables.satp)
    lines = log(
        encode("sd", rs1=6, rs2=7, imm=8),
        registers={6: data, 7: 5},
        privilege=Privilege.USER,
        pc=code,
    )
    assert lines == [
        "core   0: 0 0x0000000040000000 (0x00733423) mem 0x0000000050000008 0x0000000000000005"
    ]
    assert board.word(DATA + 8) == 5


def test_traps_read_like_spikes(log, board):
    board.set_csr("mtvec", RAM + 0x100)
    board.put(
        RAM + 0x100,
        encode("csrrs", rd=1, csr=0x341),
        encode("addi", rd=1, rs1=1, imm=4),
        encode("csrrw", rs1=1, csr=0x341),
        encode("mret"),
    )
    board.set_csr("mstatus", MSTATUS.encode(mpp=3))
    lines = log(
        0xFFFF_FFFF,
        encode("lw", rd=1, rs1=2, imm=0),
        encode("ecall"),
        registers={2: 0x7000_0000},
    )
    traps = [
        line.removeprefix("core   0: ") for line in lines if "exception" in line or " tval " in line
    ]
    assert traps == [
        "exception trap_illegal_instruction, epc 0x0000000080000000",
        "          tval 0x00000000ffffffff",
        "exception trap_load_access_fault, epc 0x0000000080000004",
        "          tval 0x0000000070000000",
        "exception trap_machine_ecall, epc 0x0000000080000008",
    ]
    assert all(COMMIT.fullmatch(line) for line in lines if ": 3 " in line)


def test_interrupts_read_like_spikes(log, board):
    board.set_csr("mtvec", RAM + 0x100)
    board.put(RAM + 0x100, encode("csrrw", csr=0x304), encode("mret"))
    board.set_csr("mie", 1 << Interrupt.SUPERVISOR_SOFTWARE)
    board.set_csr("mip", 1 << Interrupt.SUPERVISOR_SOFTWARE)
    board.set_csr("mstatus", MSTATUS.encode(mie=1, mpp=3))
    lines = log(encode("addi", rd=1))
    assert lines[0] == "core   0: exception interrupt #1, epc 0x0000000080000000"
    assert lines[-1] == "core   0: 3 0x0000000080000000 (0x00000093) x1  0x0000000000000000"


def test_registers_the_host_writes_are_known(log, board, tmp_path):
    """By the host port while the log is on, and by a resume."""
    board.put(RAM, encode("sb", rs1=6, imm=0), encode("sb", rs1=7, imm=0), encode("ebreak"))
    path = tmp_path / "commits"
    board.machine.log_commits(path)
    board.machine.write_gpr(6, DATA + 1)
    board.run(RAM, rd=7, value=DATA + 2)
    board.machine.log_commits(None)
    first, second, *_ = path.read_text().splitlines()
    assert first.endswith(" mem 0x0000000080008001 0x00")
    assert second.endswith(" mem 0x0000000080008002 0x00")


def test_a_log_that_begins_in_the_middle(log, board, tmp_path):
    """The hart runs: registers are not known, and bus addresses stand in until they are."""
    tables = Tables(board, RAM + 0x10000)
    tables.map(0x4000_0000, RAM)
    tables.map(0x5000_0000, DATA)
    board.set_csr("satp", tables.satp)
    loop = [*li(6, 0x5000_0000), encode("sb", rs1=6, imm=0), encode("sb", rs1=8, imm=1)]
    board.put(RAM, *loop, encode("jal", imm=-16))
    board.machine.write_gpr(8, 0x5000_0000)
    board.machine.write_privilege(Privilege.SUPERVISOR)
    board.machine.resume(0x4000_0000)
    board.machine.run(1_000)
    assert not board.machine.parked
    path = tmp_path / "commits"
    board.machine.log_commits(path)
    board.machine.run(1_000)
    board.machine.log_commits(None)
    board.halt()
    lines = path.read_text().splitlines()
    begun = next(n for n, line in enumerate(lines) if " x6 " in line)
    stores = {line[44:] for line in lines[begun + 2 :] if " mem " in line}
    assert stores == {"mem 0x0000000050000000 0x00", "mem 0x0000000080008001 0x00"}


def test_the_log_costs_nothing_when_it_is_off(board, tmp_path):
    """Turned off, nothing more is written."""
    board.reset()
    path = tmp_path / "commits"
    board.put(RAM, encode("ebreak"))
    board.machine.log_commits(path)
    board.machine.log_commits(None)
    board.run(RAM)
    assert path.read_text() == ""
    assert board.machine.park.reason == Exception_.BREAKPOINT


def test_an_unwritable_log_is_one_line(board, tmp_path):
    board.reset()
    with pytest.raises(VmxlabError, match=r"^cannot write the commit log to [^\n]*$"):
        board.machine.log_commits(tmp_path / "no" / "folder")
    board.machine.log_commits("/dev/full")
    board.put(RAM, encode("addi"), encode("ebreak"))
    board.run(RAM)
    with pytest.raises(VmxlabError, match="cannot write the commit log"):
        board.machine.log_commits(None)

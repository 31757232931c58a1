"""Accesses that cannot be made, and misaligned ones across pages, on the Verilated SoC."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtl.arch.csrs import MSTATUS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.traps import Exception_, Privilege
from tests.machine.board import ALL, PAGE, RAM, RAM_END, RAM_SIZE, Tables
from tests.machine.words import encode

CODE = RAM
DATA = RAM + RAM_SIZE // 2
TABLES = RAM + RAM_SIZE // 4
CODE_GVA, DATA_GVA = 0x10_0000, 0x40_0000
EBREAK = encode("ebreak")
A0, A1, A2 = 10, 11, 12
VALUE = 0x8899_AABB_CCDD_EEFF
E = Exception_
LOADS = {"lb": 1, "lbu": 1, "lh": 2, "lhu": 2, "lw": 4, "lwu": 4, "ld": 8}
STORES = {"sb": 1, "sh": 2, "sw": 4, "sd": 8}

examples = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def faulting(board):
    board.park_on(*Exception_)
    return board


def access(board, name, place, value=VALUE, **run):
    """One load or store at ``place``; the park record."""
    if name in STORES:
        word = encode(name, rs1=A1, rs2=A2)
    elif name.startswith(("amo", "sc")):
        word = encode(name, rd=A0, rs1=A1, rs2=A2)
    else:
        word = encode(name, rd=A0, rs1=A1)
    board.put(CODE, word, EBREAK)
    registers = {A0: 0, A1: place & ALL, A2: value}
    return board.run(run.pop("pc", CODE), registers=registers, **run)


#: Places in M-mode where nobody answers, whatever the access.
NOWHERE = [
    0, 0x0FFF, MEMORY_MAP["finisher"].end, MEMORY_MAP["uart"].end, 0x5000_0000, RAM - 8, RAM_END,
    RAM_END + 0x100_0000, 0xFFFF_FFF8, 1 << 32, 1 << 56, 1 << 63, ALL - 7,
]  # fmt: skip


@pytest.mark.parametrize("place", NOWHERE, ids=hex)
@pytest.mark.parametrize("name", [*LOADS, *STORES, "lr.d", "sc.d", "amoadd.w", "amoswap.d"])
def test_nobody_answers(faulting, name, place):
    if name in ("lr.d", "sc.d", "amoswap.d"):
        place &= ~7
    else:
        place &= ~3
    record = access(faulting, name, place)
    reads = name in LOADS or name == "lr.d"
    cause = E.LOAD_ACCESS_FAULT if reads else E.STORE_ACCESS_FAULT
    if name == "sc.d":
        # Without a reservation it may fail before it finds that nobody answers.
        assert record.reason in (cause, E.BREAKPOINT)
        return
    assert (record.reason, record.qualification, record.pc) == (cause, place, CODE)
    assert faulting.machine.read_gpr(A0) == 0


@pytest.mark.parametrize("name", ["amoadd.w", "amomaxu.d", "lr.w", "lr.d"])
def test_devices_know_no_atomics(faulting, name):
    record = access(faulting, name, MEMORY_MAP["clint"].base)
    assert record.reason in (E.LOAD_ACCESS_FAULT, E.STORE_ACCESS_FAULT)
    assert faulting.word(MEMORY_MAP["rom"].base) == 0


@pytest.mark.parametrize("name", ["lh", "lw", "ld", "sh", "sw", "sd"])
def test_devices_know_no_misaligned_accesses(faulting, name):
    place = MEMORY_MAP["rom"].base + 1
    record = access(faulting, name, place)
    cause = E.LOAD_ACCESS_FAULT if name in LOADS else E.STORE_ACCESS_FAULT
    assert (record.reason, record.qualification) == (cause, place)


def test_a_failed_refill_leaves_nothing_behind(faulting):
    """The line in front of the end of RAM, then the one behind it, then the first again."""
    for place in (RAM_END - 8, RAM_END, RAM_END - 8):
        for name in ("ld", "sd"):
            record = access(faulting, name, place)
            assert (record.reason == E.BREAKPOINT) == (place < RAM_END)
    faulting.machine.clean()
    assert faulting.word(RAM_END - 8) == VALUE


# Page tables outside RAM, or in parts of RAM that are not fitted.
@pytest.mark.parametrize(
    "root", [0, MEMORY_MAP["rom"].base, 0x1000_0000, RAM_END, RAM - PAGE, 1 << 32, 1 << 55], ids=hex
)
def test_tables_outside_ram_give_access_faults(faulting, root):
    tables = Tables(faulting, root)
    faulting.put(CODE, encode("ld", rd=A0, rs1=A1), EBREAK)
    faulting.set_csr("satp", tables.satp)
    record = faulting.run(CODE, privilege=Privilege.SUPERVISOR)
    assert (record.reason, record.qualification) == (E.INSTRUCTION_ACCESS_FAULT, CODE)
    faulting.set_csr("mstatus", MSTATUS.encode(mprv=1, mpp=Privilege.SUPERVISOR))
    for name, cause in (("ld", E.LOAD_ACCESS_FAULT), ("sd", E.STORE_ACCESS_FAULT)):
        faulting.set_csr("mstatus", MSTATUS.encode(mprv=1, mpp=Privilege.SUPERVISOR))
        record = access(faulting, name, 0x1234_5678 & ~7)
        assert (record.reason, record.qualification) == (cause, 0x1234_5678 & ~7)


@pytest.mark.parametrize("level", [1, 0])
def test_a_table_below_the_root_outside_ram_gives_an_access_fault(faulting, level):
    tables = Tables(faulting, TABLES)
    tables.map(CODE_GVA, CODE)
    tables.map(DATA_GVA << 12, 0x1000_0000, level=level + 1, r=0, w=0, x=0, a=0, d=0)
    faulting.set_csr("satp", tables.satp)
    for name, cause in (("lb", E.LOAD_ACCESS_FAULT), ("sb", E.STORE_ACCESS_FAULT)):
        record = access(faulting, name, DATA_GVA << 12, pc=CODE_GVA, privilege=Privilege.SUPERVISOR)
        assert (record.reason, record.qualification) == (cause, DATA_GVA << 12)


def paged(board, second=None):
    """Code and two pages of data, the second one elsewhere than behind the first, or missing."""
    tables = Tables(board, TABLES)
    tables.map(CODE_GVA, CODE)
    tables.map(DATA_GVA, DATA)
    if second is not None:
        tables.map(DATA_GVA + PAGE, **second)
    board.set_csr("satp", tables.satp)
    board.machine.sfence_vma()


@examples
@given(
    name=st.sampled_from([*LOADS, *STORES]),
    offset=st.integers(0, 20) | st.integers(PAGE - 12, PAGE + 12),
    contents=st.binary(min_size=48, max_size=48),
    value=st.integers(0, ALL),
)
def test_misaligned_accesses_across_pages(board, name, offset, contents, value):
    """Against a copy of both pages, which are not neighbours in memory."""
    board.reset()
    second = DATA + 3 * PAGE
    paged(board, {"hpa": second})
    copy = bytearray(2 * PAGE)
    for place in (0, PAGE - 24):
        copy[place : place + 48] = contents
    board.machine.write_memory(DATA, bytes(copy[:PAGE]))
    board.machine.write_memory(second, bytes(copy[PAGE:]))
    record = access(
        board, name, DATA_GVA + offset, value, pc=CODE_GVA, privilege=Privilege.SUPERVISOR
    )
    assert record.reason == E.BREAKPOINT
    if name in STORES:
        size = STORES[name]
        copy[offset : offset + size] = (value & ALL).to_bytes(8, "little")[:size]
    else:
        signed = not name.endswith("u")
        data = copy[offset : offset + LOADS[name]]
        loaded = int.from_bytes(data, "little", signed=signed) & ALL
        assert board.machine.read_gpr(A0) == loaded
    assert board.machine.read_memory(DATA, PAGE) == copy[:PAGE]
    assert board.machine.read_memory(second, PAGE) == copy[PAGE:]


SECOND = {
    "missing": (None, "page"),
    "read-only": ({"hpa": DATA + 3 * PAGE, "w": 0}, "store"),
    "not readable": ({"hpa": DATA + 3 * PAGE, "r": 0, "w": 0}, "page"),
    "user's": ({"hpa": DATA + 3 * PAGE, "u": 1}, "page"),
    "not accessed": ({"hpa": DATA + 3 * PAGE, "a": 0}, "page"),
    "clean": ({"hpa": DATA + 3 * PAGE, "d": 0}, "store"),
    "nowhere": ({"hpa": RAM_END}, "access"),
    "a device": ({"hpa": MEMORY_MAP["rom"].base}, "access"),
    "above the bus": ({"hpa": 1 << 40}, "access"),
}


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("name", ["lh", "lwu", "ld", "sh", "sw", "sd"])
def test_a_fault_on_the_second_page_stores_nothing(faulting, name, second):
    mapping, kind = SECOND[second]
    paged(faulting, mapping)
    size = (LOADS | STORES)[name]
    faulting.machine.write_memory(DATA + PAGE - 16, bytes(range(16)))
    for inside in range(1, size):
        place = DATA_GVA + PAGE - inside
        record = access(faulting, name, place, pc=CODE_GVA, privilege=Privilege.SUPERVISOR)
        if kind == "store" and name in LOADS:
            assert record.reason == E.BREAKPOINT
            continue
        load, store = {
            "access": (E.LOAD_ACCESS_FAULT, E.STORE_ACCESS_FAULT),
        }.get(kind, (E.LOAD_PAGE_FAULT, E.STORE_PAGE_FAULT))
        cause = load if name in LOADS else store
        # mtval is the part that faults: the start of the second page.
        assert (record.reason, record.qualification) == (cause, DATA_GVA + PAGE), inside
        assert record.pc == CODE_GVA
        assert faulting.machine.read_memory(DATA + PAGE - 16, 16) == bytes(range(16))
        assert faulting.machine.read_gpr(A0) == 0


@pytest.mark.parametrize("name", ["ld", "sd"])
def test_a_fault_on_the_first_page_comes_first(faulting, name):
    paged(faulting)
    place = DATA_GVA - 3
    record = access(faulting, name, place, pc=CODE_GVA, privilege=Privilege.SUPERVISOR)
    cause = E.LOAD_PAGE_FAULT if name in LOADS else E.STORE_PAGE_FAULT
    assert (record.reason, record.qualification) == (cause, place)
    assert faulting.machine.read_memory(DATA, 8) == bytes(8)


@pytest.mark.parametrize("name", ["lw", "ld", "sw", "sd"])
def test_the_end_of_ram_faults_where_it_ends(faulting, name):
    size = (LOADS | STORES)[name]
    for inside in range(1, size):
        record = access(faulting, name, RAM_END - inside)
        cause = E.LOAD_ACCESS_FAULT if name in LOADS else E.STORE_ACCESS_FAULT
        assert (record.reason, record.qualification) == (cause, RAM_END)
        assert faulting.machine.read_memory(RAM_END - 16, 16) == bytes(16)


@pytest.mark.parametrize("target", ["missing", "not executable", "user's", "nowhere"])
def test_an_instruction_across_pages_faults_at_its_second_half(faulting, target):
    """The first half stands at the end of an executable page."""
    tables = Tables(faulting, TABLES)
    tables.map(CODE_GVA, CODE)
    second = {
        "not executable": {"hpa": DATA, "x": 0},
        "user's": {"hpa": DATA, "u": 1},
        "nowhere": {"hpa": RAM_END},
    }.get(target)
    if second:
        tables.map(CODE_GVA + PAGE, **second)
    faulting.set_csr("satp", tables.satp)
    word = encode("addi", rd=A0, imm=77)
    faulting.machine.write_memory(CODE + PAGE - 2, word.to_bytes(4, "little")[:2])
    record = faulting.run(CODE_GVA + PAGE - 2, privilege=Privilege.SUPERVISOR)
    cause = E.INSTRUCTION_ACCESS_FAULT if target == "nowhere" else E.INSTRUCTION_PAGE_FAULT
    assert (record.reason, record.pc) == (cause, CODE_GVA + PAGE - 2)
    assert (record.qualification, record.length) == (CODE_GVA + PAGE, 0)
    # Mapped properly, it runs.
    tables.map(CODE_GVA + PAGE, DATA)
    faulting.machine.write_memory(DATA, word.to_bytes(4, "little")[2:])
    faulting.put(DATA + 2, EBREAK)
    faulting.machine.sfence_vma()
    record = faulting.run(CODE_GVA + PAGE - 2, privilege=Privilege.SUPERVISOR)
    assert (record.reason, record.pc) == (E.BREAKPOINT, CODE_GVA + PAGE + 2)
    assert faulting.machine.read_gpr(A0) == 77

"""Who sets A and D: the hart, with menvcfg.ADUE, or whoever gets the page fault."""

import pytest

from rtl.arch.csrs import MENVCFG
from rtl.arch.paging import PTE
from rtl.arch.traps import Exception_ as E
from rtl.arch.traps import Privilege
from tests.machine.board import PAGE, RAM, RAM_SIZE, Tables
from tests.machine.words import encode

CODE = RAM
DATA = RAM + RAM_SIZE // 2
TABLES = RAM + RAM_SIZE // 4
EBREAK = encode("ebreak")
A0, A1 = 10, 11
CODE_GVA, DATA_GVA = 0x10_0000, 0x40_0000
CASES = [
    # The instruction, what it needs, the fault without.
    ("ld", {"a": 1}, E.LOAD_PAGE_FAULT),
    ("sd", {"a": 1, "d": 1}, E.STORE_PAGE_FAULT),
    ("lr.d", {"a": 1}, E.LOAD_PAGE_FAULT),
    ("amoadd.d", {"a": 1, "d": 1}, E.STORE_PAGE_FAULT),
]


def words(name):
    fields = {"ld": {"rd": A0, "rs1": A1}, "sd": {"rs1": A1, "rs2": A0}}
    default = {"rd": A0, "rs1": A1} | ({"rs2": A0} if name.startswith("amo") else {})
    return encode(name, **fields.get(name, default)), EBREAK


@pytest.mark.parametrize(("name", "needs", "fault"), CASES)
@pytest.mark.parametrize("held", [{"a": 0, "d": 0}, {"a": 1, "d": 0}, {"a": 1, "d": 1}])
@pytest.mark.parametrize("adue", [0, 1])
def test_accesses_and_their_marks(board, name, needs, fault, held, adue):
    board.park_on(*E)
    tables = Tables(board, TABLES)
    tables.map(CODE_GVA, CODE)
    tables.map(DATA_GVA, DATA, **held)
    board.put(CODE, *words(name))
    board.set_csr("satp", tables.satp)
    board.set_csr("menvcfg", MENVCFG.encode(adue=adue))
    board.machine.sfence_vma()
    record = board.run(CODE_GVA, privilege=Privilege.SUPERVISOR, registers={A1: DATA_GVA})
    enough = all(held[bit] >= value for bit, value in needs.items())
    assert record.reason == (E.BREAKPOINT if adue or enough else fault)
    found = PTE.decode(board.word(tables.entry(DATA_GVA)))
    for bit in ("a", "d"):
        assert found[bit] == (max(held[bit], needs.get(bit, 0)) if adue else held[bit])


@pytest.mark.parametrize("adue", [0, 1])
def test_fetches_mark_what_they_execute(board, adue):
    """A page that is not executed, or must not be, is left as it is."""
    board.park_on(*E)
    tables = Tables(board, TABLES)
    tables.map(CODE_GVA, CODE, a=0, d=0)
    tables.map(CODE_GVA + 2 * PAGE, CODE, a=0, d=0, u=1)
    board.put(CODE, EBREAK)
    board.set_csr("satp", tables.satp)
    board.set_csr("menvcfg", MENVCFG.encode(adue=adue))
    board.machine.sfence_vma()
    record = board.run(CODE_GVA, privilege=Privilege.SUPERVISOR)
    assert record.reason == (E.BREAKPOINT if adue else E.INSTRUCTION_PAGE_FAULT)
    found = PTE.decode(board.word(tables.entry(CODE_GVA)))
    assert (found["a"], found["d"]) == (adue, 0)
    record = board.run(CODE_GVA + 2 * PAGE, privilege=Privilege.SUPERVISOR)
    assert record.reason == E.INSTRUCTION_PAGE_FAULT
    found = PTE.decode(board.word(tables.entry(CODE_GVA + 2 * PAGE)))
    assert (found["a"], found["d"]) == (0, 0)


def test_an_update_ends_the_reservation_of_its_entry(board):
    """Or a store-conditional to a page table could lose the bit that the hart has just set."""
    board.park_on(*E)
    tables = Tables(board, TABLES)
    tables.map(CODE_GVA, CODE)
    tables.map(DATA_GVA, DATA, a=0, d=0)
    place = tables.entry(DATA_GVA)
    window = DATA_GVA + 8 * PAGE
    tables.map(window, place & -PAGE)
    load = encode("ld", rd=A0 + 3, rs1=A0 + 2)
    for between, lost in ((load, 1), (encode("addi", rd=0, rs1=0, imm=0), 0)):
        tables.map(DATA_GVA, DATA, a=0, d=0)
        board.put(
            CODE,
            encode("lr.d", rd=A0, rs1=A1),
            between,
            encode("sc.d", rd=A0, rs1=A1, rs2=A0),
            EBREAK,
        )
        board.set_csr("satp", tables.satp)
        board.set_csr("menvcfg", MENVCFG.encode(adue=1))
        board.machine.sfence_vma()
        registers = {A1: window + place % PAGE, A0 + 2: DATA_GVA}
        record = board.run(CODE_GVA, privilege=Privilege.SUPERVISOR, registers=registers)
        assert record.reason == E.BREAKPOINT
        assert board.machine.read_gpr(A0) == lost
        assert PTE.decode(board.word(place))["a"] == lost

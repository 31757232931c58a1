"""A and D in the model: what the implementation may have set, and what it must have."""

import pytest

from rtl.arch.csrs import CSRS, MENVCFG
from rtl.arch.paging import PTE
from rtl.arch.traps import Exception_, Privilege
from sim.golden import Claim, Trap, Unknowable
from sw_vmm.assembler import encode
from tests.golden.tables import ASID, GVA, LEAF, NEW, OLD, OTHER_ASID, OTHER_ROOT, Tables

A, D = PTE["a"].mask, PTE["d"].mask
AT = GVA & ~7
PLACE = LEAF + 8 * (GVA >> 12 & 511)
PC = GVA & ~3
NOP = encode("addi", rd=5, imm=1)
WORD = (1 << 64) - 1


class Marked(Tables):
    """Tables whose leaf has A and D as named, under menvcfg.ADUE."""

    def __init__(self, *, adue=1, **flags):
        super().__init__(**flags)
        self.adue(adue)
        self.memory.sfence_vma(None, None)

    def adue(self, adue):
        self.hart.write_csr(CSRS["menvcfg"].number, MENVCFG.encode(adue=adue))

    def privilege(self, privilege):
        self.hart.privilege = privilege
        self.hart.switched()

    def leaf(self, **flags):
        return PTE.encode(ppn=OLD >> 12, **(self.flags | flags))

    def load(self, page=OLD):
        self.memory.claimed = page + (AT & 0xFFF)
        return self.memory.load(AT, 8)

    def store(self, page=OLD):
        self.memory.claimed = page + (AT & 0xFFF)
        self.memory.store(AT, 8, 1)

    def fetch(self):
        self.memory.write_physical(OLD + (PC & 0xFFF), NOP.to_bytes(4, "little"))
        self.hart.pc = PC
        self.hart.step(Claim(NOP, -1, 0))
        assert self.hart.trapped is None

    @property
    def possible(self):
        """What the leaf may be, of A and D."""
        return {value & (A | D) for value in self.memory.tables.values(PLACE)}


@pytest.mark.parametrize(
    ("held", "access", "marks"),
    [
        ({}, "load", A | D),
        ({"a": 0, "d": 0}, "load", A),
        ({"a": 0, "d": 0}, "store", A | D),
        ({"d": 0}, "store", A | D),
        ({"d": 0}, "load", A),
        ({"a": 0, "d": 0}, "fetch", A),
    ],
)
def test_what_is_used_is_marked(held, access, marks):
    tables = Marked()
    tables.map(OLD, x=int(access == "fetch"), **held)
    tables.memory.sfence_vma(None, None)
    getattr(tables, access)()
    assert tables.possible == {marks}


@pytest.mark.parametrize("access", ["load", "store", "fetch"])
def test_an_old_translation_marks_nothing(access):
    """Its leaf has the bits, and hardware does not look at the one that stands there now."""
    tables = Marked()
    tables.load()
    tables.map(OLD, a=0, d=0, x=int(access == "fetch"))
    getattr(tables, access)()
    marks = A | D * (access == "store")
    assert tables.possible == {0, marks}
    getattr(tables, access)()
    assert tables.possible == {0, marks}
    tables.memory.sfence_vma(GVA, None)
    getattr(tables, access)()
    assert tables.possible == {marks}


def test_an_old_translation_without_d_stores_nothing():
    tables = Marked(d=0)
    tables.map(OLD, d=0, rsw=1)
    tables.store()
    assert tables.possible == {A | D}


@pytest.mark.parametrize("seen", [0, A | D])
@pytest.mark.parametrize("way", ["load", "amo", "lr"])
def test_what_the_implementation_reads_tells(seen, way):
    tables = Marked(x=0)
    memory = tables.memory
    tables.map(OLD, a=0, d=0)
    tables.store()
    assert tables.possible == {0, A | D}
    tables.privilege(Privilege.MACHINE)
    memory.claimed = PLACE
    value = tables.leaf(a=0, d=0) | seen
    for wrong in (value ^ 2, value ^ 1 << 54, value ^ D):
        memory.claimed_value = wrong
        assert memory.load(PLACE, 8) in {tables.leaf(a=0, d=0), tables.leaf()}
        assert tables.possible == {0, A | D}
    memory.claimed_value = value
    if way == "load":
        assert memory.load(PLACE, 8) == value
    elif way == "lr":
        assert memory.load_reserved(PLACE, 8) == value
    else:
        assert memory.modify(PLACE, 8, lambda old: old | 1 << 8) == value
        assert memory.tables.values(PLACE) == (value | 1 << 8,)
    assert tables.possible == {seen}


def test_an_atomic_that_tells_nothing_cannot_be_followed():
    tables = Marked(x=0)
    tables.map(OLD, a=0, d=0)
    tables.store()
    tables.privilege(Privilege.MACHINE)
    tables.memory.claimed = PLACE
    with pytest.raises(Unknowable):
        tables.memory.modify(PLACE, 8, lambda old: old + 1)


def test_stores_beside_the_bits_leave_them_open():
    tables = Marked(x=0)
    tables.map(OLD, a=0, d=0)
    tables.store()
    tables.memory.write_physical(PLACE + 1, b"\x07")
    assert tables.possible == {0, A | D}
    assert {value >> 8 & 0xFF for value in tables.memory.tables.values(PLACE)} == {7}
    tables.memory.write_physical(PLACE, b"\x07")
    assert tables.possible == {0}


@pytest.mark.parametrize(
    ("change", "possible"),
    [
        ({}, {0, A}),
        ({"x": 0}, {0}),
        ({"v": 0}, {0}),
        ({"u": 1}, {0}),
        ({"r": 0, "w": 1}, {0}),
        ({"d": 1}, {D, A | D}),
    ],
)
def test_speculation_marks_what_could_be_fetched_and_never_d(change, possible):
    tables = Marked()
    tables.map(OLD, **({"a": 0, "d": 0} | change))
    assert tables.possible == possible


def test_speculation_needs_an_active_table_and_adue():
    for adue, marked in ((0, {0}), (1, {0, A})):
        tables = Marked(adue=adue)
        tables.map(OLD, a=0, d=0)
        assert tables.possible == marked
    # A walk may have begun before satp was left, and ends before a fence.
    for fenced, marked in ((False, {0, A}), (True, {0})):
        tables = Marked()
        tables.satp(OTHER_ROOT, OTHER_ASID)
        if fenced:
            tables.memory.sfence_vma(None, None)
        tables.map(OLD, a=0, d=0)
        assert tables.possible == marked
    tables = Marked()
    tables.privilege(Privilege.MACHINE)
    tables.memory.sfence_vma(None, ASID)
    tables.map(OLD, a=0, d=0)
    assert tables.possible == {0}
    tables.privilege(Privilege.USER)
    assert tables.possible == {0}
    tables.privilege(Privilege.SUPERVISOR)
    assert tables.possible == {0, A}


def test_speculation_that_was_seen_or_ruled_out_stays_so():
    for seen, later in ((0, {0}), (A, {A})):
        tables = Marked()
        tables.map(OLD, a=0, d=0)
        tables.privilege(Privilege.MACHINE)
        tables.memory.sfence_vma(None, None)
        assert tables.memory.tables.observe(PLACE, WORD, tables.leaf(a=0, d=0) | seen)
        assert tables.possible == later
        assert not tables.memory.tables.observe(PLACE, WORD, tables.leaf(a=0, d=0) | seen ^ A)


def test_without_adue_an_access_tells_whether_speculation_came_first():
    for faults in (False, True):
        tables = Marked()
        tables.map(OLD, a=0, d=0)
        tables.adue(0)
        tables.memory.sfence_vma(None, None)
        assert tables.possible == {0, A}
        if faults:
            tables.memory.claimed_fault = int(Exception_.LOAD_PAGE_FAULT), AT
            with pytest.raises(Trap):
                tables.memory.load(AT, 8)
        else:
            tables.load()
        assert tables.possible == ({0} if faults else {A})


def test_an_update_ends_a_reservation_in_its_line():
    for certain in (True, False):
        for claimed in (True, False):
            tables = Marked(x=0)
            tables.map(OLD, a=0, d=0)
            if certain:
                tables.memory.sfence_vma(None, None)
            tables.memory.reserved = PLACE >> 6
            tables.load()
            tables.privilege(Privilege.MACHINE)
            tables.memory.claimed = PLACE
            tables.memory.claimed_store = claimed
            stored = tables.memory.store_conditional(PLACE, 8, 0)
            # What may have been lost is believed; what must have been is lost.
            assert stored == (not certain and claimed)


def test_a_store_conditional_does_not_fail_without_a_reason():
    tables = Marked()
    tables.privilege(Privilege.MACHINE)
    tables.memory.claimed = NEW
    tables.memory.reserved = NEW >> 6
    tables.memory.claimed_store = False
    assert tables.memory.store_conditional(NEW, 8, 0)

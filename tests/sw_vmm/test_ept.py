"""EPTs of the VMM against a walk of their own, and guests that run over them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.paging import Access
from rtl.arch.vmx.instructions import InveptType
from sw_vmm.ept import Ept, MemorySlot, PageAllocator
from sw_vmm.errors import BadImage
from sw_vmm.exits import EptViolation, Hypercall
from tests.sw_vmm.vmx_machine import MONITOR, RAM, SmallGuest, vmx_word

PAGE, LARGE, HUGE = 1 << 12, 1 << 21, 1 << 30
#: Bits of an entry, from the manual.
V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))


class Memory:
    """RAM without a machine: the monitor's, and a note of every INVEPT."""

    def __init__(self):
        self.bytes = bytearray(len(MONITOR))
        self.invalidated = []

    def read_memory(self, hpa, length):
        at = hpa - MONITOR.start
        assert 0 <= at <= at + length <= len(self.bytes)
        return bytes(self.bytes[at : at + length])

    def write_memory(self, hpa, data):
        at = hpa - MONITOR.start
        assert 0 <= at <= at + len(data) <= len(self.bytes)
        self.bytes[at : at + len(data)] = data

    def vmx(self, name, first=0, second=0):
        self.invalidated.append((name, first, second))
        return 0


def walk(memory, eptp, gpa):
    """hpa, permission bits and level of the leaf; None when there is none."""
    table = (eptp & (1 << 44) - 1) << 12
    assert eptp >> 60 == 8 and table % (1 << 14) == 0 and gpa < 1 << 41
    for level in (2, 1, 0):
        index = gpa >> 12 + 9 * level & (0x7FF if level == 2 else 0x1FF)
        entry = int.from_bytes(memory.read_memory(table + 8 * index, 8), "little")
        if not entry & V:
            return None
        if entry & (R | W | X):
            assert entry & (U | A | D) == U | A | D and not entry >> 54 and not entry & G
            size = PAGE << 9 * level
            hpa = (entry >> 10) << 12
            assert hpa % size == 0
            return hpa + gpa % size, entry & (R | W | X), level
        assert not entry & (U | A | D | G)
        table = (entry >> 10) << 12
    raise AssertionError("a pointer at the last level")


def make(slots, **options):
    memory = Memory()
    return memory, Ept(memory, PageAllocator(MONITOR), slots, **options)


@st.composite
def slot_lists(draw):
    """Slots behind each other, with holes, of sizes that make every page size possible."""
    slots, gpa = [], 0
    for _ in range(draw(st.integers(1, 5))):
        unit = draw(st.sampled_from([PAGE, LARGE, HUGE]))
        gpa = -(-gpa // unit) * unit + unit * draw(st.integers(0, 3))
        gpa += PAGE * draw(st.integers(0, 3))
        size = draw(st.integers(1, 3)) * draw(st.sampled_from([PAGE, LARGE, HUGE]))
        size += PAGE * draw(st.integers(0, 3))
        hpa = gpa % HUGE + HUGE * draw(st.integers(0, 50))
        if draw(st.booleans()):
            hpa = draw(st.integers(0, 1 << 20)) * PAGE
        rights = draw(st.sampled_from([tuple(Access), (Access.READ, Access.FETCH)]))
        slots.append(MemorySlot(gpa, hpa, size, rights))
        gpa += size
    return slots


@settings(max_examples=60, deadline=None)
@given(slot_lists(), st.data())
def test_what_is_filled_leads_where_the_slots_say(slots, data):
    memory, ept = make(slots, largest=data.draw(st.integers(0, 2)))
    gpas = []
    for slot in slots:
        for _ in range(3):
            offset = data.draw(st.integers(0, slot.size - 1))
            gpas += [slot.gpa + offset, slot.gpa, slot.end - 1, slot.end]
    for gpa in gpas:
        slot = next((slot for slot in slots if slot.gpa <= gpa < slot.end), None)
        for access in Access:
            assert ept.fill(gpa, access) == (slot is not None and access in slot.rights)
        assert ept.hpa_of(gpa) == (None if slot is None else slot.hpa + gpa - slot.gpa)
    for gpa in gpas:
        slot = next((slot for slot in slots if slot.gpa <= gpa < slot.end), None)
        found = walk(memory, ept.eptp, gpa)
        if slot is None:
            assert found is None
        else:
            hpa, rights, _ = found
            assert hpa == ept.hpa_of(gpa)
            assert rights == R | X | (W if Access.WRITE in slot.rights else 0)
    assert not memory.invalidated


def test_pages_are_as_large_as_both_sides_allow():
    size = HUGE + 2 * LARGE + 3 * PAGE
    memory, ept = make([MemorySlot(HUGE, 4 * HUGE, size)])
    ept.fill_all()
    assert ept.pages() == {2: 1, 1: 2, 0: 3}
    assert [walk(memory, ept.eptp, HUGE + at)[2] for at in (0, HUGE, HUGE + 2 * LARGE)] == [2, 1, 0]
    _, ept = make([MemorySlot(HUGE, 4 * HUGE + LARGE, 2 * LARGE)])
    ept.fill_all()
    assert ept.pages() == {2: 0, 1: 2, 0: 0}
    _, ept = make([MemorySlot(HUGE, 4 * HUGE + PAGE, LARGE)])
    ept.fill_all()
    assert ept.pages() == {2: 0, 1: 0, 0: 512}
    _, ept = make([MemorySlot(0, 0, LARGE)], largest=0)
    ept.fill_all()
    assert ept.pages() == {2: 0, 1: 0, 0: 512}


def test_one_page_is_filled_at_a_time():
    memory, ept = make([MemorySlot(0, 0, 4 * LARGE)])
    assert ept.fill(LARGE + 5, Access.READ)
    assert ept.pages() == {2: 0, 1: 1, 0: 0}
    assert walk(memory, ept.eptp, 0) is None


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(BadImage, match="too small"):
        make([MemorySlot(0, PAGE, 8 * HUGE)])[1].fill_all()
    with pytest.raises(BadImage, match="too small"):
        Ept(Memory(), PageAllocator(range(MONITOR.start, MONITOR.start + PAGE)), [])


@pytest.mark.parametrize(
    "slots",
    [
        [MemorySlot(0, 0, 2 * PAGE), MemorySlot(PAGE, 0, PAGE)],
        [MemorySlot((1 << 41) - PAGE, 0, 2 * PAGE)],
    ],
)
def test_slots_that_make_no_sense_are_refused(slots):
    with pytest.raises(ValueError):
        make(slots)


def test_a_slot_is_made_of_whole_pages():
    for row in ((1, 0, PAGE), (0, 1, PAGE), (0, 0, 100), (0, 0, 0)):
        with pytest.raises(ValueError, match="whole pages"):
            MemorySlot(*row)
    with pytest.raises(ValueError, match="written and not read"):
        MemorySlot(0, 0, PAGE, (Access.WRITE,))


# -- rights that go away ---------------------------------------------------------------------------


def test_taking_rights_away_invalidates():
    memory, ept = make([MemorySlot(0, 0, LARGE)])
    ept.protect(0)
    assert not memory.invalidated
    ept.fill(0, Access.READ)
    ept.protect(0, Access.READ)
    assert walk(memory, ept.eptp, 0)[1] == R
    ept.protect(0)
    assert walk(memory, ept.eptp, 0) is None
    assert memory.invalidated == [("invept", InveptType.SINGLE_CONTEXT, ept.eptp)] * 2


def test_a_guest_notices_that_a_page_is_protected():
    """Two stores to a page, the second behind a change of its rights, and then no more."""

    def build(code):
        code.add("sd", rs1=5, rs2=6)
        code.word(vmx_word("vmcall"))
        code.add("sd", rs1=5, rs2=7)
        code.word(vmx_word("vmcall"))

    place = RAM + 0x1000
    slots = [MemorySlot(RAM, RAM, PAGE), MemorySlot(place, RAM + 0x5000, PAGE)]
    guest = SmallGuest(build, slots=slots)
    guest.set(x5=place, x6=111, x7=222)
    assert guest.run() == Hypercall()
    assert guest.machine.read_memory(RAM + 0x5000, 8) == (111).to_bytes(8, "little")
    guest.ept.protect(place, Access.READ)
    assert guest.go_on() == EptViolation(place, Access.WRITE, True)
    assert guest.machine.read_memory(RAM + 0x5000, 8) == (111).to_bytes(8, "little")
    assert guest.ept.fill(place, Access.WRITE)
    assert guest.go_on(skip=False) == Hypercall()
    assert guest.machine.read_memory(RAM + 0x5000, 8) == (222).to_bytes(8, "little")


@given(slot_lists(), st.data())
@settings(max_examples=60, deadline=None)
def test_entries_that_a_guest_has_written_lead_nowhere_else(slots, data):
    """Whatever stands in the tables, only they are written, and a page that is entered is there."""
    memory, ept = make(slots)
    for slot in slots:
        ept.fill(slot.gpa, Access.READ)
    tables = sorted(ept._tables)
    flags = st.sampled_from([V, V | A, V | W, V | R | W | X, V | R | U | A | D, 0xFF, 0])
    for _ in range(data.draw(st.integers(1, 4))):
        slot = data.draw(st.sampled_from(slots))
        table = data.draw(st.sampled_from(tables))
        level = data.draw(st.integers(0, 2))
        frame = data.draw(st.sampled_from([MONITOR.stop - PAGE, 0, 0x1000, slot.hpa])) >> 12
        entry = frame << 10 | data.draw(flags)
        at = table + 8 * (slot.gpa >> 12 + 9 * level & 0x1FF)
        memory.write_memory(at, entry.to_bytes(8, "little"))
    before = bytes(memory.bytes)
    for slot in slots:
        ept.protect(slot.gpa, Access.READ)
        if ept.fill(slot.gpa, Access.READ):
            hpa, _, _ = walk(memory, ept.eptp, slot.gpa)
            assert hpa == slot.hpa
    root = (ept.eptp & (1 << 44) - 1) << 12
    own = {root + offset for offset in range(0, 1 << 14, PAGE)} | ept._tables
    for at in range(0, len(before), PAGE):
        same = before[at : at + PAGE] == memory.bytes[at : at + PAGE]
        assert same or MONITOR.start + at in own

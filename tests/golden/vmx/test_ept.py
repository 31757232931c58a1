"""Walks in two dimensions: a matrix by instructions, random guests, and QEMU (docs/isa/vmx.md#ept)."""

import random
from collections import Counter
from itertools import product

import pytest

from rtl.arch.csrs import MENVCFG
from rtl.arch.paging import PTE, Access
from rtl.arch.records import EXIT_BIT
from rtl.arch.traps import Exception_, Privilege
from rtl.arch.vmx.exits import EPT_QUALIFICATION, ExitReason
from rtl.arch.vmx.instructions import InveptType
from sw_vmm.assembler import encode
from tests.golden.qemu import needs_qemu
from tests.golden.vmx.model_walk import translate
from tests.golden.vmx.world import EPT_ROOT, GUEST, MEMORY, RAM, RAM_SIZE, World, controls
from tests.rtl.mmu import test_two_stage_qemu as qemu
from tests.rtl.mmu import two_stage_reference as reference
from tests.rtl.mmu.guests import random_guest
from tests.rtl.mmu.walker_bench import Memory

MACHINE, SUPERVISOR = Privilege.MACHINE, Privilege.SUPERVISOR
A, D = PTE["a"].mask, PTE["d"].mask
#: Instructions and how the EPT sees them.
ACCESSES = {
    "load": (encode("ld", rd=5, rs1=6), Access.READ),
    "lr": (encode("lr.d", rd=5, rs1=6), Access.READ),
    "store": (encode("sd", rs1=6, rs2=7), Access.WRITE),
    "sc": (encode("sc.d", rd=5, rs1=6, rs2=7), Access.WRITE),
    "amo": (encode("amoadd.d", rd=5, rs1=6, rs2=7), Access.WRITE),
    "fetch": (encode("jalr", rs1=6), Access.FETCH),
}
#: gpas of one page each, for leaves of each level, and the hpa behind.
PLACES = [(GUEST + 0x5000, MEMORY + 0x1000), (3 << 30, MEMORY), (5 << 30, RAM)]
RIGHTS = ["", "r", "w", "x", "rw", "rx", "wx", "rwx"]


class Words:
    """Memory of a world as the reference reads and marks it: a copy where it marks."""

    def __init__(self, world):
        self.world, self.words = world, {}

    def read(self, address):
        return self.words.get(address, self.world.get(address))

    def update(self, address, expected, bits):
        assert self.read(address) == expected
        self.words[address] = expected | bits


def wanted(world, gpa, access, ad):
    """By the reference: what becomes of an access to a gpa."""
    words = Words(world)
    context = {"ept_root": EPT_ROOT >> 12, "ept_ad": ad}
    try:
        hpa, _, _ = reference.second_stage(words, context, gpa, access, False)
    except reference.EptFault as fault:
        return type(fault), fault.about, words.words
    return None, hpa, words.words


def run(world, gpa, way, **fields):
    """One access in guest M-mode; the EPT is what it is now."""
    word, _ = ACCESSES[way]
    hart = world.hart
    if hart.world:
        world.leave()
    assert world.vmx("invept", InveptType.ALL_CONTEXTS) == 0
    hart.x[6], hart.x[7] = gpa, 0x77
    if hart.vmx.vmcs.launched:
        world.again(word, **fields)
    else:
        world.launch(code=[word], **fields)
    world.run(2 if way == "fetch" else 1)


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize("way", ACCESSES)
def test_every_leaf_at_every_level(level, way, directed):
    """Rights, U, A, D and who keeps A and D; outcome, qualification and marks."""
    _, access = ACCESSES[way]
    gpa, hpa = PLACES[level]
    world = World()
    world.write(
        execution_controls=controls("external_interrupt_exiting"),
        exception_bitmap=1 << Exception_.ILLEGAL_INSTRUCTION,
    )
    seen = Counter()
    for rights, u, a, d, ad in product(RIGHTS, (0, 1), (0, 1), (0, 1), (0, 1)):
        flags = {name: int(name in rights) for name in "rwx"}
        entry = world.map(gpa, hpa, level, **flags, u=u, a=a, d=d)
        world.put(hpa, 0)  # an illegal instruction, and data
        before = world.get(entry)
        kind, about, marked = wanted(world, gpa, access, ad)
        run(world, gpa, way, eptp=world.eptp(ad=ad))
        hart = world.hart
        seen[kind] += 1
        if kind is None:
            assert hart.trapped is None or hart.trapped[0] == 1 << EXIT_BIT
            if way in ("store", "amo"):
                assert world.get(hpa) == 0x77
        else:
            refused, _, page_table, rwx, at = about
            reason = ExitReason.EPT_VIOLATION
            qualification = EPT_QUALIFICATION.encode(
                read=access == Access.READ,
                write=access == Access.WRITE,
                fetch=access == Access.FETCH,
                gva_valid=1,
                final=not page_table,
                level=at,
                **dict(zip(("readable", "writable", "executable"), rwx, strict=True)),
            )
            if kind is reference.EptMisconfiguration:
                reason, qualification = ExitReason.EPT_MISCONFIGURATION, 0
            assert hart.trapped == (reason | 1 << EXIT_BIT, qualification)
            assert hart.vmx.vmcs.fields["exit_gpa"] == refused == gpa
            assert hart.vmx.vmcs.fields["exit_gva"] == gpa
            assert world.get(hpa) == 0
        assert world.get(entry) == marked.get(entry, before)
        directed("EPT leaf", way, level, rights, u, a, d, ad, kind)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("level", "change"),
    [
        *((level, 1 << bit) for level in range(3) for bit in range(54, 64)),
        (1, PTE.encode(ppn=1)),
        (2, PTE.encode(ppn=1 << 9)),
    ],
)
def test_what_is_misconfigured(level, change):
    world = World()
    gpa, hpa = PLACES[level]
    entry = world.map(gpa, hpa, level)
    world.put(entry, world.get(entry) ^ change)
    run(world, gpa, "load")
    assert world.hart.trapped == (ExitReason.EPT_MISCONFIGURATION | 1 << EXIT_BIT, 0)
    fields = world.hart.vmx.vmcs.fields
    assert (fields["exit_gva"], fields["exit_gpa"]) == (gpa, gpa)


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize("flag", ["a", "d", "u", None])
def test_pointers(level, flag):
    """With A, D or U, or at level 0, they are misconfigured; V = 0 hides all of that."""
    world = World()
    gpa, hpa = PLACES[0]
    leaf = world.map(gpa, hpa)
    table = world.map(gpa, hpa, 2) if level == 2 else None
    table = leaf if level == 0 else table or world.map(gpa, hpa, 1)
    below = MEMORY + 0x4000
    pointer = PTE.encode(v=1, ppn=below >> 12, **({flag: 1} if flag else {}))
    world.put(table, pointer)
    run(world, gpa, "load")
    reason = ExitReason.EPT_MISCONFIGURATION if flag or level == 0 else ExitReason.EPT_VIOLATION
    assert world.hart.trapped[0] == reason | 1 << EXIT_BIT
    world.put(table, pointer & ~1)
    run(world, gpa, "load")
    assert world.hart.trapped[0] == ExitReason.EPT_VIOLATION | 1 << EXIT_BIT
    found = EPT_QUALIFICATION.decode(world.hart.trapped[1])
    assert found["level"] == level and not found["readable"]


@pytest.mark.parametrize("frame", [0, (RAM >> 12) - 1, RAM + RAM_SIZE >> 12, (1 << 44) - 1])
@pytest.mark.parametrize("level", [1, 2])
def test_tables_of_the_ept_lie_in_memory_that_is_there(frame, level):
    world = World()
    gpa, hpa = PLACES[0]
    entry = world.map(gpa, hpa, level)
    world.put(entry, PTE.encode(v=1, ppn=frame))
    # The guest's code goes by the same tables.
    world.write(guest_pc=gpa)
    assert world.vmx("vmlaunch") is None
    world.run()
    assert world.hart.trapped == (ExitReason.EPT_MISCONFIGURATION | 1 << EXIT_BIT, 0)


@pytest.mark.parametrize("bit", range(41, 64))
def test_gpas_that_are_too_large(bit):
    world = World()
    gpa = GUEST | 1 << bit
    run(world, gpa, "store")
    qualification = EPT_QUALIFICATION.encode(write=1, gva_valid=1, final=1, level=2)
    assert world.hart.trapped == (ExitReason.EPT_VIOLATION | 1 << EXIT_BIT, qualification)
    assert world.hart.vmx.vmcs.fields["exit_gpa"] == gpa


def test_bit_40_is_part_of_a_gpa():
    world = World()
    gpa = 1 << 40 | 0x3000
    world.map(gpa, MEMORY)
    world.put(MEMORY, 5)
    run(world, gpa, "load")
    assert world.hart.trapped is None and world.hart.x[5] == 5


# The guest's own tables.

GVA = 0x12_3000
TARGET = GUEST + 0x6000


def paged(world, way, *, adue=0, ad=0, privilege=SUPERVISOR, **fields):
    """An access to GVA in S-mode, the code being mapped at 0."""
    hart = world.hart
    hart.x[6], hart.x[7] = GVA, 0x77
    world.guest_code(ACCESSES[way][0])
    world.map_guest(0, GUEST)
    world.launch(
        privilege=privilege, guest_pc=0, guest_satp=world.satp(), eptp=world.eptp(ad=ad),
        guest_menvcfg=MENVCFG.encode(adue=adue), **fields,
    )  # fmt: skip
    world.run(2 if way == "fetch" else 1)


@pytest.mark.parametrize("adue", [0, 1])
@pytest.mark.parametrize("ad", [0, 1])
@pytest.mark.parametrize("marks", [0, A, A | D])
@pytest.mark.parametrize("rights", ["rw", "r", "x", "rwx"])
@pytest.mark.parametrize("way", ["load", "store", "fetch"])
@pytest.mark.parametrize("leaf", [0, A | D])
def test_the_page_of_a_guest_table(way, rights, marks, ad, adue, leaf, directed):
    """The EPT's leaf for the last table, against the reference: outcome and all memory."""
    world = World()
    flags = {"a": bool(leaf), "d": bool(leaf)}
    place = world.map_guest(GVA, TARGET, **flags)
    world.put(world.hpa(TARGET), 0x0000_0013)
    table = place & ~0xFFF
    # Code by another way: a 2 MiB page, above the last table.
    world.map_guest(1 << 21, GUEST & ~0x1F_FFFF, 1)
    code = (1 << 21) + (GUEST & 0x1F_FFFF)
    world.map(table, world.hpa(table), **{n: int(n in rights) for n in "rwx"},
              a=bool(marks & A), d=bool(marks & D))  # fmt: skip
    query = {
        "gva": GVA,
        "access": ACCESSES[way][1],
        "context": {
            "paged": 1, "ept": 1, "root": (GUEST + 8 * 0x1000) >> 12, "adue": adue, "ept_ad": ad,
            "ept_root": EPT_ROOT >> 12, "privilege": SUPERVISOR, "sum": 0, "mxr": 0,
        },
    }  # fmt: skip
    hart = world.hart
    hart.x[6], hart.x[7] = GVA, 0x77
    world.guest_code(ACCESSES[way][0])
    world.launch(
        privilege=SUPERVISOR, guest_pc=code, guest_satp=world.satp(), eptp=world.eptp(ad=ad),
        guest_menvcfg=MENVCFG.encode(adue=adue),
    )  # fmt: skip
    if way == "fetch":
        world.run()
        assert hart.pc == GVA
    words = Words(world)
    try:
        reference.translate(words, query)
        about = None
    except reference.EptFault as fault:
        about = fault.about
    except reference.PageFault:
        about = ()
    world.run()
    if about is None:
        assert hart.trapped is None
    elif not about:
        page_fault = {
            "load": Exception_.LOAD_PAGE_FAULT,
            "store": Exception_.STORE_PAGE_FAULT,
            "fetch": Exception_.INSTRUCTION_PAGE_FAULT,
        }[way]
        assert hart.trapped == (page_fault, GVA) and hart.world == 1
    else:
        gpa, access, page_table, rwx, level = about
        assert page_table and gpa == place
        qualification = EPT_QUALIFICATION.encode(
            read=access == Access.READ,
            write=access == Access.WRITE,
            gva_valid=1,
            level=level,
            **dict(zip(("readable", "writable", "executable"), rwx, strict=True)),
        )
        assert hart.trapped == (ExitReason.EPT_VIOLATION | 1 << EXIT_BIT, qualification)
        fields = hart.vmx.vmcs.fields
        assert (fields["exit_gva"], fields["exit_gpa"]) == (GVA, place)
    for address, word in words.words.items():
        assert world.get(address) == word
    directed("page of a guest's table", way, rights, marks, ad, adue, leaf)


def test_the_guests_own_fault_comes_before_the_final_page():
    world = World()
    world.map_guest(GVA, GUEST + 0x10_0000, w=0)  # the EPT does not map it
    paged(world, "store")
    assert world.hart.trapped == (Exception_.STORE_PAGE_FAULT, GVA)
    world = World()
    world.map_guest(GVA, GUEST + 0x10_0000)
    paged(world, "store")
    assert world.hart.trapped[0] == ExitReason.EPT_VIOLATION | 1 << EXIT_BIT
    assert world.hart.vmx.vmcs.fields["exit_gpa"] == GUEST + 0x10_0000


@pytest.mark.parametrize("gva", [1 << 38, 1 << 63])
def test_addresses_that_are_not_canonical_are_the_guests_business(gva):
    world = World()
    world.map_guest(0, GUEST)
    world.hart.x[6] = gva
    world.launch(code=[ACCESSES["load"][0]], privilege=SUPERVISOR, guest_pc=0,
                 guest_satp=world.satp())  # fmt: skip
    assert world.run() == (Exception_.LOAD_PAGE_FAULT, gva)


@pytest.mark.parametrize("table", [False, True])
def test_what_the_ept_maps_to_nothing_is_an_access_fault(table):
    world = World()
    place = world.map_guest(GVA, TARGET)
    page = place & ~0xFFF if table else TARGET
    world.map_guest(1 << 21, GUEST & ~0x1F_FFFF, 1)
    world.map(page, 0x4000_0000)
    world.hart.x[6] = GVA
    code = (1 << 21) + (GUEST & 0x1F_FFFF)
    world.launch(code=[ACCESSES["load"][0]], privilege=SUPERVISOR, guest_pc=code,
                 guest_satp=world.satp())  # fmt: skip
    assert world.run() == (Exception_.LOAD_ACCESS_FAULT, GVA)
    assert world.hart.world == 1


@pytest.mark.parametrize("second", [False, True])
def test_an_access_across_two_pages(second):
    """Each part is refused at its own address, and nothing is stored."""
    world = World()
    edge = GUEST + 0x7000
    page = edge if second else edge - 0x1000
    world.map(page, world.hpa(page), w=0)
    world.hart.x[6], world.hart.x[7] = edge - 3, (1 << 64) - 1
    world.launch(code=[ACCESSES["store"][0]])
    world.run()
    assert world.hart.trapped[0] == ExitReason.EPT_VIOLATION | 1 << EXIT_BIT
    refused = edge if second else edge - 3
    fields = world.hart.vmx.vmcs.fields
    assert (fields["exit_gva"], fields["exit_gpa"]) == (refused, refused)
    assert world.get(world.hpa(edge - 8)) == world.get(world.hpa(edge)) == 0


def test_mprv_in_the_guest():
    """M-mode data accesses by the guest's tables and the EPT, fetches by the EPT alone."""
    world = World()
    world.map_guest(GVA, TARGET)
    world.put(world.hpa(TARGET), 99)
    world.hart.x[6] = GVA
    world.launch(
        code=[ACCESSES["load"][0]],
        guest_satp=world.satp(),
        guest_mstatus=10 << 32 | 1 << 17 | SUPERVISOR << 11,
    )
    assert world.run() is None
    assert world.hart.x[5] == 99


# Against others.


@pytest.mark.model_only
@pytest.mark.parametrize("seed", range(30))
def test_random_guests_against_the_reference(seed):
    """Outcomes, what is told of them, and every mark."""
    schedule = random.Random(seed)
    seen = Counter()
    for _ in range(10):
        guest, query = random_guest(schedule)
        for _ in range(20):
            asked = query()
            mine, theirs = Memory(dict(guest.words)), Memory(dict(guest.words))
            found, wanted_ = (
                _outcome(translate, mine, asked), _outcome(reference.translate, theirs, asked)
            )  # fmt: skip
            assert found == wanted_, asked
            assert mine.words == theirs.words, asked
            seen[wanted_[0]] += 1
            guest.words = theirs.words
    assert len(seen) > 2 and seen["mapping"] > 2, seen


def _outcome(translate_, memory, query):
    try:
        mapping = translate_(memory, query)
    except reference.EptFault as fault:
        return type(fault).__name__, fault.about
    except (reference.PageFault, reference.AccessFault) as fault:
        return type(fault).__name__, None
    return "mapping", mapping.frame


@pytest.mark.model_only
def test_a_wrong_mark_and_a_wrong_frame_are_noticed(monkeypatch):
    from sim.golden.vmx import nested

    for name, value in (("_D", 0), ("_U", 0), ("_INDEX", 0xFF), ("_ROOT_TABLES", 7)):
        with monkeypatch.context() as patch:
            patch.setattr(nested, name, value)
            with pytest.raises(AssertionError):
                for seed in range(10):
                    test_random_guests_against_the_reference(seed)


@pytest.mark.model_only
@needs_qemu
@pytest.mark.parametrize("seed", range(10, 14))
def test_against_qemu(seed):
    """What is left out stands in tests.rtl.mmu.test_two_stage_qemu."""
    guest, queries = qemu.some_guest(random.Random(seed), marks=False)
    answers, _ = qemu.ask_qemu(guest, queries)
    memory, values, seen = Memory(guest.words), {}, Counter()
    for x, query in zip(answers, queries, strict=True):
        seen[qemu.check(x, query, memory, values, translate)] += 1
    assert len(seen) > 3 and max(seen.values()) < len(queries), seen


@pytest.mark.model_only
@needs_qemu
def test_marks_against_qemu():
    schedule, queries = random.Random(7), []
    while len(queries) < 20:
        guest, queries = qemu.some_guest(schedule, marks=True)
        memory = Memory(guest.words)
        queries = [query for query in queries if _outcome(translate, Memory(dict(memory.words)),
                                                          query)[0] == "mapping"]  # fmt: skip
    answers, words = qemu.ask_qemu(guest, queries)
    memory, values = Memory(dict(guest.words)), {}
    for x, query in zip(answers, queries, strict=True):
        qemu.check(x, query, memory, values, translate)
    assert words == memory.words != guest.words

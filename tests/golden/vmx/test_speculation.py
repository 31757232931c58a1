"""A and D that fetches of the guest may have set unseen: in its own leaves, and in the EPT's."""

import pytest

from rtl.arch.csrs import MENVCFG
from rtl.arch.paging import PTE
from rtl.arch.traps import Privilege
from rtl.arch.vmx.exits import ExitReason
from sw_vmm.assembler import encode
from tests.golden.vmx.world import FULL, GUEST, GUEST_TABLES, World, controls

pytestmark = pytest.mark.model_only

A, D = PTE["a"].mask, PTE["d"].mask
USER, SUPERVISOR, MACHINE = Privilege.USER, Privilege.SUPERVISOR, Privilege.MACHINE
PAGE = GUEST + 0x5000
CODE, GVA, FAR = 0, 0x12_3000, 0x80_0000
#: A table of the guest's that nothing goes through but speculation.
FAR_TABLE = GUEST_TABLES + 0x6000


def running(*, ad=1, adue=0, privilege=MACHINE, paged=False, world=None):
    """A guest that does nothing."""
    world = world or World()
    fields = {"guest_menvcfg": MENVCFG.encode(adue=adue), "eptp": world.eptp(ad=ad)}
    if paged:
        world.map_guest(CODE, GUEST, u=int(privilege == USER))
        fields |= {"guest_satp": world.satp(), "guest_pc": CODE}
    world.write(execution_controls=controls("preemption_timer"), guest_preemption_timer=100)
    world.launch(privilege=privilege, code=[encode("addi")], **fields)
    return world


def marks(world, entry):
    """What A and D of the entry may be."""
    return {value & (A | D) for value in world.hart.memory.tables.values(entry)}


@pytest.mark.parametrize(
    ("flags", "ad", "possible"),
    [
        ({}, 1, {0, A}),
        ({"w": 0}, 1, {0, A}),
        ({"x": 0}, 1, {0}),
        ({"u": 0}, 1, {0}),
        ({}, 0, {0}),
    ],
)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_leaves_of_the_ept(level, flags, ad, possible):
    """A where a fetch could go; D never."""
    world = World()
    gpa = PAGE if level == 0 else (3 + level) << 30
    hpa = world.hpa(PAGE) if level == 0 else 0x8000_0000
    entry = world.map(gpa, hpa, level, a=0, d=0, **flags)
    assert marks(world, entry) == {0}
    running(world=world, ad=ad)
    assert marks(world, entry) == possible


def test_what_the_host_writes_after_an_exit_stays():
    world = World()
    entry = world.map(PAGE, world.hpa(PAGE), a=0, d=0)
    running(world=world)
    world.hart.vmx.event_exit(ExitReason.PREEMPTION_TIMER)
    # It may have been marked until then.
    assert marks(world, entry) == {0, A}
    world.put(entry, PTE.encode(**FULL | {"a": 0, "d": 0}, ppn=world.hpa(PAGE) >> 12))
    assert marks(world, entry) == {0}
    world.resume()
    assert marks(world, entry) == {0, A}


def test_what_is_read_tells():
    """Seen once without A while nothing walks, it has none."""
    world = World()
    entry = world.map(PAGE, world.hpa(PAGE), a=0, d=0)
    running(world=world)
    world.hart.vmx.event_exit(ExitReason.PREEMPTION_TIMER)
    memory = world.hart.memory
    value = world.get(entry)
    memory.claimed = entry
    for wrong in (value | D, value | A | D, value ^ 2):
        memory.claimed_value = wrong
        assert memory.load(entry, 8) != wrong
        assert marks(world, entry) == {0, A}
    memory.claimed_value = value | A
    assert memory.load(entry, 8) == value | A
    assert marks(world, entry) == {A}


@pytest.mark.parametrize(
    ("adue", "ad", "flags", "possible"),
    [
        (0, 1, {"x": 0}, {0, A}),
        (1, 1, {"x": 0}, {0, A, A | D}),
        (1, 0, {"x": 0}, {0}),
        (1, 1, {"x": 0, "w": 0}, {0, A}),
    ],
)
def test_pages_of_the_guests_tables(adue, ad, flags, possible):
    """Reading them marks the EPT's leaf, and counts as a write where both keep A and D."""
    world = World()
    world.map_guest(CODE, GUEST)
    place = world.hpa(GUEST_TABLES + 0x1000) + 8 * (FAR >> 21 & 511)
    world.put(place, PTE.encode(v=1, ppn=FAR_TABLE >> 12))
    entry = world.map(FAR_TABLE, world.hpa(FAR_TABLE), a=0, d=0, **flags)
    data = world.map(PAGE, world.hpa(PAGE), a=0, d=0, x=0)
    running(world=world, ad=ad, adue=adue, privilege=SUPERVISOR, paged=True)
    assert marks(world, entry) == possible
    assert marks(world, data) == {0}


@pytest.mark.parametrize(
    ("privilege", "flags", "adue", "possible"),
    [
        (SUPERVISOR, {}, 1, {0, A}),
        (SUPERVISOR, {}, 0, {0}),
        (SUPERVISOR, {"x": 0}, 1, {0}),
        (SUPERVISOR, {"u": 1}, 1, {0}),
        (USER, {"u": 1}, 1, {0, A}),
        (USER, {}, 1, {0}),
    ],
)
@pytest.mark.parametrize("ad", [0, 1])
def test_leaves_of_the_guests(privilege, flags, adue, possible, ad):
    world = World()
    place = world.map_guest(GVA, PAGE, a=0, d=0, **flags)
    running(world=world, ad=ad, adue=adue, privilege=privilege, paged=True)
    assert marks(world, world.hpa(place)) == possible


def test_bare_guests_walk_no_tables():
    world = World()
    place = world.map_guest(GVA, PAGE, a=0, d=0)
    running(world=world, adue=1)
    assert marks(world, world.hpa(place)) == {0}


def test_what_is_used_is_marked():
    world = World()
    place = world.map_guest(GVA, PAGE, a=0, d=0)
    entry = world.map(PAGE, world.hpa(PAGE), a=0, d=0)
    world.hart.x[6] = GVA
    running(world=world, ad=1, adue=1, privilege=SUPERVISOR, paged=True)
    for word, wanted in ((encode("lb", rd=5, rs1=6), A), (encode("sb", rs1=6), A | D)):
        world.guest_code(word)
        world.hart.pc = CODE
        assert world.step() is None
        assert marks(world, entry) == marks(world, world.hpa(place)) == {wanted}


def test_walks_end_with_the_guests_fence():
    """After satp has left a root and a fence came, its leaves stay as they are."""
    world = World()
    place = world.map_guest(GVA, PAGE, a=0, d=0)
    world.map_guest(CODE, GUEST)
    world.write(guest_menvcfg=MENVCFG.encode(adue=1), guest_satp=world.satp(), guest_pc=CODE)
    world.launch(
        privilege=SUPERVISOR,
        code=[encode("csrrw", rs1=0, csr=0x180), encode("sfence.vma")],
    )
    leaf = world.hpa(place)
    assert marks(world, leaf) == {0, A}
    assert world.run() is None
    world.hart.pc = GUEST + 4
    assert world.run() is None
    assert marks(world, leaf) == {0, A}
    world.put(leaf, PTE.encode(v=1, r=1, w=1, x=1, ppn=PAGE >> 12))
    assert marks(world, leaf) == {0}

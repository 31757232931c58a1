"""No access uses a translation of another space: every bit of every tag (docs/isa/vmx.md#tags)."""

import pytest

from rtl.arch.csrs import MSTATUS
from rtl.arch.paging import PAGE_BITS, PTE, SATP, SatpMode
from rtl.arch.records import EXIT_BIT
from rtl.arch.traps import Exception_, Privilege
from rtl.arch.vmx.exits import ExitReason
from sw_vmm.assembler import encode
from tests.golden.vmx.test_stale import ASID, GVA, OLD, VPID, Guest
from tests.golden.vmx.world import (
    EPT_ROOT,
    GUEST,
    LEAF,
    MEMORY,
    OTHER_EPT_ROOT,
    RAM,
    World,
    vmx_word,
)

LOAD = encode("ld", rd=5, rs1=6)
#: Behind everything a world has: tables and a page of root's.
ROOT_TABLES, ROOT_PAGE = RAM + 0x5_0000, RAM + 0x6_0000


@pytest.mark.parametrize("bit", range(16))
def test_every_bit_of_a_vpid(bit):
    guest = Guest()
    guest.change_leaf()
    guest.exit()
    # VPID 0 is none.
    guest.resume(vpid=VPID ^ 1 << bit if 1 << bit != VPID else VPID | 1 << 15)
    guest.shows(old=False)


@pytest.mark.parametrize("bit", range(16))
def test_every_bit_of_an_asid(bit):
    guest = Guest()
    guest.change_leaf()
    guest.exit()
    guest.resume(guest_satp=guest.satp(ASID ^ 1 << bit))
    # The model does not tell ASIDs of one root apart: more is right than a hart may do.
    guest.shows(old=not guest.on_machine)


@pytest.mark.parametrize("bit", range(12, 39))
def test_every_bit_of_a_guests_page(bit):
    guest = Guest()
    guest.exit()
    guest.resume(exception_bitmap=1 << Exception_.LOAD_PAGE_FAULT)
    guest.hart.x[6] = GVA ^ 1 << bit
    guest.run()
    assert guest.hart.trapped[0] == ExitReason.EXCEPTION | 1 << EXIT_BIT
    assert guest.read("exit_qualification") == GVA ^ 1 << bit


@pytest.mark.parametrize("bit", range(12, 41))
def test_every_bit_of_a_gpa(bit):
    """In M-mode; where the EPT maps another page, that one is seen."""
    world = World()
    data = GUEST + 0x5000
    for page in range(16):
        world.put(world.hpa(GUEST + page * 0x1000), GUEST + page * 0x1000)
    world.launch(code=[LOAD, LOAD])
    world.hart.x[6] = data
    assert world.run() is None and world.hart.x[5] == data
    gpa = data ^ 1 << bit
    world.hart.x[6] = gpa
    world.run()
    if GUEST < gpa < GUEST + 0x1_0000:
        assert world.hart.trapped is None and world.hart.x[5] == gpa
    elif gpa != GUEST:
        assert world.hart.trapped[0] == ExitReason.EPT_VIOLATION | 1 << EXIT_BIT
        assert world.read("exit_gpa") == gpa


def test_more_epts_than_the_hart_has_tags():
    """Each shows a page of its own; what one shows is never another's, in whatever order they come."""
    world = World()
    roots = [EPT_ROOT + 0x4000 * n for n in range(1, 8)] + [OTHER_EPT_ROOT]
    gpa = GUEST + 0x5000
    for n, root in enumerate(roots):
        # Code in place, and the page somewhere else.
        world.map(GUEST, world.hpa(GUEST), root=root)
        world.map(gpa, MEMORY + 0x2_0000 + 0x1000 * n, root=root)
        world.put(MEMORY + 0x2_0000 + 0x1000 * n, n)
    world.hart.x[6] = gpa
    world.launch(code=[LOAD, vmx_word("vmcall")])
    world.run(2)
    for n in (0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 0, 7, 1, 6, 2, 5, 3, 4, 0, 0, 1, 1):
        world.again(eptp=world.eptp(roots[n]))
        assert world.run() is None
        assert world.hart.x[5] == n
        world.run()
        assert world.hart.world == 0


def root_tables(world, page):
    """Root's own tables show ``page`` at GVA; its satp, with the guest's ASID."""
    table = ROOT_TABLES
    for level, below in ((2, ROOT_TABLES + 0x1000), (1, ROOT_TABLES + 0x2000)):
        place = table + 8 * (GVA >> PAGE_BITS + 9 * level & 511)
        world.put(place, PTE.encode(v=1, ppn=below >> PAGE_BITS))
        table = below
    leaf = PTE.encode(**LEAF, ppn=page >> PAGE_BITS)
    world.put(table + 8 * (GVA >> PAGE_BITS & 511), leaf)
    return SATP.encode(mode=SatpMode.SV39, asid=ASID, ppn=ROOT_TABLES >> PAGE_BITS)


@pytest.mark.parametrize("vpid", [0, VPID])
def test_root_and_guest_by_turns(vpid):
    """One address and one ASID in both worlds: root's page by MPRV, the guest's by its own tables."""
    guest = Guest(vpid=vpid)
    guest.exit()
    guest.put(ROOT_PAGE, ROOT_PAGE)
    status = MSTATUS.encode(mprv=1, mpp=Privilege.SUPERVISOR)
    guest.root_csr(satp=root_tables(guest, ROOT_PAGE), mstatus=status)
    for turn in range(6):
        guest.hart.x[6] = GVA
        assert guest.step(LOAD) is None
        assert guest.hart.x[5] == ROOT_PAGE
        guest.resume()
        assert guest.page_read(None if guest.on_machine else OLD) == OLD, turn
        guest.exit()
    assert guest.hart.privilege == Privilege.MACHINE


def test_a_page_of_the_guests_is_not_roots():
    """The guest's gpa is an address of root's, too."""
    world = World()
    world.put(world.hpa(GUEST + 0x5000), 1)
    world.map(RAM, world.hpa(GUEST + 0x5000))
    world.put(RAM, 2)
    world.hart.x[6] = RAM
    world.launch(code=[LOAD, vmx_word("vmcall"), LOAD, vmx_word("vmcall")])
    for _ in range(2):
        assert world.run() is None and world.hart.x[5] == 1
        world.run()
        assert world.step(LOAD) is None and world.hart.x[5] == 2
        world.resume(guest_pc=world.read("guest_pc") + 4)

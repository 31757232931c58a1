"""Which older translations a guest may still use, and what ends that (docs/isa/vmx.md#tags)."""

import pytest

from rtl.arch.csrs import MENVCFG
from rtl.arch.paging import PTE
from rtl.arch.traps import Privilege
from rtl.arch.vmx.exits import ExitReason
from rtl.arch.vmx.instructions import INVVPID_OPERAND, InveptType, InvvpidType
from sim.golden import Claim
from sim.golden.events import EXIT_DUE
from sw_vmm.assembler import encode
from tests.golden.vmx.world import (
    EPT_ROOT,
    GUEST,
    GUEST_TABLES,
    OTHER_EPT_ROOT,
    VMCS,
    World,
    controls,
)

ASID, OTHER_ASID, VPID, OTHER_VPID = 5, 6, 3, 4
CODE, GVA, OTHER_GVA = 0, 0x12_3000, 0x12_4000
BIG = 0x4020_0000
OLD, NEW = GUEST + 0x1000, GUEST + 0x2000
#: Frames behind GUEST_TABLES that stay free for a second root.
SECOND_ROOT = GUEST_TABLES + 0x5000
ALL = InvvpidType.ALL_CONTEXTS
GLOBAL = {"g": 1}


class Guest(World):
    """In S-mode with Sv39; GVA shows OLD, and CODE a page of loads.

    Where a load goes is what the machine is said to claim.
    """

    def __init__(self, *, vpid=VPID, **flags):
        super().__init__()
        self.flags = flags
        for page in (OLD, NEW):
            self.put(self.hpa(page), page)
            self.put(self.hpa(page) + 0x800, page)
        self.map_all(OTHER_EPT_ROOT)
        self.map_guest(CODE, GUEST)
        self.leaf = self.map_guest(GVA, OLD, **flags)
        self.hart.x[6] = GVA
        names = ["enable_vpid"] if vpid else []
        self.write(execution_controls=controls("external_interrupt_exiting", *names), vpid=vpid)
        self.launch(
            code=[encode("ld", rd=5, rs1=6)] * 64,
            privilege=Privilege.SUPERVISOR,
            guest_pc=CODE,
            guest_satp=self.satp(ASID),
        )
        assert self.page_read() == OLD

    def page_read(self, claimed=None):
        """What is read where a machine claims to have read the page; or where the RTL reads it."""
        memory = self.hart.memory
        if self.on_machine:
            assert self.run() is None
            return self.hart.x[5]
        address = claimed and self.hpa(claimed) + (self.hart.x[6] & 0xFFF)
        memory.claimed = address
        value = memory.load(self.hart.x[6], 8)
        memory.claimed = None
        return value

    def shows(self, *, old):
        """The new page may be read always, the old one may or may not be."""
        if self.on_machine:
            assert self.page_read() in ((OLD, NEW) if old else (NEW,))
            return
        assert self.page_read(NEW) == NEW
        assert (self.page_read(OLD) == OLD) == old

    # What changes, while the guest runs.

    def change_leaf(self):
        self.put(self.hpa(self.leaf), PTE.encode(
            v=1, r=1, w=1, x=1, a=1, d=1, **self.flags, ppn=NEW >> 12))  # fmt: skip

    def change_ept(self):
        # Guest-physical OLD now is where NEW is.
        self.map(OLD, self.hpa(NEW))

    # What ends it.

    def root(self, name, first=0, second=0):
        """Exit, a VMX instruction, and back."""
        self.exit()
        if name:
            assert self.vmx(name, first, second) == 0
        self.resume()

    def exit(self):
        assert self.hart.due < EXIT_DUE
        self.leave()

    def sfence(self, gva=None, asid=None):
        x = self.hart.x
        x[8], x[9] = gva or 0, asid or 0
        word = encode(
            "sfence.vma", rs1=8 if gva is not None else 0, rs2=9 if asid is not None else 0
        )
        self.code(self.hpa(GUEST), word)
        self.hart.memory.fence_i()
        self.hart.pc = CODE
        assert self.step() is None


def invvpid(kind, vpid=VPID, gva=GVA):
    operand = INVVPID_OPERAND.encode(type=kind, vpid=vpid)
    return lambda guest: guest.root("invvpid", operand, gva)


def invept(kind, root=EPT_ROOT):
    return lambda guest: guest.root("invept", kind, World.eptp(root))


ONE, LOCAL, ADDRESS = (
    InvvpidType.SINGLE_CONTEXT,
    InvvpidType.SINGLE_CONTEXT_RETAINING_GLOBALS,
    InvvpidType.INDIVIDUAL_ADDRESS,
)
#: What is done, and what of it is left: a leaf of the guest's, a global one, an entry of the EPT.
ENDS = {
    "nothing": (lambda guest: None, True, True, True),
    "an exit and an entry": (lambda guest: guest.root(None), True, True, True),
    "sfence.vma": (lambda guest: guest.sfence(), False, False, True),
    "sfence.vma asid": (lambda guest: guest.sfence(asid=ASID), False, True, True),
    "sfence.vma other asid": (lambda guest: guest.sfence(asid=OTHER_ASID), True, True, True),
    "sfence.vma gva": (lambda guest: guest.sfence(GVA), False, False, True),
    "sfence.vma other gva": (lambda guest: guest.sfence(OTHER_GVA), True, True, True),
    "sfence.vma gva, asid": (lambda guest: guest.sfence(GVA, ASID), False, True, True),
    "invvpid address": (invvpid(ADDRESS), False, False, True),
    "invvpid other address": (invvpid(ADDRESS, gva=OTHER_GVA), True, True, True),
    "invvpid address, other vpid": (invvpid(ADDRESS, OTHER_VPID), True, True, True),
    "invvpid single": (invvpid(ONE), False, False, True),
    "invvpid single, other vpid": (invvpid(ONE, OTHER_VPID), True, True, True),
    "invvpid all": (invvpid(ALL, 0), False, False, True),
    "invvpid but globals": (invvpid(LOCAL), False, True, True),
    "invvpid but globals, other vpid": (invvpid(LOCAL, OTHER_VPID), True, True, True),
    "invept single": (invept(InveptType.SINGLE_CONTEXT), False, False, False),
    "invept other": (invept(InveptType.SINGLE_CONTEXT, OTHER_EPT_ROOT), True, True, True),
    "invept all": (invept(InveptType.ALL_CONTEXTS, 0), False, False, False),
    "sfence.vma in root": (
        lambda guest: (guest.exit(), guest.step(encode("sfence.vma")), guest.resume()),
        True, True, True,
    ),
    "vmclear and vmlaunch": (
        lambda guest: (guest.exit(), guest.vmx("vmclear", VMCS),
                       guest.vmx("vmptrld", VMCS), guest.vmx("vmlaunch")),
        True, True, True,
    ),
    "vmxoff and on": (
        lambda guest: (guest.exit(), guest.vmx("vmclear", VMCS), guest.vmx("vmxoff"),
                       guest.vmx("vmxon"), guest.vmx("vmptrld", VMCS),
                       guest.vmx("vmlaunch")),
        True, True, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_a_leaf_of_the_guests(end, directed):
    for flags, column in (({}, 1), (GLOBAL, 2)):
        guest = Guest(**flags)
        guest.change_leaf()
        ENDS[end][0](guest)
        assert guest.hart.world == 1
        guest.shows(old=ENDS[end][column])
        directed("a leaf of the guest's", end, *flags, ENDS[end][column])
        # Once for all.
        guest.shows(old=ENDS[end][column])


@pytest.mark.parametrize("end", ENDS)
def test_an_entry_of_the_ept(end, directed):
    guest = Guest()
    guest.change_ept()
    ENDS[end][0](guest)
    guest.shows(old=ENDS[end][3])
    directed("an entry of the EPT", end, ENDS[end][3])


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("end", ENDS)
def test_the_change_after_the_invalidation(end, order):
    """Only what was replaced before it is ruled out."""
    guest = Guest()
    ENDS[end][0](guest)
    (guest.change_leaf, guest.change_ept)[order]()
    guest.shows(old=True)


def test_without_vpid_every_entry_and_exit_ends_it():
    for change, left in ((Guest.change_leaf, False), (Guest.change_ept, True)):
        guest = Guest(vpid=0)
        change(guest)
        guest.shows(old=True)
        guest.root(None)
        guest.shows(old=left)


@pytest.mark.parametrize("fields", [{"vpid": OTHER_VPID}, {"eptp": World.eptp(OTHER_EPT_ROOT)}])
def test_no_translation_of_another_vpid_or_ept(fields):
    guest = Guest()
    guest.change_leaf()
    guest.exit()
    before = guest.fields(*fields)
    guest.resume(**fields)
    guest.shows(old=False)
    # It comes back with the tags.
    guest.exit()
    guest.resume(**before)
    guest.shows(old=True)


@pytest.mark.parametrize("vpid", [VPID, OTHER_VPID])
def test_sfence_vma_is_for_every_ept_of_the_vpid(vpid):
    guest = Guest()
    guest.change_leaf()
    guest.exit()
    before = guest.fields("vpid", "eptp")
    guest.resume(vpid=vpid, eptp=World.eptp(OTHER_EPT_ROOT))
    guest.sfence()
    guest.exit()
    guest.resume(**before)
    guest.shows(old=(vpid != VPID))


def test_no_translation_of_another_ept_for_the_page():
    guest = Guest()
    guest.change_ept()
    guest.exit()
    guest.map(OLD, guest.hpa(NEW), root=OTHER_EPT_ROOT)
    guest.resume(eptp=World.eptp(OTHER_EPT_ROOT))
    # That root was not used before: nothing of it is cached.
    guest.shows(old=False)


@pytest.mark.model_only
def test_no_translation_of_root():
    """Root's own stale translations are none of the guest's, and the guest's none of root's."""
    guest = Guest()
    guest.change_leaf()
    guest.exit()
    memory = guest.hart.memory
    memory.claimed = guest.hpa(OLD)
    assert memory.load(guest.hpa(NEW), 8) == NEW
    guest.resume()
    guest.shows(old=True)


def second_root(guest):
    """Tables below SECOND_ROOT that show the code and the new page."""
    middle, last = GUEST_TABLES + 0x6000, GUEST_TABLES + 0x7000
    guest.put(guest.hpa(SECOND_ROOT), PTE.encode(v=1, ppn=middle >> 12))
    guest.put(guest.hpa(middle), PTE.encode(v=1, ppn=last >> 12))
    for page, gpa in ((0, GUEST), (GVA >> 12, NEW)):
        leaf = PTE.encode(v=1, r=1, w=1, x=1, a=1, d=1, ppn=gpa >> 12)
        guest.put(guest.hpa(last) + 8 * (page & 511), leaf)


def change_root(guest, asid, *, by_host):
    satp = guest.satp(asid, SECOND_ROOT)
    if by_host:
        guest.exit()
        guest.resume(guest_satp=satp)
    else:
        guest.hart.x[8] = satp
        guest.code(guest.hpa(GUEST), encode("csrrw", rs1=8, csr=0x180))
        guest.hart.memory.fence_i()
        guest.hart.pc = CODE
        assert guest.step() is None


@pytest.mark.parametrize("by_host", [False, True])
def test_an_older_root(by_host):
    """A write of satp, or of guest_satp, leaves what is tagged with the ASID."""
    guest = Guest()
    second_root(guest)
    change_root(guest, ASID, by_host=by_host)
    guest.shows(old=True)
    guest.sfence(asid=OTHER_ASID)
    guest.shows(old=True)
    guest.sfence(asid=ASID)
    guest.shows(old=False)


@pytest.mark.parametrize("by_host", [False, True])
@pytest.mark.parametrize("flags", [{}, GLOBAL])
def test_an_older_root_of_another_asid(flags, by_host):
    """Only what is global is left of it."""
    guest = Guest(**flags)
    second_root(guest)
    change_root(guest, OTHER_ASID, by_host=by_host)
    guest.shows(old=bool(flags))
    invvpid(LOCAL)(guest)
    guest.shows(old=bool(flags))
    guest.sfence()
    guest.shows(old=False)


@pytest.mark.parametrize("kind", ["sfence.vma", "invvpid"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_superpage_over_small_pages_is_one_page(kind, inside):
    """An address anywhere in the guest's leaf drops all of it."""
    guest = Guest()
    guest.leaf = guest.map_guest(BIG, GUEST & ~0x1F_FFFF, 1)
    guest.hart.x[6] = BIG + (OLD & 0x1F_FFFF)
    guest.sfence()
    assert guest.page_read() == OLD
    # The 2 MiB page moves to where the EPT shows the pages of the guest in another order.
    moved = 0x6000_0000
    for page in range(16):
        gpa = GUEST + page * 0x1000
        shown = NEW if gpa == OLD else gpa
        guest.map(moved + page * 0x1000, guest.hpa(shown))
    guest.put(guest.hpa(guest.leaf), PTE.encode(
        v=1, r=1, w=1, x=1, a=1, d=1, ppn=moved >> 12))  # fmt: skip
    guest.shows(old=True)
    address = BIG + (0x1F_F000 if inside else 0x20_0000)
    if kind == "sfence.vma":
        guest.sfence(address)
    else:
        invvpid(ADDRESS, gva=address)(guest)
    guest.shows(old=(not inside))


def test_invvpid_of_an_address_drops_the_tables_on_the_way():
    """SFENCE.VMA with an address orders leaves alone."""
    for end, left in ((lambda g: g.sfence(GVA), True), (invvpid(ADDRESS), False),
                      (invvpid(ADDRESS, gva=GVA + (1 << 21)), True)):  # fmt: skip
        guest = Guest()
        new_last = GUEST_TABLES + 0x7000
        for page, gpa in ((0, GUEST), (GVA >> 12, NEW)):
            guest.put(guest.hpa(new_last) + 8 * (page & 511),
                      PTE.encode(v=1, r=1, w=1, x=1, a=1, d=1, ppn=gpa >> 12))  # fmt: skip
        middle = PTE["ppn"].extract(guest.get(guest.hpa(GUEST_TABLES))) << 12
        guest.put(guest.hpa(middle), PTE.encode(v=1, ppn=new_last >> 12))
        guest.shows(old=True)
        end(guest)
        guest.shows(old=left)


# Violations come from the tables as they are.


def test_what_was_made_valid_needs_no_invalidation():
    guest = Guest()
    guest.map(OLD, guest.hpa(OLD), v=0)
    invept(InveptType.ALL_CONTEXTS)(guest)
    guest.hart.pc = CODE
    guest.step()
    assert guest.hart.world == 0
    guest.map(OLD, guest.hpa(OLD))
    guest.resume()
    if guest.on_machine:
        assert guest.run() is None and guest.hart.x[5] == OLD
        return
    memory, refused = guest.hart.memory, guest.hart.vmx.vmcs.fields
    # A machine that claims another violation is not believed.
    memory.claimed_fault = (1 << 62 | ExitReason.EPT_VIOLATION, refused["exit_qualification"])
    guest.hart.pc = CODE
    guest.hart.step(Claim(encode("ld", rd=5, rs1=6), *memory.claimed_fault))
    assert guest.hart.trapped is None and guest.hart.x[5] == OLD


@pytest.mark.model_only
def test_a_violation_drops_what_was_cached_for_its_access():
    """The page may be stale until then; other pages stay so."""
    guest = Guest()
    other = guest.map_guest(OTHER_GVA, OLD)
    assert other
    guest.map(OLD, guest.hpa(NEW), w=0)
    guest.hart.x[6] = OTHER_GVA
    guest.shows(old=True)
    guest.hart.x[6] = GVA
    guest.shows(old=True)
    guest.code(guest.hpa(GUEST), encode("sd", rs1=6, rs2=7))
    guest.hart.memory.fence_i()
    guest.hart.pc = CODE
    guest.step()
    assert guest.hart.world == 0
    guest.resume()
    guest.shows(old=False)
    # gpa to hpa is dropped for the page, by whatever gva.
    guest.hart.x[6] = OTHER_GVA
    guest.shows(old=False)


@pytest.mark.model_only
def test_invept_after_a_violation_ends_more():
    """The later of both counts."""
    guest = Guest()
    guest.map(OLD, guest.hpa(OLD), w=0)
    guest.code(guest.hpa(GUEST), encode("sd", rs1=6, rs2=7))
    guest.hart.memory.fence_i()
    guest.hart.pc = CODE
    guest.step()
    assert guest.hart.world == 0
    guest.change_ept()
    assert guest.vmx("invept", InveptType.ALL_CONTEXTS) == 0
    guest.resume()
    guest.shows(old=False)


def test_a_violation_elsewhere_drops_nothing():
    guest = Guest()
    guest.change_ept()
    guest.change_leaf()
    guest.map_guest(OTHER_GVA, GUEST + 0x10_0000)
    guest.hart.x[6] = OTHER_GVA
    guest.hart.pc = CODE
    guest.step()
    assert guest.hart.world == 0
    guest.resume()
    guest.hart.x[6] = GVA
    guest.shows(old=True)


@pytest.mark.model_only
def test_a_stale_right_may_be_used():
    """Taking W away without INVEPT: the store may happen, or not."""
    for old in (False, True):
        guest = Guest()
        guest.map(OLD, guest.hpa(OLD), w=0)
        guest.code(guest.hpa(GUEST), encode("sd", rs1=6, rs2=7))
        guest.hart.memory.fence_i()
        guest.hart.pc, guest.hart.x[7] = CODE, 0x55
        guest.hart.memory.claimed = guest.hpa(OLD) if old else None
        guest.step()
        assert guest.hart.world == old
        assert guest.get(guest.hpa(OLD)) == (0x55 if old else OLD)


@pytest.mark.model_only
@pytest.mark.parametrize("fence", [False, True])
def test_a_translation_from_before_reads_of_tables_were_writes(fence):
    """Under it nothing marks the tables' pages; a walk does."""
    guest = Guest()
    page = GUEST_TABLES + 0x2000
    entry = guest.map(page, guest.hpa(page), d=0)
    guest.root("invept", InveptType.ALL_CONTEXTS)
    assert guest.page_read(OLD) == OLD
    guest.exit()
    guest.resume(eptp=World.eptp(ad=1), guest_menvcfg=MENVCFG.encode(adue=1))
    if fence:
        guest.sfence()
    assert guest.page_read(OLD) == OLD
    dirty = {bool(value & PTE["d"].mask) for value in guest.hart.memory.tables.values(entry)}
    assert dirty == ({True} if fence else {False, True})

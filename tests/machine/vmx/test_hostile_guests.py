"""Guests as bad as they can be, on the RTL and on the golden model, under the VMM with another guest.

What is normative says what each must see. Whatever it does, the other comes to its own result.
"""

import random
from itertools import pairwise

import pytest

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, PTE
from rtl.arch.traps import Exception_, Privilege
from rtl.arch.vmx.fields import VMCS_FIELDS, VMCS_REVISION
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from rtl.soc.config import CONFIGURATIONS
from sim.library import LibraryMachine
from sw_vmm.assembler import encode
from sw_vmm.errors import VmxFailure
from sw_vmm.vm import MONITOR_SIZE
from sw_vmm.vmcs import VMCS_REGION, Vmcs, execute, start_vmx
from tests.sw_vmm.golden_machine import GoldenMachine
from tests.sw_vmm.host import SIZE, Host, counting
from tests.sw_vmm.programs import (
    CSR,
    DATA,
    enter_supervisor,
    finish,
    program,
    sv39_register,
)
from tests.sw_vmm.soft_machine import RAM
from tests.sw_vmm.vmx_machine import MONITOR, SmallGuest, vmx_word

PAGE = 1 << PAGE_BITS
RAM_SIZE = 2 * SIZE + MONITOR_SIZE
ALL = (1 << 64) - 1
E = Exception_


@pytest.fixture(scope="module")
def only_library():
    return LibraryMachine(CONFIGURATIONS["vmx"], ram_size=RAM_SIZE)


@pytest.fixture(scope="module", params=["model", "machine"])
def only_machine(request):
    if request.param == "model":
        return GoldenMachine(RAM_SIZE)
    return request.getfixturevalue("only_library")


@pytest.fixture
def machine(only_machine):
    only_machine.reset()
    return only_machine


class Neighbours:
    """A hostile guest and one that counts; ``share`` tells of the hostile one."""

    def __init__(self, machine, image, **options):
        self.host = Host(2, machine=machine)
        self.vm = self.host.add(image, **options)
        self.host.add(counting(5, count=800, exit_code=9))
        self.guest = self.host.guests[0]

    def run(self, cycles=60_000):
        self.share, other = self.host.run(cycles, slice_cycles=2000)
        assert other.outcome.exit_code == 9
        assert self.host.guests[1].vm.memory.read(DATA, 8) == 5 * 800
        assert other.end == "finished" and not other.registers
        return self.share

    def words(self, count, gpa=DATA):
        return [self.vm.memory.read(gpa + 8 * slot, 8) for slot in range(count)]

    def ends_by_budget(self, pc=None):
        """It has not ended; what its registers are can be seen."""
        share = self.run()
        assert share.end == "budget"
        shown = share.registers.split()
        values = dict(zip(shown[::2], (int(word, 16) for word in shown[1::2]), strict=True))
        assert {"pc", "x1", "x31", "privilege", "mstatus", "mcause", "satp"} <= set(values)
        assert pc is None or values["pc"] == pc
        return values


# -- an EPT that maps itself -----------------------------------------------------------------------

#: The guest's page that is the last table of its own EPT; the page whose entry it changes, and
#: another one of its own.
SELF, WINDOW, OTHER = RAM + 0x2_0000, RAM + 0x2_1000, RAM + 0x3_0000
MINE, THEIRS, LEFT = 0x1111_2222, 0x3333_4444, 0x5555_6666
RIGHTS = {"v": 1, "r": 1, "w": 1, "x": 1, "u": 1, "a": 1, "d": 1}


def place_in_table(gpa):
    """Where in the last table the entry of a page of guest RAM stands."""
    return 8 * (gpa - RAM >> PAGE_BITS)


def self_mapped(machine, build, handler=None):
    """A guest whose page SELF is the table that maps all of its RAM."""
    both = Neighbours(machine, program(build, handler), largest=0)
    both.vm.load(WINDOW, MINE.to_bytes(8, "little"))
    both.vm.load(OTHER, THEIRS.to_bytes(8, "little"))
    ept = both.guest.ept
    ept.fill_all()
    entry = ept._leaf(SELF)
    table = entry - place_in_table(SELF)
    itself = PTE.encode(ppn=table >> PAGE_BITS, **RIGHTS)
    machine.write_memory(entry, itself.to_bytes(8, "little"))
    # Nothing may be cached of what the guest changes.
    machine.write_memory(table + place_in_table(WINDOW), bytes(8))
    return both


def changes_entry(access):
    """Stores x7 as the entry of WINDOW, then does the access, which gives x10."""

    def build(code):
        code.load_address(6, SELF)
        code.load_address(9, OTHER)
        code.add("ld", rd=7, rs1=9, imm=8)
        code.add("sd", rs1=6, rs2=7, imm=place_in_table(WINDOW))
        code.add("ld", rd=11, rs1=6, imm=place_in_table(WINDOW))
        code.add("sd", rs1=8, rs2=11, imm=24)
        code.load_address(12, WINDOW)
        code.load_address(13, LEFT)
        if access == "store":
            code.add("sd", rs1=12, rs2=13)
        code.add("ld", rd=10, rs1=12)
        code.add("sd", rs1=8, rs2=10, imm=16)
        finish(code, 0)

    return build


OTHER_PAGE = RIGHTS | {"ppn": OTHER >> PAGE_BITS}
NOWHERE = 0x5000_0000 >> PAGE_BITS
READS, WRITES = ("load", "store")

#: What the guest makes of its entry, how it uses it, and what becomes of that: the value it reads,
#: the cause of its own exception, or the name of what ends it.
SELF_MADE = {
    "another page of its own": (OTHER_PAGE, READS, THEIRS),
    "another page of its own, written": (OTHER_PAGE, WRITES, LEFT),
    # The VMM answers with what the guest should have there.
    "not present": ({"ppn": 1}, READS, MINE),
    "not for U-mode": (OTHER_PAGE | {"u": 0}, READS, MINE),
    "not accessed": (OTHER_PAGE | {"a": 0}, READS, MINE),
    "read-only": (OTHER_PAGE | {"w": 0}, WRITES, LEFT),
    "read-only, read": (OTHER_PAGE | {"w": 0}, READS, THEIRS),
    "execute-only": (OTHER_PAGE | {"r": 0, "w": 0}, READS, MINE),
    "not dirty": (OTHER_PAGE | {"d": 0}, WRITES, LEFT),
    "where nothing answers": (RIGHTS | {"ppn": NOWHERE}, READS, E.LOAD_ACCESS_FAULT),
    "where nothing answers, written": (RIGHTS | {"ppn": NOWHERE}, WRITES, E.STORE_ACCESS_FAULT),
    "W without R": (OTHER_PAGE | {"r": 0}, READS, "ept_misconfiguration"),
    "a reserved bit": (OTHER_PAGE | {"reserved": 1}, READS, "ept_misconfiguration"),
    "a pointer": ({"v": 1, "ppn": OTHER >> PAGE_BITS}, READS, "ept_misconfiguration"),
    "a pointer with A": (
        {"v": 1, "a": 1, "ppn": OTHER >> PAGE_BITS},
        WRITES,
        "ept_misconfiguration",
    ),
}


@pytest.mark.parametrize("name", list(SELF_MADE))
def test_a_guest_that_writes_its_own_ept(machine, name):
    fields, access, outcome = SELF_MADE[name]
    both = self_mapped(machine, changes_entry(access))
    fields = dict(fields)
    entry = fields.pop("reserved", 0) << 54 | PTE.encode(**fields)
    # hpa: the guest is the first and lies where it seems to lie.
    assert both.vm.slot.hpa == RAM
    both.vm.load(OTHER + 8, entry.to_bytes(8, "little"))
    share = both.run()
    _, value, seen, written = both.words(4)
    if isinstance(outcome, str):
        assert share.end == outcome
        assert f"x12 {WINDOW:016x}" in share.failure.registers
        return
    assert share.end == "finished"
    assert written == entry
    if isinstance(outcome, E):
        assert share.outcome.exit_code == outcome and value == WINDOW
        return
    assert (share.outcome.exit_code, seen) == (0, outcome)
    reached = access == WRITES and name == "another page of its own, written"
    assert both.vm.memory.read(OTHER, 8) == (LEFT if reached else THEIRS)


@pytest.mark.parametrize("seed", range(12))
def test_a_guest_that_fills_its_own_ept_at_random(machine, seed):
    """Entries of every kind for the tables' own pages and all others, each followed by an access."""
    draw = random.Random(seed)

    def build(code):
        code.load_address(6, SELF)
        code.load_address(9, OTHER)
        code.load_address(14, OTHER + 8 * 400)
        code.label("again")
        code.add("ld", rd=7, rs1=9)
        code.add("ld", rd=11, rs1=9, imm=8)
        code.add("add", rd=12, rs1=6, rs2=11)
        code.add("sd", rs1=12, rs2=7)
        code.add("ld", rd=13, rs1=9, imm=16)
        code.add("ld", rd=15, rs1=9, imm=24)
        code.add("ld", rd=10, rs1=13)
        code.add("sd", rs1=15, rs2=10)
        code.add("addi", rd=9, rs1=9, imm=32)
        code.add("bltu", rs1=9, rs2=14, to="again")
        finish(code, 0)

    def handler(code):
        code.add("csrrs", rd=27, rs1=0, csr=CSR["mepc"])
        code.add("addi", rd=27, rs1=27, imm=4)
        code.add("csrrw", rd=0, rs1=27, csr=CSR["mepc"])
        code.add("mret")

    both = self_mapped(machine, build, handler)
    table = both.guest.ept._leaf(SELF) - place_in_table(SELF)
    data = b""
    for _ in range(100):
        frame = draw.choice([table, OTHER, WINDOW, RAM, 0x5000_0000]) >> PAGE_BITS
        flags = draw.choice([0xDF, 0xD7, 0xD3, 0xFF, 0xDF, draw.getrandbits(8)])
        entry = PTE.encode(ppn=draw.choice([frame] * 9 + [draw.getrandbits(44) | 1 << 43])) | flags
        # The pages of code and of this list apart, which it would not survive.
        page = draw.choice([SELF, WINDOW, draw.randrange(RAM + 0x14_0000, RAM + SIZE, PAGE)])
        places = [draw.choice([page, WINDOW, SELF]) + 8 * draw.randrange(512) for _ in range(2)]
        if SELF <= places[1] < SELF + PAGE:
            places[1] = page
        for word in (entry, place_in_table(page), *places):
            data += word.to_bytes(8, "little")
    both.vm.load(OTHER, data)
    share = both.run(200_000)
    assert share.end in ("finished", "ept_misconfiguration", "budget")
    assert share.end == "finished" or "mepc" in (share.registers or share.failure.registers)


# -- a VMCS that is tampered with ------------------------------------------------------------------


def counts_by_calls(code):
    code.label("again")
    code.add("addi", rd=7, rs1=7, imm=1)
    code.add("csrrw", rd=0, rs1=7, csr=CSR["mscratch"])
    code.word(vmx_word("vmcall"))
    code.add("jal", to="again")


def test_what_is_written_over_a_current_vmcs_is_ignored(machine):
    draw = random.Random(7)
    guest = SmallGuest(counts_by_calls, machine=machine, guest_mepc=0x1234, vpid=3)
    region = guest.vmcs.region
    assert guest.run(10_000).reason == "vmcall"
    before = {name: getattr(guest.vmcs, name) for name in VMCS_FIELDS}
    for count in (1, 2, 3):
        machine.write_memory(region, draw.randbytes(VMCS_REGION))
        # With its own pointer VMPTRLD reads nothing, not even the revision.
        guest.vmcs.load()
        after = {name: getattr(guest.vmcs, name) for name in VMCS_FIELDS}
        changing = {"guest_mscratch", "guest_mcycle", "guest_minstret"}
        assert {name for name in VMCS_FIELDS if before[name] != after[name]} <= changing
        assert after["guest_mscratch"] == machine.read_gpr(7) == count
        assert guest.go_on(cycles=10_000).reason == "vmcall"
        assert guest.vcpu.record.pc == RAM + 8


def test_a_guest_that_writes_over_its_own_vmcs(machine):
    """Its page WINDOW is the region of the VMCS it runs on."""

    def build(code):
        code.load_address(6, WINDOW)
        code.load_address(9, WINDOW + PAGE)
        code.label("again")
        code.add("addi", rd=10, rs1=10, imm=-7)
        code.add("sd", rs1=6, rs2=10)
        code.add("addi", rd=6, rs1=6, imm=8)
        code.add("bltu", rs1=6, rs2=9, to="again")
        code.word(vmx_word("vmcall"))
        code.add("csrrs", rd=11, rs1=0, csr=CSR["mepc"])
        code.word(vmx_word("vmcall"))

    guest = SmallGuest(build, machine=machine, guest_mepc=0x4444)
    region = PTE.encode(ppn=guest.vmcs.region >> PAGE_BITS, **RIGHTS)
    guest.ept._largest = 0
    guest.ept.fill_all()
    machine.write_memory(guest.ept._leaf(WINDOW), region.to_bytes(8, "little"))
    for count in range(2):
        exit_ = guest.go_on(cycles=50_000) if count else guest.run(50_000, filled=False)
        assert exit_.reason == "vmcall"
        assert guest.vmcs.exit_reason == 18 and guest.vmcs.guest_privilege == Privilege.MACHINE
    assert machine.read_gpr(11) == 0x4444
    assert machine.read_gpr(10) == -7 * (PAGE // 8) & ALL


def test_what_is_written_over_a_cleared_vmcs_counts(machine):
    guest = SmallGuest(counts_by_calls, machine=machine)
    vmcs, region = guest.vmcs, guest.vmcs.region
    assert guest.run(10_000).reason == "vmcall"
    vmcs.clear()
    assert int.from_bytes(machine.read_memory(region, 8), "little") == VMCS_REVISION

    def put(field, value):
        place = region + 8 * VMCS_FIELDS[field].number
        machine.write_memory(place, value.to_bytes(8, "little"))

    put("guest_mscratch", 77)
    put("guest_privilege", 2)
    vmcs.load()
    assert vmcs.guest_mscratch == 77
    assert guest.run(10_000).check == "guest_privilege_level"
    vmcs.guest_privilege = 3
    vmcs.clear()
    put("execution_controls", 0)
    vmcs.load()
    with pytest.raises(VmxFailure, match="vmlaunch failed: entry_invalid_controls"):
        execute(machine, "vmlaunch")
    assert vmcs.entry_check


WRONG_REVISION = r"^vmptrld failed: vmptrld_wrong_revision$"


@pytest.mark.parametrize("header", [VMCS_REVISION + 1, VMCS_REVISION | 1 << 31, 0], ids=hex)
def test_a_vmcs_of_another_revision_is_refused_by_name(machine, header):
    start_vmx(machine)
    current = Vmcs(machine, MONITOR.start)
    current.load()
    current.guest_mscratch = 5
    other = Vmcs(machine, MONITOR.start + VMCS_REGION)
    machine.write_memory(other.region, header.to_bytes(8, "little"))
    with pytest.raises(VmxFailure, match=WRONG_REVISION):
        other.load()
    # The one that was current still is.
    assert current.guest_mscratch == 5


@pytest.mark.parametrize("region", [MONITOR.start + 8, MONITOR.start + 0x800, RAM + 1], ids=hex)
def test_a_vmcs_that_is_not_aligned_is_refused_by_name(machine, region):
    start_vmx(machine)
    with pytest.raises(VmxFailure, match=r"^vmclear failed: vmclear_invalid_address$"):
        Vmcs(machine, region)
    with pytest.raises(VmxFailure, match=r"^vmptrld failed: vmptrld_invalid_address$"):
        execute(machine, "vmptrld", region)


OUTSIDE = [0, 0x1000, 0x1000_0000, RAM + RAM_SIZE, 1 << 40, ALL - PAGE + 1]


@pytest.mark.parametrize("region", OUTSIDE, ids=hex)
def test_a_vmcs_outside_of_ram_is_refused_by_name(machine, region):
    start_vmx(machine)
    for name in ("vmclear", "vmptrld"):
        with pytest.raises(VmxFailure, match=f"^{name} failed: {name}_invalid_address$"):
            execute(machine, name, region)


# -- guests that get nowhere -----------------------------------------------------------------------

NOWHERES = [0, 0x5000_0000, RAM + SIZE, RAM + 2 * SIZE, 1 << 41, 1 << 63, ALL - 1]


@pytest.mark.parametrize("place", NOWHERES, ids=hex)
def test_a_jump_into_nothing_is_an_access_fault(machine, place):
    """The rest of the machine's RAM is nothing, too."""

    def build(code):
        code.load_address(9, OTHER)
        code.add("ld", rd=7, rs1=9)
        code.add("jalr", rd=1, rs1=7)

    both = Neighbours(machine, program(build))
    both.vm.load(OTHER, place.to_bytes(8, "little"))
    assert both.run().outcome.exit_code == E.INSTRUCTION_ACCESS_FAULT
    assert both.words(2) == [place, place]


@pytest.mark.parametrize("vector", [0x5000_0000, RAM + SIZE])
def test_a_trap_vector_that_leads_nowhere(machine, vector):
    def build(code):
        code.load_address(5, vector)
        code.add("csrrw", rd=0, rs1=5, csr=CSR["mtvec"])
        code.add("ecall")

    values = Neighbours(machine, program(build)).ends_by_budget(pc=vector)
    assert values["mcause"] == E.INSTRUCTION_ACCESS_FAULT
    assert values["mepc"] == values["mtval"] == vector


def test_a_loop_in_its_own_trap_vector(machine):
    both = Neighbours(machine, program(lambda c: c.add("ecall"), lambda c: c.add("ecall")))
    values = both.ends_by_budget(pc=RAM + 0x400)
    assert values["mcause"] == E.ECALL_FROM_MACHINE and values["mepc"] == RAM + 0x400


def test_a_spin_with_interrupts_off(machine):
    def build(code):
        code.add("csrrwi", rd=0, rs1=0, csr=CSR["mie"])
        code.add("csrrci", rd=0, rs1=8, csr=CSR["mstatus"])
        code.load_address(20, 0xABCD)
        code.label("spin")
        code.add("jal", to="spin")

    both = Neighbours(machine, program(build))
    assert both.ends_by_budget()["x20"] == 0xABCD
    assert both.share.exits["preemption_timer"] > 5


@pytest.mark.parametrize("name", ["lb", "lhu", "lw", "ld", "sb", "sw", "sd", "amoadd.w", "lr.d"])
def test_device_space_where_nothing_is(machine, name):
    """Each hole between the devices."""
    regions = sorted(MEMORY_MAP.values(), key=lambda region: region.base)
    places = [
        end.base + end.size for end, start in pairwise(regions) if end.base + end.size < start.base
    ]
    assert len(places) > 4

    def build(code):
        code.load_address(20, OTHER)
        code.load_address(21, OTHER + 8 * len(places))
        code.label("again")
        code.add("ld", rd=6, rs1=20)
        code.add(name, rs1=6, **({"rs2": 7} if name[0] == "s" else {"rd": 7}))
        code.add("addi", rd=20, rs1=20, imm=8)
        code.add("bltu", rs1=20, rs2=21, to="again")
        finish(code, 0)

    def handler(code):
        for slot, csr in enumerate(("mcause", "mtval")):
            code.add("csrrs", rd=27, rs1=0, csr=CSR[csr])
            code.add("sd", rs1=8, rs2=27, imm=8 * slot)
        code.add("addi", rd=8, rs1=8, imm=16)
        code.add("csrrs", rd=27, rs1=0, csr=CSR["mepc"])
        code.add("addi", rd=27, rs1=27, imm=4)
        code.add("csrrw", rd=0, rs1=27, csr=CSR["mepc"])
        code.add("mret")

    both = Neighbours(machine, program(build, handler))
    both.vm.load(OTHER, b"".join(place.to_bytes(8, "little") for place in places))
    assert both.run().outcome.exit_code == 0
    reads = name[0] == "l"
    cause = E.LOAD_ACCESS_FAULT if reads else E.STORE_ACCESS_FAULT
    seen = both.words(2 * len(places))
    assert seen == [word for place in places for word in (cause, place)]


@pytest.mark.parametrize("privilege", Privilege, ids=lambda privilege: privilege.name)
def test_every_vmx_instruction_is_illegal(machine, privilege):
    names = list(VMX_INSTRUCTIONS)

    def build(code):
        code.load_address(7, int(privilege) << 11)
        code.load_address(6, 3 << 11)
        code.add("csrrc", rd=0, rs1=6, csr=CSR["mstatus"])
        code.add("csrrs", rd=0, rs1=7, csr=CSR["mstatus"])
        code.add("auipc", rd=7, imm=0)
        code.add("addi", rd=7, rs1=7, imm=16)
        code.add("csrrw", rd=0, rs1=7, csr=CSR["mepc"])
        code.add("mret")
        for name in names:
            code.word(vmx_word(name, rd=10, rs1=8, rs2=8))
        code.word(encode("ebreak"))

    def handler(code):
        code.add("csrrs", rd=27, rs1=0, csr=CSR["mcause"])
        code.add("addi", rd=26, rs1=0, imm=3)
        code.add("beq", rs1=27, rs2=26, to="end")
        code.add("csrrs", rd=25, rs1=0, csr=CSR["mtval"])
        code.add("sd", rs1=8, rs2=27)
        code.add("sd", rs1=8, rs2=25, imm=8)
        code.add("addi", rd=8, rs1=8, imm=16)
        code.add("csrrs", rd=27, rs1=0, csr=CSR["mepc"])
        code.add("addi", rd=27, rs1=27, imm=4)
        code.add("csrrw", rd=0, rs1=27, csr=CSR["mepc"])
        code.add("mret")
        code.label("end")
        finish(code, 0)

    both = Neighbours(machine, program(build, handler))
    share = both.run()
    assert share.outcome.exit_code == 0
    seen = both.words(2 * len(names))
    words = [vmx_word(name, rd=10, rs1=8, rs2=8) for name in names]
    assert seen == [item for word in words for item in (E.ILLEGAL_INSTRUCTION, word)]
    # VMFUNC is illegal by itself.
    assert sum(share.exits[name] for name in names) == len(names) - 1


@pytest.mark.parametrize("seed", range(8))
def test_page_tables_written_at_random(only_library, seed):
    """In S-mode, by the tables themselves; what it reads faults, or does not."""
    draw = random.Random(seed)
    tables = RAM + 0x14_0000

    def build(code):
        sv39_register(code, 6, tables)
        enter_supervisor(code, 6)
        code.load_address(6, tables)
        code.load_address(9, OTHER)
        code.load_address(14, OTHER + 0x1000)
        code.label("again")
        code.add("ld", rd=7, rs1=9)
        code.add("ld", rd=11, rs1=9, imm=8)
        code.add("ld", rd=12, rs1=9, imm=16)
        code.add("sd", rs1=11, rs2=7)
        code.add("sfence.vma")
        code.add("ld", rd=10, rs1=12)
        code.add("add", rd=21, rs1=21, rs2=10)
        code.add("addi", rd=9, rs1=9, imm=24)
        code.add("bltu", rs1=9, rs2=14, to="again")
        code.word(encode("ecall"))

    def handler(code):
        code.add("csrrs", rd=27, rs1=0, csr=CSR["mcause"])
        code.add("addi", rd=26, rs1=0, imm=9)
        code.add("beq", rs1=27, rs2=26, to="end")
        code.add("addi", rd=24, rs1=24, imm=1)
        code.add("addi", rd=26, rs1=0, imm=300)
        code.add("bltu", rs1=26, rs2=24, to="end")
        code.add("csrrs", rd=27, rs1=0, csr=CSR["mepc"])
        code.add("addi", rd=27, rs1=27, imm=4)
        code.add("csrrw", rd=0, rs1=27, csr=CSR["mepc"])
        code.add("mret")
        code.label("end")
        code.add("sd", rs1=8, rs2=24)
        code.add("sd", rs1=8, rs2=21, imm=8)
        finish(code, 0)

    leaf = PTE.mask("v", "r", "w", "x", "a", "d")
    root = [leaf, PTE.mask("v") | PTE.encode(ppn=tables + PAGE >> PAGE_BITS)]
    root.append(leaf | PTE.encode(ppn=RAM >> PAGE_BITS))
    words = []
    for _ in range(170):
        frame = draw.choice([tables, tables + PAGE, RAM, RAM + SIZE, 0x1000_0000, 0x5000_0000])
        entry = PTE.encode(ppn=frame >> PAGE_BITS) | draw.choice(
            [1, 0xCF, 0xCF, 0xCF, draw.getrandbits(10)]
        )
        # Read by what was written, or by anything.
        index, slot = draw.randrange(512), draw.choice([1, *range(3, 512)])
        at, gva = draw.choice(
            [(tables + PAGE + 8 * index, 1 << 30 | index << 21), (tables + 8 * slot, slot << 30)]
        )
        gva = draw.choice([gva, gva | 8 * draw.getrandbits(17), draw.getrandbits(38)])
        words += [entry, at, (gva ^ 1 << 38) - (1 << 38) & ALL]
    seen = []
    for machine in (GoldenMachine(RAM_SIZE), only_library):
        machine.reset()
        both = Neighbours(machine, program(build, handler))
        for gpa, content in ((tables, root), (OTHER, words)):
            both.vm.load(gpa, b"".join(word.to_bytes(8, "little") for word in content))
        share = both.run(300_000)
        assert (share.end, share.outcome.exit_code) == ("finished", 0)
        seen.append((*both.words(2), {**share.exits, "preemption_timer": 0}))
    assert seen[0] == seen[1]
    assert 20 < seen[0][0] < 165

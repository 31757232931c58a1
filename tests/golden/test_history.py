"""What caches may still show: old code until FENCE.I, old translations until a matching SFENCE.VMA."""

import pytest

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE, SATP, SatpMode
from rtl.arch.traps import Exception_
from sim.cli.session import open_machine, run_guest
from sim.elf import Image
from sim.golden import Claim, Hart, Trap
from sim.guests import Guest
from sim.lockstep import LockstepMachine
from sw_vmm.assembler import Assembler, encode
from tests.golden.tables import (
    ASID,
    FULL,
    GVA,
    LEAF,
    MIDDLE,
    NEVER,
    NEW,
    OLD,
    OTHER_ASID,
    OTHER_LEAF,
    OTHER_ROOT,
    RAM,
    ROOT,
    SIZE,
    Nothing,
    Tables,
)


def test_an_old_leaf_holds_until_the_fence():
    tables = Tables()
    tables.map(NEW)
    assert tables.read() == NEW
    assert tables.read(OLD) == OLD
    assert tables.read(NEW) == NEW
    assert tables.read(NEVER) == NEW, "no table ever said so"
    tables.memory.sfence_vma(None, None)
    assert tables.read(OLD) == NEW


@pytest.mark.parametrize(
    ("gva", "asid", "flags", "ends"),
    [
        (None, None, {}, True),
        (GVA, None, {}, True),
        (None, ASID, {}, True),
        (GVA, ASID, {}, True),
        (GVA + 0x1000, None, {}, False),
        (None, OTHER_ASID, {}, False),
        (GVA, OTHER_ASID, {}, False),
        (None, ASID, {"g": 1}, False),
        (GVA, ASID, {"g": 1}, False),
        (GVA, None, {"g": 1}, True),
    ],
)
def test_only_a_fence_that_names_it_ends_an_old_leaf(gva, asid, flags, ends):
    tables = Tables(**flags)
    tables.map(NEW)
    tables.memory.sfence_vma(gva, asid)
    assert tables.read(OLD) == (NEW if ends else OLD)


@pytest.mark.parametrize("held", [False, True])
def test_what_lies_below_a_global_pointer_is_global(held):
    """A fence of one ASID leaves it alone, and another address space may use it."""
    tables = Tables(pointer_flags={"g": int(held)})
    tables.map(NEW)
    tables.memory.sfence_vma(None, ASID)
    assert tables.read(OLD) == (OLD if held else NEW)
    tables.satp(OTHER_ROOT, OTHER_ASID)
    tables.write(OTHER_ROOT, 2, PTE.encode(v=1, ppn=OTHER_LEAF >> 12))
    tables.write(OTHER_LEAF, 1, PTE.encode(ppn=RAM >> 12, **FULL))
    large = tables.read()
    assert tables.read(OLD) == (OLD if held else large)
    assert tables.read(NEW) == (NEW if held else large)
    tables.memory.sfence_vma(None, None)
    assert tables.read(OLD) == large


def test_a_superpage_is_fenced_by_any_of_its_addresses():
    for fenced, expected in ((GVA & ~0x1F_FFFF, NEW), (GVA + 0x20_0000, OLD)):
        tables = Tables()
        leaf = PTE.encode(ppn=RAM >> 12, **FULL)
        tables.write(MIDDLE, 1, leaf)
        tables.memory.sfence_vma(None, None)
        large = RAM + (GVA & 0x1F_F000)
        tables.memory.write_physical(large + (GVA & 0xFF8), OLD.to_bytes(8, "little"))
        assert tables.read() == OLD
        tables.write(MIDDLE, 1, PTE.encode(v=1, ppn=LEAF >> 12))
        tables.map(NEW)
        tables.memory.sfence_vma(fenced, None)
        assert tables.read(large) == expected


def test_old_pointers_and_old_roots_hold_until_a_fence_without_address():
    for change in ("pointer", "root"):
        tables = Tables()
        tables.write(OTHER_LEAF, 0, PTE.encode(ppn=NEW >> 12, **FULL))
        tables.write(OTHER_ROOT, 2, PTE.encode(v=1, ppn=MIDDLE >> 12))
        if change == "pointer":
            tables.write(MIDDLE, 1, PTE.encode(v=1, ppn=OTHER_LEAF >> 12))
        else:
            # The old root's subtree alone leads to the old page.
            other = RAM + 0x1000 * 21
            tables.write(other, 1, PTE.encode(v=1, ppn=OTHER_LEAF >> 12))
            tables.write(OTHER_ROOT, 2, PTE.encode(v=1, ppn=other >> 12))
            tables.satp(OTHER_ROOT)
        assert tables.read() == NEW
        assert tables.read(OLD) == OLD
        tables.memory.sfence_vma(GVA, None)
        assert tables.read(OLD) == OLD, "it orders reads of leaves alone"
        tables.memory.sfence_vma(None, ASID)
        assert tables.read(OLD) == NEW


def test_another_address_space_keeps_to_itself():
    for flags, expected in (({}, NEW), ({"g": 1}, OLD)):
        tables = Tables(**flags)
        other = RAM + 0x1000 * 21
        tables.write(OTHER_LEAF, 0, PTE.encode(ppn=NEW >> 12, **FULL))
        tables.write(other, 1, PTE.encode(v=1, ppn=OTHER_LEAF >> 12))
        tables.write(OTHER_ROOT, 2, PTE.encode(v=1, ppn=other >> 12))
        tables.satp(OTHER_ROOT, OTHER_ASID)
        assert tables.read(OLD) == expected


def test_an_old_leaf_gives_what_it_gave_and_no_more():
    tables = Tables(w=0)
    tables.map(NEW, v=0)
    with pytest.raises(Trap):
        tables.read()
    assert tables.read(OLD) == OLD
    tables.memory.claimed = OLD + (GVA & 0xFF8)
    with pytest.raises(Trap) as caught:
        tables.memory.store(GVA & ~7, 8, 1)
    assert caught.value.cause == Exception_.STORE_PAGE_FAULT


def nop(register):
    return encode("addi", rd=register, imm=1)


def test_what_a_word_held_is_not_forgotten_for_the_same_value_again():
    """A loop that overwrites its own code (random program 7058)."""
    tables = Tables()
    for _ in range(1000):
        tables.map(NEW)
    assert tables.read(OLD) == OLD


@pytest.mark.parametrize("fenced", [False, True])
def test_old_code_holds_until_the_fence(fenced):
    hart = Hart(SIZE, Nothing())
    memory = hart.memory
    memory.write_physical(RAM, nop(5).to_bytes(4, "little"))
    hart.pc = RAM
    hart.step()
    memory.store(RAM, 4, nop(6))
    if fenced:
        memory.fence_i()
    for register, believed in ((5, not fenced), (6, True), (7, False)):
        hart.pc = RAM
        hart.x[1:32] = [0] * 31
        hart.step(Claim(nop(register), -1, 0))
        assert hart.executed.bits == nop(register if believed else 6)


@pytest.mark.parametrize("fenced", [False, True])
def test_a_fetch_fault_holds_until_the_fence(fenced):
    tables = Tables()
    tables.map(OLD, v=0)
    tables.memory.sfence_vma(None, None)
    tables.map(OLD)
    if fenced:
        tables.memory.sfence_vma(None, None)
    tables.hart.pc = GVA & ~3
    tables.memory.write_physical(OLD + (GVA & 0xFFC), nop(5).to_bytes(4, "little"))
    cause = Exception_.INSTRUCTION_PAGE_FAULT
    tables.hart.step(Claim(0, int(cause), GVA & ~3))
    assert tables.hart.trapped == (None if fenced else (cause, GVA & ~3))


# The RTL does show old code and old translations; the model follows.


def run_in_lockstep(code):
    machine = LockstepMachine(open_machine(SIZE))
    image = Image(RAM, ((RAM, code.assemble()),))
    guest = Guest("stale", (image,), SIZE, 20_000)
    run = run_guest(machine, guest, "native", charge=0, quiet=True)
    machine.compare()
    assert run.result.outcome.exit_code == 0
    return machine.lockstep.hart.x


def finish(code):
    code.load_address(30, MEMORY_MAP["finisher"].base)
    code.load_address(31, 0x5555)
    code.add("sw", rs1=30, rs2=31)
    code.label("end")
    code.add("jal", to="end")


@pytest.mark.parametrize("fence", [False, True])
def test_rtl_code_patched(fence):
    code = Assembler(RAM)
    code.add("jal", to="main")
    code.label("patched")
    code.add("addi", rd=10, imm=1)
    code.add("jalr", rs1=1)
    while code.here % 64:
        code.add("addi")
    code.label("main")
    code.add("jal", rd=1, to="patched")
    code.load_address(5, code.address("patched"))
    code.load_address(6, encode("addi", rd=10, imm=2))
    code.add("sw", rs1=5, rs2=6)
    code.add("fence.i" if fence else "addi")
    code.add("jal", rd=1, to="patched")
    finish(code)
    assert run_in_lockstep(code)[10] == (2 if fence else 1)


@pytest.mark.parametrize("fence", [False, True])
def test_rtl_leaf_replaced(fence):
    code = Assembler(RAM)
    giga, data = ROOT, 1 << 30
    for index, frame in ((2, RAM), (1, RAM)):
        code.load_address(5, giga + 8 * index)
        code.load_address(6, PTE.encode(ppn=frame >> 12, **FULL))
        code.add("sd", rs1=5, rs2=6)
    code.load_address(5, ROOT >> 12)
    code.add("addi", rd=6, imm=SatpMode.SV39)
    code.add("slli", rd=6, rs1=6, imm=SATP["mode"].lsb)
    code.add("or", rd=5, rs1=5, rs2=6)
    code.add("csrrw", rs1=5, csr=CSRS["satp"].number)
    code.load_address(5, 0x2_0800)  # MPRV, MPP = S
    code.add("csrrw", rs1=5, csr=CSRS["mstatus"].number)
    code.load_address(7, data + 8)
    code.add("ld", rd=10, rs1=7)
    code.add("addi", rd=11)
    # The leaf at 1 GiB goes; the table is reached by the other one.
    code.load_address(5, giga + 8)
    code.add("sd", rs1=5)
    code.load_address(8, 0)
    if fence:
        code.add("sfence.vma")
        # Now it faults: the handler is this code's end.
        code.load_address(5, 0)
    code.add("jal", to="go")
    code.label("trap")
    code.add("addi", rd=8, imm=1)
    code.add("csrrw", csr=CSRS["mstatus"].number)
    code.add("jal", to="finish")
    code.label("go")
    code.load_address(5, code.address("trap"))
    code.add("csrrw", rs1=5, csr=CSRS["mtvec"].number)
    code.add("ld", rd=11, rs1=7)
    code.add("csrrw", csr=CSRS["mstatus"].number)
    code.label("finish")
    finish(code)
    x = run_in_lockstep(code)
    assert (x[8], x[11]) == ((1, 0) if fence else (0, x[10]))

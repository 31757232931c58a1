"""The interpreter's privileged side: translation contexts, atomics, traps in blocks, devices."""

import pytest

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from sw_vmm.assembler import Assembler
from sw_vmm.bus import Bus
from sw_vmm.devices import Clint, Finisher
from sw_vmm.hart import Hart
from sw_vmm.interpreter import Interpreter, Stop
from sw_vmm.memory import LocalMemory

RAM, SIZE = 0x8000_0000, 1 << 20
TABLES = RAM + 0x10000
HANDLER = RAM + 0x4000
ALL = (1 << 64) - 1
SUM, MXR, MPRV, MPP_S = 1 << 18, 1 << 19, 1 << 17, 1 << 11
V, R, W, X, USER, A, D = (1 << bit for bit in (0, 1, 2, 3, 4, 6, 7))
CSR = {name: csr.number for name, csr in CSRS.items()}


class Platform:
    def __init__(self):
        self.clint = Clint(cycles_per_tick=10)
        self.finisher = Finisher()
        self.bus = Bus()
        self.bus.attach(MEMORY_MAP["clint"], self.clint)
        self.bus.attach(MEMORY_MAP["finisher"], self.finisher)

    def mtime(self, now):
        return self.clint.mtime(now)

    def cycle_of(self, tick, now):
        return self.clint.cycle_of(tick, now)

    def lines(self, now):
        return self.clint.lines(now)

    def next_event(self, now, interest):
        return self.clint.next_event(now) if interest & 0x88 else None


def make(build=None, **csrs):
    """An interpreter with a program at RAM and a handler that spins."""
    platform = Platform()
    memory = LocalMemory(RAM, SIZE)
    hart = Hart(platform)
    core = Interpreter(hart, memory, platform.bus)
    core.platform, core.memory = platform, memory
    for name, value in {"mtvec": HANDLER, **csrs}.items():
        hart.write_csr(CSR[name], value)
    handler = Assembler(HANDLER)
    handler.label("spin")
    handler.add("jal", rd=0, to="spin")
    load(core, HANDLER, handler.assemble())
    if build is not None:
        code = Assembler(RAM)
        build(code)
        load(core, RAM, code.assemble())
    core.pc = RAM
    return core


def load(core, gpa, data):
    for at, byte in enumerate(data):
        core.memory.write(gpa + at, 1, byte)


def map_page(core, gva, gpa, flags):
    """Map a page through fixed tables: one per level."""
    root, middle, last = TABLES, TABLES + 0x1000, TABLES + 0x2000
    core.memory.write(root + 8 * (gva >> 30 & 511), 8, middle >> 2 | V)
    core.memory.write(middle + 8 * (gva >> 21 & 511), 8, last >> 2 | V)
    core.memory.write(last + 8 * (gva >> 12 & 511), 8, gpa >> 2 | flags)


SATP = 8 << 60 | TABLES >> 12
GVA = 0x4000_0000


def load_from(core, gva, size="ld"):
    """(value, None) or (None, (cause, tval)) of one load in the current state."""
    code = Assembler(RAM)
    code.add(size, rd=6, rs1=5, imm=0)
    load(core, RAM, code.assemble())
    core.drop_code()
    core.registers[5] = gva
    core.pc = RAM
    trap = core.step()
    return (None, (int(trap.cause), trap.tval)) if trap else (core.registers[6], None)


def test_mprv_uses_the_privilege_in_mpp():
    core = make(satp=SATP)
    map_page(core, GVA, RAM + 0x8000, V | R | W | A | D)
    core.memory.write(RAM + 0x8010, 8, 77)
    assert load_from(core, GVA + 0x10) == (None, (5, GVA + 0x10))
    core.hart.write_csr(CSR["mstatus"], MPRV | MPP_S)
    assert load_from(core, GVA + 0x10) == (77, None)
    # mpp = U: the page is a supervisor page.
    core.hart.write_csr(CSR["mstatus"], MPRV)
    assert load_from(core, GVA + 0x10) == (None, (13, GVA + 0x10))


def test_sum_and_mxr_change_what_s_may_read():
    core = make(satp=SATP)
    map_page(core, GVA, RAM + 0x8000, V | R | W | USER | A | D)
    map_page(core, GVA + 0x1000, RAM + 0x8000, V | X | A | D)
    core.memory.write(RAM + 0x8000, 8, 5)
    for extra, user, executable in ((0, False, False), (SUM, True, False), (MXR, False, True)):
        core.hart.write_csr(CSR["mstatus"], MPRV | MPP_S | extra)
        assert (load_from(core, GVA)[1] is None) == user
        assert (load_from(core, GVA + 0x1000)[1] is None) == executable


def test_translations_stay_until_sfence():
    def build(code):
        code.add("ld", rd=6, rs1=5)
        code.add("ld", rd=7, rs1=5)
        code.add("sfence.vma")
        code.add("ld", rd=8, rs1=5)

    core = make(build, satp=SATP, mstatus=MPRV | MPP_S)
    map_page(core, GVA, RAM + 0x8000, V | R | A | D)
    core.memory.write(RAM + 0x8000, 8, 1)
    core.memory.write(RAM + 0x9000, 8, 2)
    core.registers[5] = GVA
    core.run(1)
    map_page(core, GVA, RAM + 0x9000, V | R | A | D)
    core.run(4)
    assert core.registers[6] == 1
    assert core.registers[8] == 2


def test_misaligned_accesses_cross_pages_and_name_the_part_that_faults():
    core = make(satp=SATP, mstatus=MPRV | MPP_S)
    map_page(core, GVA, RAM + 0x8000, V | R | W | A | D)
    map_page(core, GVA + 0x1000, RAM + 0xA000, V | R | W | A | D)
    core.memory.write(RAM + 0x8FFC, 4, 0x44332211)
    core.memory.write(RAM + 0xA000, 4, 0x88776655)
    assert load_from(core, GVA + 0xFFC) == (0x8877665544332211, None)
    map_page(core, GVA + 0x1000, RAM + 0xA000, 0)
    core.unit.drop_translations()
    assert load_from(core, GVA + 0xFFC) == (None, (13, GVA + 0x1000))


@pytest.mark.parametrize(
    ("gva", "cause"),
    [
        (0, 5),
        (RAM - 8, 5),
        (RAM + SIZE, 5),
        (1 << 56 | RAM, 5),
        (MEMORY_MAP["clint"].base + 1, 5),
        (MEMORY_MAP["clint"].base + 8, 5),
    ],
)
def test_loads_from_nowhere_are_access_faults(gva, cause):
    core = make()
    size = "lw" if gva % 4 == 0 and gva % 8 else "ld"
    assert load_from(core, gva, size) == (None, (cause, gva))


def test_a_trap_in_the_middle_of_a_block_is_exact():
    def build(code):
        code.add("addi", rd=10, rs1=0, imm=1)
        code.add("addi", rd=11, rs1=0, imm=2)
        code.add("ld", rd=12, rs1=0, imm=8)
        code.add("addi", rd=11, rs1=0, imm=3)

    core = make(build)
    handler = Assembler(HANDLER)
    handler.add("csrrs", rd=13, rs1=0, csr=CSR["minstret"])
    load(core, HANDLER, handler.assemble())
    # Two instructions, the trap, and one of the handler.
    core.run(4)
    assert (core.registers[10], core.registers[11]) == (1, 2)
    assert core.hart.read_csr(CSR["mepc"]) == RAM + 8
    assert core.hart.read_csr(CSR["mcause"]) == 5
    assert core.hart.read_csr(CSR["mtval"]) == 8
    # What came before it has retired, itself not.
    assert core.registers[13] == 2


@pytest.mark.parametrize(
    ("name", "cause", "tval"),
    [("ecall", 11, 0), ("ebreak", 3, RAM), ("illegal", 2, 0)],
)
def test_synchronous_exceptions(name, cause, tval):
    core = make(None if name == "illegal" else lambda code: code.add(name))
    core.run(1)
    assert core.hart.read_csr(CSR["mcause"]) == cause
    assert core.hart.read_csr(CSR["mtval"]) == tval
    assert core.hart.read_csr(CSR["mepc"]) == RAM
    assert core.pc == HANDLER


def test_counters_are_exact_between_instructions():
    def build(code):
        code.add("addi", rd=5, rs1=5, imm=1)
        code.add("csrrs", rd=10, rs1=0, csr=CSR["minstret"])
        code.add("addi", rd=5, rs1=5, imm=1)
        code.add("addi", rd=5, rs1=5, imm=1)
        code.add("csrrs", rd=11, rs1=0, csr=CSR["minstret"])
        code.add("csrrs", rd=12, rs1=0, csr=CSR["mcycle"])

    core = make(build)
    core.run(6)
    assert (core.registers[10], core.registers[11], core.registers[12]) == (1, 4, 5)


def test_sc_succeeds_only_with_the_reservation_of_its_line():
    def build(code):
        code.add("lr.d", rd=6, rs1=5)
        code.add("sc.d", rd=7, rs1=5, rs2=9)
        code.add("sc.d", rd=8, rs1=5, rs2=0)
        code.add("lr.w", rd=6, rs1=5)
        code.add("addi", rd=5, rs1=5, imm=56)
        code.add("sc.d", rd=10, rs1=5, rs2=9)
        code.add("lr.w", rd=6, rs1=5)
        code.add("addi", rd=5, rs1=5, imm=8)
        code.add("sc.d", rd=11, rs1=5, rs2=9)

    core = make(build)
    data = RAM + 0x8000
    core.registers[5], core.registers[9] = data, 55
    core.run(9)
    assert [core.registers[number] for number in (7, 8, 10, 11)] == [0, 1, 0, 1]
    assert core.memory.read(data, 8) == 55
    assert core.memory.read(data + 56, 8) == 55
    assert core.memory.read(data + 64, 8) == 0


def test_a_trap_clears_the_reservation():
    def build(code):
        code.add("lr.d", rd=6, rs1=5)
        code.add("ecall")

    core = make(build)
    handler = Assembler(HANDLER)
    handler.add("sc.d", rd=7, rs1=5, rs2=9)
    load(core, HANDLER, handler.assemble())
    core.registers[5] = RAM + 0x8000
    core.run(4)
    assert core.registers[7] == 1


def test_wfi_skips_to_the_timer_and_the_interrupt_is_taken():
    def build(code):
        code.add("csrrsi", rd=0, rs1=8, csr=CSR["mstatus"])
        code.add("wfi")
        code.add("addi", rd=10, rs1=0, imm=1)

    core = make(build, mie=1 << 7)
    core.platform.clint.mtimecmp = 1000
    assert core.run(10_010) is Stop.BUDGET
    assert core.hart.read_csr(CSR["mcause"]) == 1 << 63 | 7
    assert core.hart.read_csr(CSR["mepc"]) == RAM + 8
    assert core.registers[10] == 0
    assert core.idle == 10_000 - 2


def test_wfi_without_anything_to_come_ends_with_the_budget():
    core = make(lambda code: code.add("wfi"))
    assert core.run(5_000_000) is Stop.BUDGET
    assert core.now == 5_000_000
    assert core.instret == 1


def test_a_spinning_guest_is_interrupted_at_the_tick():
    def build(code):
        code.label("spin")
        code.add("addi", rd=5, rs1=5, imm=1)
        code.add("jal", rd=0, to="spin")

    core = make(build, mie=1 << 7, mstatus=8)
    core.platform.clint.mtimecmp = 20
    core.run(300)
    assert core.hart.read_csr(CSR["mcause"]) == 1 << 63 | 7
    assert core.registers[5] == 100


def test_new_code_is_seen_after_fence_i():
    def build(code):
        code.add("jal", rd=1, to="routine")
        code.add("sw", rs1=5, rs2=6)
        code.add("fence.i")
        code.add("jal", rd=1, to="routine")
        code.label("end")
        code.add("jal", rd=0, to="end")
        code.label("routine")
        code.add("addi", rd=10, rs1=10, imm=1)
        code.add("jalr", rd=0, rs1=1)

    core = make(build)
    new = Assembler(RAM + 20)
    new.add("addi", rd=10, rs1=10, imm=100)
    core.registers[5] = RAM + 20
    core.registers[6] = int.from_bytes(new.assemble(), "little")
    core.run(20)
    assert core.registers[10] == 101


def test_code_outside_memory_faults_at_its_own_address():
    def build(code):
        code.add("jalr", rd=0, rs1=0, imm=0x100)

    core = make(build)
    core.run(2)
    assert core.hart.read_csr(CSR["mcause"]) == 1
    assert core.hart.read_csr(CSR["mepc"]) == core.hart.read_csr(CSR["mtval"]) == 0x100


def test_a_write_of_the_finisher_stops_when_asked():
    def build(code):
        code.add("sw", rs1=5, rs2=6)
        code.label("end")
        code.add("jal", rd=0, to="end")

    core = make(build)
    core.registers[5], core.registers[6] = MEMORY_MAP["finisher"].base, 0x7_3333
    finisher = core.platform.finisher
    assert core.run(1000, lambda: finisher.exit_code is not None) is Stop.ASKED
    assert finisher.exit_code == 7
    assert core.now < 10

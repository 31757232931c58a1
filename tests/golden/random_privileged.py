"""Seeded programs that try privileged behaviour: page tables, permissions, delegation, CSRs.

Each probe sets up mstatus and goes to a level; it ends by a trap, wanted or not, whose handler
returns to the probe that follows. What QEMU 7.2 is known to do otherwise is left out.
"""

import random

from rtl.arch.csrs import CSRS, DELEGABLE_EXCEPTIONS, DELEGABLE_INTERRUPTS, MSTATUS
from rtl.arch.instructions import INSTRUCTIONS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE, SATP, SatpMode
from rtl.arch.traps import Exception_, Privilege
from sw_vmm.assembler import Assembler

__all__ = ["privileged_program"]

RAM = MEMORY_MAP["ram"].base
FINISHER = MEMORY_MAP["finisher"].base
PAGE = 1 << 12
#: Page tables: the root, three of the middle, three of the last level; then pages of data.
TABLES = RAM + 0x10_0000
TABLE_COUNT = 7
DATA = RAM + 0x20_0000
DATA_COUNT = 4
WORD = (1 << 64) - 1
#: Where a probe goes on once it has trapped.
BACK = 27
#: Entries of a vectored trap handler.
_VECTORS = 16
POINTER, VALUE, SCRATCH, RESULT = 5, 6, 7, 10
LOADS = ("lb", "lh", "lw", "ld", "lbu", "lhu", "lwu", "lr.d", "lr.w")
STORES = ("sb", "sh", "sw", "sd", "amoadd.d", "amoswap.w", "amomaxu.d")

#: Data, and addresses at which there is nothing on either platform.
_BARE = (DATA, RAM + 0x1000_0000, 1 << 40, 1 << 56, 1 << 63)
#: CSRs that are written with random values, and the bits both models take.
_ALL = WORD
_PLAIN = {
    "mscratch": _ALL,
    "mtval": _ALL,
    "scause": 0x8000_0000_0000_001F,
    "mie": CSRS["mie"].writable,
    "sie": _ALL,
    "mideleg": DELEGABLE_INTERRUPTS,
    "mip": 2,
    "sip": 2,
    "scounteren": 7,
    "mcounteren": 7,
    "stimecmp": _ALL,
    "satp": 0,
}
#: CSRs that are read only, or that no write may touch here.
_READ = ("sstatus", "mhartid", "misa", "medeleg", "senvcfg", *("cycle", "time", "instret") * 3)
#: Numbers no CSR has.
_ABSENT = (CSRS["pmpcfg0"].number + 1, 0x5C0, 0x800, 0xC20, 0x302 | 0x400)


class _Program:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.code = Assembler(RAM)
        self.labels = 0

    def label(self):
        self.labels += 1
        return f"label{self.labels}"

    def constant(self, rd, value):
        """rd = any 64-bit number."""
        code = self.code
        low, high = value & 0xFFFF_FFFF, value >> 32
        if value < 1 << 11:
            code.add("addi", rd=rd, imm=value)
        elif not high:
            code.load_address(rd, low)
        else:
            self.constant(rd, high)
            code.add("slli", rd=rd, rs1=rd, imm=32)
            if low:
                self.constant(31, low)
                code.add("or", rd=rd, rs1=rd, rs2=31)

    def write(self, csr, value):
        self.constant(SCRATCH, value)
        self.code.add("csrrw", rs1=SCRATCH, csr=CSRS[csr].number)

    def set_back(self, label):
        """auipc and a jump over it: BACK = address of ``label``, which is set soon."""
        code = self.code
        over = self.label()
        code.add("jal", rd=BACK, to=over)
        code.add("jal", to=label)
        code.label(over)


def privileged_program(seed: int, probes: int = 100) -> bytes:
    """The bytes of RAM from its start."""
    program = _Program(seed)
    _start(program)
    for _ in range(probes):
        kind = program.random.choice((_data_probe, _data_probe, _fetch_probe, _csr_probe))
        kind(program)
    _finish(program)
    text = program.code.assemble()
    assert len(text) <= TABLES - RAM
    image = bytearray(DATA + DATA_COUNT * PAGE - RAM)
    image[: len(text)] = text
    _tables(program.random, image)
    return bytes(image)


def _start(program):
    code = program.code
    # The handlers are out of the way of what follows, behind an entry for each interrupt. M-mode's
    # returns to M-mode, at BACK.
    code.add("jal", to="begin")
    while code.here % 64:
        code.add("addi")
    code.label("machine")
    for _ in range(_VECTORS):
        code.add("jal", to="handler")
    # S-mode's gives up to M-mode: calls from S are never delegated.
    code.label("supervisor")
    for _ in range(_VECTORS):
        code.add("ecall")
    code.label("handler")
    code.add("csrrs", rd=RESULT, csr=CSRS["mcause"].number)
    code.add("csrrw", rs1=BACK, csr=CSRS["mepc"].number)
    code.add("csrrw", csr=CSRS["mie"].number)
    code.load_address(RESULT, MSTATUS["mpp"].mask)
    code.add("csrrs", rs1=RESULT, csr=CSRS["mstatus"].number)
    code.add("mret")
    code.label("begin")
    program.write("mtvec", code.address("machine"))
    program.write("stvec", code.address("supervisor"))
    program.write("stimecmp", WORD)
    program.write("pmpaddr0", WORD)
    program.write("pmpcfg0", 0x1F)


def _finish(program):
    code = program.code
    program.write("satp", 0)
    # Read the tables: A and D may have been set.
    for table in range(TABLE_COUNT):
        for first in (0, 8 * 504):
            code.load_address(POINTER, TABLES + PAGE * table + first)
            for entry in range(8):
                code.add("ld", rd=RESULT, rs1=POINTER, imm=8 * entry)
    code.load_address(POINTER, FINISHER)
    code.load_address(VALUE, 0x5555)
    code.add("sw", rs1=POINTER, rs2=VALUE)
    code.label("end")
    code.add("jal", to="end")


def _address(rng):
    """Mostly an address the tables say something about, near the edges of pages."""
    # Not the first 2 MiB of a gigabyte: there stands the program itself.
    pages = (rng.randrange(4), rng.randrange(1, 8), rng.randrange(8))
    base = sum(page << shift for page, shift in zip(pages, (30, 21, 12), strict=True))
    offset = rng.choice((0, 8, rng.randrange(PAGE), PAGE - rng.randrange(1, 9)))
    address = base + offset
    if rng.random() < 0.1:
        address |= WORD << 39 & WORD
    if rng.random() < 0.05:
        address ^= 1 << rng.randrange(38, 64)
    return address


def _context(program, mode=SatpMode.SV39):
    """Delegation drawn, for what comes next."""
    rng = program.random
    satp = SATP.encode(mode=mode, asid=rng.randrange(4), ppn=TABLES >> 12)
    program.write("satp", satp if mode else 0)
    keep = 1 << Exception_.ECALL_FROM_SUPERVISOR
    program.write("medeleg", rng.getrandbits(16) & DELEGABLE_EXCEPTIONS & ~keep)
    for vector, handler in (("mtvec", "machine"), ("stvec", "supervisor")):
        program.write(vector, program.code.address(handler) | rng.randrange(2))


def _status(rng, **fixed):
    flags = {name: rng.randrange(2) for name in ("mxr", "sum", "spie", "sie", "tvm", "tw", "tsr")}
    return MSTATUS.encode(**(flags | fixed))


def _data_probe(program):
    """Loads and stores in M-mode, with MPRV most of the time."""
    rng = program.random
    mode = rng.choice((SatpMode.SV39,) * 4 + (SatpMode.BARE,))
    _context(program, mode)
    program.constant(VALUE, rng.getrandbits(64))
    for _ in range(4):
        _access(program, mode)
    program.write("mstatus", MSTATUS.encode(mpp=Privilege.MACHINE))


def _access(program, mode):
    rng, code = program.random, program.code
    back = program.label()
    name = rng.choice(LOADS + STORES)
    level = rng.choice((Privilege.USER, Privilege.SUPERVISOR) * 3 + (Privilege.MACHINE,))
    program.set_back(back)
    bare = mode == SatpMode.BARE or level == Privilege.MACHINE
    program.constant(POINTER, rng.choice(_BARE) + 8 * rng.randrange(512) if bare else _address(rng))
    # QEMU's misaligned atomics are no exceptions, or others.
    if INSTRUCTIONS[name].extension == "a":
        code.add("andi", rd=POINTER, rs1=POINTER, imm=-8)
    program.write("mstatus", _status(rng, mprv=1, mpp=level))
    operands = {"rs1": POINTER}
    if name in STORES:
        operands["rs2"] = VALUE
    if name in LOADS or name.startswith("amo"):
        operands["rd"] = RESULT
    code.add(name, **operands)
    code.label(back)


def _fetch_probe(program):
    """A jump to a page below M-mode: the data pages hold calls."""
    rng, code = program.random, program.code
    _context(program)
    back = program.label()
    program.set_back(back)
    address = _address(rng) & ~1
    # SUM stays 0: QEMU 7.2 fetches from a user page once data has been translated with SUM.
    level = rng.choice((Privilege.USER, Privilege.SUPERVISOR))
    program.write("mstatus", _status(rng, mpp=level, sum=0))
    program.write("mepc", address)
    code.add("sfence.vma")
    code.add("mret")
    code.label(back)
    program.write("mstatus", MSTATUS.encode(mpp=Privilege.MACHINE))


def _csr_probe(program):
    """CSR and system instructions at a level, without translation."""
    rng, code = program.random, program.code
    _context(program, SatpMode.BARE)
    program.write("menvcfg", rng.choice((0, 1 << 63)))
    program.write("sepc", _somewhere(rng))
    program.write("mcounteren", rng.getrandbits(3))
    program.write("scounteren", rng.getrandbits(3))
    back, there = program.label(), program.label()
    program.set_back(back)
    level = rng.choice((Privilege.USER,) * 2 + (Privilege.SUPERVISOR,) * 2 + (Privilege.MACHINE,))
    values = [rng.getrandbits(64) for _ in range(3)]
    if rng.random() < 0.3:
        program.write("mideleg", rng.getrandbits(12) & DELEGABLE_INTERRUPTS)
        program.write("mie", rng.getrandbits(12) & CSRS["mie"].writable)
        program.write("mip", rng.choice((0, 2, 0x20, 0x22)))
    program.write("mstatus", _status(rng, mpp=level))
    over = program.label()
    code.add("jal", rd=POINTER, to=over)
    code.add("jal", to=there)
    code.label(over)
    code.add("csrrw", rs1=POINTER, csr=CSRS["mepc"].number)
    code.add("mret")
    code.label(there)
    for value in values:
        _csr_instruction(program, value)
    code.add("ecall")
    code.label(back)
    program.write("mstatus", MSTATUS.encode(mpp=Privilege.MACHINE))
    program.write("menvcfg", 0)
    program.write("mip", 0)


def _somewhere(rng):
    """An address in the data pages, where a call or half of one stands."""
    return DATA + 2 * rng.randrange(PAGE)


def _csr_instruction(program, value):
    rng, code = program.random, program.code
    if rng.random() < 0.15:
        code.add(rng.choice(("sret", "mret", "sfence.vma", "ebreak")))
        return
    if rng.random() < 0.25:
        number = rng.choice([CSRS[name].number for name in _READ] + [rng.choice(_ABSENT)])
        code.add("csrrs", rd=RESULT, csr=number)
        return
    name = rng.choice([*_PLAIN, "stvec", "mepc", "sepc"])
    operation = rng.choice(("csrrw", "csrrs", "csrrc"))
    if name == "stvec":
        operation, value = "csrrw", code.address("supervisor") | value & 1
    elif name in ("mepc", "sepc"):
        operation, value = "csrrw", _somewhere(rng)
    else:
        value &= _PLAIN[name]
    program.constant(VALUE, value)
    rd = rng.choice((0, RESULT))
    code.add(operation, rd=rd, rs1=VALUE, csr=CSRS[name].number)


def _tables(rng, image):
    def put(address, value):
        image[address - RAM : address - RAM + 8] = value.to_bytes(8, "little")

    def entry(level):
        """An entry of a table: a pointer down, a leaf of this level, or nonsense."""
        kind = rng.random()
        first, count = (1, 3) if level == 2 else (4, 3)
        if level and kind < 0.5:
            table = TABLES + PAGE * (first + rng.randrange(count))
            pte = PTE.encode(v=1, ppn=table >> 12, g=rng.random() < 0.2, rsw=rng.randrange(4))
        else:
            frame = DATA + PAGE * rng.randrange(DATA_COUNT)
            if level and rng.random() < 0.8:
                frame = frame >> 12 + 9 * level << 12 + 9 * level
            flags = rng.choice(("r", "x", "x", "rw", "rx", "rwx", "rwx", "w", "wx"))
            pte = PTE.encode(
                v=1, u=rng.randrange(2), g=rng.randrange(2), a=rng.random() < 0.8,
                d=rng.random() < 0.7, ppn=frame >> 12, **dict.fromkeys(flags, 1),
            )  # fmt: skip
        if rng.random() < 0.08:
            pte ^= 1 << rng.choice((0, 4, 4, 6, 7, 54, 61, 63))
        return pte

    for number in range(TABLE_COUNT):
        level = 2 if number == 0 else 1 if number < 4 else 0
        for index in (*range(8), *range(504, 512)):
            put(TABLES + PAGE * number + 8 * index, entry(level))
    # The program's own gigabyte, so that S-mode's handler can be reached.
    put(
        TABLES + 8 * (RAM >> 30),
        PTE.encode(v=1, r=1, w=1, x=1, a=1, d=1, ppn=RAM >> 30 << 18),
    )
    call = INSTRUCTIONS["ecall"].match.to_bytes(4, "little")
    image[DATA - RAM : DATA - RAM + DATA_COUNT * PAGE] = call * (DATA_COUNT * PAGE // 4)

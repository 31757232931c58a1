"""The reference for walks in two dimensions against QEMU's H extension: hgatp takes the same tables.

A program in M-mode asks by HLV and HSV, and by returns into virtual S and U for fetches, and keeps
what trapped. What QEMU 7.2 does otherwise and is left out: it sets A and D itself, at both stages;
it reads guests' tables as reads, whoever keeps A and D; the guest's leaf is marked before the second
stage has agreed; gpas with bit 40 set are refused; HLV and HSV do not ask for SUM, and take the first
stage's MXR from mstatus; what they raise is an access fault while satp is Bare; a guest-page fault of a
page table is that of a load, whatever the access.
"""

import random
from collections import Counter

import pytest

from rtl.arch.csrs import CSRS, MSTATUS
from rtl.arch.instructions import RD, RS1, RS2
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import SATP, Access, SatpMode
from rtl.arch.traps import Exception_, Privilege
from rtl.mmu.context import Fault
from sw_vmm.assembler import Assembler, encode
from tests.golden.qemu import RAM, needs_qemu, run_qemu
from tests.rtl.mmu import two_stage_reference as reference
from tests.rtl.mmu.guests import Guest
from tests.rtl.mmu.walker_bench import Memory, wanted_of

pytestmark = needs_qemu

CPU = "rv64,f=off,d=off,h=true,priv_spec=v1.12.0"
# The H extension's own, which the machine does not have.
HSTATUS, HGATP, VSATP, MTVAL2, MTINST = 0x600, 0x680, 0x280, 0x34B, 0x34A
SPVP, VSXL_64, UXL_SXL_64, MPV = 1 << 8, 2 << 32, 10 << 32, 1 << 39
HLV_D, HSV_D, HFENCE_VVMA, HFENCE_GVMA = 0x6C004073, 0x6E004073, 0x22000073, 0x62000073
PSEUDO_READ, PMP_NAPOT_RWX = 0x3000, 0x1F
PAGE_FAULTS = {Access.READ: 13, Access.WRITE: 15, Access.FETCH: 12}
GUEST_PAGE_FAULTS = {Access.READ: 21, Access.WRITE: 23, Access.FETCH: 20}
ECALLS = {Privilege.USER: Exception_.ECALL_FROM_USER, Privilege.SUPERVISOR: 10}
KINDS = {Access.READ: 0, Access.WRITE: 1, Access.FETCH: 2}
#: Pages that guests map, as frames; code and tables lie below.
FRAMES = [0x80400, 0x80401, 0x80402, 0x80600]
TABLES = RAM.base + 0x4000
ROWS = 0x8030_0000
#: Registers: what the program leaves for each query, and what it works with.
VALUE, CAUSE, TVAL, TVAL2, TINST = 12, 13, 14, 15, 16
ROW, LEFT, SCRATCH, KIND, STORED, GVA = 8, 9, 5, 6, 7, 10
ROW_BYTES = 48


class Program(Assembler):
    """Asks all queries of the rows at ``ROWS``, then reads the words whose addresses follow them."""

    def __init__(self, hgatp, queries, words):
        super().__init__(RAM.base)
        self._rows, self._words_read = queries, words
        self.set_up(hgatp)
        self.label("loop")
        for n, csr in enumerate((HSTATUS, CSRS["mstatus"].number, VSATP)):
            self.add("ld", rd=SCRATCH, rs1=ROW, imm=8 * n)
            self.add("csrrw", rs1=SCRATCH, csr=csr)
        for n, register in enumerate((GVA, KIND, STORED), start=3):
            self.add("ld", rd=register, rs1=ROW, imm=8 * n)
        self.raw(HFENCE_VVMA)
        self.raw(HFENCE_GVMA)
        for register in (VALUE, CAUSE, TVAL, TVAL2, TINST):
            self.add("addi", rd=register)
        self.add("beq", rs1=KIND, to="read")
        self.add("addi", rd=KIND, rs1=KIND, imm=-1)
        self.add("beq", rs1=KIND, to="write")
        self.add("csrrw", rs1=GVA, csr=CSRS["mepc"].number)
        self.add("mret")
        self.label("read")
        self.raw(HLV_D | VALUE << RD[0] | GVA << RS1[0])
        self.add("jal", to="done")
        self.label("write")
        self.raw(HSV_D | GVA << RS1[0] | STORED << RS2[0])
        self.add("jal", to="done")
        self.label("handler")
        for register, csr in (
            (CAUSE, CSRS["mcause"].number),
            (TVAL, CSRS["mtval"].number),
            (TVAL2, MTVAL2),
            (TINST, MTINST),
        ):
            self.add("csrrs", rd=register, csr=csr)
        self.label("done")
        self.add("addi", rd=ROW, rs1=ROW, imm=ROW_BYTES)
        self.add("addi", rd=LEFT, rs1=LEFT, imm=-1)
        self.add("bne", rs1=LEFT, to="loop")
        self.load_address(LEFT, len(words))
        self.label("words")
        self.add("ld", rd=SCRATCH, rs1=ROW)
        self.add("ld", rd=VALUE, rs1=SCRATCH)
        self.label("read_word")
        self.add("addi", rd=ROW, rs1=ROW, imm=8)
        self.add("addi", rd=LEFT, rs1=LEFT, imm=-1)
        self.add("bne", rs1=LEFT, to="words")
        self.load_address(SCRATCH, MEMORY_MAP["finisher"].base)
        self.load_address(VALUE, 0x5555)
        self.add("sw", rs1=SCRATCH, rs2=VALUE)
        self.add("jal", imm=0)

    def raw(self, word):
        self._words.append(word)

    def set_up(self, hgatp):
        """hgatp and mtvec, from the words before the first row; and QEMU's PMP, which lets all pass."""
        self.add("addi", rd=SCRATCH, imm=-1)
        self.add("csrrw", rs1=SCRATCH, csr=CSRS["pmpaddr0"].number)
        self.add("addi", rd=SCRATCH, imm=PMP_NAPOT_RWX)
        self.add("csrrw", rs1=SCRATCH, csr=CSRS["pmpcfg0"].number)
        self.load_address(ROW, ROWS - 24)
        for n, csr in enumerate((HGATP, CSRS["mtvec"].number, CSRS["satp"].number)):
            self.add("ld", rd=SCRATCH, rs1=ROW, imm=8 * n)
            self.add("csrrw", rs1=SCRATCH, csr=csr)
        self.load_address(ROW, ROWS)
        self.load_address(LEFT, len(self._rows))

    def image(self, hgatp, contents):
        """RAM from its base: the program, its rows and ``contents`` (words by hpa)."""
        code = self.assemble()
        assert len(code) < TABLES - RAM.base
        words = {ROWS - 24: hgatp, ROWS - 16: self.address("handler")}
        words[ROWS - 8] = SATP.encode(mode=SatpMode.SV39)
        for n, row in enumerate(self._rows):
            words |= {ROWS + ROW_BYTES * n + 8 * k: value for k, value in enumerate(row)}
        end = ROWS + ROW_BYTES * len(self._rows)
        words |= {end + 8 * n: address for n, address in enumerate(self._words_read)}
        image = bytearray(max(0x80602 << 12, *words, *contents) + 8 - RAM.base)
        image[: len(code)] = code
        for address, word in (words | contents).items():
            image[address - RAM.base : address - RAM.base + 8] = word.to_bytes(8, "little")
        return bytes(image)


def some_guest(schedule, *, marks):
    """A guest and queries. With ``marks`` A and D are clear here and there, and nothing else is odd."""
    choose = schedule.choice
    guest = Guest(schedule, regions=(0, 3, 99, 1021))
    pages = []
    for _ in range(8):
        rights = dict.fromkeys("rwx", 1)
        clear = {"a": choose((0, 1)), "d": choose((0, 1))} if marks else {}
        if not marks:
            rights = {name: int(name in choose(("rwx", "rwx", "rx", "rw", "x"))) for name in "rwx"}
            rights["w"] &= rights["r"]
        frame, level = choose(FRAMES), choose((0, 0, 1, 2))
        gpa_frame = guest.place(frame, u=int(marks or schedule.random() < 0.9), **rights, **clear)
        gva = choose((1, 77, 255, 511)) << 18 + 9 * choose((0, 0)) | frame & (1 << 9 * level) - 1
        gva |= choose((0, 3, 511)) << 9 if level < 2 else gpa_frame & 511 << 9
        gva |= choose((0, 5, 511)) if level < 1 else gpa_frame & 511
        user = schedule.getrandbits(1)
        guest.map(gva << 12, gpa_frame, level, u=user, g=schedule.getrandbits(1), **rights, **clear)
        pages.append((gva << 12, gpa_frame << 12, user))
    if not marks:
        slots = sorted(guest.words)
        for _ in range(choose((0, 4))):
            guest.words[choose(slots)] ^= 1 << choose((0, 1, 2, 3, 4, 5, *range(54, 64)))

    def query():
        gva, gpa, user = choose(pages)
        paged = schedule.random() < 0.85
        privilege = Privilege.USER if user else Privilege.SUPERVISOR
        if not marks:
            privilege = choose((Privilege.USER, Privilege.SUPERVISOR))
        address = gva if paged else gpa
        if not marks:
            address ^= choose((0, 0, 0, 0, 4096, 1 << 21))
        address |= ((1 << 64) - (1 << 39)) * (paged and address >> 38 & 1)
        access = choose(list(Access))
        # Code and data keep to their halves of a page.
        address |= 0x800 * (access == Access.FETCH) | 8 * schedule.randrange(64)
        bits = {"adue": int(marks), "ept_ad": int(marks), "sum": 1, "mxr": schedule.getrandbits(1)}
        context = guest.context(paged=int(paged), privilege=privilege, **bits)
        return {"gva": address, "access": access, "context": context}

    return guest, [query() for _ in range(60)]


def row(query, stored):
    """What the program needs to ask it."""
    context = query["context"]
    supervisor = context["privilege"] == Privilege.SUPERVISOR
    satp = SATP.encode(mode=SatpMode.SV39, ppn=context["root"]) if context["paged"] else 0
    return (
        VSXL_64 | SPVP * supervisor,
        UXL_SXL_64 | MPV | MSTATUS.encode(mpp=context["privilege"], mxr=context["mxr"]),
        satp,
        query["gva"],
        KINDS[query["access"]],
        stored,
    )


def ask_qemu(guest, queries):
    """Registers after each query, and words at the end by address."""
    contents = dict(guest.words)
    for frame in range(FRAMES[0], FRAMES[-1] + 1):
        for place in range(frame << 12, (frame << 12) + 0x800, 8):
            contents[place] = place
            contents[place + 0x800] = encode("ecall") | encode("ecall") << 32
    for address in contents:
        assert address >= TABLES
    hgatp = SATP.encode(mode=SatpMode.SV39, ppn=guest.ept_root)
    rows = [row(query, ~n & (1 << 64) - 1) for n, query in enumerate(queries)]
    program = Program(hgatp, rows, sorted(guest.words))
    states = run_qemu(program.image(hgatp, contents), CPU)
    done, read = program.address("done"), program.address("read_word")
    answers = [state.x for state in states if state.pc == done]
    words = [state.x for state in states if state.pc == read]
    assert len(answers) == len(queries) and len(words) == len(guest.words)
    return answers, {x[SCRATCH]: x[VALUE] for x in words}


def check(x, query, memory, values, translate=reference.translate):
    """One answer of QEMU's against the reference, whose ``memory`` is marked; the kind of outcome.

    Another ``translate`` is held to QEMU in the same way.
    """
    access = query["access"]
    try:
        mapping = translate(memory, query)
    except reference.EptFault as fault:
        gpa, _, page_table, *_ = fault.about
        cause = GUEST_PAGE_FAULTS[Access.READ if page_table else access]
        assert (x[CAUSE], x[TVAL], x[TVAL2]) == (cause, query["gva"], gpa >> 2), query
        assert (x[TINST] == PSEUDO_READ) == page_table
        return type(fault).__name__
    except reference.PageFault:
        assert (x[CAUSE], x[TVAL]) == (PAGE_FAULTS[access], query["gva"]), query
        return "PageFault"
    hpa = mapping.frame << 12 | query["gva"] & 0xFFF
    there = mapping.frame in range(FRAMES[0], FRAMES[-1] + 1)
    if access == Access.FETCH:
        # Elsewhere there are zeros, which are illegal.
        cause = ECALLS[query["context"]["privilege"]] if there else Exception_.ILLEGAL_INSTRUCTION
        assert x[CAUSE] == cause, query
    else:
        assert x[CAUSE] == 0, query
        if access == Access.WRITE:
            values[hpa] = x[STORED]
        else:
            assert x[VALUE] == values.get(hpa, hpa if there else 0), query
    return access.name


@pytest.mark.parametrize("seed", range(5))
def test_outcomes(seed):
    schedule = random.Random(seed)
    guest, queries = some_guest(schedule, marks=False)
    answers, _ = ask_qemu(guest, queries)
    memory, values, seen = Memory(guest.words), {}, Counter()
    for x, query in zip(answers, queries, strict=True):
        seen[check(x, query, memory, values)] += 1
    assert len(seen) > 3 and max(seen.values()) < len(queries), seen


@pytest.mark.parametrize("seed", range(2))
def test_marks_of_both_stages(seed):
    schedule = random.Random(seed)
    queries = []
    while len(queries) < 20:
        guest, queries = some_guest(schedule, marks=True)
        # Where an access fails QEMU may have marked the guest's leaf already.
        memory = Memory(guest.words)
        queries = [query for query in queries if wanted_of(memory, query)[0] == Fault.NONE]
    answers, words = ask_qemu(guest, queries)
    memory, values = Memory(dict(guest.words)), {}
    for x, query in zip(answers, queries, strict=True):
        check(x, query, memory, values)
    assert words == memory.words != guest.words


def test_a_wrong_answer_is_noticed():
    guest, queries = some_guest(random.Random(0), marks=False)
    answers, _ = ask_qemu(guest, queries)
    query, x = next((q, x) for q, x in zip(queries, answers, strict=True) if x[CAUSE] == 21)
    for register in (CAUSE, TVAL, TVAL2, TINST):
        wrong = list(x)
        wrong[register] ^= PSEUDO_READ
        with pytest.raises(AssertionError):
            check(wrong, query, Memory(dict(guest.words)), {})

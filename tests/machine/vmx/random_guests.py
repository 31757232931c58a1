"""Random VMCSs and random guests, with a host that answers their exits at random, from a seed.

The host is straight code: each exit has a handler of its own, which looks at the exit, steps over
the instruction, changes fields, EPT entries and what is cached, and enters again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from rtl.arch.csrs import CSRS, INTERRUPTS, MSTATUS, MSTATUS_CONSTANT
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, PTE, SATP, SatpMode
from rtl.arch.traps import Exception_, Interrupt, Privilege
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPTP
from rtl.arch.vmx.exits import EXIT_REASONS, INTERRUPTION, InterruptionType
from rtl.arch.vmx.fields import CSR_BITMAP_WORDS, TIME_SCALE_FRACTION, VMCS_FIELDS, VMCS_REVISION
from rtl.arch.vmx.instructions import (
    INVVPID_OPERAND,
    VMX_INSTRUCTIONS,
    InveptType,
    InvvpidType,
)
from sim.random_programs.words import (
    BAD_POINTER,
    POINTERS,
    compressed_word,
    computing_word,
    halves,
    load_or_store,
    word,
)
from sw_vmm.assembler import Assembler, encode
from tests.golden.vmx.valid_vmcs import mutations, valid_fields
from tests.golden.vmx.world import (
    EPT_ROOT,
    FULL,
    GUEST,
    GUEST_TABLES,
    OTHER_EPT_ROOT,
    PAGES,
    RAM,
    VMCS,
    ModelBench,
    World,
    number,
    vmx_word,
)

__all__ = ["HOST_START", "TOHOST", "RandomGuest", "generate"]

HOST_START = RAM + 0x1000
#: Handlers of exits, and their constants.
HANDLERS, HANDLER_BYTES, COUNT = RAM + 0x4000, 0x400, 24
POOLS = RAM + 0x2_0000 + 0x1000
#: Written when all handlers have been used.
TOHOST = RAM + 0x800
_END = HANDLERS + COUNT * HANDLER_BYTES
_MTIMECMP = MEMORY_MAP["clint"].base + 0x4000
#: Pages of the guest by number: code, handlers of its traps, data, tables.
CODE, TRAPS, DATA, TABLES = (0, 1, 2), (3, 4), (5, 6, 7), 8
#: Registers of the host, which guests may lose.
_NUMBER, _VALUE, _POOL, _STATUS = 14, 15, 16, 17
_WORD = (1 << 64) - 1
_MUTATIONS = [row for row in mutations() if row[1] != "host_pc"]
#: Fields that go with some states only: the next handler puts them right.
_UNSTEADY = ("guest_activity", "entry_interruption")
_GUEST_CSRS = [name for name in CSRS if not name.startswith(("pmp", "tdata", "tselect"))]


@dataclass(frozen=True)
class RandomGuest:
    """``image`` is RAM at the start, whose host begins at HOST_START.

    Exits in ``park_exits`` park; at the cycles of ``stops``, counted from one to the next, the host
    port stops the hart.
    """

    seed: int
    image: bytes
    park_exits: int
    stops: tuple[int, ...]


class _Pool:
    """Constants of a handler, loaded by offset."""

    def __init__(self, base):
        self.base, self.words = base, []

    def __call__(self, value):
        self.words.append(value & _WORD)
        return 8 * (len(self.words) - 1)


class _Maker:
    def __init__(self, seed, hostile):
        self.draw = Random(f"guest {seed}")
        self.hostile = hostile
        self.world = _Prepared()
        #: Places of the EPTs' entries, by root and gpa.
        self.entries: dict[tuple[int, int], int] = {}
        #: The fields as they should be.
        self.valid: dict[str, int] = {}
        self.wrong: list[str] = []

    # The guest.

    def _instruction(self):
        draw = self.draw
        kind = draw.random()
        if kind < 0.30:
            return computing_word(draw, multiply=draw.random() < 0.1)
        if kind < 0.40:
            return compressed_word(draw)
        if kind < 0.65:
            return load_or_store(draw)
        if kind < 0.80:
            return self._csr()
        if kind < 0.84:
            name = draw.choice(list(VMX_INSTRUCTIONS))
            return halves(
                vmx_word(name, draw.choice((0, 3, 4)), draw.randrange(32), draw.randrange(32))
            )
        if kind < 0.87:
            pointer = draw.choice(POINTERS)
            name = draw.choice(("lr.d", "sc.d", "amoadd.d", "amoswap.w", "lr.w", "sc.w"))
            rs2 = {} if name.startswith("lr") else {"rs2": draw.randrange(32)}
            return word(name, rd=draw.choice((0, 3, 4)), rs1=pointer, **rs2)
        if kind < 0.92:
            name = draw.choice(("beq", "bne", "blt", "bgeu", "jal"))
            sources = (
                {} if name == "jal" else {"rs1": draw.randrange(32), "rs2": draw.randrange(32)}
            )
            return word(name, imm=4 * draw.randrange(1, 6), **sources)
        name = draw.choice(
            (
                "ecall",
                "ebreak",
                "wfi",
                "sfence.vma",
                "mret",
                "sret",
                "fence.i",
                "fence",
                "sfence.vma",
            )
        )
        if name == "sfence.vma":
            return word(name, rs1=draw.choice((0, 8)), rs2=draw.choice((0, 0, 3)))
        return word(name)

    def _csr(self):
        draw = self.draw
        name = draw.choice(("csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci"))
        csr = number(draw.choice(_GUEST_CSRS)) if draw.random() < 0.97 else draw.randrange(1 << 12)
        rd, source = draw.choice((0, 3, 4, 18)), draw.randrange(32)
        if draw.random() < 0.4:
            source = 0
        operand = {"imm": source} if name.endswith("i") else {"rs1": source}
        return word(name, rd=rd, csr=csr, **operand)

    def _page(self):
        """Random instructions, a VMCALL at the end, and back to the start."""
        if self.hostile:
            return self.draw.randbytes(0x1000)
        code = b""
        while len(code) < 0x300:
            code += self._instruction()
        return code + halves(vmx_word("vmcall")) * 2 + word("jal", imm=-0x200)

    @staticmethod
    def _trap_page(prefix):
        """Go on behind what has trapped."""
        epc = number(f"{prefix}epc")
        code = [
            encode("csrrs", rd=20, csr=epc),
            encode("addi", rd=20, rs1=20, imm=4),
            encode("csrrw", rs1=20, csr=epc),
            encode("mret" if prefix == "m" else "sret"),
        ]
        # Vectored interrupts come to one of the first words: they go on as they are.
        ret = encode("mret" if prefix == "m" else "sret")
        return halves(*code, *[ret] * 12)

    def guest(self):
        world, draw = self.world, self.draw
        for page in CODE:
            world.fill(page, self._page())
        for page, prefix in zip(TRAPS, "ms", strict=True):
            world.fill(page, self._trap_page(prefix))
        for page in DATA:
            world.fill(page, draw.randbytes(0x800))
        for page in range(PAGES):
            gpa = GUEST + page * 0x1000
            flags = {}
            if draw.random() < 0.3:
                flags = {name: draw.getrandbits(1) for name in draw.sample("wxugad", 2)}
            world.map_guest(gpa, gpa if draw.random() < 0.9 else GUEST + 0x5000, **flags)
        for page in range(PAGES):
            gpa = GUEST + page * 0x1000
            for root in (EPT_ROOT, OTHER_EPT_ROOT):
                rights = self._rights(code=page in CODE + TRAPS or page >= TABLES)
                self.entries[root, gpa] = world.map(gpa, world.hpa(gpa), root=root, **rights)

    def _rights(self, code):
        """Flags of an EPT entry: holes, rights, marks, and what is misconfigured."""
        draw = self.draw
        if draw.random() < (0.97 if code else 0.7):
            return {}
        flags = {name: draw.getrandbits(1) for name in draw.sample("vrwxuad", 2)}
        # W without R is misconfigured, and now and then wanted.
        return flags if draw.random() < 0.3 else {**flags, "r": 1}

    # The VMCS.

    def _field(self):
        """A field and a value for it that may make sense."""
        draw = self.draw
        lines = draw.getrandbits(12) & INTERRUPTS.mask()
        choices: list[tuple[str, Callable[[], int]]] = [
            ("execution_controls", self._controls),
            ("exception_bitmap", lambda: draw.getrandbits(16) & draw.getrandbits(16)),
            ("interrupt_passthrough", lambda: lines),
            ("interrupt_window_mask", lambda: lines),
            ("status_mask", lambda: draw.getrandbits(64) & draw.getrandbits(64)
             & ~VMCS_FIELDS["status_mask"].reserved),
            ("status_shadow", lambda: draw.getrandbits(64) & MSTATUS.mask()),
            ("time_offset", lambda: draw.getrandbits(64)),
            ("time_scale", lambda: draw.randrange(1, 3 << TIME_SCALE_FRACTION)),
            ("eptp", self._eptp),
            ("vpid", lambda: draw.randrange(1, 4)),
            ("entry_interruption", self._injection),
            ("entry_interruption_value", lambda: draw.getrandbits(64)),
            ("guest_preemption_timer", lambda: draw.choice((0, 1, 30, 200, 500, 1000))),
            ("guest_privilege", lambda: draw.choice(tuple(Privilege))),
            ("guest_mstatus", self._status),
            ("guest_satp", self._satp),
            ("guest_mie", lambda: lines),
            ("guest_mip", lambda: lines & CSRS["mip"].writable),
            ("guest_lines", lambda: lines & draw.getrandbits(12)),
            ("guest_mideleg", lambda: draw.getrandbits(12) & CSRS["mideleg"].writable),
            ("guest_medeleg", lambda: draw.getrandbits(16) & CSRS["medeleg"].writable),
            ("guest_menvcfg", lambda: draw.getrandbits(64) & CSRS["menvcfg"].writable),
            ("guest_mcounteren", lambda: draw.getrandbits(32)),
            ("guest_scounteren", lambda: draw.getrandbits(32)),
            ("guest_stimecmp", lambda: draw.choice((0, 100, 500, _WORD))),
            ("guest_mtimecmp", lambda: draw.choice((0, 100, 500, _WORD))),
            ("guest_mtvec", lambda: GUEST + TRAPS[0] * 0x1000 + draw.getrandbits(1)),
            ("guest_stvec", lambda: GUEST + TRAPS[1] * 0x1000 + draw.getrandbits(1)),
            ("guest_activity", lambda: int(draw.random() < 0.3)),
            ("guest_mcountinhibit", lambda: draw.choice((0, 1, 4, 5))),
            ("guest_pc", lambda: GUEST + draw.choice(CODE) * 0x1000 + 4 * draw.randrange(64)),
            ("exit_controls", lambda: draw.getrandbits(1)),
        ]  # fmt: skip
        for kind in ("read", "write"):
            for place in range(CSR_BITMAP_WORDS):
                name = f"csr_{kind}_bitmap_{place}"
                reserved = VMCS_FIELDS[name].reserved
                choices.append((name, lambda reserved=reserved: self._sparse() & ~reserved))
        name, make = draw.choice(choices)
        return name, int(make()) & _WORD

    def _sparse(self):
        draw = self.draw
        return draw.getrandbits(64) & draw.getrandbits(64) & draw.getrandbits(64)

    def _controls(self):
        draw, word_ = self.draw, CONTROL_WORDS["execution_controls"]
        value = draw.getrandbits(64) & word_.allowed | word_.required
        if draw.random() < 0.9:
            value |= word_.layout["preemption_timer"].mask
        return value

    def _eptp(self):
        draw = self.draw
        root = draw.choice((EPT_ROOT, EPT_ROOT, OTHER_EPT_ROOT))
        return EPTP.encode(mode=8, ad=draw.getrandbits(1), ppn=root >> PAGE_BITS)

    def _injection(self):
        draw = self.draw
        if draw.random() < 0.5:
            return 0
        if draw.random() < 0.5:
            cause, kind = draw.choice(tuple(Interrupt)), InterruptionType.INTERRUPT
        else:
            cause, kind = draw.choice(tuple(Exception_)), InterruptionType.EXCEPTION
        return INTERRUPTION.encode(valid=1, type=kind, cause=cause)

    def _status(self):
        mpp = self.draw.choice(tuple(Privilege))
        value = self.draw.getrandbits(64) & CSRS["mstatus"].writable & ~MSTATUS["mpp"].mask
        if self.draw.random() < 0.8:
            value &= ~MSTATUS["mprv"].mask
        return MSTATUS["mpp"].insert(value, mpp) | MSTATUS_CONSTANT

    def _satp(self):
        draw = self.draw
        if draw.random() < 0.3:
            return 0
        ppn = GUEST_TABLES >> PAGE_BITS
        return SATP.encode(mode=SatpMode.SV39, asid=draw.randrange(1, 4), ppn=ppn)

    def vmcs(self):
        fields = valid_fields() | {
            "guest_pc": GUEST,
            "host_pc": HANDLERS,
            "eptp": EPTP.encode(mode=8, ppn=EPT_ROOT >> PAGE_BITS),
            "vpid": 1,
            "time_scale": 1 << TIME_SCALE_FRACTION,
            "guest_mtvec": GUEST + TRAPS[0] * 0x1000,
            "guest_stvec": GUEST + TRAPS[1] * 0x1000,
            "guest_mtimecmp": _WORD,
            "guest_stimecmp": _WORD,
            "guest_preemption_timer": 500,
            "execution_controls": self._controls(),
        }
        for _ in range(12):
            name, value = self._field()
            if name not in _UNSTEADY:
                fields[name] = value
        self.valid = fields
        for name, value in fields.items():
            self.world.put(VMCS + VMCS_FIELDS[name].offset, value)
        self.world.put(VMCS, VMCS_REVISION)

    # The host.

    def _load(self, code, pool, register, value):
        code.add("ld", rd=register, rs1=_POOL, imm=pool(value))

    def _write(self, code, pool, name, value):
        self._load(code, pool, _NUMBER, VMCS_FIELDS[name].number)
        self._load(code, pool, _VALUE, value)
        code.word(vmx_word("vmwrite", _STATUS, _NUMBER, _VALUE))

    def _changes(self, code, pool):
        """What a host may do between two entries; the fields to be put right if it fails."""
        draw, wrong = self.draw, []
        for _ in range(draw.randrange(4)):
            if draw.random() < 0.1:
                _, name, value = draw.choice(_MUTATIONS)
                wrong.append(name)
            else:
                name, value = self._field()
                if name not in _UNSTEADY:
                    self.valid[name] = value
            self._write(code, pool, name, value)
        if draw.random() < 0.3:
            gpa = GUEST + draw.randrange(PAGES) * 0x1000
            root = draw.choice((EPT_ROOT, OTHER_EPT_ROOT))
            flags = FULL | self._rights(code=False)
            self._load(code, pool, _NUMBER, self.entries[root, gpa])
            self._load(code, pool, _VALUE, PTE.encode(**flags, ppn=World.hpa(gpa) >> PAGE_BITS))
            code.add("sd", rs1=_NUMBER, rs2=_VALUE)
        if draw.random() < 0.5:
            self._invalidate(code, pool)
        if draw.random() < 0.3:
            self._load(code, pool, _NUMBER, _MTIMECMP)
            self._load(code, pool, _VALUE, draw.choice((0, 100, 1000, _WORD)))
            code.add("sd", rs1=_NUMBER, rs2=_VALUE)
        if draw.random() < 0.3:
            self._load(code, pool, _VALUE, draw.getrandbits(12) & CSRS["mip"].writable)
            code.add("csrrw", rs1=_VALUE, csr=number("mip"))
            self._load(code, pool, _VALUE, draw.getrandbits(12) & INTERRUPTS.mask())
            code.add("csrrw", rs1=_VALUE, csr=number("mie"))
        return wrong

    def _invalidate(self, code, pool):
        draw = self.draw
        if draw.random() < 0.5:
            name, first, second = "invept", draw.choice(tuple(InveptType)), self._eptp()
        else:
            name, first = (
                "invvpid",
                INVVPID_OPERAND.encode(
                    vpid=draw.randrange(1, 4), type=draw.choice(tuple(InvvpidType))
                ),
            )
            second = GUEST + draw.randrange(PAGES) * 0x1000
        self._load(code, pool, _NUMBER, first)
        self._load(code, pool, _VALUE, second)
        code.word(vmx_word(name, _STATUS, _NUMBER, _VALUE))

    def _handler(self, n):
        draw = self.draw
        place, next_ = HANDLERS + n * HANDLER_BYTES, HANDLERS + (n + 1) * HANDLER_BYTES
        code, pool = Assembler(place), _Pool(POOLS + n * HANDLER_BYTES)
        code.load_address(_POOL, pool.base)
        information = [f for f in VMCS_FIELDS.values() if f.read_only]
        for field in draw.sample(information, 3):
            self._load(code, pool, _NUMBER, field.number)
            code.word(vmx_word("vmread", _VALUE, _NUMBER))
        # Over the instruction; from where nothing could be fetched, to somewhere else.
        for name, register in (("exit_instruction_length", _VALUE), ("guest_pc", _STATUS)):
            self._load(code, pool, _NUMBER, VMCS_FIELDS[name].number)
            code.word(vmx_word("vmread", register, _NUMBER))
        code.add("add", rd=_VALUE, rs1=_VALUE, rs2=_STATUS)
        code.word(vmx_word("vmwrite", _STATUS, _NUMBER, _VALUE))
        self._load(code, pool, _NUMBER, VMCS_FIELDS["exit_qualification"].number)
        code.word(vmx_word("vmread", _VALUE, _NUMBER))
        code.add("andi", rd=_VALUE, rs1=_VALUE, imm=4)
        code.add("beq", to="fetched", rs1=_VALUE, rs2=0)
        self._write(code, pool, "guest_pc", GUEST + draw.choice(CODE) * 0x1000)
        code.label("fetched")
        # What the last entry may have failed for.
        for name in (*self.wrong, *_UNSTEADY):
            self._write(code, pool, name, self.valid[name])
        self.wrong = wrong = self._changes(code, pool)
        self._write(code, pool, "host_pc", next_)
        entries = ["vmresume", "vmlaunch"]
        draw.shuffle(entries)
        for name in entries:
            code.word(vmx_word(name, _STATUS))
        for name in wrong:
            self._write(code, pool, name, self.valid[name])
        for name in ("vmresume", "vmlaunch"):
            code.word(vmx_word(name, _STATUS))
        code.add("jal", imm=next_ - code.here)
        data = code.assemble()
        assert len(data) <= HANDLER_BYTES and 8 * len(pool.words) <= HANDLER_BYTES
        self.world.bytes(place, data)
        self.world.bytes(pool.base, b"".join(w.to_bytes(8, "little") for w in pool.words))

    def host(self):
        draw = self.draw
        for n in range(COUNT):
            self._handler(n)
        code = Assembler(_END)
        code.load_address(_NUMBER, TOHOST)
        code.add("sd", rs1=_NUMBER, rs2=_NUMBER)
        code.add("jal", imm=0)
        self.world.bytes(_END, code.assemble())
        code = Assembler(HOST_START)
        for pointer in POINTERS:
            page = draw.choice(DATA + DATA + (*range(PAGES),))
            code.load_address(pointer, GUEST + page * 0x1000 + 8 * draw.randrange(0x100))
        code.load_address(BAD_POINTER, GUEST + (PAGES + 1) * 0x1000)
        code.load_address(_NUMBER, VMCS)
        code.word(vmx_word("vmxon", _STATUS))
        code.word(vmx_word("vmptrld", _STATUS, _NUMBER))
        code.word(vmx_word("vmlaunch", _STATUS))
        code.add("jal", imm=HANDLERS - code.here)
        self.world.bytes(HOST_START, code.assemble())


class _Prepared(World):
    """Memory only; nothing runs."""

    def __init__(self):
        self.bench = ModelBench()
        super().__init__(on=False, loaded=False)

    def bytes(self, hpa, data):
        self.hart.memory.write_physical(hpa, data)

    def fill(self, page, data):
        self.bytes(self.hpa(GUEST + page * 0x1000), data)

    def image(self):
        return bytes(self.hart.memory.ram)


def generate(seed: int, *, hostile: bool = False) -> RandomGuest:
    """The guest of a seed; a hostile one consists of random bytes."""
    maker = _Maker(seed, hostile)
    maker.guest()
    maker.vmcs()
    maker.host()
    draw = maker.draw
    park_exits = 0
    if draw.random() < 0.3:
        park_exits = sum(1 << reason for reason in EXIT_REASONS if draw.random() < 0.3)
    stops = tuple(draw.randrange(20, 3000) for _ in range(draw.choice((0, 0, 1, 3))))
    image = maker.world.image()
    return RandomGuest(seed, image, park_exits, stops)

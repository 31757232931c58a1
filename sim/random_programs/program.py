"""A random program: an image of RAM, made from a seed."""

import base64
import zlib
from dataclasses import dataclass, replace
from random import Random

from rtl.arch.csrs import (
    COUNTEREN,
    CSRS,
    DELEGABLE_EXCEPTIONS,
    DELEGABLE_INTERRUPTS,
    INTERRUPTS,
    MENVCFG,
    MSTATUS,
)
from rtl.arch.instructions import COMPRESSED
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, SATP, SatpMode
from rtl.arch.traps import Exception_, Privilege
from sim.random_programs.address_spaces import Tables
from sim.random_programs.items import CORNERS, Body
from sim.random_programs.profiles import PROFILES
from sim.random_programs.runtime import (
    CLINT,
    SUPERVISOR_HANDLERS,
    VARIABLES,
    machine_code,
    supervisor_code,
)
from sim.random_programs.words import (
    ASID_REGISTER,
    BAD_POINTER,
    ENTRY_REGISTERS,
    POINTERS,
    ROOT_REGISTERS,
    word,
)
from sw_vmm.assembler import Assembler

__all__ = ["RAM_SIZE", "HostWrites", "RandomProgram", "Span", "generate"]

RAM_SIZE = 1 << 19
_PAGE = 1 << PAGE_BITS
_RAM = MEMORY_MAP["ram"].base
_CLINT = MEMORY_MAP["clint"].base
# Pages of RAM, by what lies there.
_VARIABLES, _SUPERVISOR, _PROLOGUES, _CODE, _DATA, _TABLES = 1, 2, 3, 8, 16, 32
_CODE_PAGES, _DATA_PAGES, _TABLE_PAGES = 8, 8, 64
_BLOCKS, _SPACES = 8, 2
#: Bytes of data that shrinking takes out at once, at least.
_DATA_SPAN = 512
_TRAPS = 160
#: Ticks a block may wait for, about.
_PATIENCE = 200
_CODE_END = (_CODE + _CODE_PAGES) * _PAGE
_ECALL = word("ecall")
_C_NOP = COMPRESSED["c.addi"].match


@dataclass(frozen=True)
class Span:
    """Bytes ``start`` to ``end`` of the image that shrinking may take out.

    ``kind`` is ``block``, ``item``, ``setup`` (all code), ``entry`` (of a table) or ``data``.
    """

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class HostWrites:
    """After ``cycles`` more cycles the hart is stopped and ``writes`` of (hpa, bytes) are done."""

    cycles: int
    writes: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class RandomProgram:
    """Bytes of RAM from its base, where the program starts in M-mode, and what happens to it.

    It ends by storing 1 at ``tohost``.
    """

    seed: int
    profile: str
    image: bytes
    entry: int
    tohost: int
    spans: tuple[Span, ...]
    host_writes: tuple[HostWrites, ...] = ()

    def without(self, spans) -> "RandomProgram":
        """The same program with the spans replaced by instructions that do nothing, or zeros."""
        image = bytearray(self.image)
        for span in spans:
            filler = bytes(2) if span.kind in ("entry", "data") else _C_NOP.to_bytes(2, "little")
            image[span.start : span.end] = filler * ((span.end - span.start) // 2)
        return replace(self, image=bytes(image))

    def as_json(self) -> dict:
        """The program as it is, whatever becomes of the generator; without its spans."""
        return {
            "seed": self.seed,
            "profile": self.profile,
            "entry": self.entry,
            "tohost": self.tohost,
            "size": len(self.image),
            "image": base64.b64encode(zlib.compress(self.image.rstrip(b"\0"), 9)).decode(),
            "host_writes": [
                [one.cycles, [[hpa, data.hex()] for hpa, data in one.writes]]
                for one in self.host_writes
            ],
        }

    @classmethod
    def from_json(cls, stored: dict) -> "RandomProgram":
        """What ``as_json`` gave."""
        image = zlib.decompress(base64.b64decode(stored["image"]))
        return cls(
            stored["seed"],
            stored["profile"],
            image.ljust(stored["size"], b"\0"),
            stored["entry"],
            stored["tohost"],
            (),
            tuple(
                HostWrites(cycles, tuple((hpa, bytes.fromhex(data)) for hpa, data in writes))
                for cycles, writes in stored["host_writes"]
            ),
        )


def generate(seed: int, profile: str | None = None) -> RandomProgram:
    """The program of a seed; its profile too is drawn by it, unless named.

    Equal arguments give equal programs.
    """
    draw = Random(f"vmxlab {seed}")
    drawn = draw.choice(sorted(PROFILES))
    return _Generator(draw, seed, profile or drawn).program()


def _csr(name):
    return CSRS[name].number


class _Generator:
    def __init__(self, draw, seed, profile):
        self._draw, self._seed, self._name = draw, seed, profile
        self._profile = PROFILES[profile]
        self._image = bytearray((_TABLES + _TABLE_PAGES) * _PAGE)
        self._spans: list[Span] = []
        self._code = _CODE * _PAGE + draw.randrange(0, 64, 2)
        self._prologue = _PROLOGUES * _PAGE

    def program(self):
        draw = self._draw
        variables = _RAM + _VARIABLES * _PAGE
        handler, self._finish, end = machine_code(_RAM, variables, _CLINT)
        self._put(0, handler)
        self._put(_SUPERVISOR * _PAGE, supervisor_code(_RAM + _SUPERVISOR * _PAGE))
        data = slice(_DATA * _PAGE, (_DATA + _DATA_PAGES) * _PAGE)
        self._image[data] = draw.randbytes(_DATA_PAGES * _PAGE)
        for place in range(data.start, data.stop, _DATA_SPAN):
            self._spans.append(Span(place, place + _DATA_SPAN, "data"))
        self._make_spaces()
        first = self._prologue
        count = draw.randrange(2, 2 * _BLOCKS)
        for _ in range(count):
            if self._code < _CODE_END - _PAGE:
                self._block()
        self._set(VARIABLES["next"], _RAM + self._prologue)
        self._last_prologue()
        for name, value in (("traps", _TRAPS + count), ("next", _RAM + first)):
            self._set(VARIABLES[name], value)
        entry = Assembler(end)
        entry.load_address(31, _RAM)
        entry.add("csrrw", rs1=31, csr=_csr("mtvec"))
        entry.load_address(31, _RAM + first)
        entry.add("jalr", rs1=31)
        self._put(end - _RAM, entry.assemble())
        return RandomProgram(
            self._seed,
            self._name,
            bytes(self._image),
            end,
            variables + VARIABLES["tohost"],
            tuple(self._spans),
            self._host_writes(),
        )

    def _put(self, place, data):
        self._image[place : place + len(data)] = data

    def _set(self, offset, value):
        self._put(_VARIABLES * _PAGE + offset, value.to_bytes(8, "little"))

    def _make_spaces(self):
        draw = self._draw
        tables = Tables(draw, _RAM + _TABLES * _PAGE, _TABLE_PAGES)
        code = [_RAM + (_CODE + n) * _PAGE for n in range(_CODE_PAGES)]
        data = [_RAM + (_DATA + n) * _PAGE for n in range(_DATA_PAGES)]
        handler = _RAM + _SUPERVISOR * _PAGE
        self._spaces = [
            tables.space(code, data, handler) for _ in range(draw.randrange(1, _SPACES + 2))
        ]
        for hpa, entry in tables.words.items():
            self._put(hpa - _RAM, entry.to_bytes(8, "little"))
            self._spans.append(Span(hpa - _RAM, hpa - _RAM + 8, "entry"))
        # Few address-space identifiers, and pairs that differ in one bit only.
        self._asids = [draw.choice((0, 1, 2, 1 << draw.randrange(16), 0xFFFF)) for _ in range(3)]
        self._roots = [
            SATP["asid"].insert(draw.choice(self._spaces).satp, draw.choice(self._asids))
            for _ in ROOT_REGISTERS
        ]
        if draw.random() < 0.5:
            self._roots[0] = 0
        if draw.random() < 0.2:
            self._roots[1] = SATP["mode"].insert(self._roots[1], draw.choice((1, 9, 10, 15)))
        if draw.random() < 0.1:  # a root outside RAM
            self._roots[2] = SATP.encode(mode=SatpMode.SV39, ppn=draw.choice((0, 1 << 43, 0xFFFFF)))

    # Blocks.

    def _block(self):
        draw, profile = self._draw, self._profile
        chance = draw.random()
        if chance < profile.machine:
            privilege = Privilege.MACHINE
        else:
            privilege = draw.choice((Privilege.SUPERVISOR, Privilege.USER))
        paged = privilege != Privilege.MACHINE and draw.random() < profile.paged / (
            1 - profile.machine
        )
        if draw.random() < 0.3:  # the block begins just before the end of a page
            self._code = (self._code | _PAGE - 1) - draw.randrange(1, 32, 2)
        start = self._code
        for item in Body(draw, profile, privilege).items(draw.randrange(2, 2 * profile.items)):
            if self._code + len(item) < _CODE_END - len(_ECALL):
                self._span(item, "item")
        self._spans.append(Span(start, self._code, "block"))
        # The block ends here, and the next one begins.
        self._put(self._code, _ECALL)
        self._code += len(_ECALL)
        self._make_prologue(start, privilege, paged)

    def _span(self, code, kind):
        self._spans.append(Span(self._code, self._code + len(code), kind))
        self._put(self._code, code)
        self._code += len(code)

    def _make_prologue(self, start, privilege, paged):
        """M-mode code that sets the stage for the block and enters it."""
        draw = self._draw
        space = draw.choice(self._spaces) if paged else None
        constants = self._constants(start, privilege, space)
        pool = self._prologue
        code_at = pool + 8 * (32 + len(constants))
        code = Assembler(_RAM + code_at)
        code.load_address(31, _RAM + _VARIABLES * _PAGE)
        self._prologue_next = code.here
        end = _RAM + code_at  # the next one follows; its length is not known yet
        code.load_address(30, 0)
        code.add("sd", rs1=31, rs2=30, imm=VARIABLES["next"])
        for name, value in (
            ("patience", draw.randrange(1, 3 + _PATIENCE // self._profile.timer)),
            ("skip", draw.choice((4, 4, 4, 4, 2, 0))),
            ("period", draw.randrange(1, 2 * self._profile.timer)),
        ):
            code.add("addi", rd=30, imm=value)
            code.add("sd", rs1=31, rs2=30, imm=VARIABLES[name])
        if draw.random() < 0.95:
            self._arm_timer(code)
        if draw.random() < 0.15:  # an interrupt waits for the block
            code.load_address(30, _CLINT + CLINT["msip"])
            code.add("addi", rd=29, imm=1)
            code.add("sw", rs1=30, rs2=29)
        code.load_address(31, _RAM + pool)
        begins = len(code.assemble())
        for n, name in enumerate(constants):
            code.add("ld", rd=30, rs1=31, imm=8 * (32 + n))
            code.add("csrrw", rs1=30, csr=_csr(name))
            spot = code_at + begins + 8 * n
            if name not in ("mepc", "mstatus"):
                self._spans.append(Span(spot, spot + 8, "setup"))
        if draw.random() < 0.6:
            code.add("sfence.vma")
        if draw.random() < 0.6:
            code.add("fence.i")
        for register in range(1, 32):
            code.add("ld", rd=register, rs1=31, imm=8 * register)
        code.add("mret")
        made = bytearray(code.assemble())
        end = code.here + 63 & ~63
        again = Assembler(self._prologue_next)
        again.load_address(30, end)
        place = self._prologue_next - _RAM - code_at
        made[place : place + 16] = again.assemble()
        self._put(code_at, made)
        for n, value in enumerate([*self._registers(space, privilege), *constants.values()]):
            self._put(pool + 8 * n, (value & (1 << 64) - 1).to_bytes(8, "little"))
        self._prologue = end - _RAM
        # The entry of this prologue is its code; the pool lies before it.
        self._enter(pool, code_at)

    def _enter(self, pool, code_at):
        """Jump over the pool: whoever comes to the prologue comes to its first word."""
        jump = Assembler(_RAM + pool)
        jump.add("jal", imm=code_at - pool)
        self._put(pool, jump.assemble())

    def _arm_timer(self, code):
        """mtimecmp = mtime and some ticks; x30 and x31 are free, x31 is kept."""
        code.load_address(30, _CLINT + CLINT["mtime"])
        code.add("ld", rd=29, rs1=30)
        code.add("addi", rd=29, rs1=29, imm=self._draw.randrange(1, 2 * self._profile.timer))
        code.load_address(30, _CLINT + CLINT["mtimecmp"])
        code.add("sd", rs1=30, rs2=29)

    def _last_prologue(self):
        code = Assembler(_RAM + self._prologue)
        code.load_address(31, self._finish)
        code.add("jalr", rs1=31)
        self._put(self._prologue, code.assemble())
        if self._prologue + 64 > _CODE * _PAGE:
            raise MemoryError("the prologues do not fit their pages")

    def _constants(self, start, privilege, space):
        """CSRs of the block, by name; mstatus last."""
        draw = self._draw
        handler = _RAM + _SUPERVISOR * _PAGE if space is None else space.handler
        pc = _RAM + start
        if space is not None:
            user = privilege == Privilege.USER
            if draw.random() < 0.04:
                user = not user
            pc = space.code[pc & ~(_PAGE - 1), user] | pc & _PAGE - 1
            if space.identity and not user and draw.random() < 0.3:
                pc = _RAM + start
        # Without the exceptions of the S-mode handler's own ecall it would call itself.
        delegable = DELEGABLE_EXCEPTIONS & ~(1 << Exception_.ECALL_FROM_SUPERVISOR)
        medeleg = draw.choice((0, delegable, draw.getrandbits(16) & delegable))
        counters = draw.choice((0, COUNTEREN.mask(), draw.getrandbits(32)))
        # The timer ends what would never end: wfi, and handlers that trap themselves.
        timer = INTERRUPTS["mti"].mask
        satp = draw.choice(self._roots)
        if space is not None:
            satp = SATP["asid"].insert(space.satp, draw.choice(self._asids))
        return {
            "satp": satp,
            "mie": draw.choice((INTERRUPTS.mask(), timer, timer | draw.getrandbits(12)))
            if draw.random() < 0.9
            else draw.getrandbits(12),
            "mideleg": draw.choice((0, DELEGABLE_INTERRUPTS, draw.getrandbits(12))),
            "medeleg": medeleg,
            "mtvec": _RAM | draw.getrandbits(1),
            "stvec": handler + draw.choice(SUPERVISOR_HANDLERS) | draw.getrandbits(1),
            "menvcfg": draw.choice((0, MENVCFG.mask(), MENVCFG["stce"].mask)),
            "mcounteren": counters,
            "scounteren": draw.choice((COUNTEREN.mask(), draw.getrandbits(32))),
            "mip": draw.choice((0, 0, DELEGABLE_INTERRUPTS, draw.getrandbits(12))),
            "stimecmp": draw.choice(((1 << 64) - 1, 0, draw.getrandbits(12))),
            "mscratch": draw.getrandbits(64),
            "mepc": pc,
            "mstatus": self._status(privilege),
        }

    def _status(self, privilege):
        draw = self._draw
        bits = {name: int(draw.random() < 0.5) for name in ("sum", "mxr", "mpie", "sie", "spie")}
        bits |= {name: int(draw.random() < 0.1) for name in ("tvm", "tw", "tsr")}
        if privilege == Privilege.MACHINE:
            bits["mprv"] = int(draw.random() < 0.15)
        return MSTATUS.encode(mpp=privilege, spp=draw.getrandbits(1), **bits)

    def _registers(self, space, privilege):
        """Values of x0 to x31."""
        draw = self._draw
        values = [self._number() for _ in range(32)]
        pages = [] if space is None else draw.choices(space.data, k=len(POINTERS))
        for n, register in enumerate(POINTERS):
            if pages and draw.random() < 0.9:
                gva, entry = pages[n]
                if n - 1 in range(len(ENTRY_REGISTERS)):
                    values[ENTRY_REGISTERS[n - 1]] = entry
            else:
                gva = _RAM + (_DATA + draw.randrange(_DATA_PAGES)) * _PAGE
            # Lines, words and pages end between the bytes of some accesses.
            values[register] = gva + draw.choice((0, 8, 0x3C, 0x7E0, 0xFC0, 0xFE0, 0xFF4, 0xFFC))
        if space is None:
            for register in ENTRY_REGISTERS:
                entry = draw.choice(draw.choice(self._spaces).data)[1]
                values[register] = entry
        values[BAD_POINTER] = draw.choice(
            (
                0,
                1 << 38,
                (1 << 64) - (1 << 38) - 8,
                _RAM + RAM_SIZE - 4,
                _RAM + RAM_SIZE,
                1 << 56,
                (1 << 32) | _RAM,
                0x0010_0002,
                _CLINT,
                draw.getrandbits(64),
            )
        )
        values[ASID_REGISTER] = draw.choice(self._asids)
        for register, root in zip(ROOT_REGISTERS, self._roots, strict=True):
            values[register] = root
        return values

    def _number(self):
        draw = self._draw
        return draw.choice(CORNERS) if draw.random() < 0.4 else draw.getrandbits(64)

    # The bus master.

    def _host_writes(self):
        draw = self._draw
        if not self._profile.host_writes:
            return ()
        return tuple(
            HostWrites(draw.randrange(20, 600), tuple(self._write() for _ in range(4)))
            for _ in range(draw.randrange(4, 24))
        )

    def _write(self):
        draw = self._draw
        page = _RAM + (_DATA + draw.randrange(_DATA_PAGES)) * _PAGE
        offset = draw.choice((0, 8, 0x40, 0xFC0, draw.randrange(_PAGE - 64)))
        return page + offset, draw.randbytes(draw.choice((1, 2, 4, 8, 16, 64)))

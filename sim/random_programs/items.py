"""Items of random programs: short pieces of code that do one kind of thing."""

from dataclasses import dataclass
from random import Random

from rtl.arch.csrs import CSRS, INTERRUPTS, MSTATUS
from rtl.arch.instructions import COMPRESSED, IMMEDIATES, INSTRUCTIONS, RD, RS1, RS2, Format
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE
from rtl.arch.traps import Privilege
from sim.random_programs.profiles import Profile
from sim.random_programs.runtime import CLINT
from sim.random_programs.words import (
    ASID_REGISTER,
    BAD_POINTER,
    COUNTERS,
    ENTRY_REGISTERS,
    LINKS,
    POINTERS,
    RESULTS,
    ROOT_REGISTERS,
    SCRATCH,
    compressed_word,
    computing_word,
    load_or_store,
    word,
)

__all__ = ["CORNERS", "Body"]

_BRANCHES = [row.name for row in INSTRUCTIONS.values() if row.format == Format.B]
_ATOMICS = [row for row in INSTRUCTIONS.values() if row.name.startswith("amo")]
_CSR_OPERATIONS = [
    row.name for row in INSTRUCTIONS.values() if row.format in (Format.CSR, Format.CSR_IMMEDIATE)
]
_WRITABLE = [csr.number for csr in CSRS.values() if csr.writable]
_ALL_CSRS = [csr.number for csr in CSRS.values()]
_VECTORS = {CSRS[name].number for name in ("mtvec", "stvec")}
#: Values at which arithmetic turns a corner.
CORNERS = (
    0, 1, 2, 3, 7, 8, 63, 64, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1,
    1 << 63, (1 << 63) + 1, (1 << 64) - 1, (1 << 64) - 2, 0xFFFF_FFFF_8000_0000,
    0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA,
)  # fmt: skip
_CLINT = MEMORY_MAP["clint"].base
_S0, _S1 = SCRATCH


def _csr(name):
    return CSRS[name].number


@dataclass
class Body:
    """Draws the items of one block.

    Members
    -------
    privilege : Privilege
        What the code runs at, as far as its items tell.
    """

    draw: Random
    profile: Profile
    privilege: Privilege
    _depth: int = 0

    def items(self, count: int) -> list[bytes]:
        kinds = self.profile.kinds
        weights = [self.profile.weight(kind) for kind in kinds]
        return [getattr(self, f"_{kind}")() for kind in self.draw.choices(kinds, weights, k=count)]

    def _inner(self, most):
        """Code within another item; it does not nest far."""
        self._depth += 1
        draw = self.draw
        kinds = ["compute", "compressed", "memory", "multiply"]
        if self._depth < 3:
            kinds += ["branch", "indirect", "loop", "call", "csr", "atomic", "modify_code"]
        code = b"".join(
            getattr(self, f"_{draw.choice(kinds)}")() for _ in range(draw.randrange(most + 1))
        )
        self._depth -= 1
        return code

    # Computing.

    def _compute(self):
        return computing_word(self.draw)

    def _compressed(self):
        return compressed_word(self.draw)

    def _multiply(self):
        return computing_word(self.draw, multiply=True)

    def _corner(self):
        """A value at a corner, made in two or three instructions."""
        draw = self.draw
        rd = draw.choice(RESULTS[1:])
        made = word("addi", rd=rd, imm=draw.choice((-2, -1, 0, 1, 2, draw.randrange(-2048, 2048))))
        match draw.randrange(4):
            case 0:
                made += word("slli", rd=rd, rs1=rd, imm=draw.choice((31, 32, 62, 63)))
            case 1:
                made += word("slli", rd=rd, rs1=rd, imm=draw.choice((31, 32, 63)))
                made += word("addi", rd=rd, rs1=rd, imm=-1)
            case 2:
                made += word("srli", rd=rd, rs1=rd, imm=draw.choice((1, 31, 32, 33)))
            case 3:
                made = word("lui", rd=rd, imm=draw.choice((-(1 << 31), 0x7FFF_F000, 0x1000)))
        return made + computing_word(draw, multiply=draw.random() < 0.7)

    # Memory.

    def _memory(self):
        draw = self.draw
        if draw.random() < 0.3:  # a store and a load of the same place, right behind each other
            pointer, offset = draw.choice(POINTERS), draw.randrange(0, 64)
            store = draw.choice(("sb", "sh", "sw", "sd"))
            load = draw.choice(("lb", "lbu", "lh", "lhu", "lw", "lwu", "ld"))
            return (
                word(store, rs1=pointer, rs2=draw.choice(RESULTS), imm=offset)
                + (computing_word(draw) if draw.random() < 0.3 else b"")
                + word(
                    load, rd=draw.choice(RESULTS), rs1=pointer, imm=offset + draw.randrange(-4, 4)
                )
            )
        return load_or_store(draw)

    def _atomic(self):
        draw = self.draw
        row = draw.choice(_ATOMICS)
        bits = row.match | draw.choice(RESULTS) << 7 | draw.choice(RESULTS) << RS2[0]
        bits |= draw.randrange(4) << 25  # aq and rl change nothing on one hart
        pointer = draw.choice((*POINTERS, BAD_POINTER))
        return self._aligned(pointer) + (bits | _S0 << RS1[0]).to_bytes(4, "little")

    def _aligned(self, pointer):
        """Scratch register 0 = the pointer's address, aligned most of the time."""
        draw = self.draw
        made = word("addi", rd=_S0, rs1=pointer, imm=draw.randrange(0, 128))
        if draw.random() < 0.85:
            made += word("andi", rd=_S0, rs1=_S0, imm=-8)
        return made

    def _reserve(self):
        """lr and sc with something between, to the same line or another."""
        draw = self.draw
        size = draw.choice("wd")
        made = self._aligned(draw.choice(POINTERS))
        made += word(f"lr.{size}", rd=draw.choice(RESULTS), rs1=_S0)
        made += self._inner(2)
        if draw.random() < 0.3:
            made += word("addi", rd=_S0, rs1=_S0, imm=draw.choice((-64, -8, 8, 32, 64)))
        made += word(f"sc.{size}", rd=draw.choice(RESULTS), rs1=_S0, rs2=draw.choice(RESULTS))
        if draw.random() < 0.3:
            made += word(f"sc.{draw.choice('wd')}", rd=draw.choice(RESULTS), rs1=_S0, rs2=14)
        return made

    def _device(self):
        """Reads of the CLINT, and of whoever answers elsewhere below RAM."""
        draw = self.draw
        page = draw.choice((_CLINT, _CLINT + 0x4000, _CLINT + 0xB000, 0x0C00_0000, 0x1000))
        size = draw.choice(("lb", "lhu", "lw", "ld"))
        return word("lui", rd=_S0, imm=page) + word(
            size, rd=draw.choice(RESULTS), rs1=_S0, imm=draw.choice((0, 0, 4, 8, 0x7F8, 1))
        )

    # Control.

    def _branch(self):
        """A branch over some code."""
        draw = self.draw
        inner = self._inner(4)
        if draw.random() < 0.3 and len(inner) < 200:
            name = draw.choice(("c.beqz", "c.bnez", "c.j"))
            return self._short_branch(name, len(inner) + 2) + inner
        name = draw.choice(_BRANCHES)
        rs1, rs2 = draw.choice(RESULTS), draw.choice(RESULTS)
        return word(name, rs1=rs1, rs2=rs2, imm=len(inner) + 4) + inner

    def _short_branch(self, name, offset):
        row = COMPRESSED[name]
        bits = row.match | IMMEDIATES[row.format].insert(offset)
        if row.format == Format.CB:
            bits |= self.draw.choice((14, 15)) - 8 << 7
        return bits.to_bytes(2, "little")

    def _loop(self):
        if self._depth >= len(COUNTERS):
            return self._compute()
        draw = self.draw
        counter = COUNTERS[self._depth]
        inner = self._inner(5)
        made = word("addi", rd=counter, imm=draw.choice((1, 2, 3, 5, 9)))
        back = word("addi", rd=counter, rs1=counter, imm=-1)
        # Whichever way the loop ends, the predictor learns one thing or the other.
        return made + inner + back + word("bne", rs1=counter, imm=-len(inner) - len(back))

    def _call(self):
        if self._depth >= len(LINKS):
            return self._compute()
        link, draw = LINKS[self._depth], self.draw
        inner = self._inner(4)
        back = word("jalr", rs1=link) if draw.random() < 0.6 else self._short_jump("c.jr", link)
        over = word("jal", imm=4 + len(inner) + len(back))
        if link == 1 and draw.random() < 0.3:  # through a register
            calls = word("auipc", rd=_S0) + word("addi", rd=_S0, rs1=_S0, imm=14)
            return calls + self._short_jump("c.jalr", _S0) + over + inner + back
        calls = b""
        for n in range(draw.choice((1, 1, 2, 3)), 0, -1):
            calls += word("jal", rd=link, imm=4 * n + 4)
        return calls + over + inner + back

    @staticmethod
    def _short_jump(name, rs1):
        return (COMPRESSED[name].match | rs1 << RD[0]).to_bytes(2, "little")

    def _indirect(self):
        """A jump to one of four places, by a register."""
        draw = self.draw
        link = draw.choice((0, 0, *LINKS[self._depth : self._depth + 1]))
        odd = draw.choice((0, 0, 1))  # bit 0 of the target is ignored
        made = word("andi", rd=_S1, rs1=draw.choice(RESULTS), imm=3)
        made += word("slli", rd=_S1, rs1=_S1, imm=3)
        made += word("auipc", rd=_S0)
        made += word("add", rd=_S0, rs1=_S0, rs2=_S1)
        made += word("jalr", rd=link, rs1=_S0, imm=12 + odd)
        for n in range(4):
            made += computing_word(draw) + word("jal", imm=8 * (3 - n) + 4)
        return made

    # The privileged architecture.

    def _csr(self):
        draw = self.draw
        chance = draw.random()
        if chance < 0.6:
            number = draw.choice(_WRITABLE)
        elif chance < 0.9:
            number = draw.choice(_ALL_CSRS)
        else:
            number = draw.getrandbits(12)
        name = draw.choice(_CSR_OPERATIONS)
        if number in _VECTORS:
            # Written and put back: a trap behind a lost vector would end the program.
            return word("csrrw", rd=_S0, rs1=draw.choice(RESULTS), csr=number) + word(
                "csrrw", rd=draw.choice(RESULTS), rs1=_S0, csr=number
            )
        rd = draw.choice(RESULTS)
        if INSTRUCTIONS[name].format == Format.CSR_IMMEDIATE:
            return word(name, rd=rd, csr=number, imm=draw.randrange(32))
        return word(name, rd=rd, csr=number, rs1=draw.choice((*RESULTS, *POINTERS)))

    def _fence(self):
        draw = self.draw
        match draw.randrange(4):
            case 0:
                return word("fence.i")
            case 1:
                return (INSTRUCTIONS["fence"].match | draw.getrandbits(8) << 20).to_bytes(
                    4, "little"
                )
            case _:
                return self._sfence()

    def _sfence(self):
        draw = self.draw
        page = draw.choice((0, 0, *POINTERS[1:3], draw.choice(POINTERS)))
        return word("sfence.vma", rs1=page, rs2=draw.choice((0, 0, ASID_REGISTER, 14)))

    def _satp(self):
        """Another address space, with or without a fence; often used at once."""
        draw = self.draw
        made = word(
            draw.choice(("csrrw", "csrrw", "csrrw", "csrrs")),
            rd=draw.choice(RESULTS),
            rs1=draw.choice(ROOT_REGISTERS),
            csr=_csr("satp"),
        )
        if draw.random() < 0.4:
            made += self._sfence()
        return made + load_or_store(draw)

    def _privilege(self):
        """A return to another privilege, at the instruction behind it."""
        draw = self.draw
        if self.privilege == Privilege.USER:
            return word(draw.choice(("mret", "sret", "wfi", "ebreak", "sfence.vma")))
        if self.privilege == Privilege.MACHINE and draw.random() < 0.7:
            to = draw.choice((Privilege.USER, Privilege.SUPERVISOR, Privilege.MACHINE))
            mpp = MSTATUS["mpp"]
            made = word("lui", rd=_S1, imm=1 << 13) + word("addi", rd=_S1, rs1=_S1, imm=-2048)
            made += word("csrrc", rs1=_S1, csr=_csr("mstatus"))
            bits = mpp.insert(0, to)
            high, low = bits + 2048 & ~0xFFF, (bits & 0xFFF ^ 2048) - 2048
            made += word("lui", rd=_S1, imm=high) + word("addi", rd=_S1, rs1=_S1, imm=low)
            made += word("csrrs", rs1=_S1, csr=_csr("mstatus"))
            made += word("auipc", rd=_S0) + word("addi", rd=_S0, rs1=_S0, imm=16)
            made += word("csrrw", rs1=_S0, csr=_csr("mepc")) + word("mret")
        else:
            to = draw.choice((Privilege.USER, Privilege.SUPERVISOR))
            made = word("addi", rd=_S1, imm=MSTATUS["spp"].mask)
            set_ = "csrrs" if to == Privilege.SUPERVISOR else "csrrc"
            made += word(set_, rs1=_S1, csr=_csr("sstatus"))
            made += word("auipc", rd=_S0) + word("addi", rd=_S0, rs1=_S0, imm=16)
            made += word("csrrw", rs1=_S0, csr=_csr("sepc")) + word("sret")
        self.privilege = to
        return made

    def _trap(self):
        draw = self.draw
        match draw.randrange(6):
            case 0:
                return word("ebreak")
            case 1:
                return (draw.getrandbits(32) | 3).to_bytes(4, "little")
            case 2:
                return word(draw.choice(("lw", "ld", "sd", "sb")), rs1=BAD_POINTER)
            case 3:
                return word("jalr", rd=draw.choice((0, 1)), rs1=BAD_POINTER)
            case 4:
                return word(draw.choice(("mret", "sret", "sfence.vma")))
            case _:
                return b"\0\0"

    def _raw(self):
        return self.draw.getrandbits(32).to_bytes(4, "little")

    # What changes under the hart.

    def _modify_code(self):
        """Two instructions change places; one of them follows, the other one behind it."""
        draw = self.draw
        fence = draw.choice(("fence.i", "fence.i", "fence.i", "fence"))
        slots = [computing_word(draw), computing_word(draw)]
        if draw.random() < 0.4:
            slots[draw.randrange(2)] = word(draw.choice(_BRANCHES), rs1=14, rs2=15, imm=8)
        between = b"".join(computing_word(draw) for _ in range(draw.randrange(3)))
        first = 24 + len(between)
        return (
            word("auipc", rd=_S0)
            + word("lw", rd=_S1, rs1=_S0, imm=first)
            + word("lw", rd=RESULTS[1], rs1=_S0, imm=first + 4)
            + word("sw", rs1=_S0, rs2=_S1, imm=first + 4)
            + word("sw", rs1=_S0, rs2=RESULTS[1], imm=first)
            + word(fence)
            + between
            + slots[0]
            + slots[1]
        )

    def _modify_table(self):
        """Flags of a table entry change; the page is used before and after."""
        draw = self.draw
        n = draw.randrange(len(ENTRY_REGISTERS))
        entry, pointer = ENTRY_REGISTERS[n], POINTERS[1 + n]
        flags = [PTE[name].mask for name in ("v", "r", "w", "x", "u", "g", "a", "d")]
        change = draw.choice((*flags, 1 << PTE["ppn"].lsb, PTE.mask("a", "d"), PTE.mask("r", "w")))

        def use():
            name = draw.choice(("lw", "ld", "sd", "sb", "lbu"))
            if name[0] == "s":
                return word(name, rs1=pointer, rs2=draw.choice(RESULTS), imm=8)
            return word(name, rd=draw.choice(RESULTS), rs1=pointer, imm=8)

        made = use() if draw.random() < 0.6 else b""
        made += word("ld", rd=_S0, rs1=entry) + word("xori", rd=_S0, rs1=_S0, imm=change)
        made += word("sd", rs1=entry, rs2=_S0)
        if draw.random() < 0.6:
            asid = draw.choice((0, ASID_REGISTER))
            made += word("sfence.vma", rs1=draw.choice((0, pointer)), rs2=asid)
        return made + use() + (use() if draw.random() < 0.5 else b"")

    # Interrupts.

    def _interrupt(self):
        draw = self.draw
        pending = draw.choice([field.mask for field in INTERRUPTS.fields])
        machine = self.privilege == Privilege.MACHINE
        x = "m" if machine else "s"
        chance = draw.randrange(6)
        if chance == 0:
            return word("csrrsi", csr=_csr(f"{x}status"), imm=0x8 if machine else 0x2)
        if chance == 1:
            made = word("lui", rd=_S0, imm=pending + 2048 & ~0xFFF)
            made += word("addi", rd=_S0, rs1=_S0, imm=(pending & 0xFFF ^ 2048) - 2048)
            return made + word(
                draw.choice(("csrrs", "csrrc")),
                rs1=_S0,
                csr=_csr(f"{x}{draw.choice(('ip', 'ie'))}"),
            )
        if chance == 2:
            made = word("csrrs", rd=_S0, csr=_csr("time"))
            made += word("addi", rd=_S0, rs1=_S0, imm=draw.randrange(0, 6))
            return made + word("csrrw", rs1=_S0, csr=_csr("stimecmp")) + self._inner(6)
        if chance == 3:
            made = word("lui", rd=_S0, imm=_CLINT + CLINT["msip"])
            return made + word("addi", rd=_S1, imm=1) + word("sw", rs1=_S0, rs2=_S1)
        made = word("lui", rd=_S0, imm=_CLINT + CLINT["mtime"] + 2048 & ~0xFFF)
        low = (CLINT["mtime"] & 0xFFF ^ 2048) - 2048
        made += word("ld", rd=_S1, rs1=_S0, imm=low)
        made += word("addi", rd=_S1, rs1=_S1, imm=draw.randrange(0, 6))
        made += word("lui", rd=_S0, imm=_CLINT + CLINT["mtimecmp"])
        return made + word("sd", rs1=_S0, rs2=_S1)

    def _wait(self):
        """wfi; where it can be seen to it, the timer's interrupt is enabled and ends it."""
        if self.privilege != Privilege.MACHINE:
            return word("wfi")
        made = word("addi", rd=_S0, imm=INTERRUPTS["mti"].mask)
        return made + word("csrrs", rs1=_S0, csr=_csr("mie")) + word("wfi")

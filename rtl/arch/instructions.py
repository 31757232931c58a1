"""Instruction encodings of RV64IMAC_Zicsr_Zifencei_Zba_Zbb_Zbs, and the privileged ones.

Every row carries what an assembler, a decoder and a disassembler need; how the immediate of each
format is scattered over the word stands in ``IMMEDIATES``. Sources: RISC-V Unprivileged ISA,
"Instruction Set Listings" and "B" Extension for Bit Manipulation; Privileged Architecture,
"Instruction Set Listings".
"""

from dataclasses import dataclass
from enum import Enum, IntEnum

__all__ = [
    "BIT_MANIPULATION",
    "COMPRESSED",
    "COMPRESSED_NONZERO",
    "IMMEDIATES",
    "INSTRUCTIONS",
    "RD",
    "RS1",
    "RS2",
    "Format",
    "Immediate",
    "Instruction",
    "Opcode",
    "decode",
]


class Opcode(IntEnum):
    """Major opcodes, bits 6:0 of a 32-bit instruction."""

    LOAD = 0x03
    CUSTOM_0 = 0x0B
    MISC_MEM = 0x0F
    OP_IMM = 0x13
    AUIPC = 0x17
    OP_IMM_32 = 0x1B
    STORE = 0x23
    AMO = 0x2F
    OP = 0x33
    LUI = 0x37
    OP_32 = 0x3B
    BRANCH = 0x63
    JALR = 0x67
    JAL = 0x6F
    SYSTEM = 0x73


#: Register fields of a 32-bit instruction, as (lsb, width).
RD, RS1, RS2 = (7, 5), (15, 5), (20, 5)


@dataclass(frozen=True)
class Immediate:
    """Where an immediate's bits stand: rows of (instruction lsb, width, immediate lsb).

    ``signed`` immediates are sign-extended from bit ``width - 1``.
    """

    rows: tuple[tuple[int, int, int], ...]
    width: int
    signed: bool = True

    def extract(self, word: int) -> int:
        value = 0
        for lsb, width, place in self.rows:
            value |= (word >> lsb & (1 << width) - 1) << place
        if self.signed and value >> self.width - 1:
            value -= 1 << self.width
        return value

    def insert(self, value: int) -> int:
        """The instruction bits that encode ``value``. Raises ValueError when they cannot."""
        word = 0
        for lsb, width, place in self.rows:
            word |= (value >> place & (1 << width) - 1) << lsb
        if self.extract(word) != value:
            raise ValueError(f"immediate {value} cannot be encoded")
        return word


class Format(Enum):
    """Operand format of an instruction; the value is the assembler's operand order."""

    R = "rd, rs1, rs2"
    I = "rd, rs1, imm"  # noqa: E741 - the manual's name
    UNARY = "rd, rs1"
    SHIFT = "rd, rs1, shamt"
    SHIFT_W = "rd, rs1, shamt5"
    LOAD = "rd, imm(rs1)"
    S = "rs2, imm(rs1)"
    B = "rs1, rs2, offset"
    U = "rd, imm20"
    J = "rd, offset"
    CSR = "rd, csr, rs1"
    CSR_IMMEDIATE = "rd, csr, zimm"
    AMO = "rd, rs2, (rs1)"
    LR = "rd, (rs1)"
    FENCE = "fence"
    SFENCE = "rs1, rs2"
    NONE = ""
    CR = "c: rd/rs1, rs2"
    CR_MOVE = "c: rd, rs2"
    CR_JUMP = "c: rs1"
    CI = "c: rd/rs1, imm"
    CI_LOAD = "c: rd, imm"
    CI_LUI = "c: rd, nzimm"
    CI_SHIFT = "c: rd/rs1, shamt"
    CI_SP16 = "c: nzimm"
    CI_LWSP = "c: rd, uimm(sp) 4"
    CI_LDSP = "c: rd, uimm(sp) 8"
    CSS_SWSP = "c: rs2, uimm(sp) 4"
    CSS_SDSP = "c: rs2, uimm(sp) 8"
    CIW = "c: rd', nzuimm"
    CL_W = "c: rd', uimm(rs1') 4"
    CL_D = "c: rd', uimm(rs1') 8"
    CS_W = "c: rs2', uimm(rs1') 4"
    CS_D = "c: rs2', uimm(rs1') 8"
    CA = "c: rd'/rs1', rs2'"
    CB = "c: rs1', offset"
    CB_SHIFT = "c: rd'/rs1', shamt"
    CB_AND = "c: rd'/rs1', imm"
    CJ = "c: offset"


# fmt: off
IMMEDIATES = {
    Format.I: Immediate(((20, 12, 0),), 12),
    Format.LOAD: Immediate(((20, 12, 0),), 12),
    Format.SHIFT: Immediate(((20, 6, 0),), 6, signed=False),
    Format.SHIFT_W: Immediate(((20, 5, 0),), 5, signed=False),
    Format.S: Immediate(((7, 5, 0), (25, 7, 5)), 12),
    Format.B: Immediate(((8, 4, 1), (25, 6, 5), (7, 1, 11), (31, 1, 12)), 13),
    Format.U: Immediate(((12, 20, 12),), 32),
    Format.J: Immediate(((21, 10, 1), (20, 1, 11), (12, 8, 12), (31, 1, 20)), 21),
    Format.CSR_IMMEDIATE: Immediate(((15, 5, 0),), 5, signed=False),
    Format.CI: Immediate(((2, 5, 0), (12, 1, 5)), 6),
    Format.CI_LOAD: Immediate(((2, 5, 0), (12, 1, 5)), 6),
    Format.CI_LUI: Immediate(((2, 5, 12), (12, 1, 17)), 18),
    Format.CI_SHIFT: Immediate(((2, 5, 0), (12, 1, 5)), 6, signed=False),
    Format.CI_SP16: Immediate(((6, 1, 4), (2, 1, 5), (5, 1, 6), (3, 2, 7), (12, 1, 9)), 10),
    Format.CI_LWSP: Immediate(((4, 3, 2), (12, 1, 5), (2, 2, 6)), 8, signed=False),
    Format.CI_LDSP: Immediate(((5, 2, 3), (12, 1, 5), (2, 3, 6)), 9, signed=False),
    Format.CSS_SWSP: Immediate(((9, 4, 2), (7, 2, 6)), 8, signed=False),
    Format.CSS_SDSP: Immediate(((10, 3, 3), (7, 3, 6)), 9, signed=False),
    Format.CIW: Immediate(((6, 1, 2), (5, 1, 3), (11, 2, 4), (7, 4, 6)), 10, signed=False),
    Format.CL_W: Immediate(((6, 1, 2), (10, 3, 3), (5, 1, 6)), 7, signed=False),
    Format.CL_D: Immediate(((10, 3, 3), (5, 2, 6)), 8, signed=False),
    Format.CS_W: Immediate(((6, 1, 2), (10, 3, 3), (5, 1, 6)), 7, signed=False),
    Format.CS_D: Immediate(((10, 3, 3), (5, 2, 6)), 8, signed=False),
    Format.CB: Immediate(((3, 2, 1), (10, 2, 3), (2, 1, 5), (5, 2, 6), (12, 1, 8)), 9),
    Format.CB_SHIFT: Immediate(((2, 5, 0), (12, 1, 5)), 6, signed=False),
    Format.CB_AND: Immediate(((2, 5, 0), (12, 1, 5)), 6),
    Format.CJ: Immediate(((3, 3, 1), (11, 1, 4), (2, 1, 5), (7, 1, 6), (6, 1, 7),
                          (9, 2, 8), (8, 1, 10), (12, 1, 11)), 12),
}
# fmt: on


@dataclass(frozen=True)
class Instruction:
    """One row: a word is this instruction when ``word & mask == match``.

    ``expansion`` of a compressed instruction names the instruction it stands for.
    """

    name: str
    format: Format
    mask: int
    match: int
    extension: str
    expansion: str = ""

    @property
    def compressed(self) -> bool:
        return self.match & 3 != 3


def _row(name, extension, format_, opcode, *fixed, expansion=""):
    """A row from its opcode and fixed fields (lsb, width, value)."""
    mask, match = 0x7F, int(opcode)
    for lsb, width, value in fixed:
        mask |= (1 << width) - 1 << lsb
        match |= value << lsb
    return Instruction(name, format_, mask, match, extension, expansion)


def _funct3(value):
    return (12, 3, value)


def _funct7(value):
    return (25, 7, value)


def _exact(name, extension, word):
    return Instruction(name, Format.NONE, 0xFFFF_FFFF, word, extension)


def _integer():
    yield _row("lui", "i", Format.U, Opcode.LUI)
    yield _row("auipc", "i", Format.U, Opcode.AUIPC)
    yield _row("jal", "i", Format.J, Opcode.JAL)
    yield _row("jalr", "i", Format.I, Opcode.JALR, _funct3(0))
    for funct3, name in {0: "beq", 1: "bne", 4: "blt", 5: "bge", 6: "bltu", 7: "bgeu"}.items():
        yield _row(name, "i", Format.B, Opcode.BRANCH, _funct3(funct3))
    for funct3, name in enumerate(("lb", "lh", "lw", "ld", "lbu", "lhu", "lwu")):
        yield _row(name, "i", Format.LOAD, Opcode.LOAD, _funct3(funct3))
    for funct3, name in enumerate(("sb", "sh", "sw", "sd")):
        yield _row(name, "i", Format.S, Opcode.STORE, _funct3(funct3))
    immediates = {0: "addi", 2: "slti", 3: "sltiu", 4: "xori", 6: "ori", 7: "andi"}
    for funct3, name in immediates.items():
        yield _row(name, "i", Format.I, Opcode.OP_IMM, _funct3(funct3))
    shifts = {"slli": (1, 0), "srli": (5, 0), "srai": (5, 0x10)}
    for name, (funct3, funct6) in shifts.items():
        yield _row(name, "i", Format.SHIFT, Opcode.OP_IMM, _funct3(funct3), (26, 6, funct6))
        yield _row(
            name + "w",
            "i",
            Format.SHIFT_W,
            Opcode.OP_IMM_32,
            _funct3(funct3),
            _funct7(funct6 << 1),
        )
    yield _row("addiw", "i", Format.I, Opcode.OP_IMM_32, _funct3(0))
    registers = {
        "add": (0, 0), "sub": (0, 0x20), "sll": (1, 0), "slt": (2, 0), "sltu": (3, 0),
        "xor": (4, 0), "srl": (5, 0), "sra": (5, 0x20), "or": (6, 0), "and": (7, 0),
    }  # fmt: skip
    for name, (funct3, funct7) in registers.items():
        yield _row(name, "i", Format.R, Opcode.OP, _funct3(funct3), _funct7(funct7))
        if name in ("add", "sub", "sll", "srl", "sra"):
            yield _row(name + "w", "i", Format.R, Opcode.OP_32, _funct3(funct3), _funct7(funct7))
    yield _row("fence", "i", Format.FENCE, Opcode.MISC_MEM, _funct3(0))
    yield _row("fence.i", "zifencei", Format.FENCE, Opcode.MISC_MEM, _funct3(1))
    yield _exact("ecall", "i", 0x0000_0073)
    yield _exact("ebreak", "i", 0x0010_0073)


def _multiply():
    names = ("mul", "mulh", "mulhsu", "mulhu", "div", "divu", "rem", "remu")
    for funct3, name in enumerate(names):
        yield _row(name, "m", Format.R, Opcode.OP, _funct3(funct3), _funct7(1))
        if name in ("mul", "div", "divu", "rem", "remu"):
            yield _row(name + "w", "m", Format.R, Opcode.OP_32, _funct3(funct3), _funct7(1))


def _bit_manipulation():
    for number in (1, 2, 3):
        name, fixed = f"sh{number}add", (_funct3(2 * number), _funct7(0x10))
        yield _row(name, "zba", Format.R, Opcode.OP, *fixed)
        yield _row(name + ".uw", "zba", Format.R, Opcode.OP_32, *fixed)
    yield _row("add.uw", "zba", Format.R, Opcode.OP_32, _funct3(0), _funct7(0x04))
    yield _row("slli.uw", "zba", Format.SHIFT, Opcode.OP_IMM_32, _funct3(1), (26, 6, 0x02))

    registers = {
        "andn": (7, 0x20), "orn": (6, 0x20), "xnor": (4, 0x20), "rol": (1, 0x30), "ror": (5, 0x30),
        "min": (4, 0x05), "minu": (5, 0x05), "max": (6, 0x05), "maxu": (7, 0x05),
    }  # fmt: skip
    for name, (funct3, funct7) in registers.items():
        yield _row(name, "zbb", Format.R, Opcode.OP, _funct3(funct3), _funct7(funct7))
        if name in ("rol", "ror"):
            yield _row(name + "w", "zbb", Format.R, Opcode.OP_32, _funct3(funct3), _funct7(funct7))
    yield _row("rori", "zbb", Format.SHIFT, Opcode.OP_IMM, _funct3(5), (26, 6, 0x18))
    yield _row("roriw", "zbb", Format.SHIFT_W, Opcode.OP_IMM_32, _funct3(5), _funct7(0x30))
    unary = {
        "clz": (Opcode.OP_IMM, 1, 0x600), "clzw": (Opcode.OP_IMM_32, 1, 0x600),
        "ctz": (Opcode.OP_IMM, 1, 0x601), "ctzw": (Opcode.OP_IMM_32, 1, 0x601),
        "cpop": (Opcode.OP_IMM, 1, 0x602), "cpopw": (Opcode.OP_IMM_32, 1, 0x602),
        "sext.b": (Opcode.OP_IMM, 1, 0x604), "sext.h": (Opcode.OP_IMM, 1, 0x605),
        "zext.h": (Opcode.OP_32, 4, 0x080),
        "orc.b": (Opcode.OP_IMM, 5, 0x287), "rev8": (Opcode.OP_IMM, 5, 0x6B8),
    }  # fmt: skip
    for name, (opcode, funct3, funct12) in unary.items():
        yield _row(name, "zbb", Format.UNARY, opcode, _funct3(funct3), (20, 12, funct12))

    single = {"bclr": (1, 0x24), "bext": (5, 0x24), "binv": (1, 0x34), "bset": (1, 0x14)}
    for name, (funct3, funct7) in single.items():
        yield _row(name, "zbs", Format.R, Opcode.OP, _funct3(funct3), _funct7(funct7))
        fixed = (_funct3(funct3), (26, 6, funct7 >> 1))
        yield _row(name + "i", "zbs", Format.SHIFT, Opcode.OP_IMM, *fixed)


def _atomic():
    functions = {
        "amoadd": 0x00, "amoswap": 0x01, "lr": 0x02, "sc": 0x03, "amoxor": 0x04, "amoor": 0x08,
        "amoand": 0x0C, "amomin": 0x10, "amomax": 0x14, "amominu": 0x18, "amomaxu": 0x1C,
    }  # fmt: skip
    for name, funct5 in functions.items():
        for funct3, suffix in ((2, ".w"), (3, ".d")):
            fixed = [_funct3(funct3), (27, 5, funct5)]
            if name == "lr":
                fixed.append((20, 5, 0))
            format_ = Format.LR if name == "lr" else Format.AMO
            yield _row(name + suffix, "a", format_, Opcode.AMO, *fixed)


def _system():
    for funct3, name in ((1, "csrrw"), (2, "csrrs"), (3, "csrrc")):
        yield _row(name, "zicsr", Format.CSR, Opcode.SYSTEM, _funct3(funct3))
        yield _row(name + "i", "zicsr", Format.CSR_IMMEDIATE, Opcode.SYSTEM, _funct3(funct3 + 4))
    yield _exact("sret", "s", 0x1020_0073)
    yield _exact("mret", "m-mode", 0x3020_0073)
    yield _exact("wfi", "m-mode", 0x1050_0073)
    yield _row("sfence.vma", "s", Format.SFENCE, Opcode.SYSTEM, (7, 8, 0), _funct7(0x09))


def _compressed():
    # Rows of (name, format, expansion, quadrant, funct3, further fixed fields). Where two rows
    # match one word, the earlier one holds; "decode" relies on that order.
    two = (
        ("c.addi4spn", Format.CIW, "addi", 0, 0),
        ("c.lw", Format.CL_W, "lw", 0, 2),
        ("c.ld", Format.CL_D, "ld", 0, 3),
        ("c.sw", Format.CS_W, "sw", 0, 6),
        ("c.sd", Format.CS_D, "sd", 0, 7),
        ("c.addi", Format.CI, "addi", 1, 0),
        ("c.addiw", Format.CI, "addiw", 1, 1),
        ("c.li", Format.CI_LOAD, "addi", 1, 2),
        ("c.addi16sp", Format.CI_SP16, "addi", 1, 3, (7, 5, 2)),
        ("c.lui", Format.CI_LUI, "lui", 1, 3),
        ("c.srli", Format.CB_SHIFT, "srli", 1, 4, (10, 2, 0)),
        ("c.srai", Format.CB_SHIFT, "srai", 1, 4, (10, 2, 1)),
        ("c.andi", Format.CB_AND, "andi", 1, 4, (10, 2, 2)),
        ("c.sub", Format.CA, "sub", 1, 4, (10, 3, 3), (5, 2, 0)),
        ("c.xor", Format.CA, "xor", 1, 4, (10, 3, 3), (5, 2, 1)),
        ("c.or", Format.CA, "or", 1, 4, (10, 3, 3), (5, 2, 2)),
        ("c.and", Format.CA, "and", 1, 4, (10, 3, 3), (5, 2, 3)),
        ("c.subw", Format.CA, "subw", 1, 4, (10, 3, 7), (5, 2, 0)),
        ("c.addw", Format.CA, "addw", 1, 4, (10, 3, 7), (5, 2, 1)),
        ("c.j", Format.CJ, "jal", 1, 5),
        ("c.beqz", Format.CB, "beq", 1, 6),
        ("c.bnez", Format.CB, "bne", 1, 7),
        ("c.slli", Format.CI_SHIFT, "slli", 2, 0),
        ("c.lwsp", Format.CI_LWSP, "lw", 2, 2),
        ("c.ldsp", Format.CI_LDSP, "ld", 2, 3),
        ("c.ebreak", Format.NONE, "ebreak", 2, 4, (12, 1, 1), (2, 10, 0)),
        ("c.jr", Format.CR_JUMP, "jalr", 2, 4, (12, 1, 0), (2, 5, 0)),
        ("c.jalr", Format.CR_JUMP, "jalr", 2, 4, (12, 1, 1), (2, 5, 0)),
        ("c.mv", Format.CR_MOVE, "add", 2, 4, (12, 1, 0)),
        ("c.add", Format.CR, "add", 2, 4, (12, 1, 1)),
        ("c.swsp", Format.CSS_SWSP, "sw", 2, 6),
        ("c.sdsp", Format.CSS_SDSP, "sd", 2, 7),
    )
    for name, format_, expansion, quadrant, funct3, *fixed in two:
        mask, match = 0xE003, funct3 << 13 | quadrant
        for lsb, width, value in fixed:
            mask |= (1 << width) - 1 << lsb
            match |= value << lsb
        yield Instruction(name, format_, mask, match, "c", expansion)


INSTRUCTIONS = {
    row.name: row
    for rows in (_integer, _multiply, _bit_manipulation, _atomic, _system)
    for row in rows()
}
#: Extensions a hart has together or not at all, by configuration.
BIT_MANIPULATION = ("zba", "zbb", "zbs")
COMPRESSED = {row.name: row for row in _compressed()}

#: Compressed encodings that are reserved although a row matches (Unprivileged ISA, "RVC
#: Instruction Set Listings"), by row: the bits of this mask must not all be zero.
COMPRESSED_NONZERO = {
    "c.addi4spn": 0x1FE0,
    "c.addiw": 0x0F80,
    "c.addi16sp": 0x107C,
    "c.lui": 0x107C,
    "c.lwsp": 0x0F80,
    "c.ldsp": 0x0F80,
    "c.jr": 0x0F80,
}


def _is_standard(row):
    return row.extension not in BIT_MANIPULATION


def decode(word: int, *, bit_manipulation: bool = True) -> Instruction | None:
    """The instruction whose bits stand in ``word`` (a compressed one in bits 15:0), or None.

    None means reserved or not implemented: the hart raises illegal instruction. Without
    ``bit_manipulation`` those extensions are not implemented.
    """
    if word & 3 == 3:
        rows = INSTRUCTIONS
    else:
        rows, word = COMPRESSED, word & 0xFFFF
    for row in rows.values():
        if word & row.mask == row.match:
            needed = COMPRESSED_NONZERO.get(row.name)
            if (needed and not word & needed) or not (bit_manipulation or _is_standard(row)):
                return None
            return row
    return None

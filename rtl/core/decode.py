"""What an instruction asks of the pipeline."""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.instructions import (
    BIT_MANIPULATION,
    IMMEDIATES,
    INSTRUCTIONS,
    RD,
    RS1,
    RS2,
    Format,
    Opcode,
)
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from rtl.core.execute.alu import AluOperation
from rtl.core.expand import pattern

__all__ = ["Decoder", "MemoryOperation", "SystemOperation", "Unit", "immediate_of", "reads_only"]


class Unit(enum.Enum, shape=4):
    """Who carries the instruction out."""

    ILLEGAL = 0
    ALU = 1
    BRANCH = 2
    JUMP = 3
    JUMP_REGISTER = 4
    MULTIPLY = 5
    DIVIDE = 6
    MEMORY = 7
    CSR = 8
    SYSTEM = 9
    COUNT = 10
    VMX = 11


class MemoryOperation(enum.Enum, shape=3):
    """What the load/store unit does; the width stands in funct3."""

    LOAD = 0
    STORE = 1
    LOAD_RESERVED = 2
    STORE_CONDITIONAL = 3
    AMO = 4


def reads_only(operation):
    """Whether a memory operation, given by its number, writes nothing."""
    return (operation == MemoryOperation.LOAD.value) | (
        operation == MemoryOperation.LOAD_RESERVED.value
    )


class SystemOperation(enum.Enum, shape=3):
    """Instructions carried out at commit."""

    FENCE = 0
    FENCE_I = 1
    ECALL = 2
    EBREAK = 3
    MRET = 4
    SRET = 5
    WFI = 6
    SFENCE_VMA = 7


@dataclass(frozen=True)
class _Control:
    """One decode row; ``operation`` belongs to the unit."""

    unit: Unit
    operation: int = 0
    rd: bool = False
    rs1: bool = False
    rs2: bool = False
    immediate: Format | None = None
    a_pc: bool = False
    b_immediate: bool = False
    unsigned_word: bool = False


_ALU = {
    "add": "ADD", "sub": "SUB", "sll": "SLL", "slt": "SLT", "sltu": "SLTU", "xor": "XOR",
    "srl": "SRL", "sra": "SRA", "or": "OR", "and": "AND",
    "sh1add": "SH1ADD", "sh2add": "SH2ADD", "sh3add": "SH3ADD",
    "andn": "ANDN", "orn": "ORN", "xnor": "XNOR", "rol": "ROL", "ror": "ROR",
    "min": "MIN", "minu": "MINU", "max": "MAX", "maxu": "MAXU",
    "sext.b": "SEXT_B", "sext.h": "SEXT_H", "zext.h": "ZEXT_H", "orc.b": "ORC_B", "rev8": "REV8",
    "bclr": "BCLR", "bext": "BEXT", "binv": "BINV", "bset": "BSET",
}  # fmt: skip
_SYSTEM = {
    "fence": "FENCE", "fence.i": "FENCE_I", "ecall": "ECALL", "ebreak": "EBREAK", "mret": "MRET",
    "sret": "SRET", "wfi": "WFI", "sfence.vma": "SFENCE_VMA",
}  # fmt: skip


_COUNTS = ("clz", "ctz", "cpop")


def _alu_operation(name: str) -> int:
    name = name.removesuffix(".uw")
    if name not in _ALU:
        name = name.removesuffix("w")
    if name == "sltiu":
        name = "sltu"
    elif name not in _ALU:
        name = name.removesuffix("i")
    return AluOperation[_ALU[name]].value


def _control(row) -> _Control:
    """The decode row of an instruction, from its opcode and format."""
    opcode = Opcode(row.match & 0x7F)
    name, format_ = row.name, row.format
    add = AluOperation.ADD.value
    match opcode:
        case Opcode.LUI:
            return _Control(Unit.ALU, add, rd=True, immediate=Format.U, b_immediate=True)
        case Opcode.AUIPC:
            return _Control(Unit.ALU, add, rd=True, immediate=Format.U, a_pc=True, b_immediate=True)
        case Opcode.JAL:
            return _Control(Unit.JUMP, add, rd=True, immediate=Format.J)
        case Opcode.JALR:
            return _Control(
                Unit.JUMP_REGISTER, add, True, True, immediate=Format.I, b_immediate=True
            )
        case Opcode.BRANCH:
            return _Control(Unit.BRANCH, add, rs1=True, rs2=True, immediate=Format.B)
        case Opcode.LOAD:
            load = MemoryOperation.LOAD.value
            return _Control(Unit.MEMORY, load, True, True, immediate=Format.I, b_immediate=True)
        case Opcode.STORE:
            store = MemoryOperation.STORE.value
            return _Control(
                Unit.MEMORY, store, rs1=True, rs2=True, immediate=Format.S, b_immediate=True
            )
        case Opcode.AMO:
            kind = {"lr": MemoryOperation.LOAD_RESERVED, "sc": MemoryOperation.STORE_CONDITIONAL}
            operation = kind.get(name[:2], MemoryOperation.AMO).value
            return _Control(Unit.MEMORY, operation, True, True, True, b_immediate=True)
        case Opcode.OP_IMM | Opcode.OP_IMM_32 if name.removesuffix("w") in _COUNTS:
            return _Control(Unit.COUNT, row.match >> 20 & 3, True, True)
        case Opcode.OP_IMM | Opcode.OP_IMM_32:
            return _Control(
                Unit.ALU,
                _alu_operation(name),
                True,
                True,
                immediate=Format.I,
                b_immediate=True,
                unsigned_word=name.endswith(".uw"),
            )
        case Opcode.OP | Opcode.OP_32 if row.extension == "m":
            unit = Unit.DIVIDE if row.match >> 14 & 1 else Unit.MULTIPLY
            return _Control(unit, row.match >> 12 & 3, True, True, True)
        case Opcode.OP | Opcode.OP_32:
            return _Control(
                Unit.ALU,
                _alu_operation(name),
                True,
                True,
                format_ is Format.R,
                unsigned_word=name.endswith(".uw"),
            )
        case Opcode.SYSTEM if format_ is Format.CSR:
            return _Control(Unit.CSR, 0, True, True, immediate=Format.I)
        case Opcode.SYSTEM if format_ is Format.CSR_IMMEDIATE:
            return _Control(Unit.CSR, 0, True, immediate=Format.I)
        case Opcode.SYSTEM | Opcode.MISC_MEM:
            uses = format_ is Format.SFENCE
            operation = SystemOperation[_SYSTEM[name]].value
            return _Control(Unit.SYSTEM, operation, rs1=uses, rs2=uses)
        case Opcode.CUSTOM_0:
            operands = VMX_INSTRUCTIONS[name]
            uses = {part: bool(getattr(operands, part)) for part in ("rd", "rs1", "rs2")}
            return _Control(Unit.VMX, row.match >> 25, **uses)
        case _:
            raise AssertionError(f"no decode row for {name}")


class Decoder(wiring.Component):
    """Decode a 32-bit ``instruction`` (a compressed one expanded); combinational.

    Parameters
    ----------
    bit_manipulation : bool
        Zba, Zbb and Zbs are legal.
    vmx : bool
        The VMX instructions are.

    Members
    -------
    unit, operation : Unit, and the unit's operation
        ALU: an AluOperation. BRANCH: see ``funct3``. MULTIPLY, DIVIDE: funct3[1:0]. MEMORY: a
        MemoryOperation, with the AMO function in ``funct5``. SYSTEM: a SystemOperation. COUNT: a
        CountOperation. VMX: funct7.
    word : 1
        The operation is on 32 bits (the *W instructions).
    unsigned_word : 1
        Only the low 32 bits of rs1 count (the *.UW instructions).
    rd, rs1, rs2 : 5
        Register numbers, 0 where the instruction has none.
    immediate : signed(32)
    a_pc, b_immediate : 1
        Operands other than rs1 and rs2; with ``a_pc`` the result is pc + immediate.
    """

    instruction: In(32)
    unit: Out(Unit)
    operation: Out(5)
    word: Out(1)
    unsigned_word: Out(1)
    funct3: Out(3)
    funct5: Out(5)
    rd: Out(5)
    rs1: Out(5)
    rs2: Out(5)
    immediate: Out(signed(32))
    a_pc: Out(1)
    b_immediate: Out(1)

    def __init__(self, *, bit_manipulation, vmx):
        self._bit_manipulation = bit_manipulation
        self._vmx = vmx
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        word = self.instruction
        m.d.comb += [
            self.word.eq(word[3]),
            self.funct3.eq(word[12:15]),
            self.funct5.eq(word[27:32]),
        ]
        # Rows are grouped by opcode and funct3, so that simulation tests few patterns.
        groups: dict[int, dict[int, list]] = {}
        rows = [*INSTRUCTIONS.values()]
        if self._vmx:
            rows += [operands.encoding for operands in VMX_INSTRUCTIONS.values()]
        for row in rows:
            if row.extension in BIT_MANIPULATION and not self._bit_manipulation:
                continue
            functions = groups.setdefault(row.match >> 2 & 0x1F, {})
            for funct3 in range(8):
                if (row.match >> 12 ^ funct3) & (row.mask >> 12 & 7) == 0:
                    functions.setdefault(funct3, []).append(row)
        with m.If(word[:2] == 3), m.Switch(word[2:7]):
            for opcode, functions in groups.items():
                with m.Case(opcode), m.Switch(word[12:15]):
                    for funct3, rows in functions.items():
                        with m.Case(funct3):
                            self._rows(m, rows)
        return m

    def _rows(self, m, rows):
        word = self.instruction
        with m.Switch(word):
            for row in rows:
                with m.Case(pattern(row.mask, row.match, 32)):
                    control = _control(row)
                    m.d.comb += [
                        self.unit.eq(control.unit),
                        self.operation.eq(control.operation),
                        self.a_pc.eq(control.a_pc),
                        self.b_immediate.eq(control.b_immediate),
                    ]
                    if control.unsigned_word or row.name == "zext.h":
                        # They stand among the *W instructions, and are none.
                        m.d.comb += [self.word.eq(0), self.unsigned_word.eq(control.unsigned_word)]
                    for used, port, (lsb, width) in (
                        (control.rd, self.rd, RD),
                        (control.rs1, self.rs1, RS1),
                        (control.rs2, self.rs2, RS2),
                    ):
                        if used:
                            m.d.comb += port.eq(word[lsb : lsb + width])
                    if control.immediate is not None:
                        m.d.comb += self.immediate.eq(immediate_of(word, control.immediate))


def immediate_of(word, format_):
    """The immediate of an instruction of that format."""
    immediate = IMMEDIATES[format_]
    bits = [Const(0, 1)] * immediate.width
    for lsb, width, place in immediate.rows:
        bits[place : place + width] = list(word[lsb : lsb + width])
    return Cat(*bits).as_signed()

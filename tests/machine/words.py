"""Machine code from the rows of ``rtl.arch.instructions``, for programs made on the spot."""

from rtl.arch.instructions import IMMEDIATES, INSTRUCTIONS, RD, RS1, RS2, Format

__all__ = ["code", "encode", "li"]

#: Which register fields the formats have.
_REGISTERS = {
    Format.R: (RD, RS1, RS2),
    Format.I: (RD, RS1),
    Format.SHIFT: (RD, RS1),
    Format.SHIFT_W: (RD, RS1),
    Format.LOAD: (RD, RS1),
    Format.S: (RS1, RS2),
    Format.B: (RS1, RS2),
    Format.U: (RD,),
    Format.J: (RD,),
    Format.CSR: (RD, RS1),
    Format.CSR_IMMEDIATE: (RD,),
    Format.AMO: (RD, RS1, RS2),
    Format.LR: (RD, RS1),
    Format.FENCE: (),
    Format.SFENCE: (RS1, RS2),
    Format.NONE: (),
}
_CSR_LSB = 20


def encode(name, *, rd=0, rs1=0, rs2=0, imm=0, csr=0):
    """The word of a 32-bit instruction. Raises ValueError when an operand does not fit."""
    row = INSTRUCTIONS[name]
    word = row.match | csr << _CSR_LSB
    fields = _REGISTERS[row.format]
    for field, number in ((RD, rd), (RS1, rs1), (RS2, rs2)):
        if number and field not in fields:
            raise ValueError(f"{name} has no such register")
        word |= number << field[0]
    if row.format in IMMEDIATES:
        word |= IMMEDIATES[row.format].insert(imm)
    elif imm:
        raise ValueError(f"{name} has no immediate")
    return word


def li(rd, value):
    """Words that put the 32-bit ``value``, sign-extended, into a register."""
    low = (value & 0xFFF ^ 0x800) - 0x800
    high = (value - low & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31)
    return [
        encode("lui", rd=rd, imm=high),
        encode("addiw", rd=rd, rs1=rd, imm=low),
    ]


def code(*words):
    """The bytes of a sequence of words."""
    return b"".join(word.to_bytes(4, "little") for word in words)

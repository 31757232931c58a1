"""A program of every instruction of Zba, Zbb and Zbs with operands at which something changes."""

import random

from rtl.arch.instructions import BIT_MANIPULATION, INSTRUCTIONS, RD, RS1, RS2
from rtl.arch.memory_map import MEMORY_MAP
from sw_vmm.assembler import Assembler

__all__ = ["TRIES", "bit_manipulation_program"]

RAM = MEMORY_MAP["ram"].base
#: Times each instruction is tried.
TRIES = 16
_DATA = RAM + 0x4_0000
_POINTER, _A, _B, _RESULT = 5, 6, 7, 10
_FIELDS = 31 << RD[0] | 31 << RS1[0] | 31 << RS2[0]


def _operand(draw):
    kind = draw.randrange(4)
    if kind == 0:
        return draw.getrandbits(64)
    if kind == 1:
        return draw.getrandbits(64) >> draw.randrange(64)
    if kind == 2:
        return draw.getrandbits(64) << draw.randrange(64) & (1 << 64) - 1
    return draw.choice((0, 1, (1 << 64) - 1, 1 << 63, 1 << 31, (1 << 32) - 1, 0x80, 0x8000))


def bit_manipulation_program(seed: int) -> bytes:
    """The bytes of RAM from its start; it ends by the test finisher."""
    draw = random.Random(seed)
    code, data = Assembler(RAM), b""
    code.load_address(_POINTER, _DATA)
    for row in INSTRUCTIONS.values():
        if row.extension not in BIT_MANIPULATION:
            continue
        for _ in range(TRIES):
            a = _operand(draw)
            if row.name == "ctzw":
                # QEMU 7.2 looks for the one in the upper word too.
                a |= 1 << draw.randrange(32)
            b = draw.choice((_operand(draw), a))
            data += a.to_bytes(8, "little") + b.to_bytes(8, "little")
            code.add("ld", rd=_A, rs1=_POINTER, imm=0)
            code.add("ld", rd=_B, rs1=_POINTER, imm=8)
            code.add("addi", rd=_POINTER, rs1=_POINTER, imm=16)
            registers = _RESULT << RD[0] | _A << RS1[0] | _B << RS2[0]
            free = draw.getrandbits(32) & ~_FIELDS | registers
            if row.name.endswith(("i", "iw", "i.uw")):
                free = free & ~(31 << RS2[0]) | draw.getrandbits(5) << RS2[0]
            code.word(row.match | free & ~row.mask & 0xFFFF_FFFF)
    code.load_address(_A, MEMORY_MAP["finisher"].base)
    code.load_address(_B, 0x5555)
    code.add("sw", rs1=_A, rs2=_B)
    code.label("end")
    code.add("jal", to="end")
    text = code.assemble()
    assert len(text) <= _DATA - RAM
    return text.ljust(_DATA - RAM, b"\0") + data

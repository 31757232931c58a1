"""Instruction words with random operands, and the registers programs keep for a purpose."""

from random import Random

from rtl.arch.instructions import (
    BIT_MANIPULATION,
    COMPRESSED,
    IMMEDIATES,
    INSTRUCTIONS,
    RD,
    RS1,
    Format,
    Instruction,
    decode,
)
from sw_vmm.assembler import encode

__all__ = [
    "ASID_REGISTER",
    "BAD_POINTER",
    "COUNTERS",
    "ENTRY_REGISTERS",
    "LINKS",
    "POINTERS",
    "RESULTS",
    "ROOT_REGISTERS",
    "SCRATCH",
    "compressed_word",
    "computing_word",
    "halves",
    "load_or_store",
    "word",
]

# x1 and x5 link, by depth of calls; x6 and x7 count loops, by depth.
LINKS, COUNTERS = (1, 5), (6, 7)
#: Hold addresses of data; c.ld and c.ldsp find theirs here too.
POINTERS = (2, 8, 9, 10, 11, 13)
#: Holds an address that some access does not like.
BAD_POINTER = 12
#: Anything may be written to these.
RESULTS = (0, 3, 4, 14, 15, 16, 17, 18, 19, 20, 21)
ASID_REGISTER = 22
#: Addresses of the table entries that map what POINTERS[1] and POINTERS[2] point to.
ENTRY_REGISTERS = (24, 25)
#: Values for satp.
ROOT_REGISTERS = (23, 26, 27, 28, 29)
#: Free within one item.
SCRATCH = (30, 31)

_COMPUTING = [
    row
    for row in INSTRUCTIONS.values()
    if row.format in (Format.R, Format.I, Format.UNARY, Format.SHIFT, Format.SHIFT_W, Format.U)
    and row.name != "jalr"
]
_MULTIPLYING = [row for row in _COMPUTING if row.extension == "m"]
_MANIPULATING = [row for row in _COMPUTING if row.extension in BIT_MANIPULATION]
_PLAIN = [row for row in _COMPUTING if row not in (*_MULTIPLYING, *_MANIPULATING)]
_LOADS = [row for row in INSTRUCTIONS.values() if row.format == Format.LOAD]
_STORES = [row for row in INSTRUCTIONS.values() if row.format == Format.S]
_LEAVING = (Format.CB, Format.CJ, Format.CR_JUMP, Format.NONE)
_SHORT = [row for row in COMPRESSED.values() if row.format not in _LEAVING]
#: Compressed rows whose rd is bits 11:7, and those whose rd is x8 to x15 in bits 4:2 or 9:7.
_FULL_RD = (Format.CR, Format.CR_MOVE, Format.CI, Format.CI_LOAD, Format.CI_LUI, Format.CI_SHIFT,
            Format.CI_LWSP, Format.CI_LDSP)  # fmt: skip
_LOW_RD = (Format.CIW, Format.CL_W, Format.CL_D)
_HIGH_RD = (Format.CA, Format.CB_SHIFT, Format.CB_AND)
_SHORT_RESULTS = [register for register in RESULTS if 8 <= register < 16]


def halves(*words: int) -> bytes:
    """Instructions as they stand in memory, compressed ones in two bytes."""
    return b"".join(w.to_bytes(4 if w & 3 == 3 else 2, "little") for w in words)


def word(name: str, **operands: int) -> bytes:
    """One uncompressed instruction in memory."""
    return encode(name, **operands).to_bytes(4, "little")


def _random(draw: Random, row: Instruction) -> int:
    return row.match | draw.getrandbits(32) & ~row.mask & 0xFFFF_FFFF


def _with(bits: int, place: tuple[int, int], value: int) -> int:
    lsb, width = place
    return bits & ~((1 << width) - 1 << lsb) | value << lsb


def _result(draw: Random) -> int:
    # Now and then a pointer is lost: what is done with it then must fault alike on both sides.
    return draw.choice(POINTERS) if draw.random() < 0.01 else draw.choice(RESULTS)


def computing_word(draw: Random, *, multiply: bool = False) -> bytes:
    """An instruction that computes."""
    # On a machine without bit manipulation these trap, and a program has only so many traps.
    plain = _MANIPULATING if draw.random() < 0.2 else _PLAIN
    row = draw.choice(_MULTIPLYING if multiply else plain)
    return _with(_random(draw, row), RD, _result(draw)).to_bytes(4, "little")


def compressed_word(draw: Random) -> bytes:
    """A compressed instruction that does not jump."""
    while True:
        row = draw.choice(_SHORT)
        bits = _random(draw, row) & 0xFFFF
        if row.format in _FULL_RD:
            bits = _with(bits, RD, _result(draw))
        elif row.format in _LOW_RD:
            bits = _with(bits, (2, 3), draw.choice(_SHORT_RESULTS) - 8)
        elif row.format in _HIGH_RD:
            bits = _with(bits, (7, 3), draw.choice(_SHORT_RESULTS) - 8)
        if row.format in (Format.CL_W, Format.CL_D, Format.CS_W, Format.CS_D):
            pointer = draw.choice([p for p in (*POINTERS, BAD_POINTER) if 8 <= p < 16])
            bits = _with(bits, (7, 3), pointer - 8)
        # Another row may match now (c.lui to x2 moves the stack pointer, which is a pointer).
        found = decode(bits)
        if found is row or (found is None and draw.random() < 0.02):
            return bits.to_bytes(2, "little")


def load_or_store(draw: Random, *, near: int = 64) -> bytes:
    """A load or store at a pointer; most offsets are below ``near``."""
    row = draw.choice(_LOADS + _STORES)
    size = 1 << (row.match >> 12 & 3)
    offset = draw.randrange(-8, near) if draw.random() < 0.8 else draw.randrange(-2048, 2048)
    if draw.random() < 0.6:
        offset &= -size
    pointer = BAD_POINTER if draw.random() < 0.04 else draw.choice(POINTERS)
    bits = row.match | pointer << RS1[0] | IMMEDIATES[row.format].insert(offset)
    if row.format == Format.LOAD:
        bits |= _result(draw) << RD[0]
    else:
        bits |= draw.randrange(32) << 20
    return bits.to_bytes(4, "little")

"""Instruction words to operations and operands; compressed ones become what they stand for."""

from functools import cache
from typing import NamedTuple

from rtl.arch.instructions import IMMEDIATES, RD, RS1, RS2, Format
from rtl.arch.instructions import decode as find_row

__all__ = ["Decoded", "decode"]

_LINK, _STACK = 1, 2


class Decoded(NamedTuple):
    """One instruction: what it does (``name`` of an uncompressed row) and with what.

    ``immediate`` is the CSR number of a CSR instruction, and ``rs1`` the immediate of its
    immediate form. Registers an instruction does not have are 0.
    """

    name: str
    rd: int
    rs1: int
    rs2: int
    immediate: int
    length: int
    word: int


def _field(word: int, field: tuple[int, int]) -> int:
    return word >> field[0] & (1 << field[1]) - 1


#: Register fields of compressed instructions: full width, and the three-bit forms (x8 to x15).
_C_RD, _C_RS2 = (7, 5), (2, 5)
_C_HIGH, _C_LOW = (7, 3), (2, 3)


def _short(word: int, field: tuple[int, int]) -> int:
    return 8 + _field(word, field)


def _compressed_registers(row, word: int) -> tuple[int, int, int]:
    """rd, rs1 and rs2 of what a compressed instruction stands for."""
    full, rs2 = _field(word, _C_RD), _field(word, _C_RS2)
    high, low = _short(word, _C_HIGH), _short(word, _C_LOW)
    match row.format:
        case Format.CR:
            return full, full, rs2
        case Format.CR_MOVE:
            return full, 0, rs2
        case Format.CR_JUMP:
            return (_LINK if row.name == "c.jalr" else 0), full, 0
        case Format.CI | Format.CI_SHIFT:
            return full, full, 0
        case Format.CI_LOAD | Format.CI_LUI:
            return full, 0, 0
        case Format.CI_SP16:
            return _STACK, _STACK, 0
        case Format.CI_LWSP | Format.CI_LDSP:
            return full, _STACK, 0
        case Format.CSS_SWSP | Format.CSS_SDSP:
            return 0, _STACK, rs2
        case Format.CIW:
            return low, _STACK, 0
        case Format.CL_W | Format.CL_D:
            return low, high, 0
        case Format.CS_W | Format.CS_D:
            return 0, high, low
        case Format.CA:
            return high, high, low
        case Format.CB:
            return 0, high, 0
        case Format.CB_SHIFT | Format.CB_AND:
            return high, high, 0
        case Format.CJ | Format.NONE:
            return 0, 0, 0
    raise AssertionError(f"{row.name} has an unknown format")


_WITHOUT_RD = frozenset({Format.S, Format.B, Format.FENCE, Format.SFENCE, Format.NONE})
_WITH_RS2 = frozenset({Format.R, Format.S, Format.B, Format.AMO, Format.SFENCE})
_WITHOUT_RS1 = frozenset({Format.U, Format.J, Format.FENCE, Format.NONE})
_CSR = frozenset({Format.CSR, Format.CSR_IMMEDIATE})
_CSR_NUMBER = (20, 12)


@cache
def decode(word: int, bit_manipulation: bool = True) -> Decoded | None:
    """The instruction in ``word`` (a compressed one in bits 15:0), or None when it is illegal.

    Zba, Zbb and Zbs are illegal without ``bit_manipulation``.
    """
    row = find_row(word, bit_manipulation=bit_manipulation)
    if row is None:
        return None
    immediate = IMMEDIATES[row.format].extract(word) if row.format in IMMEDIATES else 0
    if row.compressed:
        word &= 0xFFFF
        rd, rs1, rs2 = _compressed_registers(row, word)
        return Decoded(row.expansion, rd, rs1, rs2, immediate, 2, word)
    rd = 0 if row.format in _WITHOUT_RD else _field(word, RD)
    rs1 = 0 if row.format in _WITHOUT_RS1 else _field(word, RS1)
    rs2 = _field(word, RS2) if row.format in _WITH_RS2 else 0
    if row.format in _CSR:
        immediate = _field(word, _CSR_NUMBER)
    return Decoded(row.name, rd, rs1, rs2, immediate, 4, word)

"""Instruction words taken apart: which instruction, which registers, which immediate."""

from collections.abc import Callable

from rtl.arch.instructions import IMMEDIATES, RD, RS1, RS2, Format, decode
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from sim.golden import integer, memory_operations, system
from sim.golden.vmx import instructions as vmx

__all__ = ["BIT_MANIPULATION", "NO_REGISTER", "VMX", "Decoded", "decoded"]

#: Extensions that may be there, to be added.
BIT_MANIPULATION, VMX = 1, 2

#: Where results for x0 go: a register nobody reads.
NO_REGISTER = 32
_WORD = (1 << 64) - 1
_LINK, _STACK = 1, 2

_EXECUTE = {
    **integer.EXECUTE,
    **memory_operations.EXECUTE,
    **system.EXECUTE,
    **vmx.EXECUTE,
}


class Decoded:
    """An instruction ready to be executed by ``execute(hart, decoded)``.

    ``rd`` is NO_REGISTER where nothing is written; ``immediate`` is modulo 2**64; ``name`` is that
    of the uncompressed instruction.
    """

    __slots__ = ("bits", "execute", "immediate", "length", "name", "rd", "rs1", "rs2")

    def __init__(self, bits: int, name: str, execute: Callable, rd, rs1, rs2, immediate):
        self.bits = bits
        self.name = name
        self.execute = execute
        self.length = 4 if bits & 3 == 3 else 2
        self.rd = rd or NO_REGISTER
        self.rs1, self.rs2 = rs1, rs2
        self.immediate = immediate & _WORD


#: By the extensions there are.
_CACHES: tuple[dict[int, Decoded], ...] = ({}, {}, {}, {})
_CACHE_SIZE = 1 << 17


def decoded(bits: int, extensions: int = BIT_MANIPULATION) -> Decoded:
    """The instruction in ``bits``; a word that is none decodes to illegal instruction."""
    cache = _CACHES[extensions]
    found = cache.get(bits)
    if found is None:
        if len(cache) >= _CACHE_SIZE:
            cache.clear()
        found = cache[bits] = _decode(bits, extensions)
    return found


def _decode(bits, extensions):
    row = decode(bits, bit_manipulation=bool(extensions & BIT_MANIPULATION))
    if row is None and extensions & VMX:
        row = _vmx_instruction(bits)
    if row is None:
        return Decoded(bits, "illegal", system.illegal, 0, 0, 0, 0)
    name = row.expansion or row.name
    rd, rs1, rs2 = _registers(row, bits)
    immediate = IMMEDIATES[row.format].extract(bits) if row.format in IMMEDIATES else 0
    if name not in _EXECUTE:
        raise NotImplementedError(f"the golden model does not know {name}")
    return Decoded(bits, name, _EXECUTE[name], rd, rs1, rs2, immediate)


def _vmx_instruction(bits):
    encodings = (row.encoding for row in VMX_INSTRUCTIONS.values())
    return next((row for row in encodings if bits & row.mask == row.match), None)


def _field(bits, place):
    lsb, width = place
    return bits >> lsb & (1 << width) - 1


def _registers(row, bits):
    """rd, rs1 and rs2; 0 where the instruction has none."""
    rd, rs1, rs2 = _field(bits, RD), _field(bits, RS1), _field(bits, RS2)
    # Compressed instructions: five bits from 7 and from 2, or three bits that name x8 to x15.
    low = bits >> 2 & 31
    short1, short2 = 8 + (bits >> 7 & 7), 8 + (bits >> 2 & 7)
    match row.format:
        case Format.R | Format.AMO:
            return rd, rs1, rs2
        case (
            Format.I
            | Format.UNARY
            | Format.SHIFT
            | Format.SHIFT_W
            | Format.LOAD
            | Format.CSR
            | Format.LR
        ):
            return rd, rs1, 0
        case Format.S | Format.B | Format.SFENCE:
            return 0, rs1, rs2
        case Format.U | Format.J | Format.CSR_IMMEDIATE:
            return rd, 0, 0
        case Format.CR:
            return rd, rd, low
        case Format.CR_MOVE:
            return rd, 0, low
        case Format.CR_JUMP:
            return (_LINK if row.name == "c.jalr" else 0), rd, 0
        case Format.CI | Format.CI_SHIFT:
            return rd, rd, 0
        case Format.CI_LOAD | Format.CI_LUI:
            return rd, 0, 0
        case Format.CI_SP16:
            return _STACK, _STACK, 0
        case Format.CI_LWSP | Format.CI_LDSP:
            return rd, _STACK, 0
        case Format.CSS_SWSP | Format.CSS_SDSP:
            return 0, _STACK, low
        case Format.CIW:
            return short2, _STACK, 0
        case Format.CL_W | Format.CL_D:
            return short2, short1, 0
        case Format.CS_W | Format.CS_D:
            return 0, short1, short2
        case Format.CA:
            return short1, short1, short2
        case Format.CB:
            return 0, short1, 0
        case Format.CB_SHIFT | Format.CB_AND:
            return short1, short1, 0
        case Format.CJ | Format.FENCE | Format.NONE:
            return 0, 0, 0
    raise AssertionError(f"no operands for {row.format}")

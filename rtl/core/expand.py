"""Compressed instructions become the 32-bit instructions they stand for."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.instructions import (
    COMPRESSED,
    COMPRESSED_NONZERO,
    IMMEDIATES,
    INSTRUCTIONS,
    RD,
    RS1,
    RS2,
    Format,
    Instruction,
)

__all__ = ["Expander", "pattern"]


def pattern(mask: int, match: int, width: int) -> str:
    """The ``Case`` pattern of a word whose ``mask`` bits are those of ``match``."""
    return "".join(
        "-" if not mask >> bit & 1 else str(match >> bit & 1) for bit in reversed(range(width))
    )


class Expander(wiring.Component):
    """Expand ``compressed`` (the 16-bit instruction); combinational.

    ``expanded`` is zero, which is no instruction, when the encoding is reserved.
    """

    compressed: In(16)
    expanded: Out(32)

    def elaborate(self, platform):
        m = Module()
        word = self.compressed
        # Rows of one quadrant and funct3 share a case, so that simulation tests few patterns.
        groups: dict[int, list[Instruction]] = {}
        for row in COMPRESSED.values():
            groups.setdefault((row.match & 3) << 3 | row.match >> 13, []).append(row)
        with m.Switch(Cat(word[13:16], word[:2])):
            for key, rows in groups.items():
                with m.Case(key), m.Switch(word):
                    for row in rows:
                        with m.Case(pattern(row.mask, row.match, 16)):
                            self._expand(m, row)
        return m

    def _expand(self, m, row):
        needed = COMPRESSED_NONZERO.get(row.name)
        expansion = self._expansion(row)
        if needed is None:
            m.d.comb += self.expanded.eq(expansion)
        else:
            with m.If((self.compressed & needed).any()):
                m.d.comb += self.expanded.eq(expansion)

    def _expansion(self, row: Instruction):
        word = self.compressed
        target = INSTRUCTIONS[row.expansion]
        bits = [Const(target.match >> bit & 1, 1) for bit in range(32)]
        full, full2 = word[7:12], word[2:7]
        short1 = Cat(word[7:10], Const(0b01, 2))
        short2 = Cat(word[2:5], Const(0b01, 2))
        zero, link, stack = Const(0, 5), Const(1, 5), Const(2, 5)
        link_jump = link if row.name == "c.jalr" else zero
        rd, rs1, rs2 = {
            Format.CR: (full, full, full2),
            Format.CR_MOVE: (full, zero, full2),
            Format.CR_JUMP: (link_jump, full, None),
            Format.CI: (full, full, None),
            Format.CI_LOAD: (full, zero, None),
            Format.CI_LUI: (full, None, None),
            Format.CI_SHIFT: (full, full, None),
            Format.CI_SP16: (stack, stack, None),
            Format.CI_LWSP: (full, stack, None),
            Format.CI_LDSP: (full, stack, None),
            Format.CSS_SWSP: (None, stack, full2),
            Format.CSS_SDSP: (None, stack, full2),
            Format.CIW: (short2, stack, None),
            Format.CL_W: (short2, short1, None),
            Format.CL_D: (short2, short1, None),
            Format.CS_W: (None, short1, short2),
            Format.CS_D: (None, short1, short2),
            Format.CA: (short1, short1, short2),
            Format.CB: (None, short1, zero),
            Format.CB_SHIFT: (short1, short1, None),
            Format.CB_AND: (short1, short1, None),
            Format.CJ: (zero, None, None),
            Format.NONE: (None, None, None),
        }[row.format]
        for (lsb, width), register in ((RD, rd), (RS1, rs1), (RS2, rs2)):
            if register is not None:
                bits[lsb : lsb + width] = list(register)
        source = IMMEDIATES.get(row.format)
        if source is not None:
            immediate = [Const(0, 1)] * 64
            for lsb, width, place in source.rows:
                immediate[place : place + width] = list(word[lsb : lsb + width])
            if source.signed:
                immediate[source.width :] = [immediate[source.width - 1]] * (64 - source.width)
            for lsb, width, place in IMMEDIATES[target.format].rows:
                bits[lsb : lsb + width] = immediate[place : place + width]
        return Cat(*bits)

"""Where instructions that count from their own pc point to, seen without decoding them whole."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.instructions import COMPRESSED, IMMEDIATES, INSTRUCTIONS, Format
from rtl.core.expand import pattern

__all__ = ["DirectTarget"]

#: Bits 6:0, the major opcode.
_OPCODE = 0x7F


class DirectTarget(wiring.Component):
    """Recognize direct jumps and branches, compressed or not, and auipc.

    The adder for targets and the guess about unknown branches follow: both would come too late
    behind the decoder. Encodings of branches that are reserved count as branches.

    Members
    -------
    bits : In(32)
        The instruction as it stands in memory.
    jumps, branches : Out(1)
    offset : Out(signed(32))
        What is added to the pc, if it is one of these or auipc.
    """

    bits: In(32)
    jumps: Out(1)
    branches: Out(1)
    offset: Out(signed(32))

    def elaborate(self, platform):
        m = Module()
        plain = (("jal", self.jumps), ("beq", self.branches), ("auipc", None))
        rows = [(_OPCODE, INSTRUCTIONS[name], kind) for name, kind in plain]
        for row in COMPRESSED.values():
            if row.format in (Format.CJ, Format.CB):
                kind = self.jumps if row.format is Format.CJ else self.branches
                rows.append((row.mask, row, kind))
        with m.Switch(self.bits[:16]):
            for mask, row, kind in rows:
                with m.Case(pattern(mask & 0xFFFF, row.match & mask, 16)):
                    m.d.comb += self.offset.eq(self._immediate(row.format))
                    if kind is not None:
                        m.d.comb += kind.eq(1)
        return m

    def _immediate(self, format_):
        immediate = IMMEDIATES[format_]
        parts = [Const(0, 1)] * immediate.width
        for lsb, width, place in immediate.rows:
            parts[place : place + width] = list(self.bits[lsb : lsb + width])
        return Cat(*parts).as_signed()

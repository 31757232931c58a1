"""A first guess at the next packet, good in the cycle it is asked for."""

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.core.frontend.predictor import TARGET_BITS

__all__ = ["NextPacket"]

_ENTRIES = 16
_TAG_BITS = 16
_PACKET_BITS = 3


class NextPacket(wiring.Component):
    """Remember where the latest taken branches led, by the address their packet was entered at.

    The predictor answers one cycle later, and is always right against this table: what it finds
    the table did not know it tells by ``learn``, what the table got wrong by ``forget``.

    Members
    -------
    pc : In(64)
    hit, target : Out
        In the same cycle.
    learn, forget : In(1)
        The packet entered at ``learnt_pc`` leads to ``learnt_target``; it does not branch.
    """

    pc: In(64)
    hit: Out(1)
    target: Out(TARGET_BITS)
    learn: In(1)
    forget: In(1)
    learnt_pc: In(64)
    learnt_target: In(TARGET_BITS)

    def elaborate(self, platform):
        m = Module()
        index_bits = exact_log2(_ENTRIES)
        row = data.StructLayout({"tag": _TAG_BITS, "target": TARGET_BITS - 1})

        def index_of(pc):
            return pc[_PACKET_BITS : _PACKET_BITS + index_bits]

        def tag_of(pc):
            above = _TAG_BITS - (_PACKET_BITS - 1)
            return Cat(pc[1:_PACKET_BITS], pc[_PACKET_BITS + index_bits :][:above])

        m.submodules.rows = rows = memory.Memory(shape=unsigned(row.size), depth=_ENTRIES, init=[])
        read, write = rows.read_port(domain="comb"), rows.write_port()
        valid = Signal(_ENTRIES)
        found, learnt = Signal(row), Signal(row)
        m.d.comb += [
            read.addr.eq(index_of(self.pc)),
            found.as_value().eq(read.data),
            self.hit.eq(valid.bit_select(index_of(self.pc), 1) & (found.tag == tag_of(self.pc))),
            self.target.eq(Cat(Const(0, 1), found.target)),
            learnt.tag.eq(tag_of(self.learnt_pc)),
            learnt.target.eq(self.learnt_target[1:]),
            write.addr.eq(index_of(self.learnt_pc)),
            write.data.eq(learnt.as_value()),
            write.en.eq(self.learn),
        ]
        with m.If(self.learn | self.forget):
            m.d.sync += valid.bit_select(index_of(self.learnt_pc), 1).eq(self.learn)
        return m

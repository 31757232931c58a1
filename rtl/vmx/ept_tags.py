"""Which EPT each tag of the TLBs stands for (docs/isa/vmx.md#tags)."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS
from rtl.arch.vmx.ept import EPT_ROOT_BITS, EPT_TAG_BITS, EPT_TAGS

__all__ = ["EptTags"]

_ROOT_BITS = BUS_ADDRESS_BITS - EPT_ROOT_BITS


class EptTags(wiring.Component):
    """Give every EPT a tag of its own; the oldest one is taken away for a new EPT.

    Members
    -------
    root : In
        The place of a root table in RAM, in multiples of its size.
    known, tag : Out
        In the next cycle: whether the EPT has a tag, and which; else the one it will get.
    assign : In(1)
        In that cycle: the EPT gets the tag it has not.
    in_use : Out(1)
        With ``assign``: the tag has stood for another EPT before.
    """

    root: In(_ROOT_BITS)
    known: Out(1)
    tag: Out(EPT_TAG_BITS)
    assign: In(1)
    in_use: Out(1)

    def elaborate(self, platform):
        m = Module()
        roots = [Signal(_ROOT_BITS, name=f"root_{tag}") for tag in range(EPT_TAGS)]
        used, oldest = Signal(EPT_TAGS), Signal(EPT_TAG_BITS)
        asked = Signal(_ROOT_BITS)
        m.d.sync += [asked.eq(self.root), self.known.eq(0), self.tag.eq(oldest)]
        for tag, root in enumerate(roots):
            with m.If(used[tag] & (root == self.root)):
                m.d.sync += [self.known.eq(1), self.tag.eq(tag)]
            with m.If(self.assign & (self.tag == tag)):
                m.d.sync += [root.eq(asked), used[tag].eq(1)]
        m.d.comb += self.in_use.eq(used.bit_select(self.tag, 1))
        with m.If(self.assign):
            m.d.sync += oldest.eq(oldest + 1)
        return m

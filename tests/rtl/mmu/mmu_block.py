"""The MMU as a block of its own: everything is its ports, and RAM is left alone."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from rtl.bus.axi4 import Axi4
from rtl.mmu.mmu import Mmu

__all__ = ["MmuBlock", "build"]


class MmuBlock(wiring.Component):
    """The hart's MMU, small enough that everything in it is replaced all the time.

    Its own ``memory`` is called ``tables`` here.
    """

    def __init__(self):
        self._mmu = Mmu(entry_count=4, shared_entries=16, walk_cache_entries=2, nested_entries=2)
        members = dict(self._mmu.signature.members.items())
        members["tables"] = members.pop("memory")
        super().__init__({"memory": Out(Axi4(id_width=1)), **members})

    def elaborate(self, platform):
        m = Module()
        m.submodules.mmu = mmu = self._mmu
        for name, member in mmu.signature.members.items():
            inner = getattr(mmu, name)
            outer = self.tables if name == "memory" else getattr(self, name)
            if member.is_signature:
                connect(m, inner, flipped(outer))
            else:
                m.d.comb += outer.eq(inner)
        return m


def build(config):
    return MmuBlock()

"""The data cache as a block of its own: RAM behind it, everything else its ports."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from rtl.bus.axi4 import Axi4
from rtl.core.lsu.data_cache import DataCache

__all__ = ["DataCacheBlock", "build"]


class DataCacheBlock(wiring.Component):
    """A cache of two ways and eight lines, so that lines fight for their places."""

    def __init__(self):
        self._cache = DataCache(size=512, ways=2)
        members = dict(self._cache.signature.members.items())
        del members["bus"]
        super().__init__({"memory": Out(Axi4(id_width=1)), **members})

    def elaborate(self, platform):
        m = Module()
        m.submodules.cache = cache = self._cache
        connect(m, cache.bus, flipped(self.memory))
        for name, member in cache.signature.members.items():
            if name == "bus":
                continue
            inner, outer = getattr(cache, name), getattr(self, name)
            if member.is_signature:
                connect(m, inner, flipped(outer))
            elif member.flow is Out:
                m.d.comb += outer.eq(inner)
            else:
                m.d.comb += inner.eq(outer)
        return m


def build(config):
    return DataCacheBlock()

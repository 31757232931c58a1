"""The memory-management unit: two first-level TLBs and the page walker they share."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.arch.memory_map import PHYSICAL_BITS
from rtl.arch.paging import PAGE_BITS, VIRTUAL_BITS
from rtl.bus.snoop import SnoopPort
from rtl.mmu.context import Fault, Invalidation
from rtl.mmu.page_walker import PageWalker
from rtl.mmu.ports import TranslationPort
from rtl.mmu.tlb import Tlb

__all__ = ["Mmu"]


class Mmu(wiring.Component):
    """Translate for the fetch side and the data side.

    Parameters
    ----------
    entry_count : int
        Entries of each first-level TLB.

    Members
    -------
    instruction, data : In(TranslationPort())
        The two requesters. Unpaged queries always hit: the frame is that of gva, with fault
        ACCESS above the physical address space; a paged query of an address that is not
        canonical hits with fault PAGE. The data side's walks go first.
    memory : Out(SnoopPort())
        The walker's reads.
    i_invalidate : In(stream.Signature(Invalidation))
        Always ready; holds from the next cycle on. A walk under way answers NONE unkept.
    idle : Out(1)
        No walk is under way, none is asked for, and no answer is waiting.
    walking : Out(1)
        A walk is under way or its answer waits.
    """

    def __init__(self, *, entry_count):
        self._tlbs = (Tlb(entry_count=entry_count), Tlb(entry_count=entry_count))
        super().__init__(
            {
                "instruction": In(TranslationPort()),
                "data": In(TranslationPort()),
                "memory": Out(SnoopPort()),
                "i_invalidate": In(stream.Signature(Invalidation)),
                "idle": Out(1),
                "walking": Out(1),
            }
        )

    @property
    def entry_count(self) -> int:
        return self._tlbs[0].entry_count

    def elaborate(self, platform):
        m = Module()
        m.submodules.itlb, m.submodules.dtlb = self._tlbs
        m.submodules.walker = walker = PageWalker()
        connect(m, walker.memory, flipped(self.memory))
        m.d.comb += [self.i_invalidate.ready.eq(1), walker.abandon.eq(self.i_invalidate.valid)]

        # Which side the walk under way belongs to; a new one is taken only after its answer.
        data_side, data_walks = Signal(), Signal()
        m.d.comb += data_side.eq(self.data.walk.valid)
        with m.If(walker.i_query.valid & walker.i_query.ready):
            m.d.sync += data_walks.eq(data_side)
        m.d.comb += [
            walker.i_query.valid.eq(self.instruction.walk.valid | self.data.walk.valid),
            walker.i_query.p.eq(Mux(data_side, self.data.walk.p, self.instruction.walk.p)),
            walker.o_fault.ready.eq(
                Mux(data_walks, self.data.walked.ready, self.instruction.walked.ready)
            ),
            self.walking.eq(~walker.idle),
            self.idle.eq(walker.idle & ~walker.i_query.valid),
        ]

        for side, port, tlb in (
            (0, self.instruction, self._tlbs[0]),
            (1, self.data, self._tlbs[1]),
        ):
            m.d.comb += [
                port.walk.ready.eq(walker.i_query.ready & (data_side == side)),
                port.walked.valid.eq(walker.o_fault.valid & (data_walks == side)),
                port.walked.p.eq(walker.o_fault.p),
                tlb.query.eq(port.query),
                tlb.refill.entry.eq(walker.refill.entry),
                tlb.refill.valid.eq(walker.refill.valid & (data_walks == side)),
                tlb.i_invalidate.valid.eq(self.i_invalidate.valid),
                tlb.i_invalidate.p.eq(self.i_invalidate.p),
            ]
            sign = port.query.gva[VIRTUAL_BITS - 1 :]
            with m.If(port.query.context.paged):
                m.d.comb += [port.hit.eq(tlb.hit), port.translation.frame.eq(tlb.frame)]
                with m.If(sign.any() & ~sign.all()):
                    m.d.comb += [port.hit.eq(1), port.translation.fault.eq(Fault.PAGE)]
            with m.Else():
                m.d.comb += [
                    port.hit.eq(1),
                    port.translation.frame.eq(port.query.gva[PAGE_BITS:PHYSICAL_BITS]),
                ]
                with m.If(port.query.gva[PHYSICAL_BITS:].any()):
                    m.d.comb += port.translation.fault.eq(Fault.ACCESS)
        return m

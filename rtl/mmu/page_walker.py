"""The hardware page walker: Sv39, one walk at a time."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import LEVELS, PAGE_BITS, VIRTUAL_BITS, VPN_BITS
from rtl.bus.snoop import SnoopPort
from rtl.mmu.context import Fault, TranslationQuery
from rtl.mmu.permissions import LeafPermission, PageRights, Pte, PteCheck, PteKind
from rtl.mmu.ports import Refill

__all__ = ["PageWalker"]


class PageWalker(wiring.Component):
    """Walk the page tables for a query, refill the TLB that asked, and answer.

    The leaf's permission for the query is checked too, so that a refill is never useless. A level
    costs two cycles and what ``memory`` takes; refill and answer come in the two cycles after the
    leaf's (the answer after the refill).

    Members
    -------
    i_query : In(stream.Signature(TranslationQuery))
        A paged query of a canonical address; taken when no walk is under way.
    o_fault : Out(stream.Signature(Fault))
        Answers each query once. PAGE and ACCESS as the Privileged Architecture says; ACCESS also
        for entries outside RAM, which are never read, and for bus errors.
    refill : Out(Refill)
        Strobes at most once per walk, before ``o_fault`` says NONE.
    memory : Out(SnoopPort())
        Reads of page-table entries.
    abandon : In(1)
        The tables may have changed: a walk under way ends with NONE and without a refill. It does
        not touch an answer that is already offered, nor a query taken in this cycle.
    idle : Out(1)
        No walk is under way and no answer is waiting.
    """

    i_query: In(stream.Signature(TranslationQuery))
    o_fault: Out(stream.Signature(Fault))
    refill: Out(Refill)
    memory: Out(SnoopPort())
    abandon: In(1)
    idle: Out(1)

    def elaborate(self, platform):
        m = Module()
        ram = MEMORY_MAP["ram"]

        query = Signal(TranslationQuery)
        table = Signal(44)
        level = Signal(range(LEVELS))
        global_ = Signal()
        pte = Signal(Pte)
        abandoned = Signal()
        fault = Signal(Fault)

        m.submodules.check = check = PteCheck()
        m.submodules.permission = permission = LeafPermission()
        page = query.gva[PAGE_BITS:VIRTUAL_BITS]
        tag = self.refill.entry.tag
        m.d.comb += [
            check.pte.eq(pte),
            check.level.eq(level),
            permission.access.eq(query.access),
            permission.context.eq(query.context),
            self.memory.request.p.address.eq(
                Cat(C(0, 3), page.word_select(level, VPN_BITS), table)
            ),
            self.memory.request.p.forward.eq(1),
            self.memory.request.p.mask.eq(~0),
            tag.world.eq(query.context.world),
            tag.vpid.eq(query.context.vpid),
            tag.ept_tag.eq(query.context.ept_tag),
            tag.asid.eq(query.context.asid),
            tag.global_.eq(global_ | pte.g),
            tag.page.eq(page),
            tag.level.eq(level),
            tag.guest_level.eq(level),
            self.refill.entry.frame.eq(pte.ppn),
            self.refill.entry.rights.eq(permission.rights),
            self.o_fault.p.eq(fault),
        ]
        for name, _ in data.Layout.cast(PageRights):
            m.d.comb += permission.rights[name].eq(pte[name])
        m.d.sync += abandoned.eq(abandoned | self.abandon)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.idle.eq(1), self.i_query.ready.eq(1)]
                with m.If(self.i_query.valid):
                    m.d.sync += [
                        query.eq(self.i_query.p),
                        table.eq(self.i_query.p.context.root),
                        level.eq(LEVELS - 1),
                        global_.eq(0),
                        abandoned.eq(0),
                    ]
                    m.next = "FETCH"

            with m.State("FETCH"):
                in_ram = (table >= ram.base >> PAGE_BITS) & (table < ram.end >> PAGE_BITS)
                with m.If(in_ram):
                    m.d.comb += self.memory.request.valid.eq(1)
                    with m.If(self.memory.request.ready):
                        m.next = "RESPONSE"
                with m.Else():
                    m.d.sync += fault.eq(Mux(abandoned | self.abandon, Fault.NONE, Fault.ACCESS))
                    m.next = "ANSWER"

            with m.State("RESPONSE"):
                m.d.comb += self.memory.response.ready.eq(1)
                m.d.sync += pte.eq(self.memory.response.p.data)
                with m.If(self.memory.response.valid):
                    with m.If(abandoned | self.abandon):
                        m.d.sync += fault.eq(Fault.NONE)
                        m.next = "ANSWER"
                    with m.Elif(self.memory.response.p.error):
                        m.d.sync += fault.eq(Fault.ACCESS)
                        m.next = "ANSWER"
                    with m.Else():
                        m.next = "CHECK"

            with m.State("CHECK"):
                m.d.sync += fault.eq(Fault.NONE)
                m.next = "ANSWER"
                with m.If(~self.abandon):
                    with m.If(check.kind == PteKind.POINTER):
                        m.d.sync += [
                            table.eq(pte.ppn),
                            level.eq(level - 1),
                            global_.eq(global_ | pte.g),
                        ]
                        m.next = "FETCH"
                    with m.Elif((check.kind == PteKind.LEAF) & permission.allowed):
                        m.d.comb += self.refill.valid.eq(1)
                    with m.Else():
                        m.d.sync += fault.eq(Fault.PAGE)

            with m.State("ANSWER"):
                m.d.comb += self.o_fault.valid.eq(1)
                with m.If(self.o_fault.ready):
                    m.next = "IDLE"
        return m

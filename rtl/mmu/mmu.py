"""The memory-management unit: two first-level TLBs, the second level and the walker they share."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.arch.memory_map import PHYSICAL_BITS
from rtl.arch.paging import PAGE_BITS, VIRTUAL_BITS
from rtl.arch.vmx.ept import EPT_GPA_BITS
from rtl.mmu.context import (
    FRAME_BITS,
    EptFault,
    Fault,
    Invalidation,
    TranslationQuery,
    frame_of,
)
from rtl.mmu.page_walker import PageWalker
from rtl.mmu.ports import MmuEvents, PteMemory, TranslationPort
from rtl.mmu.shared_tlb import SharedTlb
from rtl.mmu.tags import page_of, set_root
from rtl.mmu.tlb import Tlb

__all__ = ["Mmu"]


class _State(enum.Enum, shape=2):
    IDLE = 0
    #: The second level is asked.
    LOOK_UP = 1
    #: The page walker is.
    WALK = 2
    #: The second level knew, and the requester has not taken the answer yet.
    ANSWER = 3


class _Answer(data.Struct):
    """What is known of the query of the cycle before without the TLB: that it hits or misses,
    the fault, and with ``unpaged`` the frame.
    """

    hit: 1
    miss: 1
    unpaged: 1
    frame: FRAME_BITS
    fault: Fault


class Mmu(wiring.Component):
    """Translate for the fetch side and the data side.

    Parameters
    ----------
    entry_count : int
        Entries of each first-level TLB.
    shared_entries, shared_ways : int
        Entries and associativity of the second level.
    walk_cache_entries, nested_entries : int
        See ``PageWalker``.
    guests : bool
        Queries come from guests, too. Without, each is taken for one of root's, without an EPT.

    Members
    -------
    instruction, data : In(TranslationPort())
        The two requesters. Unpaged queries without an EPT always hit: the frame is that of gva,
        with fault ACCESS above the physical address space; a paged query of an address that is
        not canonical hits with fault PAGE. The data side's walks go first.
    ept_fault : Out(EptFault)
        About the last EPT_* fault, from its offer on ``walked`` to the next walk's.
    memory : Out(PteMemory())
        The walker's accesses.
    i_invalidate : In(stream.Signature(Invalidation))
        Always ready; holds from the next cycle on. A walk under way answers NONE unkept.
    settled : Out(1)
        The second level has swept out what was invalidated. No requester has to wait for this.
    idle : Out(1)
        No walk is under way, none is asked for, and no answer is waiting.
    walking : Out(1)
        A walk is under way or its answer waits.
    events : Out(MmuEvents)
    """

    def __init__(
        self,
        *,
        entry_count,
        shared_entries,
        shared_ways=2,
        walk_cache_entries,
        nested_entries,
        guests=True,
    ):
        self._guests = guests
        self._tlbs = (Tlb(entry_count=entry_count), Tlb(entry_count=entry_count))
        self._shared = SharedTlb(entry_count=shared_entries, ways=shared_ways, guests=guests)
        self._walker = PageWalker(
            walk_cache_entries=walk_cache_entries, nested_entries=nested_entries, guests=guests
        )
        super().__init__(
            {
                "instruction": In(TranslationPort()),
                "data": In(TranslationPort()),
                "ept_fault": Out(EptFault),
                "memory": Out(PteMemory()),
                "i_invalidate": In(stream.Signature(Invalidation)),
                "settled": Out(1),
                "idle": Out(1),
                "walking": Out(1),
                "events": Out(MmuEvents),
            }
        )

    @property
    def entry_count(self) -> int:
        return self._tlbs[0].entry_count

    def elaborate(self, platform):
        m = Module()
        m.submodules.itlb, m.submodules.dtlb = self._tlbs
        m.submodules.shared = shared = self._shared
        m.submodules.walker = walker = self._walker
        connect(m, walker.memory, flipped(self.memory))
        invalidated = self.i_invalidate.valid
        m.d.comb += [
            self.i_invalidate.ready.eq(1),
            self.ept_fault.eq(walker.ept_fault),
            self.settled.eq(shared.settled),
        ]
        invalidation = Signal(Invalidation)
        m.d.comb += invalidation.eq(self.i_invalidate.p)
        if not self._guests:
            m.d.comb += [
                *set_root(invalidation),
                invalidation.any_world.eq(0),
                invalidation.any_vpid.eq(0),
                invalidation.match_ept.eq(0),
            ]
        for unit in (*self._tlbs, shared, walker):
            m.d.comb += [
                unit.i_invalidate.valid.eq(invalidated),
                unit.i_invalidate.p.eq(invalidation),
            ]
        # The walk under way, and which side it belongs to; the next is taken after its answer.
        state = Signal(_State)
        query, data_walks, data_side = Signal(TranslationQuery), Signal(), Signal()
        stale = Signal()
        found, hit, answered = Signal(), Signal(), Signal()
        m.d.comb += [
            # Tags do not hold what is beyond the gpas there are.
            hit.eq(shared.hit & ~self._beyond(query)),
            data_side.eq(self.data.walk.valid),
            shared.query.eq(query),
            shared.page.eq(page_of(query.gva)),
            walker.i_query.p.eq(query),
            shared.refill.eq(walker.refill),
            found.eq(shared.done & hit),
            answered.eq(Mux(data_walks, self.data.walked.ready, self.instruction.walked.ready)),
            self.walking.eq(state != _State.IDLE),
            self.idle.eq(
                (state == _State.IDLE) & ~self.data.walk.valid & ~self.instruction.walk.valid
            ),
            self.events.l2_hit.eq(found),
            self.events.l2_miss.eq(shared.done & ~hit),
            self.events.walk_cache_hit.eq(walker.events.walk_cache_hit),
            self.events.nested_hit.eq(walker.events.nested_hit),
            self.events.pte_read.eq(walker.events.pte_read),
            self.events.pte_update.eq(walker.events.pte_update),
        ]
        refill, offered, fault = Signal(), Signal(), Signal(Fault)
        m.d.sync += stale.eq(stale | invalidated)
        with m.Switch(state):
            with m.Case(_State.IDLE):
                asked = Signal(TranslationQuery)
                m.d.comb += [
                    asked.eq(Mux(data_side, self.data.walk.p, self.instruction.walk.p)),
                    shared.page.eq(page_of(asked.gva)),
                ]
                m.d.sync += [
                    query.eq(asked),
                    *self._heeded(query.context),
                    data_walks.eq(data_side),
                    stale.eq(0),
                ]
                with m.If(self.data.walk.valid | self.instruction.walk.valid):
                    m.d.comb += shared.look_up.eq(1)
                    m.d.sync += state.eq(_State.LOOK_UP)
            with m.Case(_State.LOOK_UP):
                m.d.comb += [
                    offered.eq(found),
                    # What an invalidation may have named is asked for again.
                    refill.eq(found & ~stale & ~invalidated),
                    walker.i_query.valid.eq(shared.done & ~hit),
                ]
                with m.If(found):
                    m.d.sync += state.eq(Mux(answered, _State.IDLE, _State.ANSWER))
                with m.Elif(shared.done):
                    m.d.sync += state.eq(_State.WALK)
            with m.Case(_State.WALK):
                m.d.comb += [
                    offered.eq(walker.o_fault.valid),
                    fault.eq(walker.o_fault.p),
                    walker.o_fault.ready.eq(answered),
                    refill.eq(walker.refill.valid),
                ]
                with m.If(offered & answered):
                    m.d.sync += state.eq(_State.IDLE)
            with m.Case(_State.ANSWER):
                m.d.comb += offered.eq(1)
                with m.If(answered):
                    m.d.sync += state.eq(_State.IDLE)

        for side, port, tlb in (
            (0, self.instruction, self._tlbs[0]),
            (1, self.data, self._tlbs[1]),
        ):
            m.d.comb += [
                port.walk.ready.eq((state == _State.IDLE) & (data_side == side)),
                port.walked.valid.eq(offered & (data_walks == side)),
                port.walked.p.eq(fault),
                tlb.query.eq(port.query),
                *self._heeded(tlb.query.context),
                tlb.refilling.eq((state != _State.IDLE) & (data_walks == side)),
                tlb.refill.entry.eq(walker.refill.entry),
                tlb.refill.valid.eq(refill & (data_walks == side)),
            ]
            # Until the second level answers, what is asked for has the walker's page.
            with m.If(shared.done):
                m.d.comb += tlb.refill.entry.eq(shared.entry)
            self._answer(m, f"{'data' if side else 'instruction'}_answer", port, tlb)
        return m

    def _heeded(self, context):
        """Assignments of a TranslationContext: what this MMU does not look at."""
        return [] if self._guests else [*set_root(context), context.ept.eq(0)]

    def _answer(self, m, name, port, tlb):
        """Answer the query of the cycle before: some are decided without the TLB."""
        gva, context = tlb.query.gva, tlb.query.context
        answer = Signal(_Answer, name=name)
        sign = gva[VIRTUAL_BITS - 1 :]
        m.d.sync += [
            answer.eq(0),
            answer.frame.eq(frame_of(gva[PAGE_BITS:PHYSICAL_BITS])),
        ]
        with m.If(context.paged):
            with m.If(sign.any() & ~sign.all()):
                m.d.sync += [answer.hit.eq(1), answer.fault.eq(Fault.PAGE)]
        with m.Elif(context.ept):
            # A gpa beyond what an EPT can map is never cached: the walk says so.
            m.d.sync += answer.miss.eq(gva[EPT_GPA_BITS:].any())
        with m.Else():
            m.d.sync += [answer.hit.eq(1), answer.unpaged.eq(1)]
            with m.If(gva[PHYSICAL_BITS:].any()):
                m.d.sync += answer.fault.eq(Fault.ACCESS)
        m.d.comb += [
            port.hit.eq(answer.hit | (tlb.hit & ~answer.miss)),
            port.translation.frame.eq(Mux(answer.unpaged, answer.frame, tlb.frame)),
            port.translation.fault.eq(answer.fault),
        ]

    def _beyond(self, query):
        """The query is about a gpa that no EPT can map."""
        context = query.context
        if not self._guests:
            return Const(0, 1)
        return context.ept & ~context.paged & query.gva[EPT_GPA_BITS:].any()

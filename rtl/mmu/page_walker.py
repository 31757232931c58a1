"""The hardware page walker: Sv39, alone or over an EPT; one walk at a time."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS, MEMORY_MAP
from rtl.arch.paging import LEVELS, PAGE_BITS, PTE, VPN_BITS
from rtl.arch.vmx.ept import EPT_GPA_BITS
from rtl.mmu.context import (
    FRAME_BITS,
    Access,
    EptFault,
    Fault,
    Invalidation,
    TranslationQuery,
    frame_of,
)
from rtl.mmu.permissions import EptPermission, LeafPermission, PageRights, Pte, PteCheck, PteKind
from rtl.mmu.ports import PAGE_NUMBER_BITS, PteMemory, Refill
from rtl.mmu.tags import below, page_of, set_space
from rtl.mmu.walk_cache import EptRights, NestedCache, WalkCache

__all__ = ["PageWalker", "WalkEvents"]

_RAM = MEMORY_MAP["ram"]
_FRAME_BITS = 44


class WalkEvents(data.Struct):
    """Strobes, see ``MmuEvents``."""

    walk_cache_hit: 1
    nested_hit: 1
    pte_read: 1
    pte_update: 1


class _Target(enum.Enum, shape=1):
    """What a walk of the EPT is for."""

    TABLE = 0
    PAGE = 1


class PageWalker(wiring.Component):
    """Walk the page tables for a query, refill the TLB that asked, and answer.

    Without an EPT this is Sv39. With one, every address the guest's tables hold is a gpa and goes
    through the EPT first; unpaged queries go through the EPT alone. The leaf's permission for
    the query is checked too, so that a refill is never useless. An entry costs three cycles and
    what ``memory`` takes.

    Faults are never answered from what is remembered of the tables at fault: a walk that would fail
    and used the walk cache begins again without, and what the EPT refuses without both caches. What the EPT has refused is remembered no longer. A and D are set, where the context wants that, once nothing else
    stands against the access; if the entry has changed meanwhile the walk begins again.

    Parameters
    ----------
    walk_cache_entries, nested_entries : int
        Tables of guests remembered by the gva they map, and pages of the EPT by their gpa.
    guests : bool
        There are queries with an EPT.

    Members
    -------
    i_query : In(stream.Signature(TranslationQuery))
        A paged query of a canonical address, or one with an EPT; taken when no walk is under way.
    o_fault : Out(stream.Signature(Fault))
        Answers each query once. PAGE and ACCESS as the Privileged Architecture says; ACCESS also
        for entries outside RAM, which are never read, and for bus errors: those of an EPT are
        misconfigured.
    ept_fault : Out(EptFault)
        About the last EPT_* fault, from its offer to the next walk's.
    refill : Out(Refill)
        Strobes at most once per walk, not after ``o_fault`` says NONE.
    memory : Out(PteMemory())
        Reads of page-table entries, and updates of A and D.
    i_invalidate : In(stream.Signature(Invalidation))
        Always ready. A walk under way ends with NONE and without a refill. It does not touch an
        answer that is already offered, nor a query taken in this cycle.
    idle : Out(1)
        No walk is under way and no answer is waiting.
    events : Out(WalkEvents)
    """

    def __init__(self, *, walk_cache_entries=8, nested_entries=8, guests=True):
        self._guests = guests
        self._walk_cache = WalkCache(entry_count=walk_cache_entries)
        self._nested = NestedCache(entry_count=nested_entries) if guests else None
        super().__init__(
            {
                "i_query": In(stream.Signature(TranslationQuery)),
                "o_fault": Out(stream.Signature(Fault)),
                "ept_fault": Out(EptFault),
                "refill": Out(Refill),
                "memory": Out(PteMemory()),
                "i_invalidate": In(stream.Signature(Invalidation)),
                "idle": Out(1),
                "events": Out(WalkEvents),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.walk_cache = walk_cache = self._walk_cache
        nested = self._nested
        m.submodules.check = check = PteCheck()
        m.submodules.permission = permission = LeafPermission()
        m.submodules.ept_permission = ept_permission = EptPermission()
        request, response = self.memory.request, self.memory.response

        query = Signal(TranslationQuery)
        context = query.context
        page = page_of(query.gva)
        # The guest's table in use, as the level above names it, and what the way to it says.
        table = Signal(_FRAME_BITS)
        level = Signal(range(LEVELS))
        global_ = Signal()
        # The frame the EPT translates, and how far it is.
        second = Signal()
        target, purpose = Signal(_FRAME_BITS), Signal(_Target)
        ept_level = Signal(range(LEVELS))
        # The entry at hand, and the frame (hpa) of the page it lies in.
        pte, pte_frame = Signal(Pte), Signal(FRAME_BITS)
        # The guest's leaf, whether it has to be updated, and what the EPT allows with its page.
        leaf, leaf_frame = Signal(Pte), Signal(FRAME_BITS)
        update_leaf, table_rights = Signal(), Signal(EptRights)
        table_level = Signal(range(LEVELS))
        # What came out.
        frame, size = Signal(FRAME_BITS), Signal(range(LEVELS))
        rights = Signal(EptRights)
        fault = Signal(Fault)
        # Whether remembered tables and places may be used, and whether one was.
        remember, remembered = Signal(), Signal()
        remember_nested, remembered_nested = Signal(), Signal()

        abandon = self.i_invalidate.valid
        abandoned, stale = Signal(), Signal()
        m.d.comb += [self.i_invalidate.ready.eq(1), stale.eq(abandoned | abandon)]
        m.d.sync += abandoned.eq(stale)
        if self._guests:
            m.submodules.nested = nested
        for cache in (walk_cache, nested) if self._guests else (walk_cache,):
            m.d.comb += [
                cache.i_invalidate.valid.eq(abandon),
                cache.i_invalidate.p.eq(self.i_invalidate.p),
            ]

        write = query.access == Access.WRITE
        # Guest page-table reads count as writes when A and D of both stages are kept.
        tables_written = context.adue & context.ept_ad
        ept_access = Signal(Access)
        m.d.comb += ept_access.eq(query.access)
        with m.If(purpose == _Target.TABLE):
            m.d.comb += ept_access.eq(Mux(tables_written, Access.WRITE, Access.READ))
        index = Mux(
            second, target.word_select(ept_level, VPN_BITS), page.word_select(level, VPN_BITS)
        )
        m.d.comb += [
            check.pte.eq(pte),
            check.level.eq(Mux(second, ept_level, level)),
            permission.access.eq(query.access),
            permission.context.eq(context),
            permission.rights.mxr.eq(pte.r | pte.x),
            ept_permission.pte.eq(pte),
            ept_permission.access.eq(ept_access),
            request.p.address.eq(Cat(C(0, 3), index, pte_frame)),
            request.p.expected.eq(pte),
            self.o_fault.p.eq(fault),
            self.events.pte_read.eq(request.valid & request.ready & ~request.p.set.any()),
        ]
        for name, _ in data.Layout.cast(PageRights):
            if name != "mxr":
                m.d.comb += permission.rights[name].eq(pte[name])
        self._refill(m, query, global_, leaf, level, frame, size, rights)

        walk_cache_entry = walk_cache.entry
        m.d.comb += [
            walk_cache.query.eq(query),
            walk_cache_entry.tag.eq(self.refill.entry.tag),
            walk_cache_entry.tag.global_.eq(global_ | pte.g),
            walk_cache_entry.tag.level.eq(level),
            walk_cache_entry.tag.guest_level.eq(level),
            walk_cache_entry.table.eq(pte.ppn),
        ]
        if self._guests:
            m.d.comb += [
                nested.world.eq(context.world),
                nested.ept_tag.eq(context.ept_tag),
                nested.gpa_frame.eq(target),
                nested.i.level.eq(ept_level),
                nested.i.frame.eq(frame),
                nested.i.rights.eq(rights),
            ]
            # What is remembered of the EPT answers this access.
            known = Signal()
            with m.Switch(ept_access):
                for access, allows in (
                    (Access.READ, nested.o.rights.r),
                    (Access.WRITE, nested.o.rights.w & nested.o.rights.d),
                    (Access.FETCH, nested.o.rights.x),
                ):
                    with m.Case(access):
                        m.d.comb += known.eq(remember_nested & nested.hit & allows)

        def fail(kind, doubt=remembered, forget=(remember,)):
            """Answer, but with ``doubt`` walk again without what ``forget`` stands for."""
            with m.If(stale):
                m.d.sync += fault.eq(Fault.NONE)
                m.next = "ANSWER"
            with m.Elif(doubt):
                m.d.sync += [used.eq(0) for used in forget]
                m.next = "START"
            with m.Else():
                m.d.sync += fault.eq(kind)
                m.next = "ANSWER"

        def refuse(kind, leaf=None, access=ept_access, at=ept_level, doubt=0):
            """An EPT_* fault, because of a leaf of the EPT or for the lack of one; that has just
            been read, or there is ``doubt``.
            """
            if not self._guests:
                return
            m.d.comb += nested.drop.eq(1)
            m.d.sync += [
                self.ept_fault.gpa.eq(
                    Cat(query.gva[:PAGE_BITS], Mux(context.paged, target, query.gva[PAGE_BITS:]))
                ),
                self.ept_fault.access.eq(access),
                self.ept_fault.page_table.eq(0),
                self.ept_fault.readable.eq(0 if leaf is None else leaf.r),
                self.ept_fault.writable.eq(0 if leaf is None else leaf.w),
                self.ept_fault.executable.eq(0 if leaf is None else leaf.x),
                self.ept_fault.level.eq(at),
            ]
            with m.If(purpose == _Target.TABLE):
                m.d.sync += [
                    self.ept_fault.gpa.eq(Cat(C(0, 3), page.word_select(level, VPN_BITS), table)),
                    self.ept_fault.page_table.eq(1),
                ]
            fail(kind, doubt, (remember, remember_nested))

        def descend(ppn):
            """Go on with the guest's table at ``ppn``."""
            m.d.sync += [
                table.eq(ppn),
                target.eq(ppn),
                pte_frame.eq(frame_of(ppn)),
                purpose.eq(_Target.TABLE),
            ]
            go_on("FETCH")

        def go_on(state):
            """Go on in ``state``, but with an EPT with what it says about the target."""
            m.next = state
            with m.If(context.ept):
                go_on_in_ept("TRANSLATE")

        def go_on_in_ept(state):
            if self._guests:
                m.next = state

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.idle.eq(1), self.i_query.ready.eq(1)]
                m.d.sync += [
                    query.eq(self.i_query.p),
                    abandoned.eq(0),
                    remember.eq(1),
                    remember_nested.eq(1),
                ]
                with m.If(self.i_query.valid):
                    m.next = "START"

            with m.State("START"):
                m.d.sync += [
                    second.eq(0),
                    remembered.eq(0),
                    remembered_nested.eq(0),
                    update_leaf.eq(0),
                ]
                with m.If(~context.paged & self._guests):
                    # The guest's leaf, so to speak: it allows everything, and is as large as can be.
                    m.d.sync += [
                        target.eq(query.gva[PAGE_BITS:]),
                        purpose.eq(_Target.PAGE),
                        leaf.eq(PTE.mask("r", "w", "x", "a", "d")),
                        level.eq(LEVELS - 1),
                        global_.eq(1),
                    ]
                    go_on("START")
                with m.Elif(remember & walk_cache.hit):
                    m.d.comb += self.events.walk_cache_hit.eq(1)
                    m.d.sync += [
                        level.eq(walk_cache.level),
                        global_.eq(walk_cache.is_global),
                        remembered.eq(1),
                    ]
                    descend(walk_cache.table)
                with m.Else():
                    m.d.sync += [level.eq(LEVELS - 1), global_.eq(0)]
                    descend(context.root)

            if self._guests:
                with m.State("TRANSLATE"):
                    beyond = target[PAGE_NUMBER_BITS:].any() | (
                        ~context.paged & query.gva[EPT_GPA_BITS:].any()
                    )
                    m.d.sync += [second.eq(1), ept_level.eq(LEVELS - 1)]
                    # The root is four pages long and aligned to that.
                    root = Cat(target[LEVELS * VPN_BITS : PAGE_NUMBER_BITS], context.ept_root[2:])
                    m.d.sync += pte_frame.eq(frame_of(root))
                    with m.If(beyond):
                        refuse(Fault.EPT_VIOLATION, at=LEVELS - 1)
                    with m.Elif(known):
                        m.d.comb += self.events.nested_hit.eq(1)
                        m.d.sync += [
                            remembered_nested.eq(1),
                            frame.eq(nested.o.frame),
                            rights.eq(nested.o.rights),
                            ept_level.eq(nested.o.level),
                        ]
                        with m.If(purpose == _Target.PAGE):
                            m.d.sync += size.eq(Mux(nested.o.level < level, nested.o.level, level))
                        m.next = "TRANSLATED"
                    with m.Else():
                        m.next = "FETCH"

            with m.State("FETCH"):
                in_ram = (pte_frame >= _RAM.base >> PAGE_BITS) & (pte_frame < _RAM.end >> PAGE_BITS)
                with m.If(in_ram):
                    m.d.comb += request.valid.eq(1)
                    with m.If(request.ready):
                        m.next = "RESPONSE"
                with m.Elif(second):
                    refuse(Fault.EPT_MISCONFIGURATION)
                with m.Else():
                    fail(Fault.ACCESS)

            with m.State("RESPONSE"):
                m.d.comb += response.ready.eq(1)
                m.d.sync += pte.eq(response.p.data)
                with m.If(response.valid):
                    with m.If(stale | (response.p.error & ~second)):
                        fail(Fault.ACCESS)
                    with m.Elif(response.p.error):
                        refuse(Fault.EPT_MISCONFIGURATION)
                    with m.Elif(second):
                        go_on_in_ept("CHECK_EPT")
                    with m.Else():
                        m.next = "CHECK"

            with m.State("CHECK"):
                m.d.sync += [
                    leaf.eq(pte),
                    leaf_frame.eq(pte_frame),
                    update_leaf.eq(~permission.allowed),
                    purpose.eq(_Target.PAGE),
                    target.eq(pte.ppn | below(page, level)),
                    frame.eq(frame_of(pte.ppn)),
                    size.eq(level),
                    rights.eq(~0),
                ]
                with m.If(check.kind == PteKind.POINTER):
                    m.d.comb += walk_cache.fill.eq(~stale & ~pte.ppn[PAGE_NUMBER_BITS:].any())
                    m.d.sync += [level.eq(level - 1), global_.eq(global_ | pte.g)]
                    descend(pte.ppn)
                with m.Elif(
                    (check.kind == PteKind.LEAF)
                    & permission.granted
                    & (permission.allowed | context.adue)
                ):
                    m.d.sync += global_.eq(global_ | pte.g)
                    with m.If(permission.allowed):
                        go_on("REFILL")
                    with m.Else():
                        go_on("UPDATE")
                with m.Else():
                    fail(Fault.PAGE)

            if self._guests:
                with m.State("CHECK_EPT"):
                    with m.Switch(check.kind):
                        with m.Case(PteKind.INVALID):
                            refuse(Fault.EPT_VIOLATION)
                        with m.Case(PteKind.MALFORMED):
                            refuse(Fault.EPT_MISCONFIGURATION)
                        with m.Case(PteKind.POINTER):
                            m.d.sync += [
                                pte_frame.eq(frame_of(pte.ppn)),
                                ept_level.eq(ept_level - 1),
                            ]
                            m.next = "FETCH"
                        with m.Case(PteKind.LEAF):
                            with m.If(ept_permission.allowed):
                                m.next = "TRANSLATED"
                            with m.Elif(ept_permission.granted & context.ept_ad):
                                m.next = "UPDATE"
                            with m.Else():
                                refuse(Fault.EPT_VIOLATION, pte)
                    m.d.sync += [
                        frame.eq(frame_of(pte.ppn | below(target, ept_level))),
                        rights.r.eq(pte.r),
                        rights.w.eq(pte.w),
                        rights.x.eq(pte.x),
                        rights.d.eq(pte.d | (ept_access == Access.WRITE)),
                    ]
                    with m.If(purpose == _Target.PAGE):
                        m.d.sync += size.eq(Mux(ept_level < level, ept_level, level))

                with m.State("TRANSLATED"):
                    m.d.sync += second.eq(0)
                    # Only what is in RAM is worth it, and of pages the large ones: they hold tables, too.
                    m.d.comb += nested.fill.eq(
                        ~stale
                        & ~frame[BUS_ADDRESS_BITS - PAGE_BITS :].any()
                        & ((purpose == _Target.TABLE) | (ept_level != 0))
                    )
                    with m.If(purpose == _Target.TABLE):
                        m.d.sync += [
                            pte_frame.eq(frame),
                            table_rights.eq(rights),
                            table_level.eq(ept_level),
                        ]
                        m.next = "FETCH"
                    with m.Elif(~update_leaf):
                        m.next = "REFILL"
                    with m.Elif(table_rights.w & table_rights.d):
                        m.d.sync += [pte.eq(leaf), pte_frame.eq(leaf_frame)]
                        m.next = "UPDATE"
                    with m.Else():
                        m.d.sync += [purpose.eq(_Target.TABLE), target.eq(table)]
                        m.next = "READ_ONLY"

                with m.State("READ_ONLY"):
                    # The guest's leaf has to be updated, and the EPT does not let it.
                    refuse(
                        Fault.EPT_VIOLATION,
                        table_rights,
                        Access.WRITE,
                        table_level,
                        remembered | remembered_nested,
                    )

            with m.State("UPDATE"):
                dirty = Mux(second, ept_access == Access.WRITE, write)
                m.d.comb += [
                    request.p.set.eq(PTE.mask("a") | Mux(dirty, PTE.mask("d"), 0)),
                    request.valid.eq(~stale),
                ]
                with m.If(stale):
                    fail(Fault.NONE)
                with m.Elif(request.ready):
                    m.next = "UPDATED"

            with m.State("UPDATED"):
                m.d.comb += response.ready.eq(1)
                with m.If(response.valid):
                    m.d.comb += self.events.pte_update.eq(
                        ~response.p.error & (response.p.data == pte.as_value())
                    )
                    with m.If(response.p.error):
                        fail(Fault.ACCESS)
                    with m.Elif(response.p.data != pte.as_value()):
                        m.next = "START"
                    with m.Elif(second):
                        go_on_in_ept("TRANSLATED")
                    with m.Else():
                        m.d.sync += [leaf.a.eq(1), leaf.d.eq(leaf.d | write)]
                        m.next = "REFILL"

            with m.State("REFILL"):
                m.d.comb += [
                    self.refill.valid.eq(~stale),
                    self.o_fault.valid.eq(1),
                    self.o_fault.p.eq(Fault.NONE),
                ]
                m.d.sync += fault.eq(Fault.NONE)
                m.next = "ANSWER"
                with m.If(self.o_fault.ready):
                    m.next = "IDLE"

            with m.State("ANSWER"):
                m.d.comb += self.o_fault.valid.eq(1)
                with m.If(self.o_fault.ready):
                    m.next = "IDLE"
        return m

    def _refill(self, m, query, global_, leaf, level, frame, size, rights):
        """The entry that comes out: what both stages allow."""
        context, entry = query.context, self.refill.entry
        tag = entry.tag
        within = Signal(FRAME_BITS)
        m.d.comb += [
            within.eq(below(C((1 << FRAME_BITS) - 1, FRAME_BITS), size)),
            *set_space(tag.space, context),
            tag.global_.eq(global_),
            tag.page.eq(page_of(query.gva)),
            tag.level.eq(size),
            tag.guest_level.eq(Mux(context.paged, level, size)),
            # Above the size that counts, the bits may come from the page that was asked for.
            entry.frame.eq(frame & ~within),
            entry.rights.mxr.eq((leaf.r | leaf.x) & rights.r),
            entry.rights.r.eq(leaf.r & rights.r),
            entry.rights.w.eq(leaf.w & rights.w),
            entry.rights.x.eq(leaf.x & rights.x),
            entry.rights.u.eq(leaf.u),
            entry.rights.a.eq(leaf.a),
            entry.rights.d.eq(leaf.d & rights.d),
        ]

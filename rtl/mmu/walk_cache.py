"""What the page walker remembers: guests' upper tables, and where their memory lies."""

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS
from rtl.arch.paging import LEVELS, PAGE_BITS
from rtl.arch.vmx.ept import EPT_TAG_BITS
from rtl.lib.apart import apart, set_apart
from rtl.lib.one_hot import number_of
from rtl.mmu.context import Invalidation, TranslationQuery, World
from rtl.mmu.ports import PAGE_NUMBER_BITS, TlbTag
from rtl.mmu.tags import TagQuery, below, matches, set_for, set_named, set_overlapping, sizes

__all__ = ["EptRights", "NestedCache", "NestedTranslation", "WalkCache", "WalkCacheEntry"]


def _check(entry_count):
    if not isinstance(entry_count, int) or entry_count < 1:
        raise ValueError(f"A walk cache needs at least 1 entry, not {entry_count!r}")


def _replacement(m, valid, same, fill, dropped):
    """The one-hot entry a fill goes to: what it replaces, else a free one, else all in turn."""
    count = len(valid)
    turn = Signal(count, init=1)
    free, victim, wanted = Signal(count), Signal(count), Signal(count)
    m.d.comb += [
        free.eq(~valid),
        wanted.eq(Mux(same.any(), same, Mux(free.any(), free, turn))),
        victim.eq(wanted & -wanted),
    ]
    with m.If(fill):
        m.d.sync += [turn.eq(turn.rotate_left(1)), valid.eq(valid & ~same | victim)]
    with m.If(dropped.any()):
        m.d.sync += valid.eq(valid & ~dropped)
    return victim


class WalkCacheEntry(data.Struct):
    """The table of the guest (or of root) at frame ``table`` maps the region of the tag: a page
    of the size ``tag.level``.
    """

    tag: TlbTag
    table: PAGE_NUMBER_BITS


class WalkCache(wiring.Component):
    """Find the lowest table on the way to a query's leaf.

    Parameters
    ----------
    entry_count : int
        Number of entries, in flip-flops.

    Members
    -------
    query : In(TranslationQuery)
    hit, level, table, is_global : Out
        Combinational answer: the frame of the table, the level of its entries, and whether an
        entry on the way to it was global. Nothing hits in a cycle with a fill or an invalidation.
    fill, entry : In
        Takes the entry; ignored in a cycle in which an invalidation is taken.
    i_invalidate : In(stream.Signature(Invalidation))
        Always ready. One that names a page drops the tables on the way to it.
    """

    def __init__(self, *, entry_count):
        _check(entry_count)
        self._entry_count = entry_count
        super().__init__(
            {
                "query": In(TranslationQuery),
                "hit": Out(1),
                "level": Out(range(LEVELS)),
                "table": Out(PAGE_NUMBER_BITS),
                "is_global": Out(1),
                "fill": In(1),
                "entry": In(WalkCacheEntry),
                "i_invalidate": In(stream.Signature(Invalidation)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        count, new = self._entry_count, self.entry
        valid = Signal(count)
        invalidates, fills = self.i_invalidate.valid, Signal()
        matched, same, dropped = (Signal(count) for _ in range(3))
        victim = _replacement(m, valid, same, fills, dropped)
        # Each entry has one set of comparators, for whoever asks.
        wanted = apart(TagQuery, "wanted")
        m.d.comb += [
            self.i_invalidate.ready.eq(1),
            fills.eq(self.fill & ~invalidates),
            *set_for(wanted, self.query),
        ]
        with m.If(invalidates):
            m.d.comb += [*set_named(wanted, self.i_invalidate.p), dropped.eq(matched)]
        with m.Elif(self.fill):
            m.d.comb += set_overlapping(wanted, new.tag)
        # Which entries, if matched, say where the lowest table and the one above it are.
        lowest, above, is_global = (Signal(count) for _ in range(3))
        for i in range(count):
            tag = apart(TlbTag, f"tag_{i}")
            m.d.comb += [
                lowest[i].eq(matched[i] & (tag.level == 1)),
                above[i].eq(matched[i] & (tag.level == 2)),
                is_global[i].eq(tag.global_),
                matched[i].eq(valid[i] & matches(tag, sizes(tag.level), wanted)),
                same[i].eq(matched[i] & (tag.level == new.tag.level)),
            ]
            with m.If(fills & victim[i]):
                m.d.sync += set_apart(tag, new.tag)

        m.submodules.tables = tables = memory.Memory(
            shape=unsigned(PAGE_NUMBER_BITS), depth=count, init=()
        )
        read, write = tables.read_port(domain="comb"), tables.write_port()
        chosen = Signal(count)
        m.d.comb += [
            chosen.eq(Mux(lowest.any(), lowest, above)),
            read.addr.eq(number_of(chosen)),
            write.addr.eq(number_of(victim)),
            write.data.eq(new.table),
            write.en.eq(fills),
            self.hit.eq(chosen.any() & ~self.fill & ~invalidates),
            self.level.eq(~lowest.any()),
            self.table.eq(read.data),
            self.is_global.eq((is_global & chosen).any()),
        ]
        return m


class EptRights(data.Struct):
    """What a leaf of the EPT allows; ``d``: writes need no update of it."""

    r: 1
    w: 1
    x: 1
    d: 1


class NestedTranslation(data.Struct):
    """A page of the EPT, of the size ``level``: where a gpa in it lies, and what may be done there."""

    level: range(LEVELS)
    frame: BUS_ADDRESS_BITS - PAGE_BITS
    rights: EptRights


class NestedCache(wiring.Component):
    """Where guest-physical pages lie.

    Its entries come from the EPT alone, so they have no VPID and no ASID. They are as large as the
    pages of the EPT.

    Parameters
    ----------
    entry_count : int
        Number of entries, in flip-flops.

    Members
    -------
    world, ept_tag, gpa_frame : In
        What is asked for, dropped, or filled.
    hit, o : Out
        Combinational answer; ``o.frame`` is that of the page at ``gpa_frame`` itself.
    drop : In(1)
        Forgets what is asked for.
    fill, i : In
        Takes the translation; ignored in a cycle in which an invalidation is taken.
    i_invalidate : In(stream.Signature(Invalidation))
        Always ready.
    """

    def __init__(self, *, entry_count):
        _check(entry_count)
        self._entry_count = entry_count
        super().__init__(
            {
                "world": In(World),
                "ept_tag": In(EPT_TAG_BITS),
                "gpa_frame": In(PAGE_NUMBER_BITS),
                "hit": Out(1),
                "o": Out(NestedTranslation),
                "drop": In(1),
                "fill": In(1),
                "i": In(NestedTranslation),
                "i_invalidate": In(stream.Signature(Invalidation)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        count, wanted = self._entry_count, self.i_invalidate.p
        valid = Signal(count)
        asked, dropped, fills = Signal(count), Signal(count), Signal()
        victim = _replacement(m, valid, asked, fills, dropped)
        found = Signal(NestedTranslation)
        m.d.comb += [
            self.i_invalidate.ready.eq(1),
            fills.eq(self.fill & ~self.i_invalidate.valid),
            self.o.eq(found),
            self.o.frame.eq(found.frame | below(self.gpa_frame, found.level)),
        ]
        for i in range(count):
            world, ept_tag = Signal(World, name=f"world_{i}"), Signal(EPT_TAG_BITS, name=f"tag_{i}")
            page = Signal(PAGE_NUMBER_BITS, name=f"page_{i}")
            entry = Signal(NestedTranslation, name=f"entry_{i}")
            named = (
                self.i_invalidate.valid
                & wanted.any_vpid
                & (wanted.any_world | (world == wanted.world))
                & (~wanted.match_ept | (ept_tag == wanted.ept_tag))
            )
            differs = page ^ self.gpa_frame
            m.d.comb += [
                asked[i].eq(
                    valid[i]
                    & (world == self.world)
                    & (ept_tag == self.ept_tag)
                    & (differs == below(differs, entry.level))
                ),
                dropped[i].eq(named | (self.drop & asked[i])),
            ]
            with m.If(fills & victim[i]):
                m.d.sync += [
                    world.eq(self.world),
                    ept_tag.eq(self.ept_tag),
                    page.eq(self.gpa_frame),
                    entry.eq(self.i),
                    # Its place in the page is that of whoever asks.
                    entry.frame.eq(self.i.frame ^ below(self.i.frame, self.i.level)),
                ]
            with m.If(asked[i]):
                m.d.comb += [self.hit.eq(1), found.eq(entry)]
        return m

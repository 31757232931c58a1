"""The second-level TLB: set-associative, in block RAM, shared by both sides."""

from amaranth import *
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.arch.paging import LEVELS, VPN_BITS
from rtl.lib.collisions import COLLISIONS_UNDEFINED
from rtl.mmu.context import Invalidation, TranslationQuery
from rtl.mmu.invalidate import InvalidationMatch, InvalidationUnion
from rtl.mmu.permissions import LeafPermission
from rtl.mmu.ports import PAGE_NUMBER_BITS, Refill, TlbEntry
from rtl.mmu.tags import (
    TagQuery,
    matches,
    set_for,
    set_overlapping,
    set_root,
    sizes,
)

__all__ = ["SharedTlb"]


class _Row(data.Struct):
    valid: 1
    entry: TlbEntry


class _Act(enum.Enum, shape=2):
    """What the set read in the cycle before is for."""

    NONE = 0
    LOOK_UP = 1
    REFILL = 2
    SWEEP = 3


class SharedTlb(wiring.Component):
    """Hold many translations of all page sizes; answer a query some cycles later.

    A look-up reads the set of each page size in turn, smallest first, and takes 2 to 4 cycles. As
    in the first level, an entry that does not permit the query does not hit; nor does one of a
    set that may be written in the cycle in which it is read.

    An invalidation holds at once and is precise: until the entries it names have been swept out,
    set by set in cycles that nothing else needs, look-ups pass over them. One that names a page
    is swept out of three sets, any other, and one of a page while pieces of larger guest pages
    are held, out of all. One that comes while another is still swept joins it: both become one
    that names at least what either did, and the sweep begins again. Until its end, translations
    that are named and were refilled after the invalidation may be passed over and dropped too.
    Reset is an invalidation of everything.

    Parameters
    ----------
    entry_count : int
        Number of entries: a power of two.
    ways : int
        Associativity.
    guests : bool
        There are other address spaces than root's, and an EPT.

    Members
    -------
    look_up, page : In
        Strobe: begin with a query of this page number, which holds still to ``done``.
    query : In(TranslationQuery)
        From the next cycle to ``done``.
    done, hit, entry : Out
        ``done`` strobes once; in that cycle ``hit`` and, for a hit, ``entry`` answer. An
        invalidation that comes between ``look_up`` and ``done`` may not have been heeded.
    refill : In(Refill)
        Lost when an invalidation is taken in this cycle or in one of the next few; at most one
        within six cycles.
    i_invalidate : In(stream.Signature(Invalidation))
        Always ready.
    settled : Out(1)
        No sweep is under way.

    Raises ValueError on numbers that cannot be built.
    """

    def __init__(self, *, entry_count, ways, guests=True):
        set_count = entry_count // ways if ways > 0 else 0
        if set_count * ways != entry_count or set_count < 4 or set_count & set_count - 1:
            raise ValueError(
                f"{entry_count} entries in {ways} ways: the sets must be a power of two, at least 4"
            )
        self._set_count, self._ways, self._guests = set_count, ways, guests
        super().__init__(
            {
                "look_up": In(1),
                "page": In(PAGE_NUMBER_BITS),
                "query": In(TranslationQuery),
                "done": Out(1),
                "hit": Out(1),
                "entry": Out(TlbEntry),
                "refill": In(Refill),
                "i_invalidate": In(stream.Signature(Invalidation)),
                "settled": Out(1),
            }
        )

    @property
    def entry_count(self) -> int:
        return self._set_count * self._ways

    def _index(self, page, level):
        """The set of a page of that size. Bits beyond Sv39's take no part."""
        width = exact_log2(self._set_count)
        choices = []
        for size in range(LEVELS):
            part = page[size * VPN_BITS : LEVELS * VPN_BITS]
            # Fold a second field in, so that stacks do not meet the code far below them.
            choices.append((part[:width] ^ part[VPN_BITS : VPN_BITS + width])[:width])
        return Mux(level == 0, choices[0], Mux(level == 1, choices[1], choices[2]))

    def elaborate(self, platform):
        m = Module()
        last_set = self._set_count - 1

        # One set is read per cycle; what it is for, and what follows, comes in the next.
        address = Signal(range(self._set_count))
        act, act_address = Signal(_Act), Signal(range(self._set_count))
        now = Signal(_Act)
        # The set read may be written in this cycle.
        collides, collided = Signal(), Signal()
        m.d.comb += [
            now.eq(_Act.NONE),
            collides.eq(((act == _Act.REFILL) | (act == _Act.SWEEP)) & (address == act_address)),
        ]
        m.d.sync += collided.eq(collides)
        m.d.sync += [act.eq(now), act_address.eq(address)]
        rows, writes = [], []
        for way in range(self._ways):
            m.submodules[f"rows_{way}"] = cells = memory.Memory(
                shape=_Row, depth=self._set_count, init=(), attrs=COLLISIONS_UNDEFINED
            )
            read, write = cells.read_port(), cells.write_port()
            m.d.comb += [
                read.addr.eq(address),
                read.en.eq(now != _Act.NONE),
                write.addr.eq(act_address),
            ]
            row = read.data
            if not self._guests:
                row = Signal(_Row, name=f"row_{way}")
                tag = row.entry.tag
                m.d.comb += [
                    row.eq(read.data),
                    *set_root(tag.space),
                    tag.guest_level.eq(read.data.entry.tag.level),
                ]
            rows.append(row)
            writes.append(write)

        # Reset leaves the memories as they are.
        invalidation = Signal(Invalidation, init={"any_world": 1, "any_vpid": 1})
        sweeping, finishing, whole = Signal(init=1), Signal(), Signal(init=1)
        named = Signal(self._ways)
        # What a look-up, or the entry to be filled in, asks of the set.
        wanted, matched = Signal(TagQuery), Signal(self._ways)
        new, filling = Signal(TlbEntry), Signal()
        with m.If(act == _Act.REFILL):
            m.d.comb += set_overlapping(wanted, new.tag)
        with m.Else():
            m.d.comb += set_for(wanted, self.query)
        for way, row in enumerate(rows):
            tag = row.entry.tag
            m.submodules[f"match_{way}"] = match = InvalidationMatch()
            m.d.comb += [match.tag.eq(row.entry.tag), match.invalidation.eq(invalidation)]
            with m.If(act != _Act.NONE):
                m.d.comb += matched[way].eq(row.valid & matches(tag, sizes(tag.level), wanted))
            with m.If(sweeping):
                m.d.comb += named[way].eq(row.valid & match.match)

        # Looking up.
        level, looking = Signal(range(LEVELS)), Signal()
        act_level = Signal(range(LEVELS))
        size = Signal(range(LEVELS))
        m.d.comb += size.eq(Mux(self.look_up, 0, level))
        m.d.sync += act_level.eq(size)
        hits = Signal(self._ways)
        for way, row in enumerate(rows):
            m.submodules[f"permission_{way}"] = permission = LeafPermission()
            m.d.comb += [
                permission.rights.eq(row.entry.rights),
                permission.access.eq(self.query.access),
                permission.context.eq(self.query.context),
            ]
            with m.If(act == _Act.LOOK_UP):
                m.d.comb += hits[way].eq(
                    matched[way]
                    & ~collided
                    & ~(sweeping & named[way])
                    & (row.entry.tag.level == act_level)
                    & permission.allowed
                )
        # What was found stands in registers before anything is chosen by it: the rows come late.
        looked, at_last, found = Signal(), Signal(), Signal(self._ways)
        held = [Signal(TlbEntry, name=f"held_{way}") for way in range(self._ways)]
        stop = self.done
        m.d.sync += [
            looked.eq((act == _Act.LOOK_UP) & ~stop),
            at_last.eq(act_level == LEVELS - 1),
        ]
        with m.If(act == _Act.LOOK_UP):
            m.d.sync += found.eq(hits)
            m.d.sync += [entry.eq(row.entry) for entry, row in zip(held, rows, strict=True)]
        m.d.comb += [
            self.hit.eq(found.any()),
            self.done.eq(looked & (self.hit | at_last)),
        ]
        # A page can be held twice, once for all address spaces: either will do.
        for way in reversed(range(self._ways)):
            with m.If(found[way]):
                m.d.comb += self.entry.eq(held[way])

        # Refilling: over what the new entry overlaps, else where there is room, else in turn.
        turn = Signal(self._ways, init=1)
        free, victim = Signal(self._ways), Signal(self._ways)
        m.d.comb += free.eq(~Cat(row.valid for row in rows))
        candidates = Mux(matched.any(), matched, Mux(free.any(), free, turn))
        m.d.comb += victim.eq(candidates & -candidates)
        for way, write in enumerate(writes):
            m.d.comb += write.data.valid.eq(act == _Act.REFILL)
            with m.If(act == _Act.REFILL):
                m.d.comb += [write.en.eq(victim[way]), write.data.entry.eq(new)]
        with m.If(act == _Act.REFILL):
            m.d.sync += turn.eq(turn.rotate_left(1))

        # Sweeping. ``filled`` and ``fractured`` say what there may be; a whole sweep counts anew.
        position = Signal(range(self._set_count))
        act_last = Signal()
        filled, fractured = Signal(init=1), Signal(init=1)
        kept, kept_fractured = Signal(), Signal()
        last = position == Mux(whole, last_set, LEVELS - 1)
        m.d.comb += self.settled.eq(~sweeping)
        with m.If(act == _Act.SWEEP):
            for way, (row, write) in enumerate(zip(rows, writes, strict=True)):
                stays = row.valid & ~named[way]
                with m.If(named[way]):
                    m.d.comb += write.en.eq(1)
                with m.If(stays):
                    m.d.sync += kept.eq(1)
                with m.If(stays & (row.entry.tag.level != row.entry.tag.guest_level)):
                    m.d.sync += kept_fractured.eq(1)
        with m.If((act == _Act.SWEEP) & act_last):
            m.d.sync += finishing.eq(1)
        # One cycle more: a look-up may just have read what was swept out last.
        with m.If(finishing):
            m.d.sync += [sweeping.eq(0), finishing.eq(0)]
            with m.If(whole):
                m.d.sync += [filled.eq(kept), fractured.eq(kept_fractured)]

        # Who reads. What is read behind a hit is read for nothing.
        with m.If(stop):
            m.d.sync += looking.eq(0)
        with m.If(self.look_up | (looking & ~stop)):
            m.d.comb += [
                now.eq(_Act.LOOK_UP),
                address.eq(self._index(self.page, size)),
            ]
            m.d.sync += [looking.eq(size != LEVELS - 1), level.eq(size + 1)]
        with m.Elif(filling):
            m.d.comb += address.eq(self._index(new.tag.page, new.tag.level))
            with m.If(~collides):
                m.d.comb += now.eq(_Act.REFILL)
                m.d.sync += filling.eq(0)
        with m.Elif(sweeping & ~finishing & ~((act == _Act.SWEEP) & act_last)):
            m.d.comb += address.eq(
                Mux(whole, position, self._index(invalidation.page, position[:2]))
            )
            with m.If(~collides):
                m.d.comb += now.eq(_Act.SWEEP)
                m.d.sync += [position.eq(position + 1), act_last.eq(last)]

        pieces = self.refill.entry.tag.level != self.refill.entry.tag.guest_level
        with m.If(self.refill.valid):
            m.d.sync += [new.eq(self.refill.entry), filling.eq(1), filled.eq(1), kept.eq(1)]
            with m.If(pieces):
                m.d.sync += [fractured.eq(1), kept_fractured.eq(1)]

        m.submodules.union = union = InvalidationUnion()
        next_one = Signal(Invalidation)
        m.d.comb += [
            self.i_invalidate.ready.eq(1),
            union.first.eq(invalidation),
            union.second.eq(self.i_invalidate.payload),
            next_one.eq(self.i_invalidate.payload),
        ]
        with m.If(sweeping):
            m.d.comb += next_one.eq(union.union)
        with m.If(self.i_invalidate.valid):
            m.d.sync += [filling.eq(0), finishing.eq(0), filled.eq(filled), fractured.eq(fractured)]
            m.d.sync += [kept.eq(0), kept_fractured.eq(0), act_last.eq(0)]
            with m.If(now == _Act.REFILL):
                m.d.sync += act.eq(_Act.NONE)
            with m.If(filled):
                m.d.sync += [
                    invalidation.eq(next_one),
                    sweeping.eq(1),
                    whole.eq(~next_one.match_page | fractured),
                    position.eq(0),
                ]
        return m

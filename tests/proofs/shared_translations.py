"""The second-level TLB answers with what was made for the query, whatever it holds besides."""

from amaranth import *

from rtl.arch.paging import LEVELS, Access
from rtl.mmu.context import TranslationQuery
from rtl.mmu.ports import TlbEntry
from rtl.mmu.shared_tlb import _Act, _Row
from tests.proofs.properties import Fault, Proof
from tests.proofs.translation import TAG_FAULTS, answers, named, permits

__all__ = ["PROOFS"]

_WAYS = 2
_SETS = 4
#: Cycles from one refill to the next.
_DISTANCE = 6
_LOOK_UP = _Act.LOOK_UP.value


def _shared_tlb(p, unit_class):
    m = p.m
    tlb = unit_class(entry_count=_SETS * _WAYS, ways=_WAYS)
    inside = p.unit("tlb", tlb)
    memory = {
        (way, number): inside.memory_word(f"rows_{way}", number)
        for way in range(_WAYS)
        for number in range(_SETS)
    }
    collisions = []
    for way in range(_WAYS):
        cells = inside.memory(f"rows_{way}")
        read, write = cells.read_ports[0], cells.write_ports[0]
        collisions.append(p.before(read.en & write.en & (read.addr == write.addr)))
    new, dropped = tlb.refill.entry, tlb.i_invalidate

    # Look-ups come one after the other, and refills in their distance.
    under_way, age = Signal(), Signal(range(_DISTANCE + 1), init=_DISTANCE)
    with m.If(tlb.done):
        m.d.sync += under_way.eq(0)
    with m.If(tlb.look_up):
        m.d.sync += under_way.eq(1)
    m.d.sync += age.eq(Mux(tlb.refill.valid, 1, age + (age != _DISTANCE)))
    p.assume(~(under_way & tlb.look_up))
    p.assume(~tlb.refill.valid | (age == _DISTANCE))
    p.assume((new.tag.level <= new.tag.guest_level) & (new.tag.guest_level < LEVELS))
    p.assume(tlb.query.access.as_value() <= max(Access))

    waited = Signal(range(LEVELS + 2))
    m.d.sync += waited.eq(Mux(tlb.look_up, 0, waited + (waited <= LEVELS)))
    p.always(~under_way | (waited <= LEVELS), "a look-up takes four cycles at most")

    # What holds for any one entry holds for all.
    told = TlbEntry(p.any_constant(TlbEntry, "told").as_value())
    p.assume((told.tag.level <= told.tag.guest_level) & (told.tag.guest_level < LEVELS))
    known, known_next, heeded = Signal(), Signal(), Signal()
    m.d.comb += known_next.eq(known)
    with m.If(dropped.valid & named(told.tag, dropped.payload)):
        m.d.comb += known_next.eq(0)
    with m.If(tlb.refill.valid & ~dropped.valid & (new.as_value() == told.as_value())):
        m.d.comb += known_next.eq(1)
    m.d.sync += [
        known.eq(known_next),
        # An invalidation that comes later than the look-up may be heeded or not.
        heeded.eq(known_next | (heeded & ~tlb.look_up)),
    ]

    hit, tag = tlb.done & tlb.hit, tlb.entry.tag
    query = TranslationQuery(p.before(tlb.query.as_value()))
    p.always(
        ~hit | (tlb.entry.as_value() != told.as_value()) | heeded,
        "a hit gives what was refilled, and not invalidated before it was looked up",
    )
    p.always(~hit | answers(tag, query), "every tag of it is that of the query")
    p.always(~hit | permits(tlb.entry, query), "it permits the access")
    last_world, last = Signal(1), Signal(TlbEntry)
    some = Signal()
    with m.If(hit):
        m.d.sync += [some.eq(1), last_world.eq(query.context.world.as_value()), last.eq(tlb.entry)]
    p.always(
        ~(some & hit)
        | (last_world == query.context.world.as_value())
        | (last.tag.space.as_value() != tag.space.as_value()),
        "one access in root and one in non-root operation share no translation",
    )
    p.always(dropped.ready, "an invalidation never waits")

    undefined = (inside["hits"] & Cat(collisions)).any() & (inside["act"].as_value() == _LOOK_UP)
    p.always(~undefined, "a row that was written as it was read does not answer")

    # The inside.
    p.invariant(~some | (last.tag.space.world.as_value() == last_world), "whose the last hit was")
    act, position, address = (inside[name] for name in ("act", "position", "act_address"))
    acts = {kind: act.as_value() == kind.value for kind in _Act}
    sweeping, whole, filling = (inside[name] for name in ("sweeping", "whole", "filling"))
    invalidation, coming = inside["invalidation"], inside["new"]
    for way, row in enumerate(inside["rows"]):
        held = Array(memory[way, number] for number in range(_SETS))[address]
        p.invariant(
            acts[_Act.NONE] | inside["collided"] | (row.as_value() == held),
            "what was read stands there",
        )
    changes = acts[_Act.REFILL] | acts[_Act.SWEEP]
    p.invariant(~(changes & inside["collided"]), "who writes has read what stands there")
    p.invariant(acts[_Act.NONE] | acts[_Act.LOOK_UP] | changes, "what a set is read for")

    # A sweep is past the places that it has read, and past the last of them when it has written.
    last_place = Mux(whole, _SETS - 1, LEVELS - 1)
    swept_all = inside["act_last"] & acts[_Act.SWEEP]
    # What a sweep reads when an invalidation comes belongs to none.
    reading = acts[_Act.SWEEP] & (inside["act_last"] | (position != 0))

    def is_past(place):
        behind = position - reading
        return inside["finishing"] | Mux(swept_all, place < last_place, place < behind)

    def pieces(tag):
        return tag.level != tag.guest_level

    def set_of(tag):
        return tlb._index(tag.page, tag.level)

    arriving = filling | acts[_Act.REFILL]
    counting = sweeping & whole
    p.invariant(~inside["finishing"] | sweeping, "sweeps end")
    p.invariant(~acts[_Act.SWEEP] | (sweeping & ~inside["finishing"]), "only sweeps sweep")
    p.invariant(
        ~reading
        | Mux(
            whole,
            (address + 1)[:2] == position,
            (address == tlb._index(invalidation.page, (position - 1)[:2])),
        ),
        "in their order",
    )
    p.invariant(
        ~reading | (inside["act_last"] == ((position - 1)[:2] == last_place)),
        "the last is known",
    )
    p.invariant(~sweeping | whole | invalidation.match_page, "a page is swept out of three sets")
    p.invariant(~sweeping | inside["filled"], "there is something to be swept")
    p.invariant(~(filling & acts[_Act.REFILL]), "one refill at a time")
    p.invariant(~arriving | (age != 0), "it takes its time")
    p.invariant(~filling | (age < _DISTANCE), "and is over before the next")
    p.invariant(~acts[_Act.REFILL] | (age > 1), "but read before")
    p.invariant(~(filling & (age > 1) & acts[_Act.SWEEP]), "it goes before sweeps")
    p.invariant(~(filling & (age > 2)) | under_way, "it waits for one look-up")
    p.invariant(
        ~(filling & inside["looking"]) | (age <= inside["level"] + 2), "that has begun before"
    )
    p.invariant(~arriving | inside["filled"], "what arrives is counted")
    p.invariant(~(arriving & counting) | inside["kept"], "and again after a sweep")
    p.invariant(~(arriving & pieces(coming.tag)) | inside["fractured"], "pieces are counted")
    p.invariant(
        ~(arriving & counting & pieces(coming.tag)) | inside["kept_fractured"],
        "and again after a sweep",
    )
    p.invariant(
        ~arriving
        | ((coming.tag.level <= coming.tag.guest_level) & (coming.tag.guest_level < LEVELS)),
        "sizes of what arrives",
    )
    p.invariant(~acts[_Act.REFILL] | (address == set_of(coming.tag)), "where it belongs")
    p.invariant(~arriving | (coming.as_value() != told.as_value()) | known, "what arrives is known")
    looks, looked_at = acts[_Act.LOOK_UP], inside["act_level"]
    looked = inside["looked"]
    p.invariant(under_way == (looks | looked), "a look-up reads sets, up to its end")
    p.invariant(
        ~looked | (inside["at_last"] == (waited == LEVELS)), "at the latest the last of them"
    )
    p.invariant(inside["looking"] == (looks & (looked_at != LEVELS - 1)), "it reads three")
    p.invariant(~inside["looking"] | (inside["level"] == looked_at + 1), "one after the other")
    p.invariant(~looks | (looked_at == waited), "one in each cycle")
    p.invariant(~(known & under_way) | heeded, "what is known now is heeded")

    is_swept = Signal()
    m.d.comb += is_swept.eq(
        sweeping
        & named(told.tag, invalidation)
        & Mux(whole, ~is_past(set_of(told.tag)), ~pieces(told.tag) & ~is_past(told.tag.level))
    )
    for (_, number), word in memory.items():
        row = _Row(word)
        held = row.entry.tag
        p.invariant(
            ~row.valid | (row.entry.as_value() != told.as_value()) | known | is_swept,
            "what is held is known, or will be swept out",
        )
        p.invariant(
            ~row.valid | ((held.level <= held.guest_level) & (held.guest_level < LEVELS)),
            "sizes of pages",
        )
        p.invariant(~row.valid | (set_of(held) == number), "each is in its set")
        p.invariant(~row.valid | inside["filled"], "what is held is counted")
        p.invariant(~(row.valid & pieces(held)) | inside["fractured"], "pieces are counted")
        again = row.valid & counting & is_past(C(number, 2))
        p.invariant(~again | inside["kept"], "and again after a sweep")
        p.invariant(~(again & pieces(held)) | inside["kept_fractured"], "and again after a sweep")


_TAGS = "rtl.mmu.tags"
PROOFS = (
    Proof(
        "second-level TLB",
        "rtl.mmu.shared_tlb:SharedTlb",
        _shared_tlb,
        (
            *TAG_FAULTS,
            Fault(
                "one bit of the EPT tag is compared",
                "space.ept_tag.any()",
                "space.ept_tag[0]",
                _TAGS,
            ),
            Fault(
                "the upper half of an ASID is not compared",
                "space.asid.any()",
                "space.asid[:8].any()",
                _TAGS,
            ),
            Fault(
                "ASIDs never count",
                "~(tag.global_ | wanted.any_asid)",
                "~(tag.global_ | ~wanted.any_asid)",
                _TAGS,
            ),
            Fault(
                "unpaged addresses are gvas",
                "        | (space.paged & ~wanted.any_paged)\n",
                "",
                _TAGS,
            ),
            Fault(
                "page numbers end where Sv39's do",
                "        | (page[LEVELS * VPN_BITS :].any() & ~wanted.any_above)\n",
                "",
                _TAGS,
            ),
            Fault(
                "half a field of the page number",
                "page[k * VPN_BITS :][:VPN_BITS].any() & ~ignored",
                "page[k * VPN_BITS :][:4].any() & ~ignored",
                _TAGS,
            ),
            Fault(
                "gigapages for megapages",
                "(whole[k] if k < LEVELS - 1 else 0)",
                "(whole[0] if k < LEVELS - 1 else 0)",
                _TAGS,
            ),
            Fault("a hit without permission", "                    & permission.allowed\n", ""),
            Fault(
                "what will be swept out answers",
                "                    & ~(sweeping & named[way])\n",
                "",
            ),
            Fault(
                "a second invalidation replaces the first",
                "next_one.eq(union.union)",
                "next_one.eq(self.i_invalidate.payload)",
            ),
            Fault(
                "what arrives survives an invalidation",
                "[filling.eq(0), finishing.eq(0),",
                "[finishing.eq(0),",
            ),
        ),
        fault_depth=12,
    ),
)

"""The aligner's ring of packets is a line, whatever its two banks and places do."""

from amaranth import *

from rtl.core.frontend.fetch import FetchPacket
from rtl.mmu.context import Fault as TranslationFault
from tests.proofs.properties import Fault, Proof

__all__ = ["PROOFS"]

_DEPTH = 4


def _aligner(p, unit_class):
    m = p.m
    aligner = unit_class()
    inside = p.unit("aligner", aligner)
    output = aligner.o.payload

    # The same packets in a line, the oldest first.
    line = [Signal(FetchPacket, name=f"line_{place}") for place in range(_DEPTH)]
    level, pc = Signal(range(_DEPTH + 1), name="line_level"), Signal(64, name="line_pc")
    p.assume(~aligner.i.valid | (level < _DEPTH))
    first, second = line[0], line[1]
    offset = pc[1:3]
    code = Cat(first.data, second.data) >> (offset << 4)
    whole = first.fault == TranslationFault.NONE
    compressed = code[:2] != 0b11
    crosses = whole & ~compressed & (offset == 3)
    needed = 1 + crosses
    end = (offset + Mux(compressed, 0, 1))[:2]  # the halfword it ends in
    guess = first.prediction
    cut = (level != 0) & whole & ~compressed & guess.taken & (guess.last == offset)
    taken = Mux(
        crosses,
        second.prediction.taken & (second.prediction.last == 0),
        guess.taken & (guess.last == end) & whole,
    )
    target = Signal(64)
    m.d.comb += target.eq(
        Mux(crosses, second.prediction.target.as_signed(), guess.target.as_signed())
    )
    lacks_second = crosses & (second.fault != TranslationFault.NONE)
    link = Signal(64)
    m.d.comb += link.eq(pc + Mux(compressed | lacks_second, 2, 4))
    leaves = aligner.o.valid & aligner.o.ready
    dropped, next_pc = Signal(2), Signal(64)
    with m.If(leaves & taken):
        m.d.comb += [dropped.eq(needed), next_pc.eq(target)]
    with m.Elif(leaves):
        m.d.comb += next_pc.eq(link)
        m.d.comb += dropped.eq((next_pc >> 3)[0] != pc[3])
    with m.Else():
        m.d.comb += next_pc.eq(pc)
    m.d.sync += pc.eq(next_pc)
    kept = Signal(range(_DEPTH + 1))
    m.d.comb += kept.eq(level - dropped)
    m.d.sync += level.eq(kept + aligner.i.valid)
    for place, packet in enumerate(line):
        with m.If(aligner.i.valid & (kept == place)):
            m.d.sync += packet.eq(aligner.i.payload)
        with m.Elif(dropped == 1):
            m.d.sync += packet.eq(line[(place + 1) % _DEPTH])
        with m.Elif(dropped == 2):
            m.d.sync += packet.eq(line[(place + 2) % _DEPTH])
    with m.If(aligner.redirect.valid):
        m.d.sync += [level.eq(0), pc.eq(aligner.redirect.pc)]

    p.always(aligner.room == (level + 2 <= _DEPTH), "room is for two more packets")
    p.always(aligner.o.valid == ((level >= needed) & ~cut), "an instruction that is all there")
    p.always(aligner.misfit.valid == cut, "one that its prediction cuts is asked for again")
    p.always(~cut | (aligner.misfit.pc == pc), "from where it begins")
    p.always(~aligner.o.valid | (output.pc == pc), "it goes on where the one before ended")
    follows = (output.link == link) | (whole == 0)
    p.always(~aligner.o.valid | follows, "where its missing half or what follows it lies")
    faulty = Mux(crosses, second.fault, first.fault)
    p.always(~aligner.o.valid | (output.fault.as_value() == faulty), "the fault of its packets")
    bits = Mux(compressed, code[:16], code[:32])
    p.always(~aligner.o.valid | (faulty != 0) | (output.bits == bits), "the bits at its address")

    level_inside, tail = inside["level"], inside["tail"]
    head = Signal(range(_DEPTH))
    m.d.comb += head.eq(tail - level_inside)
    p.invariant(level_inside == level, "packets held")
    p.invariant(level <= _DEPTH, "never more than fit")
    p.invariant(inside["pc"] == pc, "the next instruction")
    p.invariant(inside["begins_odd"] == head[0], "the bank of the oldest")
    p.invariant(inside["odd_place"] == head[1], "its place in the odd bank")
    p.invariant(inside["even_place"] == (head + head[0])[1], "its place in the even bank")
    ring = Array(packet.as_value() for packet in inside["ring"])
    for place, packet in enumerate(line):
        held = Signal(len(packet.as_value()))
        m.d.comb += held.eq(ring[(head + place)[:2]])
        p.invariant((level <= place) | (held == packet.as_value()), "the ring holds the line")


PROOFS = (
    Proof(
        "aligner",
        "rtl.core.frontend.aligner:Aligner",
        _aligner,
        (
            Fault(
                "of two packets one stays in its bank",
                "m.If(pop[1] | (pop[0] & begins_odd))",
                "m.If(pop[0] & begins_odd)",
            ),
            Fault(
                "half an instruction is enough",
                "Mux(straddles, level >= 2, level != 0)",
                "(level != 0)",
            ),
            Fault("a branch leaves its second packet", "pop.eq(Mux(straddles, 2, 1))", "pop.eq(1)"),
            Fault("room for one", "level <= _DEPTH - 2", "level <= _DEPTH - 1"),
        ),
        depth=1,
        fault_depth=5,
    ),
)

"""Cut the stream of packets into instructions of two or four bytes."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.core.frontend.fetch import FetchPacket, Redirect
from rtl.core.frontend.predictor import Prediction
from rtl.mmu.context import Fault

__all__ = ["Aligner", "FetchedInstruction"]

_DEPTH = 4


class FetchedInstruction(data.Struct):
    """One instruction as it stands in memory; a compressed one has zeros in bits 31:16.

    With a ``fault`` the bits mean nothing; ``fault_second`` says that only the second half of the
    instruction, at pc + 2, could not be fetched. ``prediction`` is that of the packet the
    instruction ends in; ``known`` and ``taken`` are cleared unless they are about it. ``link`` is
    where its second half lies if only that could not be fetched, else what follows it in memory.
    """

    pc: 64
    link: 64
    bits: 32
    compressed: 1
    fault: Fault
    fault_second: 1
    prediction: Prediction


class Aligner(wiring.Component):
    """Queue packets and hand out one instruction per cycle, along the predicted path.

    A prediction may be about something else that once stood here. Where it would cut an
    instruction in two, ``misfit`` asks for the packet again, and for its prediction to be
    forgotten; any other nonsense is found when the instruction executes.

    Members
    -------
    redirect : In(Redirect)
        Empties the queue; the next packet holds the instruction at its pc.
    i : In(stream.Signature(FetchPacket))
        Always ready; the sender minds ``room``.
    room : Out(1)
        Two more packets fit.
    misfit : Out(Redirect)
        To the address of the instruction cut in two.
    """

    redirect: In(Redirect)
    i: In(stream.Signature(FetchPacket))
    room: Out(1)
    misfit: Out(Redirect)
    o: Out(stream.Signature(FetchedInstruction))

    def elaborate(self, platform):
        m = Module()
        # A ring in two banks. Of the first packet and the second one each bank holds one, and
        # registers say which: no adder and no decoder stands before the instruction's bits.
        ring = [Signal(FetchPacket, name=f"packet{n}") for n in range(_DEPTH)]
        level = Signal(range(_DEPTH + 1))
        tail = Signal(range(_DEPTH))
        even_place, odd_place, begins_odd = Signal(), Signal(), Signal()
        even, odd = Signal(FetchPacket), Signal(FetchPacket)
        m.d.comb += [
            even.eq(Mux(even_place, ring[2].as_value(), ring[0].as_value())),
            odd.eq(Mux(odd_place, ring[3].as_value(), ring[1].as_value())),
        ]
        pc, link = Signal(64), Signal(64)
        offset = pc[1:3]

        def choose(select, field):
            return Mux(select, odd[field], even[field])

        both = Cat(even.data, odd.data, even.data[:16])
        bits = Signal(32)
        # A tree of multiplexers is smaller than what a Switch becomes.
        windows = [both[16 * n : 16 * n + 32] for n in range(8)]
        for select in (offset[0], offset[1], begins_odd):
            windows = [
                Mux(select, one, other)
                for other, one in zip(windows[::2], windows[1::2], strict=True)
            ]
        m.d.comb += bits.eq(windows[0])
        instruction = self.o.payload
        compressed = bits[:2] != 3
        first_fault, second_fault = choose(begins_odd, "fault"), choose(~begins_odd, "fault")
        whole = first_fault == Fault.NONE.value
        # What the last instruction of the first packet is, whether or not it is next.
        wide = choose(begins_odd, "data")[48:50] == 3
        straddles, lacks_second = Signal(), Signal()
        first, second = (
            (
                Mux(odd_one, odd.prediction.known, even.prediction.known),
                Mux(odd_one, odd.prediction.taken, even.prediction.taken),
                Mux(odd_one, odd.prediction.last, even.prediction.last),
            )
            for odd_one in (begins_odd, ~begins_odd)
        )
        cut = (level != 0) & first[1] & (first[2] == offset) & ~compressed & whole
        last = Mux(compressed, offset, offset + 1)[:2]
        # Whether the predictions are about this instruction, before it is known which one counts.
        ends_first, ends_second = whole & (first[2] == last), second[2] == 0
        target = Signal(64)
        m.d.comb += [
            straddles.eq((offset == 3) & wide & whole),
            lacks_second.eq((offset == 3) & whole & (second_fault != Fault.NONE.value)),
            link.eq(pc + Mux(compressed | lacks_second, 2, 4)),
            instruction.pc.eq(pc),
            instruction.link.eq(link),
            instruction.bits.eq(Mux(compressed, bits[:16], bits)),
            instruction.compressed.eq(compressed),
            instruction.fault.eq(Mux(straddles, second_fault, first_fault)),
            instruction.fault_second.eq(straddles & lacks_second),
            self.o.valid.eq(Mux(straddles, level >= 2, level != 0) & ~cut),
            self.misfit.valid.eq(cut),
            self.misfit.pc.eq(pc),
            instruction.prediction.eq(choose(begins_odd ^ straddles, "prediction")),
            instruction.prediction.known.eq(
                Mux(straddles, second[0] & ends_second, first[0] & ends_first)
            ),
            instruction.prediction.taken.eq(
                Mux(straddles, second[1] & ends_second, first[1] & ends_first)
            ),
            self.i.ready.eq(1),
            self.room.eq(level <= _DEPTH - 2),
        ]
        m.d.comb += target.eq(instruction.prediction.target.as_signed())

        # After a taken branch the rest of its packet goes too, and both where it straddles two.
        pop = Signal(2)
        taken = self.o.valid & self.o.ready
        with m.If(taken):
            m.d.sync += pc.eq(link)
            m.d.comb += pop.eq(Mux(compressed, offset == 3, offset[1]))
            with m.If(instruction.prediction.taken):
                m.d.sync += pc.eq(target)
                m.d.comb += pop.eq(Mux(straddles, 2, 1))
        with m.If(pop[1] | (pop[0] & ~begins_odd)):
            m.d.sync += even_place.eq(~even_place)
        with m.If(pop[1] | (pop[0] & begins_odd)):
            m.d.sync += odd_place.eq(~odd_place)
        with m.If(pop[0]):
            m.d.sync += begins_odd.eq(~begins_odd)
        with m.If(self.i.valid):
            m.d.sync += tail.eq(tail + 1)
        # Whether it is a packet at all is known late.
        with m.If(level != _DEPTH), m.Switch(tail):
            for n in range(_DEPTH):
                with m.Case(n):
                    m.d.sync += ring[n].eq(self.i.payload)
        m.d.sync += level.eq(level + self.i.valid - pop)
        with m.If(self.redirect.valid):
            m.d.sync += [
                level.eq(0),
                tail.eq(0),
                even_place.eq(0),
                odd_place.eq(0),
                begins_odd.eq(0),
                pc.eq(self.redirect.pc),
            ]
        return m

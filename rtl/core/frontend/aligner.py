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
    instruction ends in; ``known`` and ``taken`` are cleared unless they are about it.
    """

    pc: 64
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
        words = [Signal(64, name=f"word{n}") for n in range(_DEPTH)]
        faults = [Signal(Fault, name=f"fault{n}") for n in range(_DEPTH)]
        predictions = [Signal(Prediction, name=f"prediction{n}") for n in range(_DEPTH)]
        level = Signal(range(_DEPTH + 1))
        pc = Signal(64)
        offset = pc[1:3]

        both = Cat(words[0], words[1])
        bits = Signal(32)
        with m.Switch(offset):
            for n in range(4):
                with m.Case(n):
                    m.d.comb += bits.eq(both[16 * n : 16 * n + 32])
        instruction = self.o.payload
        compressed = bits[:2] != 3
        whole = faults[0] == Fault.NONE
        straddles = (offset == 3) & ~compressed & whole
        first, second = predictions[0], predictions[1]
        cut = (level != 0) & first.taken & (first.last == offset) & ~compressed & whole
        last = Mux(compressed, offset, offset + 1)[:2]
        mine = Signal()  # the prediction is about this instruction
        target = Signal(64)
        m.d.comb += [
            instruction.pc.eq(pc),
            instruction.bits.eq(Mux(compressed, bits[:16], bits)),
            instruction.compressed.eq(compressed),
            instruction.fault.eq(faults[0]),
            self.o.valid.eq(Mux(straddles, level >= 2, level != 0) & ~cut),
            self.misfit.valid.eq(cut),
            self.misfit.pc.eq(pc),
            instruction.prediction.eq(first),
            mine.eq((first.last == last) & whole),
            self.i.ready.eq(1),
            self.room.eq(level <= _DEPTH - 2),
        ]
        with m.If(straddles):
            m.d.comb += [
                instruction.fault.eq(faults[1]),
                instruction.fault_second.eq(faults[1] != Fault.NONE),
                instruction.prediction.eq(second),
                mine.eq(second.last == 0),
            ]
        with m.If(~mine):
            m.d.comb += [instruction.prediction.known.eq(0), instruction.prediction.taken.eq(0)]
        m.d.comb += target.eq(instruction.prediction.target.as_signed())

        # After a taken branch the rest of its packet goes too, and both where it straddles two.
        pop = Signal(2)
        taken = self.o.valid & self.o.ready
        with m.If(taken):
            m.d.sync += pc.eq(pc + Mux(compressed, 2, 4))
            m.d.comb += pop.eq(Mux(compressed, offset == 3, offset[1]))
            with m.If(instruction.prediction.taken):
                m.d.sync += pc.eq(target)
                m.d.comb += pop.eq(Mux(straddles, 2, 1))
        for distance in (1, 2):
            with m.If(pop == distance):
                for n in range(_DEPTH - distance):
                    m.d.sync += [
                        words[n].eq(words[n + distance]),
                        faults[n].eq(faults[n + distance]),
                        predictions[n].eq(predictions[n + distance]),
                    ]
        with m.If(self.i.valid):
            with m.Switch(level - pop):
                for n in range(_DEPTH):
                    with m.Case(n):
                        m.d.sync += [
                            words[n].eq(self.i.payload.data),
                            faults[n].eq(self.i.payload.fault),
                            predictions[n].eq(self.i.payload.prediction),
                        ]
        m.d.sync += level.eq(level + self.i.valid - pop)
        with m.If(self.redirect.valid):
            m.d.sync += [level.eq(0), pc.eq(self.redirect.pc)]
        return m

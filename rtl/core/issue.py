"""The issue stage: decode, read registers, wait for what is not ready, predict."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.instructions import RS1, RS2
from rtl.core.decode import Decoder, Unit
from rtl.core.direct_target import DirectTarget
from rtl.core.expand import Expander
from rtl.core.frontend.aligner import FetchedInstruction
from rtl.core.frontend.fetch import Redirect
from rtl.core.frontend.predictor import BranchKind, Prediction, Repair
from rtl.mmu.context import Fault

__all__ = ["Bypass", "IssueStage", "Issued", "Producer"]


class Bypass(enum.Enum, shape=2):
    """Where the execute stage finds an operand in the first cycle of the instruction.

    LATE (rs2 only): the execute stage does without; the commit stage finds it in write-back.
    """

    NONE = 0
    COMMIT = 1
    WRITE_BACK = 2
    LATE = 3


class Producer(data.Struct):
    """The instruction in a later stage, as far as it makes a register value.

    ``rd`` is 0 when there is none. ``late`` results exist at the end of the commit stage only.
    """

    rd: 5
    late: 1


class Issued(data.Struct):
    """An instruction on its way to the execute stage; ``unit`` is ILLEGAL after a fault."""

    pc: 64
    link: 64
    bits: 32
    compressed: 1
    fault: Fault
    fault_second: 1
    unit: Unit
    operation: 5
    word: 1
    unsigned_word: 1
    funct3: 3
    funct5: 5
    rd: 5
    late: 1
    a_pc: 1
    b_immediate: 1
    immediate: signed(32)
    rs1: 64
    rs2: 64
    rs1_bypass: Bypass
    rs2_bypass: Bypass
    target: 64
    kind: BranchKind
    prediction: Prediction


class IssueStage(wiring.Component):
    """Take instructions from the aligner and issue them in order.

    Direct jumps and backward branches the predictor does not know are predicted taken: they
    redirect the frontend as they are issued (``prediction`` and ``repair``).

    Parameters
    ----------
    bit_manipulation, vmx : bool
        See Decoder.

    Members
    -------
    kill : In(1)
        The instruction at hand is on a wrong path.
    executing, committing : In(Producer)
        What the two stages before write-back hold, in cycles in which the execute stage is ready.
    rs1, rs2, rs1_value, rs2_value :
        To the register file, which sees write-back.
    """

    i: In(stream.Signature(FetchedInstruction))
    o: Out(stream.Signature(Issued))
    kill: In(1)
    executing: In(Producer)
    committing: In(Producer)
    prediction: Out(Redirect)
    repair: Out(Repair)
    rs1: Out(5)
    rs2: Out(5)
    rs1_value: In(64)
    rs2_value: In(64)

    def __init__(self, *, bit_manipulation, vmx):
        self._decoder = {"bit_manipulation": bit_manipulation, "vmx": vmx}
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.expander = expander = Expander()
        m.submodules.decoder = decoder = Decoder(**self._decoder)
        m.submodules.direct = direct = DirectTarget()
        fetched, issued = self.i.payload, self.o.payload
        m.d.comb += [
            expander.compressed.eq(fetched.bits[:16]),
            decoder.instruction.eq(Mux(fetched.compressed, expander.expanded, fetched.bits)),
            # The register file is read by what stands where register numbers do, used or not.
            self.rs1.eq(decoder.instruction[RS1[0] :][: RS1[1]]),
            self.rs2.eq(decoder.instruction[RS2[0] :][: RS2[1]]),
            issued.pc.eq(fetched.pc),
            issued.link.eq(fetched.link),
            issued.bits.eq(fetched.bits),
            issued.compressed.eq(fetched.compressed),
            issued.fault.eq(fetched.fault),
            issued.fault_second.eq(fetched.fault_second),
            issued.operation.eq(decoder.operation),
            issued.word.eq(decoder.word),
            issued.unsigned_word.eq(decoder.unsigned_word),
            issued.funct3.eq(decoder.funct3),
            issued.funct5.eq(decoder.funct5),
            issued.a_pc.eq(decoder.a_pc),
            issued.b_immediate.eq(decoder.b_immediate),
            issued.immediate.eq(decoder.immediate),
            issued.late.eq(
                (decoder.unit == Unit.MEMORY)
                | (decoder.unit == Unit.CSR)
                | (decoder.unit == Unit.MULTIPLY)
                | (decoder.unit == Unit.COUNT)
                | (decoder.unit == Unit.VMX)
            ),
            direct.bits.eq(fetched.bits),
            issued.target.eq(fetched.pc + direct.offset),
        ]
        with m.If(fetched.fault == Fault.NONE):
            m.d.comb += [issued.unit.eq(decoder.unit), issued.rd.eq(decoder.rd)]

        stalls = []
        # The data of stores are needed in the commit stage only.
        for number, used, given, value, bypass, patient in (
            (
                self.rs1,
                decoder.rs1,
                self.rs1_value,
                issued.rs1,
                issued.rs1_bypass,
                Const(0, 1),
            ),
            (
                self.rs2,
                decoder.rs2,
                self.rs2_value,
                issued.rs2,
                issued.rs2_bypass,
                decoder.unit == Unit.MEMORY,
            ),
        ):
            stall = Signal()
            is_used = used != 0
            with m.If(is_used):
                m.d.comb += value.eq(given)
            with m.If(is_used & (number == self.executing.rd)):
                m.d.comb += bypass.eq(Bypass.COMMIT)
                with m.If(self.executing.late & patient):
                    m.d.comb += bypass.eq(Bypass.LATE)
                with m.Elif(self.executing.late):
                    m.d.comb += stall.eq(1)
            with m.Elif(is_used & (number == self.committing.rd)):
                # If it takes longer, the execute stage waits for it.
                m.d.comb += bypass.eq(Bypass.WRITE_BACK)
            stalls.append(stall)

        # The registers the calling convention returns by say what a jump is for.
        links_rd = (decoder.rd == 1) | (decoder.rd == 5)
        links_rs1 = (decoder.rs1 == 1) | (decoder.rs1 == 5)
        jumps = (decoder.unit == Unit.JUMP) | (decoder.unit == Unit.JUMP_REGISTER)
        with m.If(decoder.unit == Unit.BRANCH):
            m.d.comb += issued.kind.eq(BranchKind.BRANCH)
        with m.Elif(jumps & links_rd):
            m.d.comb += issued.kind.eq(BranchKind.CALL)
        with m.Elif((decoder.unit == Unit.JUMP_REGISTER) & links_rs1):
            m.d.comb += issued.kind.eq(BranchKind.RETURN)
        with m.Elif(decoder.unit == Unit.JUMP_REGISTER):
            m.d.comb += issued.kind.eq(BranchKind.INDIRECT)
        with m.Else():
            m.d.comb += issued.kind.eq(BranchKind.JUMP)

        known = fetched.prediction
        guessed = Signal()
        m.d.comb += [
            guessed.eq(
                ~known.known
                & (fetched.fault == Fault.NONE)
                & (direct.jumps | (direct.branches & (direct.offset < 0)))
            ),
            issued.prediction.eq(known),
            self.o.valid.eq(self.i.valid & ~self.kill & ~Cat(stalls).any()),
            self.i.ready.eq(self.o.ready & ~Cat(stalls).any()),
            self.prediction.valid.eq(self.o.valid & self.o.ready & guessed),
            self.prediction.pc.eq(issued.target),
            self.repair.valid.eq(self.prediction.valid),
            self.repair.history.eq(known.history),
            self.repair.calls.eq(known.calls),
            self.repair.taken.eq(1),
            self.repair.kind.eq(issued.kind),
            self.repair.target.eq(issued.target),
            self.repair.link.eq(fetched.link),
        ]
        with m.If(guessed):
            m.d.comb += [
                issued.prediction.taken.eq(1),
                issued.prediction.target.eq(issued.target),
            ]
        return m

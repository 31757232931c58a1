"""The issue stage: decode, read registers, wait for what is not ready."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.instructions import INSTRUCTIONS, RD, RS1, RS2, Format, Opcode
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from rtl.core.decode import Decoder, Unit, immediate_of
from rtl.core.expand_stage import ExpandedInstruction
from rtl.core.frontend.predictor import BranchKind, Prediction
from rtl.mmu.context import Fault

__all__ = ["Bypass", "IssueStage", "Issued", "Producer"]

#: Bits 6:2 of an instruction: its major opcode, but for the 3 below.
_MAJOR = slice(2, 7)


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
    """An instruction on its way to the execute stage; ``unit`` is ILLEGAL after a fault.

    Without ``has_rs1`` or ``has_rs2`` it has no such operand, or x0, and the value means nothing.
    """

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
    has_rs1: 1
    has_rs2: 1
    rs1_bypass: Bypass
    rs2_bypass: Bypass
    target: 64
    kind: BranchKind
    prediction: Prediction


class IssueStage(wiring.Component):
    """Take expanded instructions and issue them in order.

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

    i: In(stream.Signature(ExpandedInstruction))
    o: Out(stream.Signature(Issued))
    kill: In(1)
    executing: In(Producer)
    committing: In(Producer)
    rs1: Out(5)
    rs2: Out(5)
    rs1_value: In(64)
    rs2_value: In(64)

    def __init__(self, *, bit_manipulation, vmx):
        self._decoder = {"bit_manipulation": bit_manipulation, "vmx": vmx}
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = Decoder(**self._decoder)
        fetched, issued = self.i.payload.fetched, self.o.payload
        m.d.comb += [
            decoder.instruction.eq(self.i.payload.instruction),
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
            issued.has_rs1.eq(decoder.rs1.any()),
            issued.has_rs2.eq(decoder.rs2.any()),
            issued.late.eq(
                (decoder.unit == Unit.MEMORY)
                | (decoder.unit == Unit.CSR)
                | (decoder.unit == Unit.MULTIPLY)
                | (decoder.unit == Unit.COUNT)
                | (decoder.unit == Unit.VMX)
            ),
            issued.prediction.eq(fetched.prediction),
        ]
        with m.If(fetched.fault == Fault.NONE):
            m.d.comb += [issued.unit.eq(decoder.unit), issued.rd.eq(decoder.rd)]

        # Whether an instruction waits is said by its opcode: the decoder would say it late. Some wait
        # for a register they do not read.
        major = decoder.instruction[_MAJOR]
        stalls = []
        # The data of stores are needed in the commit stage only.
        for name, number, given, value, bypass, patient in (
            (
                "rs1",
                self.rs1,
                self.rs1_value,
                issued.rs1,
                issued.rs1_bypass,
                (),
            ),
            (
                "rs2",
                self.rs2,
                self.rs2_value,
                issued.rs2,
                issued.rs2_bypass,
                (Opcode.STORE, Opcode.AMO),
            ),
        ):
            reads, stall = Signal(name=f"reads_{name}"), Signal(name=f"stall_{name}")
            with m.Switch(major):
                with m.Case(*_majors_that_read(name)):
                    m.d.comb += [reads.eq(1), value.eq(given)]
            made = [
                reads & (number == producer.rd) & (producer.rd != 0)
                for producer in (self.executing, self.committing)
            ]
            late = self.executing.late
            waits = Cat(major == opcode >> 2 for opcode in patient).any()
            with m.If(made[0]):
                m.d.comb += bypass.eq(Mux(late & waits, Bypass.LATE, Bypass.COMMIT))
            with m.Elif(made[1]):
                # If it takes longer, the execute stage waits for it.
                m.d.comb += bypass.eq(Bypass.WRITE_BACK)
            m.d.comb += stall.eq(made[0] & late & ~waits)
            stalls.append(stall)

        # Where direct jumps and branches lead, and auipc points to; decoded whole it would be late.
        word = decoder.instruction
        offset = Mux(
            word[6],
            Mux(word[3], immediate_of(word, Format.J), immediate_of(word, Format.B)),
            immediate_of(word, Format.U),
        )
        m.d.comb += issued.target.eq(fetched.pc + offset)

        # The registers the calling convention returns by say what a jump is for.
        links_rd, links_rs1 = (
            (number == 1) | (number == 5) for number in (word[RD[0] :][: RD[1]], self.rs1)
        )
        with m.Switch(major):
            with m.Case(Opcode.BRANCH >> 2):
                m.d.comb += issued.kind.eq(BranchKind.BRANCH)
            with m.Case(Opcode.JALR >> 2):
                indirect = Mux(links_rs1, BranchKind.RETURN, BranchKind.INDIRECT)
                m.d.comb += issued.kind.eq(Mux(links_rd, BranchKind.CALL, indirect))
            with m.Default():
                m.d.comb += issued.kind.eq(Mux(links_rd, BranchKind.CALL, BranchKind.JUMP))

        m.d.comb += [
            self.o.valid.eq(self.i.valid & ~self.kill & ~Cat(stalls).any()),
            self.i.ready.eq(self.o.ready & ~Cat(stalls).any()),
        ]
        return m


def _majors_that_read(register: str) -> list[int]:
    """The major opcodes of which some instruction has that operand, for bits 6:2."""
    rows = [*INSTRUCTIONS.values(), *(row.encoding for row in VMX_INSTRUCTIONS.values())]
    return sorted({row.match >> 2 & 0x1F for row in rows if register in row.format.value})

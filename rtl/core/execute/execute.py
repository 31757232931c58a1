"""The execute stage: integer results, addresses, and where control really goes."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.paging import PAGE_BITS
from rtl.core.decode import Unit, reads_only
from rtl.core.execute.alu import Alu
from rtl.core.execute.branch import BranchUnit
from rtl.core.execute.divider import Divider
from rtl.core.frontend.fetch import Redirect
from rtl.core.frontend.predictor import BranchKind, BranchUpdate, Repair
from rtl.core.issue import Bypass, Issued, Producer
from rtl.core.lsu.load_store_unit import Alignment, alignment_of
from rtl.mmu.context import Fault

__all__ = ["ExecuteStage", "Executed"]


class Executed(data.Struct):
    """An instruction on its way to the commit stage.

    ``result`` is what it writes to rd or, for memory instructions, the address accessed. ``link`` is
    that of FetchedInstruction. ``rs2_late`` says that write-back holds that operand in the first
    cycle of the commit stage. ``indexed`` says that the data cache has been given the page offset
    already. ``taken`` and ``mispredicted`` are for the performance counters.
    """

    pc: 64
    bits: 32
    compressed: 1
    fault: Fault
    fault_second: 1
    unit: Unit
    operation: 5
    word: 1
    funct3: 3
    funct5: 5
    rd: 5
    late: 1
    link: 64
    result: 64
    rs1: 64
    rs2: 64
    has_rs1: 1
    has_rs2: 1
    rs2_late: 1
    indexed: 1
    alignment: Alignment
    taken: 1
    mispredicted: 1


class ExecuteStage(wiring.Component):
    """Hold one instruction until its result exists and the commit stage takes it.

    ``o.ready`` comes from a register. While it is 0 nothing moves: operands are not yet there.

    Parameters
    ----------
    bit_manipulation : bool
        See Alu.

    Members
    -------
    kill : In(1)
        The commit stage drops everything younger than its instruction, and takes nothing.
    commit_value, write_back_value : In(64)
        Results in the two later stages, for bypassing.
    redirect, repair : Out(Redirect), Out(Repair)
        The prediction was wrong; strobe once per instruction. What comes behind it in that cycle
        is dropped here. It may be said of an instruction that is killed in the same cycle.
    unknown : Out(1)
        With ``redirect.valid``: the predictor did not know the instruction.
    update : Out(BranchUpdate)
        What the predictor is to learn.
    address, memory : Out(64), Out(1)
        What a memory instruction accesses, and whether the instruction is one.
    reads : Out(1)
        The memory instruction only reads.
    index : Out(stream)
        Page offset of a memory instruction, in every cycle it is here: what comes of it counts
        only if the instruction leaves for the commit stage in that cycle.
    producer : Out(Producer)
    empty : Out(1)
    """

    i: In(stream.Signature(Issued))
    o: Out(stream.Signature(Executed))
    kill: In(1)
    commit_value: In(64)
    write_back_value: In(64)
    redirect: Out(Redirect)
    repair: Out(Repair)
    unknown: Out(1)
    update: Out(BranchUpdate)
    address: Out(64)
    memory: Out(1)
    reads: Out(1)
    index: Out(stream.Signature(PAGE_BITS))
    producer: Out(Producer)
    empty: Out(1)

    def __init__(self, *, bit_manipulation):
        self._bit_manipulation = bit_manipulation
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.alu = alu = Alu(bit_manipulation=self._bit_manipulation)
        m.submodules.branch = branch = BranchUnit()
        m.submodules.divider = divider = Divider()
        issued = Signal(Issued)
        occupied, dropped, valid = Signal(), Signal(), Signal()
        m.d.comb += valid.eq(occupied & ~dropped)
        m.d.sync += dropped.eq(self.redirect.valid)
        executed = self.o.payload

        # Operands, kept up to date while the instruction waits.
        values = []
        for value, bypass in (
            (issued.rs1, issued.rs1_bypass),
            (issued.rs2, issued.rs2_bypass),
        ):
            operand = Signal(64)
            with m.Switch(bypass):
                with m.Case(Bypass.COMMIT):
                    m.d.comb += operand.eq(self.commit_value)
                with m.Case(Bypass.WRITE_BACK):
                    m.d.comb += operand.eq(self.write_back_value)
                with m.Default():
                    m.d.comb += operand.eq(value)
            # While the commit stage waits, what it makes and what is behind it stay where they are.
            with m.If(self.o.ready):
                m.d.sync += value.eq(operand)
                # The maker of a late operand leaves the commit stage just when this one enters it.
                with m.If(bypass != Bypass.LATE):
                    m.d.sync += bypass.eq(Bypass.NONE)
            values.append(operand)
        rs1, rs2 = values

        link, result = issued.link, Signal(64)
        m.d.comb += [
            alu.operation.eq(issued.operation),
            alu.word.eq(issued.word),
            alu.unsigned_word.eq(issued.unsigned_word),
            alu.a.eq(rs1),
            alu.b.eq(Mux(issued.b_immediate, issued.immediate, rs2)),
            branch.condition.eq(issued.funct3),
            branch.a.eq(rs1),
            branch.b.eq(rs2),
        ]
        # Addresses have an adder of their own, with no choice of operands before it: translation
        # comes after it in the same cycle.
        m.d.comb += self.address.eq(rs1 + issued.immediate)

        ready = Signal()
        self._divide(m, issued, valid, rs1, rs2, ready, result, divider)
        with m.Switch(issued.unit):
            with m.Case(Unit.JUMP, Unit.JUMP_REGISTER):
                m.d.comb += [result.eq(link), ready.eq(1)]
            with m.Case(Unit.DIVIDE):
                pass  # the divider's answer stands
            with m.Case(Unit.MEMORY):
                m.d.comb += [result.eq(self.address), ready.eq(1)]
            with m.Default():
                # The issue stage has added the immediate to the pc.
                m.d.comb += [
                    result.eq(Mux(issued.a_pc, issued.target, alu.result)),
                    ready.eq(1),
                ]

        # That the commit stage kills it is known too late.
        self._resolve(m, issued, valid & ready & self.o.ready, branch, link)

        m.d.comb += [
            executed.pc.eq(issued.pc),
            executed.bits.eq(issued.bits),
            executed.compressed.eq(issued.compressed),
            executed.fault.eq(issued.fault),
            executed.has_rs1.eq(issued.has_rs1),
            executed.has_rs2.eq(issued.has_rs2),
            executed.fault_second.eq(issued.fault_second),
            executed.unit.eq(issued.unit),
            executed.operation.eq(issued.operation),
            executed.word.eq(issued.word),
            executed.funct3.eq(issued.funct3),
            executed.funct5.eq(issued.funct5),
            executed.link.eq(link),
            executed.rd.eq(issued.rd),
            executed.late.eq(issued.late),
            executed.result.eq(result),
            executed.rs1.eq(rs1),
            executed.rs2.eq(rs2),
            executed.rs2_late.eq(issued.rs2_bypass == Bypass.LATE),
            executed.alignment.eq(alignment_of(issued.funct3[:2], self.address[:3])),
            executed.taken.eq(self.update.taken),
            executed.mispredicted.eq(self.redirect.valid & ~self.unknown),
            executed.indexed.eq(self.index.valid & self.index.ready),
            self.o.valid.eq(valid & ready),
            self.i.ready.eq((~valid | ready) & self.o.ready),
            self.memory.eq(valid & (issued.unit == Unit.MEMORY)),
            self.reads.eq(reads_only(issued.operation)),
            self.index.payload.eq(self.address[:PAGE_BITS]),
            self.index.valid.eq(self.memory),
            self.producer.rd.eq(Mux(valid, issued.rd, 0)),
            self.producer.late.eq(issued.late),
            self.empty.eq(~valid),
        ]
        with m.If(self.i.ready):
            m.d.sync += [occupied.eq(self.i.valid), issued.eq(self.i.payload)]
        with m.If(self.kill | dropped):
            m.d.sync += occupied.eq(0)
        return m

    def _resolve(self, m, issued, leaves, branch, link):
        """Compare what happens with what was predicted, when an instruction leaves."""
        prediction = issued.prediction
        is_branch = issued.unit == Unit.BRANCH
        taken, controls = Signal(), Signal()
        target, expected = Signal(64), Signal(64)
        m.d.comb += [target.eq(issued.target), expected.eq(prediction.target.as_signed())]
        with m.Switch(issued.unit):
            with m.Case(Unit.BRANCH):
                m.d.comb += [controls.eq(1), taken.eq(branch.taken)]
            with m.Case(Unit.JUMP):
                m.d.comb += [controls.eq(1), taken.eq(1)]
            with m.Case(Unit.JUMP_REGISTER):
                m.d.comb += [
                    controls.eq(1),
                    taken.eq(1),
                    target.eq(Cat(Const(0, 1), self.address[1:])),
                ]
        elsewhere = expected != target
        wrong = (taken != prediction.taken) | (taken & elsewhere)
        update, repair = self.update, self.repair
        m.d.comb += [
            self.redirect.valid.eq(leaves & wrong),
            self.redirect.pc.eq(Mux(taken, target, link)),
            self.unknown.eq(~prediction.known),
            update.learn.eq(leaves & taken & (~prediction.known | elsewhere)),
            update.forget.eq(leaves & ~controls & prediction.known),
            update.count.eq(leaves & is_branch & (prediction.known | taken)),
            update.pc.eq(issued.pc + Mux(issued.compressed, 0, 2)),
            update.kind.eq(issued.kind),
            update.target.eq(target),
            update.taken.eq(taken),
            update.looked_up.eq(prediction.looked_up),
            update.direction.eq(prediction.direction),
            repair.valid.eq(self.redirect.valid),
            repair.history.eq(prediction.history),
            repair.calls.eq(prediction.calls),
            repair.taken.eq(taken),
            # An instruction the predictor will not know leaves no trace in its history.
            repair.kind.eq(
                Mux(taken | (is_branch & prediction.known), issued.kind, BranchKind.JUMP)
            ),
            repair.target.eq(target),
            repair.link.eq(link),
        ]

    def _divide(self, m, issued, valid, rs1, rs2, ready, result, divider):
        """Drive the divider.

        It cannot be stopped: the answer of a killed instruction is thrown away before the next
        one starts.
        """
        started, stale = Signal(), Signal()
        mine = valid & (issued.unit == Unit.DIVIDE)
        answer = divider.o.valid & ~stale
        m.d.comb += [
            divider.i.payload.operation.eq(Cat(issued.operation[:2], issued.word)),
            divider.i.payload.a.eq(rs1),
            divider.i.payload.b.eq(rs2),
            divider.i.valid.eq(mine & ~started & self.o.ready),
            divider.o.ready.eq(stale | (mine & self.o.ready) | self.kill),
        ]
        with m.If(mine & answer):
            m.d.comb += [ready.eq(1), result.eq(divider.o.payload)]
        with m.If(divider.i.valid & divider.i.ready):
            m.d.sync += started.eq(1)
        with m.If(divider.o.valid & divider.o.ready):
            m.d.sync += [started.eq(0), stale.eq(0)]
        with m.Elif(self.kill & (started | (divider.i.valid & divider.i.ready))):
            m.d.sync += stale.eq(1)

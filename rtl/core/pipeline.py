"""The pipeline: expand, issue, execute, commit and the wires between them."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.core.commit import CommitStage
from rtl.core.decode import Unit
from rtl.core.execute.execute import ExecuteStage
from rtl.core.execute.multiplier import Multiplier
from rtl.core.expand_stage import ExpandStage
from rtl.core.frontend.aligner import FetchedInstruction
from rtl.core.frontend.fetch import Redirect
from rtl.core.frontend.predictor import BranchKind, BranchUpdate, Repair
from rtl.core.guest_commit import GuestCommitStage
from rtl.core.issue import IssueStage
from rtl.core.ports import PipelineStages
from rtl.core.regfile import RegisterFile

__all__ = ["Pipeline"]


class Pipeline(wiring.Component):
    """Execute the instructions of ``i`` in order; ``commit`` does the rest.

    The commit stage is a submodule the hart connects to the units it drives; this component
    connects the stages, the register file and the redirects.

    Parameters
    ----------
    bit_manipulation : bool
        With Zba, Zbb and Zbs.
    vmx : bool
        With VMX instructions, and guests.

    Members
    -------
    hold : In(1)
        The hart is parked or about to be: nothing moves.
    external_redirect : In(Redirect)
        From parking.
    misfit : In(Redirect)
        From the aligner.
    redirect, repair, update : Out
        To the frontend, from registers: what the oldest instruction asked for in the cycle before.
        In the cycle of a redirect nothing is issued, and fetching goes on at its target.
    gpr, gpr_value, gpr_write, gpr_write_value :
        Host access to the registers while the pipeline is held.
    empty : Out(1)
        No instruction is under way behind the aligner, nor asks it for a redirect.
    offered : Out(1)
        An instruction could be issued.
    unpredicted, mispredicted : Out(1)
        A redirect is asked for: by the aligner or an instruction the predictor did not know; by one
        it was wrong about.
    stages : Out(PipelineStages)
        For observers.
    """

    i: In(stream.Signature(FetchedInstruction))
    hold: In(1)
    external_redirect: In(Redirect)
    misfit: In(Redirect)
    redirect: Out(Redirect)
    repair: Out(Repair)
    update: Out(BranchUpdate)
    gpr: In(5)
    gpr_value: Out(64)
    gpr_write: In(5)
    gpr_write_value: In(64)
    empty: Out(1)
    offered: Out(1)
    unpredicted: Out(1)
    mispredicted: Out(1)
    stages: Out(PipelineStages)

    def __init__(self, *, bit_manipulation, vmx):
        self.issue = IssueStage(bit_manipulation=bit_manipulation, vmx=vmx)
        self.execute = ExecuteStage(bit_manipulation=bit_manipulation)
        self._vmx = vmx
        commit = GuestCommitStage if vmx else CommitStage
        self.commit = commit(bit_manipulation=bit_manipulation)
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.issue = issue = self.issue
        m.submodules.execute = execute = self.execute
        m.submodules.commit = commit = self.commit
        m.submodules.registers = registers = RegisterFile()
        m.submodules.multiplier = multiplier = Multiplier()
        connect(m, issue.o, execute.i)
        connect(m, execute.o, commit.i)
        m.submodules.expand = expand = ExpandStage()
        connect(m, flipped(self.i), expand.i)
        connect(m, expand.o, issue.i)

        kill, misfit = Signal(), Signal()
        # Whose redirect it would be is said by registers; whether there is one is known late.
        commits, executes = commit.held | commit.trapping, ~execute.empty
        m.d.comb += [
            kill.eq(commit.kill | commit.halt.valid | self.hold),
            # After a redirect the aligner's instruction is a wrong one.
            misfit.eq(
                self.misfit.valid & ~expand.o.valid & ~executes & ~commits & ~self.redirect.valid
            ),
            execute.kill.eq(kill),
            issue.kill.eq(self.redirect.valid),
            expand.clear.eq(self.redirect.valid),
            issue.executing.eq(execute.producer),
            issue.committing.eq(commit.producer),
            execute.commit_value.eq(commit.value),
            execute.write_back_value.eq(commit.write_back_value),
            multiplier.load.eq(
                (execute.o.payload.unit == Unit.MULTIPLY) & ~execute.empty & execute.o.ready
            ),
            multiplier.operation.eq(Cat(execute.o.payload.operation[:2], execute.o.payload.word)),
            multiplier.a.eq(execute.o.payload.rs1),
            multiplier.b.eq(execute.o.payload.rs2),
            commit.product.eq(multiplier.result),
            registers.rs1.eq(Mux(self.hold, self.gpr, issue.rs1)),
            registers.rs2.eq(issue.rs2),
            issue.rs1_value.eq(registers.rs1_value),
            issue.rs2_value.eq(registers.rs2_value),
            self.gpr_value.eq(registers.rs1_value),
            registers.rd.eq(commit.rd),
            registers.value.eq(commit.write_back_value),
            self.empty.eq(~expand.o.valid & execute.empty & commit.empty & ~misfit),
            self.offered.eq(issue.i.valid & ~self.redirect.valid),
            self.unpredicted.eq((execute.redirect.valid & execute.unknown) | misfit),
            self.mispredicted.eq(execute.redirect.valid & ~execute.unknown),
            self.stages.pc.eq(issue.i.payload.fetched.pc),
            self.stages.bits.eq(issue.i.payload.fetched.bits),
            self.stages.issuing.eq(self.offered),
            self.stages.issued.eq(issue.o.valid & issue.o.ready),
            self.stages.executing.eq(~execute.empty),
            self.stages.executed.eq(execute.o.valid & execute.o.ready),
            self.stages.committing.eq(~commit.empty),
            self.stages.retired.eq(commit.retired),
        ]
        if self._vmx:
            m.d.comb += commit.resumes.eq(self.external_redirect)
        # A cycle later is early enough for what comes after a redirect.
        written, value = Signal(5), Signal(64)
        m.d.sync += [written.eq(self.gpr_write), value.eq(self.gpr_write_value)]
        with m.If(written != 0):
            m.d.comb += [registers.rd.eq(written), registers.value.eq(value)]
        self._redirect(m, execute, commit, misfit, commits, executes)
        return m

    def _redirect(self, m, execute, commit, misfit, commits, executes):
        """What the frontend does in the next cycle."""
        external, redirect, repair = self.external_redirect, Signal(Redirect), Signal(Repair)
        prediction = self.i.payload.prediction
        m.d.comb += [
            redirect.valid.eq(
                external.valid | commit.redirect.valid | execute.redirect.valid | misfit
            ),
            redirect.pc.eq(self.misfit.pc),
            repair.history.eq(prediction.history),
            repair.calls.eq(prediction.calls),
            repair.kind.eq(BranchKind.JUMP),
        ]
        with m.If(executes):
            m.d.comb += [redirect.pc.eq(execute.redirect.pc), repair.eq(execute.repair)]
        with m.If(commits):
            m.d.comb += redirect.pc.eq(commit.redirect.pc)
        with m.If(external.valid):
            m.d.comb += redirect.pc.eq(external.pc)
        m.d.comb += repair.valid.eq(execute.repair.valid | misfit)
        update = execute.update
        m.d.sync += [self.redirect.eq(redirect), self.repair.eq(repair), self.update.eq(update)]
        with m.If(~(update.learn | update.forget | update.count)):
            m.d.sync += [self.update.forget.eq(misfit), self.update.pc.eq(self.misfit.pc)]

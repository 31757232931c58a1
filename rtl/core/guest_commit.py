"""The commit stage of a hart with guests."""

from amaranth import *
from amaranth.lib.wiring import In, Out

from rtl.arch.records import ParkKind
from rtl.arch.traps import Exception_
from rtl.core.commit import CommitStage, CommitState
from rtl.core.csr import CsrOperation
from rtl.core.decode import SystemOperation, Unit
from rtl.core.frontend.fetch import Redirect
from rtl.core.guest_exit import GuestExit, Leave, reason_of
from rtl.core.guest_port import GuestPort, VmxPort
from rtl.mmu.context import EptFault, Fault, Privilege, World
from rtl.vmx.intercept import ExitReason
from rtl.vmx.ports import VmxOperation, VmxOutcome

__all__ = ["GuestCommitStage"]

_WFI = SystemOperation.WFI.value


class GuestCommitStage(CommitStage):
    """The same with VMX instructions, and with guests, which exit instead of trapping where the
    current VMCS says so.

    Inputs that belong to a world are those of the one at work; ``interrupt`` tells of
    ``guest.event``, too.

    Members
    -------
    resumes : In(Redirect)
        The halted hart goes on.
    exited, exited_park : Out(1)
        In the cycle of a VM exit; and whether it parks, or a VM entry by an instruction does that
        ends in root because the guest state is bad.
    vmx : Out(VmxPort())
        Entries that the host asks for are heard here, too.
    guest : Out(GuestPort())
    fetch_refusal, data_refusal : In(EptFault)
        What belongs to the EPT fault of an instruction, or of its access.
    """

    resumes: In(Redirect)
    vmx: Out(VmxPort())
    guest: Out(GuestPort())
    fetch_refusal: In(EptFault)
    data_refusal: In(EptFault)

    _has_guests = True

    def elaborate(self, platform):
        self._leave, self._left = Signal(Leave), Signal(Leave)
        self._intercepted = Signal()
        m = super().elaborate(platform)
        m.d.comb += [
            self._recorder.world.eq(self.vmx.world),
            self._recorder.saved.eq(self.vmx.saved),
            self._recorder.exited.eq(self.exited),
            self._recorder.injected.eq(self._left.exempt),
            self._recorder.pc.eq(self.trap_pc),
        ]
        reads, writes = Signal(), Signal()
        request = self.csr_request
        m.d.sync += [
            reads.eq((request.operation != CsrOperation.WRITE) | (self._fresh.rd != 0)),
            writes.eq(request.writes),
        ]
        m.d.comb += [self.guest.reads.eq(reads), self.guest.writes.eq(writes)]
        with m.If(self._take | self._stopping):
            m.d.sync += self._left.eq(self._leave)
        self._exit_or_trap(m)
        self._change_worlds(m)
        self._fall_asleep(m)
        return m

    def _in_guest(self):
        return self.vmx.world == World.NON_ROOT

    def _may_park(self):
        return self.vmx.world == World.ROOT

    # What is decided about the instruction under way.

    def _exit(self, m, reason, code=0, value=0):
        self._raise(m, code, value)
        m.d.comb += [self._leave.valid.eq(1), self._leave.reason.eq(reason)]

    def _take_event(self, m):
        event = self.guest.event
        with m.If(event.valid):
            self._exit(m, event.reason, event.cause)

    def _refuse(self, m, fault, gva):
        # With a fault of the EPT nothing is raised in the guest.
        for kind in (Fault.EPT_VIOLATION, Fault.EPT_MISCONFIGURATION):
            with m.If(fault == kind):
                self._exit(m, ExitReason[kind.name], value=gva)

    def _intercepts(self, m, inst):
        controls, intercepts = self.guest.fields.execution_controls, Signal()
        with m.Switch(inst.operation):
            with m.Case(_WFI):
                m.d.comb += intercepts.eq(controls.wfi_exiting & self._in_guest())
            with m.Case(SystemOperation.SFENCE_VMA.value):
                m.d.comb += intercepts.eq(controls.sfence_vma_exiting & self._in_guest())
        m.d.sync += self._intercepted.eq(intercepts)
        return intercepts

    def _system(self, m):
        is_wfi = self._aside.operation == _WFI
        with m.If(self._intercepted):
            self._exit(m, Mux(is_wfi, ExitReason.WFI, ExitReason.SFENCE_VMA))
        with m.Else():
            super()._system(m)
            # A guest's wfi retires before it waits.
            with m.If(is_wfi & self._in_guest()):
                m.d.comb += [self._waits.eq(0), self._done.eq(1)]

    def _finish_csr(self, m, writes):
        with m.If(self.guest.csr_exits):
            self._exit(m, self.guest.csr_reason)
        with m.Else():
            super()._finish_csr(m, writes)

    def _begin_others(self, m, inst):
        # docs/isa/vmx.md#legality
        machine = self.privilege == Privilege.MACHINE
        known = self.vmx.on | (inst.operation == VmxOperation.VMXON.value)
        with m.Case(Unit.VMX):
            m.d.sync += [
                self._state.eq(CommitState.VMX),
                self._refused.eq(
                    (inst.operation == VmxOperation.VMFUNC.value)
                    | ~self._in_guest() & ~(machine & known)
                ),
            ]

    def _go_on_with_others(self, m):
        with m.Case(CommitState.VMX):
            self._vmx_instruction(m)
        with m.Case(CommitState.WAIT):
            event = self.guest.event
            m.d.comb += self._waits.eq(1)
            with m.If(event.valid & ~self.stop):
                self._exit(m, event.reason, event.cause)
                m.d.comb += self._leave.waiting.eq(1)
            with m.If(event.valid | self.stop | self.wake):
                m.d.comb += self._woken.eq(1)
                m.d.sync += self._state.eq(CommitState.RUN)

    def _vmx_instruction(self, m):
        """From the second cycle on."""
        inst, request, asked = self._aside, self.vmx.request, Signal()
        m.d.comb += [
            request.p.operation.eq(inst.operation),
            request.p.rs1.eq(inst.rs1),
            request.p.rs2.eq(inst.rs2),
        ]
        with m.If(self._refused):
            self._raise(m, Exception_.ILLEGAL_INSTRUCTION, inst.bits)
        with m.Elif(self._in_guest()):
            self._exit(m, reason_of(m, inst.operation))
        with m.Else():
            m.d.comb += [request.valid.eq(~asked), self._done.eq(self.vmx.answered)]
            m.d.sync += asked.eq((asked | request.ready) & ~self._done)
        with m.If(self._take | self._done):
            m.d.sync += self._state.eq(CommitState.RUN)

    # From world to world.

    def _exit_or_trap(self, m):
        """Whether the guest exits. The VMX unit is ready by the time a guest has come this far."""
        m.submodules.guest_exit = exit_ = GuestExit()
        guest, answer = self.guest, self.vmx.answer
        m.d.comb += [
            exit_.leave.eq(self._left),
            exit_.trap.eq(self._latched),
            exit_.instruction.eq(self._aside),
            exit_.privilege.eq(self.privilege),
            exit_.bitmap.eq(guest.fields.exception_bitmap),
            exit_.fetch_refusal.eq(self.fetch_refusal),
            exit_.data_refusal.eq(self.data_refusal),
            guest.exit.payload.eq(exit_.record),
            guest.exit.valid.eq((self._state == CommitState.TRAP) & self._in_guest() & exit_.exits),
            self.exited.eq(guest.exit.valid),
            self.exited_park.eq(self.exited & guest.parks),
        ]
        # An entry that ends in root is no exit in the trace, but parks like one.
        with m.If((self._state == CommitState.VMX) & self.vmx.answered):
            m.d.comb += self.exited_park.eq((answer.outcome == VmxOutcome.HOST) & answer.parks)
        with m.If(self.exited):
            m.d.comb += [
                self.redirect.valid.eq(~self.exited_park),
                self.redirect.pc.eq(guest.fields.host_pc),
            ]
        with m.If(self.exited_park):
            m.d.comb += [
                self.halt.kind.eq(ParkKind.VM_EXIT),
                self.halt.world.eq(World.NON_ROOT),
                self.kill.eq(1),
            ]

    def _change_worlds(self, m):
        """What a VMX instruction, or an entry of the parked hart, comes to."""
        vmx, answer = self.vmx, self.vmx.answer
        with m.If(self._inst.unit == Unit.VMX):
            m.d.comb += self._result.eq(answer.value)
            with m.If(~answer.writes_rd):
                m.d.comb += self._rd.eq(0)
        with m.If(vmx.answered & (answer.outcome != VmxOutcome.NEXT)):
            m.d.comb += self.clear_reservation.eq(1)
            with m.If(self._state == CommitState.VMX):
                m.d.comb += [
                    self.redirect.valid.eq(~self.exited_park),
                    self.redirect.pc.eq(answer.pc),
                ]
        with m.If(vmx.answered & (answer.outcome == VmxOutcome.GUEST)):
            self._stand_before(m, answer.pc)
            with m.If(answer.injection.valid):
                m.d.sync += [
                    self._state.eq(CommitState.TRAP),
                    self._latched.interrupt.eq(answer.injection.interrupt),
                    self._latched.code.eq(answer.injection.cause),
                    self._latched.value.eq(answer.injection.value),
                    self._left.eq(0),
                    self._left.exempt.eq(1),
                ]
            with m.Elif(answer.waiting):
                m.d.sync += [self._state.eq(CommitState.WAIT), self.held.eq(1), self._first.eq(0)]

    def _stand_before(self, m, pc):
        """Let what has stepped aside be a wfi that has retired, right before ``pc``."""
        m.d.sync += [
            self._aside.eq(0),
            self._aside.pc.eq(pc),
            self._aside.fault.eq(Fault.ACCESS),
            self._aside.unit.eq(Unit.SYSTEM),
            self._aside.operation.eq(_WFI),
        ]

    def _fall_asleep(self, m):
        """A guest's wfi has retired and it waits, or goes on waiting after it was stopped."""
        asleep, begins, goes_on = Signal(), Signal(), Signal()
        m.d.comb += [
            begins.eq(
                (self._state == CommitState.SYSTEM)
                & (self._aside.operation == _WFI)
                & self._in_guest()
                & self._done
                & ~self.wake
            ),
            goes_on.eq(self.resumes.valid & asleep),
        ]
        with m.If(self._stopping):
            m.d.sync += asleep.eq(self._state == CommitState.WAIT)
        with m.If(self.resumes.valid):
            m.d.sync += asleep.eq(0)
        with m.If(begins):
            self._stand_before(m, self._aside.link)
        with m.Elif(goes_on):
            self._stand_before(m, self.resumes.pc)
        with m.If(begins | goes_on):
            m.d.sync += [self._state.eq(CommitState.WAIT), self.held.eq(1), self._first.eq(0)]

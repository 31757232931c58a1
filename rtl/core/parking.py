"""Parking: the hart stopped in root M-mode, frozen, at the service of its host."""

from amaranth import *
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.records import ParkKind
from rtl.arch.traps import INTERRUPT_BIT
from rtl.core.commit import Halt
from rtl.core.csr import CsrOperation, CsrRequest
from rtl.core.frontend.fetch import Redirect
from rtl.core.guest_port import VmxPort
from rtl.core.ports import HostCommand, HostPort, HostRequest, Park, Resume, Skip
from rtl.mmu.context import Invalidation, Privilege, World
from rtl.vmx.ports import VmxOperation, VmxOutcome, VmxRequest

__all__ = ["ParkingUnit"]


class _State(enum.Enum, shape=4):
    RUNNING = 0
    DRAIN = 1
    PARKED = 2
    GO = 3
    CHARGE = 4
    READ_GPR = 5
    CSR = 6
    CSR_ANSWER = 7
    CLEAN = 8
    CLEANING = 9
    ANSWER = 10
    COMMAND = 11
    SETTLE = 12
    #: The VMX unit is asked; it is at work.
    VMX = 13
    VMX_ANSWER = 14


class ParkingUnit(wiring.Component):
    """Park the hart when it halts, answer host commands, resume it.

    After reset the hart is parked at the reset vector (the base of the ROM) in M-mode as soon as
    it is ``idle``; no machine time passes until then. A halt is
    followed by draining: the hart is parked once ``idle`` says that no transaction is left. A
    resume works off its charge, writes its register, returns from the trap if that parked, and
    redirects the frontend; it is taken in the cycle in which it does so. Behind a VM exit it asks for a
    VM entry instead, and that decides where the hart goes on, or that it parks again.

    Parameters
    ----------
    vmx : bool
        There is a VMX unit. Without it ``vmx`` is not used.

    Members
    -------
    hold : Out(1)
        Nothing may start or move on in the pipeline.
    advance, charging, transition : Out(1)
        How this cycle counts; see docs/internals.md, "Time".
    stop_request, step : In(1)
        Park before the next instruction; park after each instruction.
    stall : In(1)
        This cycle does not count.
    stop : Out(1)
        To the commit stage.
    clear_reservation : Out(1)
    retires : Out(1)
        What a resume has asked to be counted retires, in the world in which the hart goes on.
    failed_entry : Out(1)
        The guest state was bad, in an entry asked for here, and the hart parks for it.
    vmx : Out(VmxPort())
    """

    halt: In(Halt)
    retired: In(1)
    trapped: In(1)
    trapped_park: In(1)
    idle: In(1)
    time: In(64)
    skip: In(Skip)
    stop_request: In(1)
    step: In(1)
    stall: In(1)

    parked: Out(1)
    park: Out(Park)
    resume: In(stream.Signature(Resume))
    host: In(HostPort())

    stop: Out(1)
    hold: Out(1)
    advance: Out(1)
    charging: Out(1)
    transition: Out(1)
    redirect: Out(Redirect)
    clear_reservation: Out(1)

    gpr: Out(5)
    gpr_value: In(64)
    gpr_write: Out(5)
    gpr_write_value: Out(64)
    csr_request: Out(CsrRequest)
    csr_write: Out(1)
    csr_value: In(64)
    csr_illegal: In(1)
    ret_valid: Out(1)
    privilege_write: Out(1)
    privilege_next: Out(Privilege)
    invalidate: Out(stream.Signature(Invalidation))
    fence_i: Out(1)
    clean: Out(stream.Signature(1))
    cleaned: In(1)
    retires: Out(1)
    failed_entry: Out(1)
    vmx: Out(VmxPort())

    def __init__(self, *, vmx):
        self._vmx = vmx
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        state = Signal(_State, init=_State.SETTLE)
        kind = Signal(2, init=ParkKind.STOP)
        privilege = Signal(Privilege, init=Privilege.MACHINE)
        where = Signal(Halt)
        pc = Signal(64, init=MEMORY_MAP["rom"].base)
        cycle, instret = Signal(64), Signal(64)
        charge = Signal(32)
        commanded = Signal()  # the charge under way belongs to a command, not to a resume
        going, resumed = Signal(), self.resume.payload
        retires = Signal()  # what goes on counts an instruction
        # A resume is taken: the hart goes on, or the VMX unit is asked for an entry.
        taken, entering = Signal(), Signal()
        stop_pending, stepped, first_pending = Signal(), Signal(), Signal()
        answer, answer_error = Signal(64), Signal()
        request, response = self.host.request, self.host.response
        command = Signal(HostRequest)
        self._request = Signal(VmxRequest)

        running = state == _State.RUNNING
        m.d.comb += [
            self.parked.eq(state == _State.PARKED),
            self.hold.eq(~running),
            self.charging.eq(state == _State.CHARGE),
            self.advance.eq(
                (running | (state == _State.DRAIN) | taken | entering | going | self.charging)
                & ~self.stall
            ),
            self.transition.eq(
                self.trapped_park
                | self.halt.valid
                | (state == _State.DRAIN)
                | taken
                | entering
                | going
                | (running & first_pending)
            ),
            self.stop.eq(stop_pending | self.stop_request | (self.step & stepped)),
            self.park.reason.eq(
                Cat(
                    where.trap.code,
                    Const(0, INTERRUPT_BIT - len(where.trap.code)),
                    where.trap.interrupt,
                )
            ),
            self.park.qualification.eq(where.trap.value),
            self.park.gva.eq(where.trap.value),
            self.park.pc.eq(pc),
            self.park.rs1.eq(where.rs1),
            self.park.rs2.eq(where.rs2),
            self.park.cycle.eq(cycle),
            self.park.instret.eq(instret),
            self.park.time.eq(self.time),
            self.park.instruction.eq(where.bits),
            self.park.length.eq(Mux(where.fetched, Mux(where.compressed, 2, 4), 0)),
            self.park.kind.eq(kind),
            self.park.privilege.eq(privilege),
            self.park.world.eq(where.world),
        ]

        with m.If(self.skip.valid | self.advance):
            m.d.sync += cycle.eq(cycle + Mux(self.skip.valid, self.skip.cycles, 1))
        with m.If(self.retired):
            m.d.sync += [instret.eq(instret + 1), first_pending.eq(0)]
        with m.If(self.retired | self.trapped):
            m.d.sync += stepped.eq(1)
        with m.If(self.stop_request & running):
            m.d.sync += stop_pending.eq(1)

        with m.If(self.halt.valid):
            m.d.sync += [
                state.eq(_State.DRAIN),
                where.eq(self.halt),
                kind.eq(self.halt.kind),
                pc.eq(self.halt.pc),
                privilege.eq(self.halt.privilege),
                stop_pending.eq(0),
            ]
        m.d.comb += self.clear_reservation.eq(self.halt.valid | going)

        m.d.comb += [
            self.gpr.eq(command.index),
            self.csr_request.number.eq(command.index),
            self.csr_request.operation.eq(CsrOperation.WRITE),
            self.csr_request.operand.eq(command.data),
            self.csr_request.host.eq(1),
            self.csr_request.writes.eq(command.command == HostCommand.WRITE_CSR),
            self.invalidate.payload.match_page.eq(command.index[0]),
            self.invalidate.payload.match_asid.eq(command.index[1]),
            self.invalidate.payload.page.eq(command.data[:27]),
            self.invalidate.payload.asid.eq(command.data[32:48]),
            self.privilege_next.eq(privilege),
            self.redirect.pc.eq(resumed.pc),
            self.redirect.valid.eq(going),
            self.gpr_write_value.eq(resumed.value),
            self.ret_valid.eq(going & ~entering & (kind == ParkKind.ROOT_TRAP)),
            self.privilege_write.eq(going & ~entering),
            self.resume.ready.eq(taken),
            response.payload.data.eq(answer),
            response.payload.error.eq(answer_error),
            response.valid.eq(state == _State.ANSWER),
        ]

        with m.Switch(state):
            with m.Case(_State.SETTLE, _State.DRAIN):
                with m.If(self.idle):
                    m.d.sync += state.eq(_State.PARKED)
            with m.Case(_State.PARKED):
                m.d.comb += request.ready.eq(1)
                with m.If(request.valid):
                    m.d.sync += [command.eq(request.payload), state.eq(_State.COMMAND)]
                with m.Elif(self.resume.valid):
                    m.d.sync += [charge.eq(resumed.charge), commanded.eq(0)]
                    with m.If(resumed.charge == 0):
                        m.d.comb += taken.eq(1)
                    with m.Else():
                        m.d.sync += state.eq(_State.CHARGE)
            with m.Case(_State.CHARGE):
                with m.If(self.advance):
                    m.d.sync += charge.eq(charge - 1)
                with m.If(self.advance & (charge == 1)):
                    m.d.sync += state.eq(Mux(commanded, _State.ANSWER, _State.GO))
            with m.Case(_State.GO):
                m.d.comb += taken.eq(1)
            with m.Case(_State.COMMAND):
                m.d.sync += [answer_error.eq(0), answer.eq(0)]
                self._command(m, command, state, privilege, charge, commanded, answer_error)
            with m.Case(_State.READ_GPR):
                m.d.sync += [answer.eq(self.gpr_value), state.eq(_State.ANSWER)]
            with m.Case(_State.CSR):
                m.d.comb += self.csr_request.valid.eq(1)
                m.d.sync += state.eq(_State.CSR_ANSWER)
            with m.Case(_State.CSR_ANSWER):
                m.d.comb += self.csr_write.eq(command.command == HostCommand.WRITE_CSR)
                m.d.sync += [
                    answer.eq(self.csr_value),
                    answer_error.eq(self.csr_illegal),
                    state.eq(_State.ANSWER),
                ]
            with m.Case(_State.CLEAN):
                m.d.comb += self.clean.valid.eq(1)
                with m.If(self.clean.ready):
                    m.d.sync += state.eq(_State.CLEANING)
            with m.Case(_State.CLEANING):
                with m.If(self.cleaned):
                    m.d.sync += state.eq(_State.ANSWER)
            with m.Case(_State.ANSWER):
                with m.If(response.ready):
                    m.d.sync += state.eq(_State.PARKED)
        with m.If(taken):
            m.d.comb += self.gpr_write.eq(resumed.rd)
        if self._vmx:
            self._ask(m, state, taken, going, entering, commanded, retires)
            with m.If((state == _State.VMX_ANSWER) & self.vmx.answered):
                self._hear(
                    m, state, kind, command, going, commanded, where, pc, privilege, answer,
                    answer_error,
                )  # fmt: skip
            self._show_exit(m, kind)
        else:
            m.d.comb += [going.eq(taken), retires.eq(resumed.retires)]
        m.d.sync += self.retires.eq(going & retires)
        with m.If(going):
            m.d.sync += [state.eq(_State.RUNNING), stepped.eq(0), first_pending.eq(1)]
        return m

    def _command(self, m, command, state, privilege, charge, commanded, answer_error):
        with m.Switch(command.command):
            with m.Case(HostCommand.READ_GPR):
                m.d.sync += state.eq(_State.READ_GPR)
            with m.Case(HostCommand.WRITE_GPR):
                m.d.comb += [
                    self.gpr_write.eq(command.index),
                    self.gpr_write_value.eq(command.data),
                ]
                m.d.sync += state.eq(_State.ANSWER)
            with m.Case(HostCommand.READ_CSR, HostCommand.WRITE_CSR):
                m.d.sync += state.eq(_State.CSR)
            with m.Case(HostCommand.WRITE_PRIVILEGE):
                m.d.sync += [privilege.eq(command.data[:2]), state.eq(_State.ANSWER)]
            with m.Case(HostCommand.SFENCE_VMA):
                m.d.comb += self.invalidate.valid.eq(1)
                m.d.sync += state.eq(_State.ANSWER)
            with m.Case(HostCommand.FENCE_I):
                m.d.comb += self.fence_i.eq(1)
                m.d.sync += state.eq(_State.ANSWER)
            with m.Case(HostCommand.CLEAN):
                m.d.sync += state.eq(_State.CLEAN)
            with m.Case(HostCommand.CHARGE):
                m.d.sync += [charge.eq(command.data[:32]), commanded.eq(1)]
                m.d.sync += state.eq(Mux(command.data[:32] == 0, _State.ANSWER, _State.CHARGE))
            with m.Case(HostCommand.VMX, HostCommand.READ_FIELD, HostCommand.WRITE_FIELD):
                m.d.sync += [answer_error.eq(1), state.eq(_State.ANSWER)]
                if self._vmx:
                    self._vmx_command(m, command, state, commanded, answer_error)
            with m.Default():
                m.d.sync += state.eq(_State.ANSWER)

    def _vmx_command(self, m, command, state, commanded, answer_error):
        """Ask the VMX unit, if root M-mode could."""
        request, index = self._request, command.index
        is_vmx = command.command == HostCommand.VMX
        exists = ~is_vmx | (index < VmxOperation.VMFUNC.value)
        known = self.vmx.on | is_vmx & (index == VmxOperation.VMXON.value)
        m.d.sync += [
            request.operation.eq(index),
            request.rs1.eq(Mux(is_vmx, command.operand, index)),
            request.rs2.eq(command.data),
            request.moves_pc.eq(0),
        ]
        for field_command, operation in (
            (HostCommand.READ_FIELD, VmxOperation.VMREAD),
            (HostCommand.WRITE_FIELD, VmxOperation.VMWRITE),
        ):
            with m.If(command.command == field_command):
                m.d.sync += request.operation.eq(operation)
        with m.If(exists & known & (self.vmx.world == World.ROOT)):
            m.d.sync += [answer_error.eq(0), commanded.eq(1), state.eq(_State.VMX)]

    def _ask(self, m, state, taken, going, entering, commanded, retires):
        """Have the VMX unit carry out what the host or a resume behind a VM exit asks for."""
        vmx, request, resumed = self.vmx, self._request, self.resume.payload
        enters = (request.operation == VmxOperation.VMLAUNCH) | (
            request.operation == VmxOperation.VMRESUME
        )
        at_work = (state == _State.VMX) | (state == _State.VMX_ANSWER)
        # Of a resume that enters a guest, until it is in there.
        entry_retires = Signal()
        of_entry = entry_retires & (vmx.answer.outcome == VmxOutcome.GUEST)
        m.d.comb += [
            retires.eq(Mux(taken, resumed.retires, of_entry)),
            vmx.request.payload.eq(request),
            vmx.request.valid.eq(state == _State.VMX),
            entering.eq(at_work & enters),
            going.eq(taken & (self.park.kind != ParkKind.VM_EXIT)),
        ]
        with m.If(vmx.answered):
            m.d.sync += entry_retires.eq(0)
        with m.If(taken & ~going):
            m.d.sync += [
                entry_retires.eq(resumed.retires),
                request.operation.eq(VmxOperation.VMRESUME),
                request.rs1.eq(resumed.pc),
                request.moves_pc.eq(1),
                commanded.eq(0),
                state.eq(_State.VMX),
            ]
        with m.If(vmx.request.valid & vmx.request.ready):
            m.d.sync += state.eq(_State.VMX_ANSWER)

    def _hear(self, m, state, kind, command, going, commanded, where, pc, privilege, answer, error):
        """Go on where the VMX unit says."""
        vmx = self.vmx
        found = vmx.answer
        m.d.comb += self.redirect.pc.eq(found.pc)
        with m.Switch(found.outcome):
            with m.Case(VmxOutcome.NEXT):
                with m.If(commanded):
                    of_field = command.command != HostCommand.VMX
                    m.d.sync += [
                        answer.eq(found.value),
                        error.eq(of_field & vmx.failed),
                        state.eq(_State.ANSWER),
                    ]
                with m.Else():
                    m.d.sync += [
                        kind.eq(ParkKind.STOP),
                        where.eq(0),
                        pc.eq(found.pc),
                        privilege.eq(Privilege.MACHINE),
                        state.eq(_State.DRAIN),
                    ]
            with m.Case(VmxOutcome.GUEST):
                m.d.comb += going.eq(1)
            with m.Case(VmxOutcome.HOST):
                m.d.comb += [self.failed_entry.eq(found.parks), going.eq(~found.parks)]
                with m.If(found.parks):
                    m.d.sync += [
                        kind.eq(ParkKind.VM_EXIT),
                        where.world.eq(World.NON_ROOT),
                        state.eq(_State.DRAIN),
                    ]
        with m.If(commanded & (found.outcome != VmxOutcome.NEXT)):
            m.d.comb += self.host.response.valid.eq(1)

    def _show_exit(self, m, kind):
        """The park record of a VM exit."""
        park, saved = self.park, self.vmx.saved
        with m.If(kind == ParkKind.VM_EXIT):
            m.d.comb += [
                park.reason.eq(saved.exit_reason),
                park.qualification.eq(saved.exit_qualification),
                park.gva.eq(saved.exit_gva),
                park.gpa.eq(saved.exit_gpa),
                park.pc.eq(saved.guest_pc),
                park.rs1.eq(saved.exit_rs1),
                park.rs2.eq(saved.exit_rs2),
                park.instruction.eq(saved.exit_instruction),
                park.length.eq(saved.exit_instruction_length),
                park.privilege.eq(saved.guest_privilege),
            ]

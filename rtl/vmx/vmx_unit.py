"""The VMX unit: root and non-root operation, beside the pipeline (docs/internals.md, "VMX unit")."""

from amaranth import *
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.arch.paging import PAGE_BITS, VIRTUAL_BITS
from rtl.arch.vmx.ept import EPT_ROOT_BITS, EPT_TAG_BITS, EPTP
from rtl.arch.vmx.exits import ExitReason as _Reason
from rtl.arch.vmx.fields import VMCS_FIELDS, VMCS_NUMBER_BITS
from rtl.arch.vmx.instructions import VM_FAIL_INVALID, VMX_INSTRUCTIONS
from rtl.bus.snoop import SnoopPort
from rtl.mmu.context import Invalidation, World
from rtl.vmx.entry_checks import CheckClass, EntryChecks, FieldWrite
from rtl.vmx.ept_tags import EptTags
from rtl.vmx.event_exits import EventExit, EventExits
from rtl.vmx.intercept import CsrAccess, CsrIntercept, ExitReason
from rtl.vmx.invalidation import InvalidationOperands
from rtl.vmx.mirror import FieldMirror, VmcsMirror
from rtl.vmx.ports import GuestContext, VmxAnswer, VmxOperation, VmxOutcome, VmxRequest
from rtl.vmx.preemption_timer import PreemptionTimer
from rtl.vmx.saved_state import ExitRecord, InterruptionType, SavedFields, SavedState, interruption
from rtl.vmx.virtual_time import VirtualTime
from rtl.vmx.vmcs import Vmcs, VmcsOperation, VmInstructionError

__all__ = ["VmxUnit"]

#: Operations the VMCS carries out by itself.
_OF_VMCS = {
    VmxOperation[operation.name]: operation
    for operation in VmcsOperation
    if operation is not VmcsOperation.FAIL
}
_WITH_VALUE = tuple(
    VmxOperation[n.upper()] for n, row in VMX_INSTRUCTIONS.items() if row.rd != "status"
)


class _State(enum.Enum, shape=3):
    IDLE = 0
    DECIDE = 1
    #: The VMCS is at work.
    VMCS = 2
    #: INVEPT: its tag is looked up.
    TAG = 3
    ANSWER = 4


class VmxUnit(wiring.Component):
    """Hold the current VMCS and the world; carry out VMX instructions of root M-mode and VM exits.

    Members
    -------
    request : In(stream.Signature(VmxRequest))
        One instruction that is legal: with ``on`` = 0 VMXON alone, never VMFUNC. Taken when all that
        the last exit or entry left to do is done; one that moves the pc does not wait for ``saving``.
    answer : Out(stream.Signature(VmxAnswer))
        Answers each request once. With outcome GUEST the guest goes on from the cycle in which
        the answer is taken; the unit is in non-root operation from the next on.
    status, status_stb : Out(64), Out(1)
        In the cycle in which an answer is taken: what vmxstatus becomes.
    exit : In(stream.Signature(ExitRecord))
        The guest leaves, in the cycle in which this is taken: the hart goes on in root M-mode at
        ``fields.host_pc``, and parks there with ``exit_parks``. Ready in non-root operation, at
        the latest two cycles after an answer.
    exit_parks : Out(1)
        In the cycle of ``exit``.
    park_exits : In(64)
        Bit n: exits of reason n park.
    event : Out(EventExit)
        The guest has to exit before its next instruction, even one of wfi, by an ``exit`` of
        this reason and cause.
    root_interrupts : In(64)
        Root ``mip & mie``.
    window_open : In(1)
        The guest would take an interrupt of ``fields.interrupt_window_mask``.
    advance : In(1)
        The hart runs in this cycle: it counts, if it is one of non-root operation.
    execution_mask, exit_mask : In(64)
        Capability masks.
    guest_write : Out(FieldWrite)
        For the guest's CSRs: fields that VMWRITE or VMPTRLD writes, one per cycle.
    guest_read, guest_number, guest_value : Out(1), Out(9), In(64)
        What the CSR of that field holds, asked for in the cycle before. Asked in root operation only.
    guest_tw : In(1)
        The guest's mstatus.TW.
    time, virtual_time, virtual_time_ready : In(64), Out(64), Out(1)
        See ``VirtualTime``. An entry waits for it.
    intercept_number, access, intercepted, intercept_reason
        See ``CsrIntercept``.
    invalidate : Out(stream.Signature(Invalidation))
        Done before the answer is offered, and after an exit before the next request is taken.
    memory : Out(SnoopPort())
    on, world : Out
        In VMX operation; root or non-root operation.
    context : Out(GuestContext)
    fields, saved : Out(VmcsMirror), Out(SavedFields)
        Of the current VMCS. ``saved`` describes the latest exit or failed entry while the hart is
        parked for it; its pc and privilege are ``guest_pc`` and ``guest_privilege``.
    settled : Out(1)
        But for ``saving``, nothing is under way that time spent parked could finish.
    saving : Out(1)
        Fields of the last exit are on their way into the VMCS.
    """

    request: In(stream.Signature(VmxRequest))
    answer: Out(stream.Signature(VmxAnswer))
    status: Out(64)
    status_stb: Out(1)
    exit: In(stream.Signature(ExitRecord))
    exit_parks: Out(1)
    park_exits: In(64)
    event: Out(EventExit)
    root_interrupts: In(64)
    window_open: In(1)
    advance: In(1)
    execution_mask: In(64)
    exit_mask: In(64)
    guest_write: Out(FieldWrite)
    guest_read: Out(1)
    guest_number: Out(VMCS_NUMBER_BITS)
    guest_value: In(64)
    guest_tw: In(1)
    time: In(64)
    virtual_time: Out(64)
    virtual_time_ready: Out(1)
    intercept_number: In(12)
    access: In(CsrAccess)
    intercepted: Out(1)
    intercept_reason: Out(ExitReason)
    invalidate: Out(stream.Signature(Invalidation))
    memory: Out(SnoopPort())
    on: Out(1)
    world: Out(World)
    context: Out(GuestContext)
    fields: Out(VmcsMirror)
    saved: Out(SavedFields)
    settled: Out(1)
    saving: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.vmcs = self._vmcs = vmcs = Vmcs()
        m.submodules.checks = self._checks = EntryChecks()
        m.submodules.saved_state = self._saved = saved = SavedState()
        m.submodules.ept_tags = self._tags = EptTags()
        m.submodules.operands = self._operands = InvalidationOperands()
        self._request = Signal(VmxRequest)
        self._state = state = Signal(_State)
        #: What a request comes to: the outcome, vmxstatus, and the value VMREAD gives.
        self._outcome = Signal(VmxOutcome)
        self._status, self._value = Signal(64), Signal(64)
        self._injects = Signal()
        self._entering, self._leaving = Signal(), Signal()
        connect(m, vmcs.memory, flipped(self.memory))
        connect(m, saved.o_field, vmcs.information)
        m.d.comb += [
            self.on.eq(vmcs.on),
            self.saved.eq(saved.fields),
            self.guest_read.eq(vmcs.guest_read),
            self.guest_number.eq(vmcs.guest_number),
            vmcs.guest_value.eq(self.guest_value),
            self._operands.first.eq(self._request.rs1),
            self._operands.second.eq(self._request.rs2),
        ]
        self._tell(m)
        self._invalidations(m)
        self._guest(m)
        m.d.comb += self.saving.eq(~saved.idle)
        m.d.comb += self.settled.eq(
            ((state == _State.IDLE) | (state == _State.ANSWER))
            & (vmcs.idle | (state == _State.ANSWER))
            & ~self._invalidating
            & self._checks.settled
            & ~self._checks.write.valid
            & self.virtual_time_ready
        )

        request = self._request
        with m.Switch(state):
            with m.Case(_State.IDLE):
                self._take(m)
            with m.Case(_State.DECIDE):
                self._decide(m)
            with m.Case(_State.VMCS):
                m.d.comb += vmcs.answer.ready.eq(1)
                m.d.sync += [
                    self._status.eq(vmcs.answer.p.status),
                    self._value.eq(vmcs.answer.p.value),
                ]
                with m.If(vmcs.answer.valid):
                    m.d.sync += state.eq(_State.ANSWER)
            with m.Case(_State.TAG):
                with m.If(self._tags.known):
                    m.d.comb += self._invalidation.eq(self._operands.invept)
                    m.d.comb += self._invalidation.ept_tag.eq(self._tags.tag)
                    m.d.comb += self._invalidation_stb.eq(1)
                m.d.sync += state.eq(_State.ANSWER)
            with m.Case(_State.ANSWER):
                m.d.comb += self.answer.valid.eq(~self._invalidating)
                with m.If(self.answer.valid & self.answer.ready):
                    m.d.comb += [
                        self.status_stb.eq(1),
                        self._entering.eq(self._outcome == VmxOutcome.GUEST),
                    ]
                    m.d.sync += state.eq(_State.IDLE)

        answer, fields = self.answer.payload, self.fields
        event = interruption(saved.fields.entry_interruption)
        m.d.comb += [
            self.status.eq(self._status),
            answer.outcome.eq(self._outcome),
            answer.writes_rd.eq(self._outcome == VmxOutcome.NEXT),
            answer.value.eq(self._status),
            answer.pc.eq(
                Mux(self._outcome == VmxOutcome.GUEST, saved.fields.guest_pc, fields.host_pc)
            ),
            answer.privilege.eq(saved.fields.guest_privilege),
            answer.parks.eq(
                (self._outcome == VmxOutcome.HOST) & self.park_exits[_Reason.BAD_GUEST_STATE]
            ),
            answer.waiting.eq(saved.fields.guest_activity & ~self._injects),
            answer.injection.valid.eq(self._injects),
            answer.injection.interrupt.eq(event.type == InterruptionType.INTERRUPT.value),
            answer.injection.cause.eq(event.cause),
            answer.injection.value.eq(
                Mux(answer.injection.interrupt, 0, fields.entry_interruption_value)
            ),
        ]
        with m.Switch(request.operation):
            with m.Case(*_WITH_VALUE):
                m.d.comb += answer.value.eq(self._value)
        return m

    # The fields, and who keeps copies of them.

    def _tell(self, m):
        vmcs, checks, saved, request = self._vmcs, self._checks, self._saved, self.request
        m.submodules.mirror = mirror = FieldMirror()
        m.submodules.intercept = intercept = CsrIntercept()
        m.submodules.virtual_time = virtual_time = VirtualTime()
        told = Signal(FieldWrite)
        m.d.sync += told.eq(vmcs.written)
        for listener in (mirror.write, intercept.write, checks.write, saved.write):
            m.d.comb += listener.eq(told)
        # What the checks look at and no instruction has written; both come from IDLE and DECIDE,
        # when no field is on its way.
        moved = saved.pc ^ saved.fields.guest_pc
        with m.If(saved.pc_stb & (moved & VMCS_FIELDS["guest_pc"].reserved).any()):
            m.d.comb += [
                checks.write.valid.eq(1),
                checks.write.number.eq(VMCS_FIELDS["guest_pc"].number),
                checks.write.value.eq(saved.pc),
            ]
        with m.If(saved.injected_stb):
            m.d.comb += [
                checks.write.valid.eq(1),
                checks.write.number.eq(VMCS_FIELDS["entry_interruption"].number),
                checks.write.value.eq(0),
            ]
        rescaled = told.valid & (told.number == VMCS_FIELDS["time_scale"].number)
        m.d.sync += virtual_time.changed.eq(rescaled)
        controls = mirror.fields.execution_controls
        m.d.comb += [
            self.guest_write.eq(told),
            self.fields.eq(mirror.fields),
            saved.pc.eq(request.p.rs1),
            checks.execution_mask.eq(self.execution_mask),
            checks.exit_mask.eq(self.exit_mask),
            checks.guest.privilege.eq(saved.fields.guest_privilege),
            checks.guest.waiting.eq(saved.fields.guest_activity),
            checks.guest.tw.eq(self.guest_tw),
            saved.check.eq(checks.result),
            intercept.number.eq(self.intercept_number),
            intercept.access.eq(self.access),
            intercept.controls.eq(controls),
            intercept.status_mask.eq(mirror.fields.status_mask),
            intercept.status_shadow.eq(mirror.fields.status_shadow),
            self.intercepted.eq(intercept.exits),
            self.intercept_reason.eq(intercept.reason),
            virtual_time.time.eq(self.time),
            virtual_time.scaled.eq(controls.use_time_scale),
            virtual_time.scale.eq(mirror.fields.time_scale),
            virtual_time.offset.eq(mirror.fields.time_offset),
            self.virtual_time.eq(virtual_time.value),
            self.virtual_time_ready.eq(virtual_time.ready),
        ]

    # Instructions.

    def _take(self, m):
        taken = self.request.payload
        m.d.comb += self.request.ready.eq(
            (self.world == World.ROOT)
            & (self._saved.idle | taken.moves_pc)
            & self._vmcs.idle
            & ~self._invalidating
        )
        m.d.sync += [
            self._outcome.eq(VmxOutcome.NEXT),
            self._status.eq(0),
            self._value.eq(VM_FAIL_INVALID),
        ]
        with m.If(self.request.valid & self.request.ready):
            m.d.comb += self._saved.pc_stb.eq(taken.moves_pc & self._vmcs.current)
            m.d.sync += [self._request.eq(taken), self._state.eq(_State.DECIDE)]

    def _command(self, m, operation, operand):
        m.d.comb += [
            self._vmcs.command.valid.eq(1),
            self._vmcs.command.p.operation.eq(operation),
            self._vmcs.command.p.operand.eq(operand),
            self._vmcs.command.p.value.eq(self._request.rs2),
        ]
        m.d.sync += self._state.eq(_State.VMCS)

    def _fail(self, m, error):
        """VMfailValid, or VMfailInvalid without a current VMCS."""
        self._command(m, VmcsOperation.FAIL, error)

    def _decide(self, m):
        request, operands, vmcs = self._request, self._operands, self._vmcs
        with m.Switch(request.operation):
            for operation, command in _OF_VMCS.items():
                with m.Case(operation):
                    self._command(m, command, request.rs1)
            with m.Case(VmxOperation.VMPTRST):
                with m.If(vmcs.current):
                    m.d.sync += self._value.eq(vmcs.pointer)
                m.d.sync += self._state.eq(_State.ANSWER)
            with m.Case(VmxOperation.VMLAUNCH, VmxOperation.VMRESUME):
                self._enter(m)
            with m.Case(VmxOperation.INVEPT):
                with m.If(operands.invept_bad):
                    self._fail(m, VmInstructionError.INVALID_INVALIDATION)
                with m.Elif(operands.single_ept):
                    m.d.sync += self._state.eq(_State.TAG)
                with m.Else():
                    m.d.comb += [
                        self._invalidation.eq(operands.invept),
                        self._invalidation_stb.eq(1),
                    ]
                    m.d.sync += self._state.eq(_State.ANSWER)
            with m.Case(VmxOperation.INVVPID):
                with m.If(operands.invvpid_bad):
                    self._fail(m, VmInstructionError.INVALID_INVALIDATION)
                with m.Else():
                    m.d.comb += [
                        self._invalidation.eq(operands.invvpid),
                        self._invalidation_stb.eq(1),
                    ]
                    m.d.sync += self._state.eq(_State.ANSWER)
            with m.Default():
                self._fail(m, VmInstructionError.VMCALL_IN_ROOT)

    def _enter(self, m):
        """VM entry, up to the guest's first cycle."""
        vmcs, checks, saved, tags = self._vmcs, self._checks, self._saved, self._tags
        launch = self._request.operation == VmxOperation.VMLAUNCH
        event = interruption(saved.fields.entry_interruption)
        with m.If(launch & vmcs.launched):
            self._fail(m, VmInstructionError.VMLAUNCH_NOT_CLEAR)
        with m.Elif(~vmcs.current | (~launch & ~vmcs.launched)):
            self._fail(m, VmInstructionError.VMRESUME_NOT_LAUNCHED)
        with m.Elif(~checks.settled | ~self.virtual_time_ready):
            pass
        with m.Elif(checks.result.failed):
            m.d.comb += saved.failure_stb.eq(1)
            with m.Switch(checks.result.check_class):
                with m.Case(CheckClass.CONTROLS):
                    self._fail(m, VmInstructionError.ENTRY_INVALID_CONTROLS)
                with m.Case(CheckClass.HOST_STATE):
                    self._fail(m, VmInstructionError.ENTRY_INVALID_HOST_STATE)
                with m.Default():
                    m.d.sync += [
                        self._outcome.eq(VmxOutcome.HOST),
                        self._state.eq(_State.ANSWER),
                    ]
        with m.Else():
            m.d.comb += [
                vmcs.entered.eq(1),
                saved.injected_stb.eq(event.valid),
                tags.assign.eq(~tags.known),
                self._invalidation.eq(self._untagged()),
                self._invalidation_stb.eq(~self.fields.execution_controls.enable_vpid),
            ]
            m.d.sync += [
                self._injects.eq(event.valid),
                self._tag.eq(tags.tag),
                self._reassigned.eq(~tags.known & tags.in_use),
                self._outcome.eq(VmxOutcome.GUEST),
                self._state.eq(_State.ANSWER),
            ]

    # Translations.

    @staticmethod
    def _untagged():
        """What is dropped without VPIDs: all of VPID 0."""
        return Invalidation.const({"world": World.NON_ROOT})

    def _invalidations(self, m):
        """At most two wait: of a tag that changes hands, and what else there is to drop."""
        tags, eptp = self._tags, self.fields.eptp
        self._tag, self._reassigned = Signal(EPT_TAG_BITS), Signal()
        self._invalidation, self._invalidation_stb = Signal(Invalidation), Signal()
        self._invalidating = Signal()
        waiting, held = Signal(), Signal(Invalidation)
        root = EPT_ROOT_BITS - PAGE_BITS
        m.d.comb += [
            tags.root.eq(eptp.ppn[root:]),
            self._invalidating.eq(self._reassigned | waiting),
            self.invalidate.valid.eq(self._invalidating),
            self.invalidate.payload.eq(held),
        ]
        with m.If(
            (self._state == _State.DECIDE) & (self._request.operation == VmxOperation.INVEPT)
        ):
            m.d.comb += tags.root.eq(self._request.rs2[EPTP["ppn"].lsb + root :])
        with m.If(self._reassigned):
            m.d.comb += self.invalidate.payload.eq(
                Invalidation.const({"world": World.NON_ROOT, "any_vpid": 1, "match_ept": 1})
            )
            m.d.comb += self.invalidate.payload.ept_tag.eq(self._tag)
        with m.If(self.invalidate.ready):
            m.d.sync += self._reassigned.eq(0)
            with m.If(~self._reassigned):
                m.d.sync += waiting.eq(0)
        with m.If(self._invalidation_stb):
            m.d.sync += [waiting.eq(1), held.eq(self._invalidation)]

    # The guest, and its exits.

    def _guest(self, m):
        saved, record = self._saved, self.exit.payload
        m.submodules.timer = timer = PreemptionTimer()
        m.submodules.events = events = EventExits()
        controls = self.fields.execution_controls
        eptp, vpid = self.fields.eptp, self.fields.vpid
        leaving = self._leaving
        m.d.comb += [
            self.exit.ready.eq((self.world == World.NON_ROOT) & ~self._invalidating),
            leaving.eq(self.exit.valid & self.exit.ready),
            self.exit_parks.eq(self.park_exits.bit_select(record.reason, 1)),
            timer.load.eq(self._entering),
            timer.start.eq(saved.fields.guest_preemption_timer),
            timer.counting.eq((self.world == World.NON_ROOT) & self.advance),
            events.fields.eq(self.fields),
            events.non_root.eq(self.world == World.NON_ROOT),
            events.expiring.eq(timer.expiring),
            events.root_interrupts.eq(self.root_interrupts),
            events.window_open.eq(self.window_open),
            self.event.eq(events.event),
            saved.exit_stb.eq(leaving),
            saved.record.eq(record),
            saved.timer.eq(timer.left),
            saved.timer_stb.eq(
                leaving
                & controls.preemption_timer
                & self.fields.exit_controls.save_preemption_timer
            ),
            self.world.eq(self.context.world),
        ]
        with m.If(self._entering):
            m.d.sync += [
                self.context.world.eq(World.NON_ROOT),
                self.context.vpid.eq(Mux(controls.enable_vpid, vpid, 0)),
                self.context.ept_tag.eq(self._tag),
                self.context.ept.eq(1),
                self.context.ept_ad.eq(eptp.ad),
                self.context.ept_root.eq(eptp.ppn),
            ]
        with m.If(leaving):
            m.d.sync += self.context.eq(0)
            # What the EPT has refused is not used again.
            refused = record.reason.as_value().matches(
                _Reason.EPT_VIOLATION.value, _Reason.EPT_MISCONFIGURATION.value
            )
            with m.If(~controls.enable_vpid):
                m.d.comb += [
                    self._invalidation.eq(self._untagged()),
                    self._invalidation_stb.eq(1),
                ]
            with m.Elif(refused):
                m.d.comb += [
                    self._invalidation.world.eq(World.NON_ROOT),
                    self._invalidation.vpid.eq(self.context.vpid),
                    self._invalidation.match_page.eq(1),
                    self._invalidation.page.eq(record.gva[PAGE_BITS:VIRTUAL_BITS]),
                    self._invalidation.match_ept.eq(1),
                    self._invalidation.ept_tag.eq(self.context.ept_tag),
                    self._invalidation_stb.eq(1),
                ]

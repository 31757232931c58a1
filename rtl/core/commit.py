"""The commit stage: memory accesses, CSR and system instructions, traps, write-back."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.arch.records import ParkKind
from rtl.arch.traps import Exception_, Interrupt
from rtl.core.csr import CsrOperation, CsrRequest
from rtl.core.decode import SystemOperation, Unit, reads_only
from rtl.core.execute.bit_counter import BitCounter, CountOperation
from rtl.core.execute.execute import Executed
from rtl.core.frontend.fetch import Redirect
from rtl.core.guest_exit import GuestExit, Leave, reason_of
from rtl.core.guest_port import GuestPort, VmxPort
from rtl.core.issue import Producer
from rtl.core.lsu.load_store_unit import MemoryInstruction
from rtl.core.ports import RetirementPort, WaitingAccess
from rtl.core.retire import RetirementRecorder
from rtl.core.traps import Trap
from rtl.mmu.context import EptFault, Fault, Invalidation, Privilege, World
from rtl.vmx.intercept import ExitReason
from rtl.vmx.ports import VmxOperation, VmxOutcome

__all__ = ["CommitStage", "Halt"]


#: All codes of causes there are fit into them.
_CODE_BITS = max(*Exception_, *Interrupt).bit_length()


class Halt(data.Struct):
    """With ``valid`` (one cycle) the hart stops for its host; the rest describes where.

    The instruction is the one that did not retire. For a root trap, ``trap`` has been taken; for a
    VM exit the VMX unit knows more.
    """

    valid: 1
    kind: 2
    trap: Trap
    pc: 64
    bits: 32
    compressed: 1
    fetched: 1
    rs1: 64
    rs2: 64
    privilege: Privilege
    world: World


class _State(enum.Enum, shape=3):
    RUN = 0
    CSR = 1
    SYSTEM = 2
    #: A trap, or a VM exit.
    TRAP = 3
    #: A VMX instruction.
    VMX = 4
    #: A guest's wfi has retired, and its next instruction has to wait.
    WAIT = 5


class CommitStage(wiring.Component):
    """Commit instructions in order; everything before this stage is speculation.

    Most instructions take one cycle. One that takes longer steps aside, so that what decides about
    that late in its first cycle need not hold back everybody else: the next one comes in behind it
    and waits for its end (``waiting``), as do all behind, because ``i.ready`` is 0 by then.

    An instruction that changes how younger ones execute (CSR writes, fences, trap returns) is
    followed by a redirect. A trap is decided in one cycle and taken in the next.

    Parameters
    ----------
    bit_manipulation : bool
        Instructions of Unit.COUNT come.
    vmx : bool
        Instructions of Unit.VMX come, and guests. Without it ``vmx`` and ``guest`` are not used.

    Members
    -------
    stop : In(1)
        Halt before the next instruction.
    resumes : In(Redirect)
        The halted hart goes on.
    park_exceptions, park_interrupts : In(64)
        Causes of root traps that halt the hart once taken.
    park_ebreak : In(1)
        Halt before an ebreak; a pending interrupt goes first.
    redirect : Out(Redirect)
        Also kills everything younger.
    kill : Out(1)
        Everything younger is on a wrong path; a redirect follows.
    halt : Out(Halt)
    producer, value : the instruction that came last and its result, for bypassing
    waiting : Out(WaitingAccess)
        The memory instruction that came last, while it waits for the one before.
    waiting_indexed : In(1)
        The data cache is given its page offset in this cycle.
    held : Out(1)
        The instruction under way has taken a cycle already: nothing is taken.
    unit, operation, taken, mispredicted : Out
        About the instruction under way, for the performance counters.
    rd, write_back_value : Out
        To the register file.
    invalidate : Out(stream)
        ``payload`` is that of a ``valid`` in the cycle before.
    retired, trapped : Out(1)
        Strobes; ``trapped`` in the cycle a trap is taken, with ``trapped_park`` if it parks.
    exited, exited_park : Out(1)
        In the cycle of a VM exit, or a VM entry of an instruction that ends in root because the guest
        state is bad; and whether it parks.
    vmx : Out(VmxPort()), guest : Out(GuestPort())
    fetch_refusal, data_refusal : In(EptFault)
        What belongs to the EPT fault of an instruction, or of its access.
    """

    i: In(stream.Signature(Executed))
    stop: In(1)
    resumes: In(Redirect)
    park_exceptions: In(64)
    park_interrupts: In(64)
    park_ebreak: In(1)
    redirect: Out(Redirect)
    kill: Out(1)
    halt: Out(Halt)
    producer: Out(Producer)
    value: Out(64)
    waiting: Out(WaitingAccess)
    waiting_indexed: In(1)
    held: Out(1)
    unit: Out(Unit)
    operation: Out(5)
    taken: Out(1)
    mispredicted: Out(1)
    rd: Out(5)
    write_back_value: Out(64)
    empty: Out(1)
    retired: Out(1)
    trapped: Out(1)
    trapped_park: Out(1)
    exited: Out(1)
    exited_park: Out(1)
    trap: Out(Trap)
    retirement: Out(RetirementPort())

    # The CSR file.
    csr_request: Out(CsrRequest)
    csr_write: Out(1)
    csr_value: In(64)
    csr_illegal: In(1)
    trap_pc: Out(64)
    trap_vector: In(64)
    trap_to_machine: In(1)
    ret_valid: Out(1)
    ret_supervisor: Out(1)
    ret_pc: In(64)
    privilege: In(Privilege)
    tvm: In(1)
    tw: In(1)
    tsr: In(1)
    interrupt: In(1)
    interrupt_code: In(6)
    wake: In(1)

    # Multiplier.
    product: In(64)

    # Load/store unit, MMU, instruction cache.
    memory: Out(MemoryInstruction)
    memory_start: Out(1)
    memory_indexed: Out(1)
    memory_done: In(1)
    memory_value: In(64)
    memory_fault: In(1)
    memory_cause: In(6)
    memory_refusal: In(Fault)
    memory_fault_address: In(64)
    memory_physical: In(32)
    memory_stored: In(1)
    clear_reservation: Out(1)
    invalidate: Out(stream.Signature(Invalidation))
    fence_i: Out(1)

    vmx: Out(VmxPort())
    guest: Out(GuestPort())
    fetch_refusal: In(EptFault)
    data_refusal: In(EptFault)

    def __init__(self, *, bit_manipulation, vmx):
        self._bit_manipulation = bit_manipulation
        self._vmx = vmx
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        state = Signal(_State)
        # What came last, and what has stepped aside; of the two, what is under way.
        fresh, fresh_valid, aside = Signal(Executed), Signal(), Signal(Executed)
        held = self.held
        valid, first = Signal(), Signal()
        inst = Signal(Executed)
        done = Signal()
        flush, csr_writes = Signal(), Signal()
        result, rd = Signal(64), Signal(5)
        # A wait of the guest ends; after a park it has to go on.
        woken, asleep = Signal(), Signal()

        # A late operand is caught from write-back in the first cycle.
        rs2, fresh_rs2 = Signal(64), Signal(64)
        m.d.comb += [
            first.eq(~held),
            valid.eq(held | fresh_valid),
            inst.eq(Mux(held, aside.as_value(), fresh.as_value())),
            fresh_rs2.eq(Mux(fresh.rs2_late, self.write_back_value, fresh.rs2)),
            rs2.eq(Mux(held, aside.rs2, fresh_rs2)),
        ]
        count = Const(0, 7)
        if self._bit_manipulation:
            m.submodules.counter = counter = BitCounter()
            count = counter.result
            m.d.comb += [
                # Without need nothing is reversed: simulation is slow at that.
                counter.operation.eq(
                    Mux(fresh.unit == Unit.COUNT, fresh.operation[:2], CountOperation.CPOP)
                ),
                counter.word.eq(fresh.word),
                counter.a.eq(fresh.rs1),
            ]

        # What is decided before the instruction begins. A stop is taken from a waiting wfi too,
        # which then starts anew; an interrupt ends the wfi first.
        refused, intercepted, waits = Signal(), Signal(), Signal()
        starts = fresh_valid & first
        breaks = (fresh.unit == Unit.SYSTEM) & (fresh.operation == SystemOperation.EBREAK.value)
        breaking = breaks & self.park_ebreak & ~self.interrupt
        stopping, interrupted, going = Signal(), Signal(), Signal()
        m.d.comb += [
            stopping.eq(starts & (self.stop | breaking) | waits & self.stop),
            interrupted.eq(starts & self.interrupt & ~self.stop),
            going.eq(starts & ~self.interrupt & ~self.stop & ~breaking),
        ]

        take = Signal()
        cause, leave = Signal(Trap), Signal(Leave)

        def raise_(code, value=0):
            m.d.comb += [take.eq(1), cause.code.eq(code), cause.value.eq(value)]

        def exit_(reason, code=0, value=0):
            raise_(code, value)
            m.d.comb += [leave.valid.eq(1), leave.reason.eq(reason)]

        def exit_of_ept(fault, gva):
            """With a fault of the EPT nothing is raised in the guest."""
            if self._vmx:
                for kind in (Fault.EPT_VIOLATION, Fault.EPT_MISCONFIGURATION):
                    with m.If(fault == kind):
                        exit_(ExitReason[kind.name], value=gva)

        accesses = Signal()
        m.d.comb += [
            accesses.eq(Mux(held, state == _State.RUN, going & (fresh.unit == Unit.MEMORY))),
        ]
        with m.If(interrupted):
            m.d.comb += [take.eq(1), cause.interrupt.eq(1), cause.code.eq(self.interrupt_code)]
            if self._vmx:
                with m.If(self.guest.event.valid):
                    exit_(self.guest.event.reason, self.guest.event.cause)
        with m.Elif(going), m.Switch(fresh.unit):
            with m.Case(Unit.ILLEGAL):
                address = Mux(fresh.fault_second, fresh.link, fresh.pc)
                with m.If(fresh.fault == Fault.NONE):
                    raise_(Exception_.ILLEGAL_INSTRUCTION, fresh.bits)
                with m.Elif(fresh.fault == Fault.PAGE):
                    raise_(Exception_.INSTRUCTION_PAGE_FAULT, address)
                with m.Else():
                    raise_(Exception_.INSTRUCTION_ACCESS_FAULT, address)
                exit_of_ept(fresh.fault, address)
            with m.Case(Unit.MEMORY):
                pass  # see below
            with m.Case(Unit.CSR):
                m.d.sync += state.eq(_State.CSR)
            with m.Case(Unit.SYSTEM):
                self._begin_system(m, state, fresh, refused, intercepted, done)
            with m.Case(Unit.VMX):
                self._begin_vmx(m, state, fresh, refused)
            with m.Default():
                m.d.comb += done.eq(1)
        with m.If(accesses):
            with m.If(self.memory_fault):
                raise_(self.memory_cause, self.memory_fault_address)
                exit_of_ept(self.memory_refusal, self.memory_fault_address)
            with m.Else():
                m.d.comb += done.eq(self.memory_done)
        with m.Switch(state):
            with m.Case(_State.CSR):
                m.d.sync += state.eq(_State.RUN)
                with m.If(self.csr_illegal):
                    raise_(Exception_.ILLEGAL_INSTRUCTION, aside.bits)
                with m.Elif(self.guest.csr_exits if self._vmx else Const(0, 1)):
                    exit_(self.guest.csr_reason)
                with m.Else():
                    m.d.comb += [done.eq(1), self.csr_write.eq(csr_writes), flush.eq(csr_writes)]
            with m.Case(_State.SYSTEM):
                with m.If(refused):
                    raise_(Exception_.ILLEGAL_INSTRUCTION, aside.bits)
                with m.Elif(intercepted):
                    exit_(
                        Mux(
                            aside.operation == SystemOperation.WFI.value,
                            ExitReason.WFI,
                            ExitReason.SFENCE_VMA,
                        )
                    )
                with m.Else():
                    self._system(m, aside, raise_, done, flush, waits)
                with m.If(take | stopping | done):
                    m.d.sync += state.eq(_State.RUN)
            with m.Case(_State.TRAP):
                m.d.sync += state.eq(_State.RUN)
            if self._vmx:
                with m.Case(_State.VMX):
                    self._vmx_instruction(m, state, aside, refused, raise_, exit_, take, done)
                with m.Case(_State.WAIT):
                    m.d.comb += waits.eq(1)
                    with m.If(self.guest.event.valid & ~self.stop):
                        exit_(self.guest.event.reason, self.guest.event.cause)
                        m.d.comb += leave.waiting.eq(1)
                    with m.If(self.guest.event.valid | self.stop | self.wake):
                        m.d.sync += state.eq(_State.RUN)
                        m.d.comb += woken.eq(1)

        # Chosen by the unit alone: whether it is written is known late.
        with m.Switch(inst.unit):
            with m.Case(Unit.MULTIPLY):
                m.d.comb += result.eq(self.product)
            with m.Case(Unit.COUNT):
                m.d.comb += result.eq(count)
            with m.Case(Unit.CSR):
                m.d.comb += result.eq(self.csr_value)
            with m.Case(Unit.VMX):
                m.d.comb += result.eq(self.vmx.answer.value)
            with m.Default():
                m.d.comb += result.eq(fresh.result)
        m.d.comb += rd.eq(inst.rd)

        self._memory(m, inst, rs2, fresh, fresh_valid)
        self._fence(m, aside)
        self._csr(m, fresh, going, csr_writes)
        trap, left = self._trap(m, state, aside, take, cause, leave, stopping)

        # Where control goes on.
        m.d.comb += self.redirect.pc.eq(aside.link)
        with m.If(state == _State.TRAP):
            m.d.comb += [
                self.redirect.valid.eq(~self.trapped_park),
                self.redirect.pc.eq(self.trap_vector),
            ]
            if self._vmx:
                with m.If(self.exited):
                    m.d.comb += [
                        self.redirect.valid.eq(~self.exited_park),
                        self.redirect.pc.eq(self.guest.fields.host_pc),
                    ]
        with m.Elif(self.ret_valid):
            m.d.comb += [self.redirect.valid.eq(1), self.redirect.pc.eq(self.ret_pc)]
        with m.Elif(flush):
            m.d.comb += self.redirect.valid.eq(1)
        m.d.comb += [
            self.kill.eq(take | stopping | self.redirect.valid | (state == _State.TRAP)),
            self.clear_reservation.eq(take | self.ret_valid | stopping),
        ]

        # The stage's register.
        leaves = done | take | stopping | woken
        m.d.comb += [
            self.i.ready.eq(first),
            self.empty.eq(~valid & (state == _State.RUN)),
            self.retired.eq(done),
            self.producer.rd.eq(Mux(fresh_valid, fresh.rd, 0)),
            self.producer.late.eq(fresh.late),
            self.value.eq(fresh.result),
            self.unit.eq(inst.unit),
            self.operation.eq(inst.operation),
            self.taken.eq(inst.taken),
            self.mispredicted.eq(inst.mispredicted),
        ]
        m.d.sync += held.eq(valid & ~leaves)
        with m.If(first):
            m.d.sync += [
                aside.eq(fresh),
                aside.rs2.eq(fresh_rs2),
                fresh.eq(self.i.payload),
                fresh_valid.eq(self.i.valid),
            ]
        with m.Else():
            m.d.sync += fresh.indexed.eq(self.waiting_indexed)
        with m.If(self.kill):
            m.d.sync += fresh_valid.eq(0)
        if self._vmx:
            self._change_worlds(m, state, inst, aside, rd, trap, left)
            self._go_to_sleep(m, state, aside, done, stopping, asleep)

        # Write-back.
        # What is loaded comes last, so it is chosen last.
        m.d.sync += [
            self.rd.eq(Mux(done, rd, 0)),
            self.write_back_value.eq(Mux(inst.unit == Unit.MEMORY, self.memory_value, result)),
        ]
        self._record(m, inst, rd, rs2, done, take, left)
        return m

    def _begin_system(self, m, state, inst, refused, intercepted, done):
        """In its first cycle an instruction finds out whether it may; what it does, and whom it
        stops, follows from registers in the second.
        """
        user, not_machine = (
            self.privilege == Privilege.USER,
            self.privilege != Privilege.MACHINE,
        )
        refuses = Signal()
        with m.Switch(inst.operation):
            for operation, refusal in (
                (SystemOperation.MRET, not_machine),
                (SystemOperation.SRET, user | (not_machine & self.tsr)),
                (SystemOperation.WFI, user | (not_machine & self.tw)),
                (SystemOperation.SFENCE_VMA, user | (not_machine & self.tvm)),
            ):
                with m.Case(operation.value):
                    m.d.comb += refuses.eq(refusal)
        m.d.sync += refused.eq(refuses)
        with m.If(inst.operation == SystemOperation.FENCE.value):
            # The load/store unit finishes each access before the next: all is in order.
            m.d.comb += done.eq(1)
        with m.Else():
            m.d.sync += state.eq(_State.SYSTEM)
        intercepts = Signal()
        if self._vmx:
            controls = self.guest.fields.execution_controls
            chosen = Mux(
                inst.operation == SystemOperation.WFI.value,
                controls.wfi_exiting,
                (inst.operation == SystemOperation.SFENCE_VMA.value) & controls.sfence_vma_exiting,
            )
            m.d.comb += intercepts.eq(chosen & (self.vmx.world == World.NON_ROOT))
            m.d.sync += intercepted.eq(intercepts)
        m.d.comb += self.invalidate.valid.eq(
            (inst.operation == SystemOperation.SFENCE_VMA.value) & ~refuses & ~intercepts
        )

    def _begin_vmx(self, m, state, inst, refused):
        """The same for a VMX instruction (docs/isa/vmx.md#legality)."""
        if not self._vmx:
            return
        machine = self.privilege == Privilege.MACHINE
        known = self.vmx.on | (inst.operation == VmxOperation.VMXON.value)
        m.d.sync += [
            state.eq(_State.VMX),
            refused.eq(
                (inst.operation == VmxOperation.VMFUNC.value)
                | (self.vmx.world == World.ROOT) & ~(machine & known)
            ),
        ]

    def _vmx_instruction(self, m, state, inst, refused, raise_, exit_, take, done):
        """From the second cycle on."""
        request, asked = self.vmx.request, Signal()
        m.d.comb += [
            request.p.operation.eq(inst.operation),
            request.p.rs1.eq(inst.rs1),
            request.p.rs2.eq(inst.rs2),
        ]
        with m.If(refused):
            raise_(Exception_.ILLEGAL_INSTRUCTION, inst.bits)
        with m.Elif(self.vmx.world == World.NON_ROOT):
            exit_(reason_of(m, inst.operation))
        with m.Else():
            m.d.comb += [request.valid.eq(~asked), done.eq(self.vmx.answered)]
            m.d.sync += asked.eq((asked | request.ready) & ~done)
        with m.If(take | done):
            m.d.sync += state.eq(_State.RUN)

    def _system(self, m, inst, raise_, done, flush, waits):
        """The second cycle, and those in which wfi waits."""
        with m.Switch(inst.operation):
            with m.Case(SystemOperation.FENCE_I.value):
                m.d.comb += [done.eq(1), flush.eq(1), self.fence_i.eq(1)]
            with m.Case(SystemOperation.ECALL.value):
                raise_(Exception_.ECALL_FROM_USER + self.privilege.as_value())
            with m.Case(SystemOperation.EBREAK.value):
                raise_(Exception_.BREAKPOINT, inst.pc)
            with m.Case(SystemOperation.MRET.value):
                m.d.comb += [done.eq(1), self.ret_valid.eq(1)]
            with m.Case(SystemOperation.SRET.value):
                m.d.comb += [done.eq(1), self.ret_valid.eq(1), self.ret_supervisor.eq(1)]
            with m.Case(SystemOperation.WFI.value):
                m.d.comb += [waits.eq(1), done.eq(self.wake & ~self.stop)]
                if self._vmx:
                    # A guest's retires before it waits.
                    with m.If(self.vmx.world == World.NON_ROOT):
                        m.d.comb += [waits.eq(0), done.eq(1)]
            with m.Case(SystemOperation.SFENCE_VMA.value):
                m.d.comb += [done.eq(1), flush.eq(1)]

    def _fence(self, m, inst):
        # sfence.vma names its operands by register number: x0 stands for all.
        m.d.comb += [
            self.invalidate.payload.match_page.eq(inst.bits[15:20] != 0),
            self.invalidate.payload.match_asid.eq(inst.bits[20:25] != 0),
            self.invalidate.payload.page.eq(inst.rs1[12:]),
            self.invalidate.payload.asid.eq(inst.rs2),
        ]

    def _memory(self, m, inst, rs2, fresh, fresh_valid):
        comes = fresh_valid & (fresh.unit == Unit.MEMORY)
        m.d.comb += [
            self.memory.operation.eq(inst.operation),
            self.memory.funct3.eq(inst.funct3),
            self.memory.funct5.eq(inst.funct5),
            self.memory.address.eq(inst.result),
            self.memory.alignment.eq(inst.alignment),
            self.memory.data.eq(rs2),
            # What else may stop an instruction does not stop these.
            self.memory_start.eq(comes & ~self.held & ~self.stop & ~self.interrupt),
            self.memory_indexed.eq(fresh.indexed),
            self.waiting.valid.eq(comes & self.held),
            self.waiting.address.eq(fresh.result),
            self.waiting.reads.eq(reads_only(fresh.operation)),
        ]

    def _csr(self, m, inst, going, writes):
        immediate = inst.funct3[2]
        source = inst.bits[15:20]
        m.d.sync += writes.eq(self.csr_request.writes)
        if self._vmx:
            reads = Signal()
            m.d.sync += reads.eq((inst.funct3[:2] != CsrOperation.WRITE.value) | (inst.rd != 0))
            m.d.comb += [self.guest.reads.eq(reads), self.guest.writes.eq(writes)]
        m.d.comb += [
            self.csr_request.valid.eq(going & (inst.unit == Unit.CSR)),
            self.csr_request.number.eq(inst.bits[20:32]),
            self.csr_request.operation.eq(inst.funct3[:2]),
            self.csr_request.operand.eq(Mux(immediate, source, inst.rs1)),
            self.csr_request.writes.eq(
                (inst.funct3[:2] == CsrOperation.WRITE.value) | (source != 0)
            ),
        ]

    def _trap(self, m, state, inst, take, cause, leave, stopping):
        """Latch the trap decided; one cycle later it is taken, and may halt the hart.

        The instruction has stepped aside by then. Gives both that were latched.
        """
        halt, trap, left = self.halt, Signal(Trap), Signal(Leave)
        with m.If(take):
            m.d.sync += state.eq(_State.TRAP)
        with m.If(take | stopping):
            # There is no cause when the hart is stopping.
            m.d.sync += [trap.eq(cause), left.eq(leave)]
        selected = Mux(trap.interrupt, self.park_interrupts, self.park_exceptions)
        selected = selected[: 1 << _CODE_BITS].bit_select(trap.code[:_CODE_BITS], 1)
        stopped = Signal()
        m.d.sync += stopped.eq(stopping)
        root = Const(1, 1)
        if self._vmx:
            root = self.vmx.world == World.ROOT
            self._exit(m, state, inst, trap, left)
        m.d.comb += [
            self.trap.eq(trap),
            self.trap_pc.eq(inst.pc),
            self.trapped.eq((state == _State.TRAP) & ~self.exited),
            self.trapped_park.eq(self.trapped & self.trap_to_machine & selected & root),
            halt.valid.eq(self.trapped_park | stopped | self.exited_park),
            halt.kind.eq(Mux(self.trapped, ParkKind.ROOT_TRAP, ParkKind.STOP)),
            halt.trap.eq(trap),
            halt.pc.eq(inst.pc),
            halt.bits.eq(inst.bits),
            halt.compressed.eq(inst.compressed),
            halt.fetched.eq(inst.fault == Fault.NONE),
            halt.rs1.eq(inst.rs1),
            halt.rs2.eq(inst.rs2),
            halt.privilege.eq(self.privilege),
            halt.world.eq(~root),
        ]
        with m.If(self.exited_park):
            m.d.comb += [halt.kind.eq(ParkKind.VM_EXIT), halt.world.eq(World.NON_ROOT)]
        return trap, left

    def _exit(self, m, state, inst, trap, left):
        """Whether the guest exits instead. The VMX unit is ready: the guest has come this far."""
        m.submodules.guest_exit = exit_ = GuestExit()
        guest, answer = self.guest, self.vmx.answer
        m.d.comb += [
            exit_.leave.eq(left),
            exit_.trap.eq(trap),
            exit_.instruction.eq(inst),
            exit_.privilege.eq(self.privilege),
            exit_.bitmap.eq(guest.fields.exception_bitmap),
            exit_.fetch_refusal.eq(self.fetch_refusal),
            exit_.data_refusal.eq(self.data_refusal),
            guest.exit.payload.eq(exit_.record),
            guest.exit.valid.eq(
                (state == _State.TRAP) & (self.vmx.world == World.NON_ROOT) & exit_.exits
            ),
            self.exited.eq(guest.exit.valid),
            self.exited_park.eq(self.exited & guest.parks),
        ]
        # An entry that ends in root is no exit in the trace, but parks like one.
        with m.If((state == _State.VMX) & self.vmx.answered):
            m.d.comb += self.exited_park.eq((answer.outcome == VmxOutcome.HOST) & answer.parks)

    def _change_worlds(self, m, state, inst, aside, rd, trap, left):
        """What a VMX instruction, or an entry of the parked hart, comes to."""
        vmx, answer = self.vmx, self.vmx.answer
        with m.If((inst.unit == Unit.VMX) & ~answer.writes_rd):
            m.d.comb += rd.eq(0)
        with m.If(vmx.answered & (answer.outcome != VmxOutcome.NEXT)):
            m.d.comb += [
                self.clear_reservation.eq(1),
                self.redirect.valid.eq(~self.exited_park & (state == _State.VMX)),
                self.redirect.pc.eq(answer.pc),
            ]
        with m.If(vmx.answered & (answer.outcome == VmxOutcome.GUEST)):
            self._sleep(m, aside, answer.pc)
            with m.If(answer.injection.valid):
                m.d.sync += [
                    state.eq(_State.TRAP),
                    trap.interrupt.eq(answer.injection.interrupt),
                    trap.code.eq(answer.injection.cause),
                    trap.value.eq(answer.injection.value),
                    left.eq(0),
                    left.exempt.eq(1),
                ]
            with m.Elif(answer.waiting):
                m.d.sync += [state.eq(_State.WAIT), self.held.eq(1)]

    @staticmethod
    def _sleep(m, aside, pc):
        """Let there be a wfi that has retired, before the instruction at ``pc``."""
        m.d.sync += [
            aside.eq(0),
            aside.pc.eq(pc),
            aside.fault.eq(Fault.ACCESS),
            aside.unit.eq(Unit.SYSTEM),
            aside.operation.eq(SystemOperation.WFI.value),
        ]

    def _go_to_sleep(self, m, state, aside, done, stopping, asleep):
        """A guest's wfi, and what is left of one when the hart was stopped in it."""
        sleeps = Signal()
        m.d.comb += sleeps.eq(
            (state == _State.SYSTEM)
            & (aside.operation == SystemOperation.WFI.value)
            & (self.vmx.world == World.NON_ROOT)
            & done
            & ~self.wake
        )
        with m.If(stopping):
            m.d.sync += asleep.eq(state == _State.WAIT)
        with m.If(self.resumes.valid):
            m.d.sync += asleep.eq(0)
        with m.If(sleeps):
            self._sleep(m, aside, aside.link)
        with m.Elif(self.resumes.valid & asleep):
            self._sleep(m, aside, self.resumes.pc)
        with m.If(sleeps | self.resumes.valid & asleep):
            m.d.sync += [state.eq(_State.WAIT), self.held.eq(1)]

    def _record(self, m, inst, rd, rs2, done, take, left):
        m.submodules.recorder = recorder = RetirementRecorder(vmx=self._vmx)
        connect(m, recorder.retirement, flipped(self.retirement))
        m.d.comb += [
            recorder.instruction.eq(inst),
            recorder.rd.eq(rd),
            recorder.rs2.eq(rs2),
            recorder.done.eq(done),
            recorder.take.eq(take),
            recorder.trapped.eq(self.trapped),
            recorder.trap.eq(self.trap),
            recorder.injected.eq(left.exempt),
            recorder.pc.eq(self.trap_pc),
            recorder.exited.eq(self.exited),
            recorder.saved.eq(self.vmx.saved),
            recorder.privilege.eq(self.privilege),
            recorder.world.eq(self.vmx.world),
            recorder.physical.eq(self.memory_physical),
            recorder.stored.eq(self.memory_stored),
            recorder.value.eq(self.write_back_value),
        ]

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
from rtl.core.issue import Producer
from rtl.core.lsu.load_store_unit import MemoryInstruction
from rtl.core.ports import RetirementPort, WaitingAccess
from rtl.core.retire import RetirementRecorder
from rtl.core.traps import Trap
from rtl.mmu.context import Fault, Invalidation, Privilege, World

__all__ = ["CommitStage", "CommitState", "Halt"]


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


class CommitState(enum.Enum, shape=3):
    """Where the instruction that has stepped aside stands; the last two are for guests."""

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

    Members
    -------
    stop : In(1)
        Halt before the next instruction.
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
    trapping : Out(1)
        In the cycle in which a trap is taken or a guest exits instead; nothing younger is there.
    exited, exited_park : Out(1)
        0 without guests.
    """

    i: In(stream.Signature(Executed))
    stop: In(1)
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
    trapping: Out(1)
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

    #: There are guests.
    _has_guests = False

    def __init__(self, *, bit_manipulation):
        self._bit_manipulation = bit_manipulation
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        self._state = state = Signal(CommitState)
        # What came last, and what has stepped aside; of the two, what is under way.
        self._fresh = fresh = Signal(Executed)
        self._aside = aside = Signal(Executed)
        fresh_valid, held = Signal(), self.held
        # The complement of held, for what comes last: the other one has much to choose.
        self._first = first = Signal(init=1)
        valid = Signal()
        self._inst = inst = Signal(Executed)
        #: It retires; it does not, a trap is decided; what is asked for besides.
        self._done, self._take, self._flush = done, take, flush = Signal(), Signal(), Signal()
        self._cause = cause = Signal(Trap)
        csr_writes = Signal()
        self._result, self._rd = result, rd = Signal(64), Signal(5)

        # A late operand is caught from write-back in the first cycle.
        rs2, fresh_rs2 = Signal(64), Signal(64)
        m.d.comb += [
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
        self._refused, self._waits = refused, waits = Signal(), Signal()
        # No wait for the end of an instruction goes on.
        self._woken = woken = Signal()
        starts = fresh_valid & first
        breaks = (fresh.unit == Unit.SYSTEM) & (fresh.operation == SystemOperation.EBREAK.value)
        breaking = breaks & self.park_ebreak & ~self.interrupt
        self._stopping = stopping = Signal()
        interrupted, going = Signal(), Signal()
        m.d.comb += [
            stopping.eq(starts & (self.stop | breaking) | waits & self.stop),
            interrupted.eq(starts & self.interrupt & ~self.stop),
            going.eq(starts & ~self.interrupt & ~self.stop & ~breaking),
        ]

        accesses = Signal()
        m.d.comb += [
            accesses.eq(Mux(held, state == CommitState.RUN, going & (fresh.unit == Unit.MEMORY))),
        ]
        with m.If(interrupted):
            m.d.comb += [take.eq(1), cause.interrupt.eq(1), cause.code.eq(self.interrupt_code)]
            self._take_event(m)
        with m.Elif(going), m.Switch(fresh.unit):
            with m.Case(Unit.ILLEGAL):
                address = Mux(fresh.fault_second, fresh.link, fresh.pc)
                with m.If(fresh.fault == Fault.NONE):
                    self._raise(m, Exception_.ILLEGAL_INSTRUCTION, fresh.bits)
                with m.Elif(fresh.fault == Fault.PAGE):
                    self._raise(m, Exception_.INSTRUCTION_PAGE_FAULT, address)
                with m.Else():
                    self._raise(m, Exception_.INSTRUCTION_ACCESS_FAULT, address)
                self._refuse(m, fresh.fault, address)
            with m.Case(Unit.MEMORY):
                pass  # see below
            with m.Case(Unit.CSR):
                m.d.sync += state.eq(CommitState.CSR)
            with m.Case(Unit.SYSTEM):
                self._begin_system(m, fresh)
            self._begin_others(m, fresh)
            with m.Default():
                m.d.comb += done.eq(1)
        with m.If(accesses):
            with m.If(self.memory_fault):
                self._raise(m, self.memory_cause, self.memory_fault_address)
                self._refuse(m, self.memory_refusal, self.memory_fault_address)
            with m.Else():
                m.d.comb += done.eq(self.memory_done)
        with m.Switch(state):
            with m.Case(CommitState.CSR):
                m.d.sync += state.eq(CommitState.RUN)
                with m.If(self.csr_illegal):
                    self._raise(m, Exception_.ILLEGAL_INSTRUCTION, aside.bits)
                with m.Else():
                    self._finish_csr(m, csr_writes)
            with m.Case(CommitState.SYSTEM):
                with m.If(refused):
                    self._raise(m, Exception_.ILLEGAL_INSTRUCTION, aside.bits)
                with m.Else():
                    self._system(m)
                with m.If(take | stopping | done):
                    m.d.sync += state.eq(CommitState.RUN)
            with m.Case(CommitState.TRAP):
                m.d.sync += state.eq(CommitState.RUN)
            self._go_on_with_others(m)

        # Chosen by the unit alone: whether it is written is known late.
        with m.Switch(inst.unit):
            with m.Case(Unit.MULTIPLY):
                m.d.comb += result.eq(self.product)
            with m.Case(Unit.COUNT):
                m.d.comb += result.eq(count)
            with m.Case(Unit.CSR):
                m.d.comb += result.eq(self.csr_value)
            with m.Default():
                m.d.comb += result.eq(fresh.result)
        m.d.comb += rd.eq(inst.rd)

        self._memory(m, inst, rs2, fresh, fresh_valid)
        self._fence(m, aside)
        self._csr(m, fresh, starts, csr_writes)
        self._trap(m)

        # Where control goes on.
        m.d.comb += self.redirect.pc.eq(aside.link)
        with m.If(state == CommitState.TRAP):
            m.d.comb += [
                self.redirect.valid.eq(~self.trapped_park),
                self.redirect.pc.eq(self.trap_vector),
            ]
        with m.Elif(self.ret_valid):
            m.d.comb += [self.redirect.valid.eq(1), self.redirect.pc.eq(self.ret_pc)]
        with m.Elif(flush):
            m.d.comb += self.redirect.valid.eq(1)
        m.d.comb += [
            self.kill.eq(take | stopping | self.redirect.valid | (state == CommitState.TRAP)),
            self.clear_reservation.eq(take | self.ret_valid | stopping),
        ]

        # The stage's register.
        leaves = done | take | stopping | woken
        m.d.comb += [
            self.i.ready.eq(first),
            self.empty.eq(~valid & (state == CommitState.RUN)),
            self.retired.eq(done),
            self.trapping.eq(state == CommitState.TRAP),
            self.producer.rd.eq(Mux(fresh_valid, fresh.rd, 0)),
            self.producer.late.eq(fresh.late),
            self.value.eq(fresh.result),
            self.unit.eq(inst.unit),
            self.operation.eq(inst.operation),
            self.taken.eq(inst.taken),
            self.mispredicted.eq(inst.mispredicted),
        ]
        m.d.sync += [held.eq(valid & ~leaves), first.eq(~(valid & ~leaves))]
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

        # Write-back.
        # What is loaded comes last, so it is chosen last.
        m.d.sync += [
            self.rd.eq(Mux(done, rd, 0)),
            self.write_back_value.eq(Mux(inst.unit == Unit.MEMORY, self.memory_value, result)),
        ]
        self._record(m, rs2)
        return m

    def _raise(self, m, code, value=0):
        m.d.comb += [self._take.eq(1), self._cause.code.eq(code), self._cause.value.eq(value)]

    # What guests add.

    def _take_event(self, m):
        """Before an instruction; an interrupt is taken where nothing else is said."""

    def _refuse(self, m, fault, gva):
        """A fault was met in a translation."""

    def _begin_others(self, m, inst):
        """Further cases of a switch by the unit of what begins."""

    def _go_on_with_others(self, m):
        """Further cases of a switch by the state."""

    def _intercepts(self, m, inst):
        """Whether a system instruction that is legal does nothing, in its first cycle."""
        return Const(0, 1)

    def _may_park(self):
        """Whether traps are root's."""
        return Const(1, 1)

    # Instructions that take more than one cycle.

    def _finish_csr(self, m, writes):
        m.d.comb += [self._done.eq(1), self.csr_write.eq(writes), self._flush.eq(writes)]

    def _begin_system(self, m, inst):
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
        m.d.sync += self._refused.eq(refuses)
        with m.If(inst.operation == SystemOperation.FENCE.value):
            # The load/store unit finishes each access before the next: all is in order.
            m.d.comb += self._done.eq(1)
        with m.Else():
            m.d.sync += self._state.eq(CommitState.SYSTEM)
        m.d.comb += self.invalidate.valid.eq(
            (inst.operation == SystemOperation.SFENCE_VMA.value)
            & ~refuses
            & ~self._intercepts(m, inst)
        )

    def _system(self, m):
        """The second cycle, and those in which wfi waits."""
        inst, done = self._aside, self._done
        with m.Switch(inst.operation):
            with m.Case(SystemOperation.FENCE_I.value):
                m.d.comb += [done.eq(1), self._flush.eq(1), self.fence_i.eq(1)]
            with m.Case(SystemOperation.ECALL.value):
                self._raise(m, Exception_.ECALL_FROM_USER + self.privilege.as_value())
            with m.Case(SystemOperation.EBREAK.value):
                self._raise(m, Exception_.BREAKPOINT, inst.pc)
            with m.Case(SystemOperation.MRET.value):
                m.d.comb += [done.eq(1), self.ret_valid.eq(1)]
            with m.Case(SystemOperation.SRET.value):
                m.d.comb += [done.eq(1), self.ret_valid.eq(1), self.ret_supervisor.eq(1)]
            with m.Case(SystemOperation.WFI.value):
                m.d.comb += [self._waits.eq(1), done.eq(self.wake & ~self.stop)]
            with m.Case(SystemOperation.SFENCE_VMA.value):
                m.d.comb += [done.eq(1), self._flush.eq(1)]

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
            self.memory_start.eq(comes & self._first & ~self.stop & ~self.interrupt),
            self.memory_indexed.eq(fresh.indexed),
            self.waiting.valid.eq(comes & self.held),
            self.waiting.address.eq(fresh.result),
            self.waiting.reads.eq(reads_only(fresh.operation)),
        ]

    def _csr(self, m, inst, starts, writes):
        immediate = inst.funct3[2]
        source = inst.bits[15:20]
        m.d.sync += writes.eq(self.csr_request.writes)
        m.d.comb += [
            # It is read in vain if an interrupt or a stop comes first.
            self.csr_request.valid.eq(starts & (inst.unit == Unit.CSR)),
            self.csr_request.number.eq(inst.bits[20:32]),
            self.csr_request.operation.eq(inst.funct3[:2]),
            self.csr_request.operand.eq(Mux(immediate, source, inst.rs1)),
            self.csr_request.writes.eq(
                (inst.funct3[:2] == CsrOperation.WRITE.value) | (source != 0)
            ),
        ]

    def _trap(self, m):
        """Latch the trap decided; one cycle later it is taken, and may halt the hart.

        The instruction has stepped aside by then.
        """
        halt, inst, stopping = self.halt, self._aside, self._stopping
        self._latched = trap = Signal(Trap)
        with m.If(self._take):
            m.d.sync += self._state.eq(CommitState.TRAP)
        with m.If(self._take | stopping):
            # There is no cause when the hart is stopping.
            m.d.sync += trap.eq(self._cause)
        selected = Mux(trap.interrupt, self.park_interrupts, self.park_exceptions)
        selected = selected[: 1 << _CODE_BITS].bit_select(trap.code[:_CODE_BITS], 1)
        stopped = Signal()
        m.d.sync += stopped.eq(stopping)
        m.d.comb += [
            self.trap.eq(trap),
            self.trap_pc.eq(inst.pc),
            self.trapped.eq((self._state == CommitState.TRAP) & ~self.exited),
            self.trapped_park.eq(self.trapped & self.trap_to_machine & selected & self._may_park()),
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
            halt.world.eq(~self._may_park()),
        ]

    def _record(self, m, rs2):
        m.submodules.recorder = self._recorder = recorder = RetirementRecorder(
            guests=self._has_guests
        )
        connect(m, recorder.retirement, flipped(self.retirement))
        m.d.comb += [
            recorder.instruction.eq(self._inst),
            recorder.rd.eq(self._rd),
            recorder.rs2.eq(rs2),
            recorder.done.eq(self._done),
            recorder.trapped.eq(self.trapped),
            recorder.trap.eq(self.trap),
            recorder.privilege.eq(self.privilege),
            recorder.physical.eq(self.memory_physical),
            recorder.stored.eq(self.memory_stored),
            recorder.value.eq(self.write_back_value),
        ]

"""The commit stage: memory accesses, CSR and system instructions, traps, write-back."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.records import ParkKind
from rtl.arch.traps import Exception_, Interrupt
from rtl.core.csr import CsrOperation, CsrRequest
from rtl.core.decode import SystemOperation, Unit
from rtl.core.execute.bit_counter import BitCounter, CountOperation
from rtl.core.execute.execute import Executed
from rtl.core.frontend.fetch import Redirect
from rtl.core.issue import Producer
from rtl.core.lsu.load_store_unit import MemoryInstruction
from rtl.core.ports import RetirementPort
from rtl.core.traps import Trap
from rtl.mmu.context import Fault, Invalidation, Privilege

__all__ = ["CommitStage", "Halt"]


#: All codes of causes there are fit into them.
_CODE_BITS = max(*Exception_, *Interrupt).bit_length()


class Halt(data.Struct):
    """With ``valid`` (one cycle) the hart stops for its host; the rest describes where.

    The instruction is the one that did not retire. For a root trap, ``trap`` has been taken.
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


class _State(enum.Enum, shape=2):
    RUN = 0
    CSR = 1
    TRAP = 2


class CommitStage(wiring.Component):
    """Commit instructions in order; everything before this stage is speculation.

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
    producer, value : the result on its way to write-back, for bypassing
    rd, write_back_value : Out
        To the register file.
    retired, trapped : Out(1)
        Strobes; ``trapped`` in the cycle a trap is taken, with ``trapped_park`` if it parks.
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
    rd: Out(5)
    write_back_value: Out(64)
    empty: Out(1)
    retired: Out(1)
    trapped: Out(1)
    trapped_park: Out(1)
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
    memory_fault_address: In(64)
    memory_physical: In(32)
    memory_stored: In(1)
    clear_reservation: Out(1)
    invalidate: Out(stream.Signature(Invalidation))
    fence_i: Out(1)

    def __init__(self, *, bit_manipulation):
        self._bit_manipulation = bit_manipulation
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        state = Signal(_State)
        valid, first = Signal(), Signal()
        inst = Signal(Executed)
        done = Signal()
        flush = Signal()
        result = Signal(64)

        # A late operand is caught from write-back in the first cycle.
        rs1, rs2 = inst.rs1, Signal(64)
        m.d.comb += rs2.eq(Mux(inst.rs2_late, self.write_back_value, inst.rs2))
        m.d.sync += [inst.rs2.eq(rs2), inst.rs2_late.eq(0)]
        count = Const(0, 7)
        if self._bit_manipulation:
            m.submodules.counter = counter = BitCounter()
            count = counter.result
            m.d.comb += [
                # Without need nothing is reversed: simulation is slow at that.
                counter.operation.eq(
                    Mux(inst.unit == Unit.COUNT, inst.operation[:2], CountOperation.CPOP)
                ),
                counter.word.eq(inst.word),
                counter.a.eq(rs1),
            ]

        # What is decided before the instruction begins. A stop is taken from a waiting wfi too,
        # which then starts anew; an interrupt ends the wfi first.
        runs = valid & (state == _State.RUN)
        breaks = (inst.unit == Unit.SYSTEM) & (inst.operation == SystemOperation.EBREAK.value)
        waits = (inst.unit == Unit.SYSTEM) & (inst.operation == SystemOperation.WFI.value)
        breaking = first & breaks & self.park_ebreak & ~self.interrupt
        stopping = runs & ((first | waits) & self.stop | breaking)
        interrupted = runs & first & self.interrupt & ~self.stop
        going = Signal()
        m.d.comb += [
            going.eq(runs & ~stopping & ~interrupted),
        ]

        take = Signal()
        cause = Signal(Trap)

        def raise_(code, value=0):
            m.d.comb += [take.eq(1), cause.code.eq(code), cause.value.eq(value)]

        with m.If(interrupted):
            m.d.comb += [take.eq(1), cause.interrupt.eq(1), cause.code.eq(self.interrupt_code)]
        with m.Elif(going):
            with m.Switch(inst.unit):
                with m.Case(Unit.ILLEGAL):
                    address = Mux(inst.fault_second, inst.link, inst.pc)
                    with m.If(inst.fault == Fault.NONE):
                        raise_(Exception_.ILLEGAL_INSTRUCTION, inst.bits)
                    with m.Elif(inst.fault == Fault.PAGE):
                        raise_(Exception_.INSTRUCTION_PAGE_FAULT, address)
                    with m.Else():
                        raise_(Exception_.INSTRUCTION_ACCESS_FAULT, address)
                with m.Case(Unit.MEMORY):
                    with m.If(self.memory_done & self.memory_fault):
                        raise_(self.memory_cause, self.memory_fault_address)
                    with m.Else():
                        m.d.comb += done.eq(self.memory_done)
                with m.Case(Unit.CSR):
                    m.d.comb += self.csr_request.valid.eq(1)
                    m.d.sync += state.eq(_State.CSR)
                with m.Case(Unit.SYSTEM):
                    self._system(m, inst, raise_, done, flush)
                with m.Default():
                    m.d.comb += done.eq(1)
        with m.Elif(state == _State.CSR):
            m.d.sync += state.eq(_State.RUN)
            with m.If(self.csr_illegal):
                raise_(Exception_.ILLEGAL_INSTRUCTION, inst.bits)
            with m.Else():
                m.d.comb += [
                    done.eq(1),
                    self.csr_write.eq(self.csr_request.writes),
                    flush.eq(self.csr_request.writes),
                ]
        with m.Elif(state == _State.TRAP):
            m.d.sync += state.eq(_State.RUN)
        # Chosen by the unit alone: whether it is written is known late.
        with m.Switch(inst.unit):
            with m.Case(Unit.MEMORY):
                m.d.comb += result.eq(self.memory_value)
            with m.Case(Unit.MULTIPLY):
                m.d.comb += result.eq(self.product)
            with m.Case(Unit.COUNT):
                m.d.comb += result.eq(count)
            with m.Case(Unit.CSR):
                m.d.comb += result.eq(self.csr_value)
            with m.Default():
                m.d.comb += result.eq(inst.result)

        self._memory(m, inst, rs2, going & first)
        self._csr(m, inst)
        self._trap(m, state, inst, rs1, rs2, take, cause, stopping)

        # Where control goes on.
        m.d.comb += self.redirect.pc.eq(inst.link)
        with m.If(state == _State.TRAP):
            m.d.comb += [
                self.redirect.valid.eq(~self.trapped_park),
                self.redirect.pc.eq(self.trap_vector),
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
        leaves = done | take | stopping
        m.d.comb += [
            self.i.ready.eq(~valid | done),
            self.empty.eq(~valid & (state == _State.RUN)),
            self.retired.eq(done),
            self.producer.rd.eq(Mux(valid, inst.rd, 0)),
            self.producer.late.eq(inst.late),
            self.producer.done.eq(done),
            self.value.eq(inst.result),
        ]
        with m.If(valid & ~leaves):
            with m.If(going):
                m.d.sync += first.eq(0)
        with m.Else():
            m.d.sync += [valid.eq(self.i.valid & self.i.ready & ~self.kill), first.eq(1)]
            with m.If(self.i.valid):
                m.d.sync += inst.eq(self.i.payload)

        # Write-back.
        m.d.sync += [self.rd.eq(Mux(done, inst.rd, 0)), self.write_back_value.eq(result)]
        self._retire(m, inst, rs2, done, take, result)
        return m

    def _system(self, m, inst, raise_, done, flush):
        privilege = self.privilege
        machine = privilege == Privilege.MACHINE
        user = privilege == Privilege.USER

        def illegal():
            raise_(Exception_.ILLEGAL_INSTRUCTION, inst.bits)

        with m.Switch(inst.operation):
            with m.Case(SystemOperation.FENCE.value):
                # The load/store unit finishes each access before the next: all is in order.
                m.d.comb += done.eq(1)
            with m.Case(SystemOperation.FENCE_I.value):
                m.d.comb += [done.eq(1), flush.eq(1), self.fence_i.eq(1)]
            with m.Case(SystemOperation.ECALL.value):
                raise_(Exception_.ECALL_FROM_USER + privilege.as_value())
            with m.Case(SystemOperation.EBREAK.value):
                raise_(Exception_.BREAKPOINT, inst.pc)
            with m.Case(SystemOperation.MRET.value):
                with m.If(machine):
                    m.d.comb += [done.eq(1), self.ret_valid.eq(1)]
                with m.Else():
                    illegal()
            with m.Case(SystemOperation.SRET.value):
                with m.If(user | (~machine & self.tsr)):
                    illegal()
                with m.Else():
                    m.d.comb += [
                        done.eq(1),
                        self.ret_valid.eq(1),
                        self.ret_supervisor.eq(1),
                    ]
            with m.Case(SystemOperation.WFI.value):
                with m.If(user | (~machine & self.tw)):
                    illegal()
                with m.Else():
                    m.d.comb += done.eq(self.wake)
            with m.Case(SystemOperation.SFENCE_VMA.value):
                with m.If(user | (~machine & self.tvm)):
                    illegal()
                with m.Else():
                    m.d.comb += [done.eq(1), flush.eq(1), self.invalidate.valid.eq(1)]
        # sfence.vma names its operands by register number: x0 stands for all.
        m.d.comb += [
            self.invalidate.payload.match_page.eq(inst.bits[15:20] != 0),
            self.invalidate.payload.match_asid.eq(inst.bits[20:25] != 0),
            self.invalidate.payload.page.eq(inst.rs1[12:]),
            self.invalidate.payload.asid.eq(inst.rs2),
        ]

    def _memory(self, m, inst, rs2, starts):
        m.d.comb += [
            self.memory.operation.eq(inst.operation),
            self.memory.funct3.eq(inst.funct3),
            self.memory.funct5.eq(inst.funct5),
            self.memory.address.eq(inst.result),
            self.memory.data.eq(rs2),
            self.memory_start.eq(starts & (inst.unit == Unit.MEMORY)),
            self.memory_indexed.eq(inst.indexed),
        ]

    def _csr(self, m, inst):
        immediate = inst.funct3[2]
        source = inst.bits[15:20]
        m.d.comb += [
            self.csr_request.number.eq(inst.bits[20:32]),
            self.csr_request.operation.eq(inst.funct3[:2]),
            self.csr_request.operand.eq(Mux(immediate, source, inst.rs1)),
            self.csr_request.writes.eq(
                (inst.funct3[:2] == CsrOperation.WRITE.value) | (source != 0)
            ),
        ]

    def _trap(self, m, state, inst, rs1, rs2, take, cause, stopping):
        """Latch the trap decided; one cycle later it is taken, and may halt the hart."""
        halted = Signal(Halt)
        with m.If(take | stopping):
            m.d.sync += [
                halted.kind.eq(Mux(take, ParkKind.ROOT_TRAP, ParkKind.STOP)),
                # There is no cause when the hart is stopping.
                halted.trap.eq(cause),
                halted.pc.eq(inst.pc),
                halted.bits.eq(inst.bits),
                halted.compressed.eq(inst.compressed),
                halted.fetched.eq(inst.fault == Fault.NONE),
                halted.rs1.eq(rs1),
                halted.rs2.eq(rs2),
                halted.privilege.eq(self.privilege),
            ]
        with m.If(take):
            m.d.sync += state.eq(_State.TRAP)
        trap = halted.trap
        selected = Mux(trap.interrupt, self.park_interrupts, self.park_exceptions)
        selected = selected[: 1 << _CODE_BITS].bit_select(trap.code[:_CODE_BITS], 1)
        stopped = Signal()
        m.d.sync += stopped.eq(stopping)
        m.d.comb += [
            self.trap.eq(trap),
            self.trap_pc.eq(halted.pc),
            self.trapped.eq(state == _State.TRAP),
            self.trapped_park.eq(self.trapped & self.trap_to_machine & selected),
            self.halt.eq(halted),
            self.halt.valid.eq(self.trapped_park | stopped),
        ]

    def _retire(self, m, inst, rs2, done, take, result):
        """The record of what retired, or of the trap taken instead, one cycle late."""
        record, port = self.retirement.record, self.retirement
        is_memory = inst.unit == Unit.MEMORY
        m.d.sync += port.valid.eq(done | self.trapped)
        # A trap is taken in the cycle after it is decided, and nothing retires then.
        with m.If(done | take):
            m.d.sync += [
                record.pc.eq(inst.pc),
                record.instruction.eq(inst.bits),
                record.privilege.eq(self.privilege),
            ]
        with m.If(done):
            m.d.sync += [
                record.rd.eq(inst.rd),
                record.value.eq(result),
                record.trap.eq(0),
                record.load.eq(is_memory & ((inst.operation != 1) & (inst.operation != 3))),
                record.store.eq(is_memory & self.memory_stored),
                record.address.eq(self.memory_physical),
                record.size.eq(inst.funct3[:2]),
                record.data.eq(rs2),
            ]
        with m.If(self.trapped):
            trap = self.trap
            m.d.sync += [
                record.rd.eq(0),
                record.value.eq(Cat(trap.code, Const(0, 57), trap.interrupt)),
                record.trap.eq(1),
                record.load.eq(0),
                record.store.eq(0),
                record.data.eq(trap.value),
            ]

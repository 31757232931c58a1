"""trap-emulate: the guest's M, S and U all run in U-mode, and every trap comes to the VMM.

Root delegates nothing and grants no counter, so whatever is privileged traps; the VMM carries it
out on a virtual hart and goes on behind it. This is for guests that do not page.
"""

from collections.abc import Callable
from enum import Enum

from rtl.arch.csrs import CSRS, INTERRUPTS, MENVCFG
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.traps import Exception_, Privilege
from sw_vmm.charge import ChargeModel
from sw_vmm.errors import BusError, GuestPages, UnhandledExit
from sw_vmm.exits import (
    BudgetSpent,
    CsrAccess,
    EnvironmentCall,
    Exit,
    FetchFault,
    Finished,
    GuestException,
    InterruptExit,
    MemoryFault,
    MmioRead,
    MmioWrite,
    Operation,
    PrivilegedInstruction,
)
from sw_vmm.hart import Hart, Trap
from sw_vmm.interpreter import Interpreter
from sw_vmm.interpreter.sv39 import ACCESS_FAULT
from sw_vmm.memory import MachineMemory
from sw_vmm.registers import ParkedRegisters
from sw_vmm.result import Result
from sw_vmm.techniques.shadow import Root, ShadowRoots
from sw_vmm.techniques.technique import (
    ExitLog,
    ExitRow,
    counted_cycles,
    exit_row,
    result_of,
)
from sw_vmm.vcpu import Vcpu, exit_code_of_tohost
from sw_vmm.vm import MONITOR_SIZE, Vm

__all__ = ["TrapEmulate"]

_ALL = (1 << 64) - 1
_NEVER = 1 << 64
_LARGEST_CHARGE = (1 << 32) - 1
_ROM = MEMORY_MAP["rom"]
_STI = INTERRUPTS.mask("sti")

#: What a monitor on the hart does at every exit besides finding its way: read mcause, mepc and
#: mtval and write mepc; save and restore the guest's 31 registers; read the instruction.
_EXIT = {"exit": 1, "csr": 4, "gpr": 62, "guest_word": 1}
#: What entering or leaving a virtual handler touches: status, epc, cause, tval, tvec.
_VIRTUAL_TRAP = {"csr": 5}


class _End(Enum):
    """Why a run is over."""

    BUDGET = 1
    FINISHED = 2
    TEXT = 3


class TrapEmulate:
    """Run a guest deprivileged.

    The guest's time is the machine's, so what an exit costs passes in the guest as well. While
    the guest runs, the root timer stands at the next cycle at which a virtual interrupt may
    become due that the guest would take. Virtual MPRV matters only to accesses that are
    translated; while it does, the VMM interprets the guest.

    Raises GuestPages from ``run`` when the guest turns paging on.
    """

    name = "trap-emulate"
    needs_vmx = False

    def __init__(
        self,
        vm: Vm,
        charges: ChargeModel,
        on_exit: Callable[[ExitRow], None] | None = None,
    ):
        self._vm = vm
        self._machine = vm.machine
        self._vcpu = Vcpu(vm.machine)
        self._hart = Hart(vm)
        self._memory = MachineMemory(vm.machine, vm.ram_base, vm.ram_size)
        self._registers = ParkedRegisters(vm.machine)
        self._interpreter = Interpreter(
            self._hart,
            self._memory,
            vm.bus,
            registers=self._registers,
            bit_manipulation=vm.config.bit_manipulation,
        )
        self._interpreter.unit.watched = vm.tohost
        self._roots = ShadowRoots(
            vm.machine,
            area=range(vm.ram_end, vm.ram_end + MONITOR_SIZE),
            ram=range(vm.ram_base, vm.ram_end),
            rom=range(_ROM.base, _ROM.end),
        )
        self._log = ExitLog(on_exit)
        self._exit_price = charges.price(**_EXIT)
        self._csr_price = charges.price(csr=1)
        self._trap_price = charges.price(**_VIRTUAL_TRAP)
        self._device_price = charges.price(device=1)
        self._timer_price = charges.price(csr=1)
        # With none, time would stand still in a loop that is interpreted.
        self._instruction_price = max(1, charges.price(instruction=1))
        #: Instructions the VMM has carried out instead of the hart.
        self._emulated = 0
        self._idle = 0
        #: Cycle up to which nothing can change by itself what the guest would take.
        self._quiet_until = 0
        self._armed = _ALL
        self._end: _End | None = None
        self._exit_code: int | None = None
        # What the exit under way adds up to.
        self._charge = 0
        self._rd = self._value = 0
        self._pc = 0
        self._changed = False

    # -- the run -----------------------------------------------------------------------------------

    def run(self, cycles: int) -> Result:
        vcpu, hart, log = self._vcpu, self._hart, self._log
        machine = self._machine
        self._deprivilege()
        hart.now = vcpu.record.cycle
        hart.instret = vcpu.record.instret
        self._until = hart.now + cycles
        self._pc = self._vm.reset_vector
        self._changed = True
        self._attend()
        while self._end is None:
            left = self._until - hart.now + self._charge
            if left <= 0:
                self._end = _End.BUDGET
                break
            vcpu.resume(self._pc, self._rd, self._value, self._charge)
            exit_ = vcpu.run(left)
            if not vcpu.parked:
                self._stop(exit_)
                break
            before = machine.transition
            log.close(before)
            record = vcpu.record
            hart.now = record.cycle
            hart.instret = record.instret + self._emulated
            self._pc = record.pc
            privilege, instret = hart.privilege, hart.instret
            self._rd = self._value = 0
            self._charge = self._exit_price
            self._changed = True
            try:
                self._handle(exit_)
            except Trap as trap:
                self._reflect(trap.cause, trap.tval)
            hart.now += self._charge
            if self._changed or hart.now >= self._quiet_until:
                self._attend()
            row = None
            if log.wants_rows:
                row = exit_row(
                    exit_, record, instret=instret, privilege=privilege, charged=self._charge
                )
            log.open(exit_.reason, self._charge, before, row)
        return self._result()

    def _deprivilege(self) -> None:
        """Set the root world up so that everything privileged parks the hart."""
        machine = self._machine
        machine.park_on(_ALL, _ALL)
        root = {
            "medeleg": 0,
            "mideleg": 0,
            "mcounteren": 0,
            "menvcfg": MENVCFG.mask("stce"),
            "stimecmp": self._armed,
            "mie": _STI,
            "satp": self._roots.satp(Root.BARE),
        }
        for name, value in root.items():
            machine.write_csr(CSRS[name].number, value)
        machine.write_privilege(Privilege.USER)
        if self._vm.tohost is not None:
            machine.stop_at_tohost(self._vm.tohost)

    def _stop(self, exit_: Exit) -> None:
        """The hart came back without parking."""
        match exit_:
            case Finished(code):
                self._finish(code)
            case BudgetSpent():
                self._end = _End.BUDGET
            case unknown:
                raise UnhandledExit(unknown)
        self._vcpu.stop()
        self._hart.now = self._vcpu.record.cycle
        self._hart.instret = self._vcpu.record.instret + self._emulated
        self._charge = 0

    def _finish(self, exit_code: int) -> None:
        self._end, self._exit_code = _End.FINISHED, exit_code

    def _result(self) -> Result:
        vm, machine, hart = self._vm, self._machine, self._hart
        left = self._charge
        while left:
            machine.charge(min(left, _LARGEST_CHARGE))
            left -= min(left, _LARGEST_CHARGE)
        counters = machine.counters()
        self._log.close(counters["transition"])
        vm.uart.advance(hart.now)
        if self._end is _End.FINISHED:
            vm.uart.settle()
        return result_of(
            vm,
            self.name,
            exit_code=self._exit_code,
            text_seen=self._end is _End.TEXT,
            console=bytes(vm.uart.output),
            cycles=counted_cycles(counters, self._idle),
            instructions=hart.instret,
            exits=self._log.statistics(),
            counters=counters,
        )

    def read_memory(self, gpa: int, length: int) -> bytes:
        return self._machine.read_memory(gpa, length)

    # -- exits -------------------------------------------------------------------------------------

    def _handle(self, exit_: Exit) -> None:
        """Do in the virtual hart what the guest asked for. Raises Trap for what it may not."""
        match exit_:
            case CsrAccess(number, function, operand, rd, writes):
                self._charge += self._csr_price
                instruction = self._vcpu.record.instruction
                self._value = self._hart.access_csr(
                    number, function, operand, writes=writes, instruction=instruction
                )
                self._rd = rd
                self._changed = writes
                self._retire()
            case MmioRead(gpa, size, signed, rd):
                self._charge += self._device_price
                try:
                    value = self._vm.bus.read(gpa, size, self._hart.now)
                except BusError:
                    raise Trap(Exception_.LOAD_ACCESS_FAULT, gpa) from None
                sign = 1 << 8 * size - 1
                self._value = (value ^ sign) - sign & _ALL if signed else value
                self._rd = rd
                self._retire()
            case MmioWrite(gpa, size, data):
                self._charge += self._device_price
                try:
                    self._vm.bus.write(gpa, size, data, self._hart.now)
                except BusError:
                    raise Trap(Exception_.STORE_ACCESS_FAULT, gpa) from None
                self._retire()
            case PrivilegedInstruction(operation):
                self._privileged(operation)
            case EnvironmentCall():
                raise Trap(self._hart.environment_call())
            case InterruptExit():
                # The root timer: what became due is found by looking.
                pass
            case FetchFault(gpa):
                raise Trap(Exception_.INSTRUCTION_ACCESS_FAULT, gpa)
            case MemoryFault(access, gpa):
                raise Trap(ACCESS_FAULT[access], gpa)
            case GuestException(cause, tval):
                raise Trap(cause, tval)
            case unknown:
                raise UnhandledExit(unknown)

    def _retire(self) -> None:
        """The instruction that exited has been carried out."""
        self._emulated += 1
        self._hart.instret += 1
        self._pc = self._pc + self._vcpu.record.length & _ALL

    def _privileged(self, operation: Operation) -> None:
        hart, instruction = self._hart, self._vcpu.record.instruction
        match operation:
            case Operation.MRET | Operation.SRET:
                returns = hart.mret if operation is Operation.MRET else hart.sret
                target = returns(instruction)
                self._charge += self._trap_price
                self._retire()
                self._pc = target
            case Operation.WFI:
                waits = hart.wfi(instruction)
                self._retire()
                if waits:
                    self._wait()
            case Operation.SFENCE_VMA:
                # The bare root does not depend on the guest's tables.
                hart.sfence_vma(instruction)
                self._retire()

    def _reflect(self, cause: int, tval: int) -> None:
        """Let the guest's own handler have a trap at the current pc."""
        self._charge += self._trap_price
        self._pc = self._hart.take_trap(cause, tval, self._pc)

    def _pass(self, cycles: int) -> None:
        """Let time pass while the guest waits."""
        cycles = min(cycles, self._until - self._hart.now)
        left = cycles
        while left > 0:
            self._machine.charge(min(left, _LARGEST_CHARGE))
            left -= _LARGEST_CHARGE
        self._hart.now += cycles
        self._idle += cycles

    def _wait(self) -> None:
        """wfi: time passes until something that would end it is pending, or the budget is spent."""
        hart = self._hart
        while not hart.mip & hart.mie and hart.now < self._until:
            event = hart.next_event(hart.mie)
            self._pass((self._until if event is None else event) - hart.now)

    # -- between an exit and the next resume -------------------------------------------------------

    def _attend(self) -> None:
        """Virtual interrupts, ends of the run, code the VMM interprets, the root timer.

        From here on ``hart.now`` is the cycle at which the guest goes on: what is charged has
        passed.
        """
        hart, vm = self._hart, self._vm
        while True:
            if vm.finisher.exit_code is not None:
                self._finish(vm.finisher.exit_code)
                return
            if vm.stop_text:
                vm.uart.advance(hart.now)
                if vm.uart.text_seen:
                    self._end = _End.TEXT
                    return
            if hart.now >= self._until:
                self._end = _End.BUDGET
                return
            cause = hart.interrupt()
            if cause is not None:
                hart.now += self._trap_price
                self._reflect(cause, 0)
            if hart.translates(hart.privilege):
                raise GuestPages(self._pc, hart.satp)
            if not self._interprets():
                break
            self._interpret_one()
            if self._end is not None:
                return
        self._registers.write_back()
        self._arm()

    def _arm(self) -> None:
        """Set the root timer to the next virtual interrupt the guest would take."""
        hart = self._hart
        event = hart.next_event(hart.takeable())
        self._quiet_until = _NEVER if event is None else event
        deadline = _ALL if event is None else self._vm.clint.tick_of(event)
        if deadline != self._armed:
            self._machine.write_csr(CSRS["stimecmp"].number, deadline)
            self._armed = deadline
            self._charge += self._timer_price
            hart.now += self._timer_price

    def _interprets(self) -> bool:
        """Whether the VMM must execute the next instruction itself."""
        hart = self._hart
        privilege = hart.data_privilege()
        return privilege != hart.privilege and hart.translates(privilege)

    def _interpret_one(self) -> None:
        """Execute one instruction in software."""
        hart, interpreter = self._hart, self._interpreter
        if self._rd:
            # The result of the exit goes to the registers the interpreter sees.
            self._registers[self._rd] = self._value
            self._rd = 0
        charged = self._charge
        interpreter.pc = self._pc
        trap = interpreter.step()
        self._charge += self._instruction_price + interpreter.now - hart.now
        if trap is not None:
            self._reflect(trap.cause, trap.tval)
        else:
            self._pc = interpreter.pc
            self._emulated += 1
            hart.instret += 1
        hart.now += self._charge - charged
        if interpreter.waiting:
            self._wait()
        if interpreter.unit.watched_value:
            self._finish(exit_code_of_tohost(interpreter.unit.watched_value))

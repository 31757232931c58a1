"""A virtual CPU on the machine's hart: run it, and get one typed exit."""

from rtl.arch.paging import Access
from rtl.arch.records import ParkKind
from rtl.arch.traps import INTERRUPT_BIT, Exception_
from sw_vmm.devices.finisher import exit_code_of
from sw_vmm.errors import MachineError, UnhandledExit
from sw_vmm.exits import (
    BudgetSpent,
    ConsoleText,
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
    Stopped,
    WindowAccess,
)
from sw_vmm.interpreter.decode import decode
from sw_vmm.interpreter.operations import LOADS, STORES
from sw_vmm.machine import Event, Machine, ParkRecord
from sw_vmm.vm_exits import csr_access, decode_vm_exit

__all__ = ["Vcpu", "exit_code_of_tohost"]

#: Cycles a hart that was asked to stop may take.
_STOPPING = 1_000_000

_OPERATIONS = {operation.value: operation for operation in Operation}
_PAGE_FAULTS = {
    Exception_.LOAD_PAGE_FAULT: Access.READ,
    Exception_.STORE_PAGE_FAULT: Access.WRITE,
}
_PARKED = int(Event.PARKED)
_STOP, _ROOT_TRAP, _VM_EXIT = (int(kind) for kind in ParkKind)
_INTERRUPT = 1 << INTERRUPT_BIT
_ILLEGAL = int(Exception_.ILLEGAL_INSTRUCTION)
_ECALL = int(Exception_.ECALL_FROM_USER)
_FETCH_FAULT = int(Exception_.INSTRUCTION_PAGE_FAULT)


def exit_code_of_tohost(value: int) -> int:
    """The verdict in a ``tohost`` word. Raises UnhandledExit when it is a request instead."""
    if not value & 1:
        raise UnhandledExit(Finished(value), f"tohost {value:#x} is an HTIF request, not a verdict")
    return value >> 1


class Vcpu:
    """The machine's hart as KVM shows a CPU.

    ``run`` lets the hart go on and comes back with why it stopped. ``record`` is the park record
    of that moment; it is valid whenever ``parked``. Addresses of root page faults are taken for
    guest-physical ones: the guest runs in a root where the two are the same.

    Parameters
    ----------
    machine : Machine
    ram : range
        Where guest RAM is (gpa); what the EPT refuses elsewhere is a device access.
    """

    def __init__(self, machine: Machine, ram: range = range(0)):
        self._machine = machine
        self._ram = ram
        self.record: ParkRecord = machine.park
        self.parked = True

    def resume(
        self, pc: int, rd: int = 0, value: int = 0, charge: int = 0, retires: bool = False
    ) -> None:
        """Let the next ``run`` go on at ``pc``, after ``charge`` cycles, with ``value`` in rd.

        With ``retires``, minstret counts an instruction that the VMM has carried out.
        """
        self._machine.resume(pc, rd=rd, value=value, charge=charge, retires=retires)
        self.parked = False

    def launch(self) -> None:
        """VMLAUNCH of the current VMCS, whose guest the next ``run`` begins.

        Raises MachineError when the VMCS is not one that can be entered.
        """
        status = self._machine.vmx("vmlaunch")
        if status:
            raise MachineError(f"VMLAUNCH failed with {status:#x}")
        # Bad guest state parks at once.
        self.parked = self._machine.parked
        if self.parked:
            self.record = self._machine.park

    def run(self, cycles: int) -> Exit:
        """Run for at most ``cycles`` cycles; a hart that is parked says why at once."""
        event = _PARKED if self.parked else self._machine.run(cycles)
        if event == _PARKED:
            self.parked = True
            self.record = record = self._machine.park
            if record.kind == _VM_EXIT:
                return decode_vm_exit(self._machine, record, self._ram)
            return self._trap(record) if record.kind == _ROOT_TRAP else Stopped()
        return self._other(event)

    def _other(self, event: Event) -> Exit:
        if event & Event.PARKED:
            self.parked = True
            self.record = self._machine.park
        if event & Event.FINISHED:
            code = exit_code_of(self._machine.finisher)
            if code is None:
                raise UnhandledExit(Finished(-1), f"finisher word {self._machine.finisher:#x}")
            return Finished(code)
        if event & Event.TOHOST:
            return Finished(exit_code_of_tohost(self._machine.tohost))
        if event & Event.CONSOLE:
            return ConsoleText()
        if event & Event.WINDOW:
            return WindowAccess(*self._machine.window_request())
        if event & Event.BUDGET:
            return BudgetSpent()
        raise UnhandledExit(event, "the machine came back without a reason")

    def stop(self) -> None:
        """Park the hart if it runs. Raises MachineError when it does not park."""
        left = _STOPPING
        self._machine.stop()
        while not self.parked:
            if left <= 0:
                raise MachineError(f"the hart did not park within {_STOPPING} cycles")
            event = self._machine.run(left)
            if event & Event.WINDOW:
                self._machine.answer_window(0)
            if event & Event.BUDGET:
                left = 0
            if event & Event.PARKED:
                self.parked = True
                self.record = self._machine.park

    def _trap(self, record: ParkRecord) -> Exit:
        cause = record.reason
        if cause == _ILLEGAL:
            csr = csr_access(record)
            if csr is not None:
                return csr
            decoded = decode(record.instruction)
            if decoded is not None and decoded.name in _OPERATIONS:
                return PrivilegedInstruction(_OPERATIONS[decoded.name])
        elif cause in _PAGE_FAULTS:
            return self._data_fault(record)
        elif cause == _ECALL:
            return EnvironmentCall()
        elif cause == _FETCH_FAULT:
            return FetchFault(record.qualification)
        elif cause & _INTERRUPT:
            return InterruptExit(cause & _INTERRUPT - 1)
        return GuestException(cause, record.qualification)

    def _data_fault(self, record: ParkRecord) -> Exit:
        decoded = decode(record.instruction)
        if decoded is not None and decoded.name in LOADS:
            size, signed = LOADS[decoded.name]
            return MmioRead(record.qualification, size, signed, decoded.rd)
        if decoded is not None and decoded.name in STORES:
            size = STORES[decoded.name]
            return MmioWrite(record.qualification, size, record.rs2 & (1 << 8 * size) - 1)
        return MemoryFault(_PAGE_FAULTS[Exception_(record.reason)], record.qualification)

"""A virtual machine on the VMX extension: its VMCS, its EPT, and what its exits come to."""

from collections.abc import Callable, Iterable
from enum import Enum

from rtl.arch.csrs import INTERRUPTS, MENVCFG
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import LEVELS, Access
from rtl.arch.records import ParkKind
from rtl.arch.traps import Exception_
from rtl.arch.vmx.exits import INTERRUPTION, InterruptionType
from rtl.arch.vmx.fields import GUEST_CSRS, VMCS_FIELDS, ActivityState
from sw_vmm.charge import ChargeModel
from sw_vmm.ept import Ept, MemorySlot, PageAllocator
from sw_vmm.errors import BadImage, BusError, GuestStopped, UnhandledExit, VmxFailure
from sw_vmm.event_counters import EventCounters
from sw_vmm.exits import (
    BudgetSpent,
    CsrAccess,
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    Exit,
    FetchFault,
    Finished,
    GuestException,
    Hypercall,
    MemoryFault,
    MmioRead,
    MmioWrite,
    PreemptionTimer,
    Stopped,
    VmxInstruction,
    Wfi,
)
from sw_vmm.instruction_counter import InstructionCounter
from sw_vmm.interpreter.sv39 import ACCESS_FAULT
from sw_vmm.memory import MappedMemory
from sw_vmm.vcpu import Vcpu
from sw_vmm.vm import Vm
from sw_vmm.vmcs import VMCS_REGION, Vmcs, control_word, failed_check, reset_state

__all__ = ["End", "VmxGuest"]

_ALL = (1 << 64) - 1
_NEVER = _ALL
_LARGEST_CHARGE = (1 << 32) - 1
_ROM = MEMORY_MAP["rom"]
_EXTERNAL = INTERRUPTS.mask("mei", "sei")
#: Lines of the guest's mip that the VMM drives; its timers are the hardware's.
_LINES = INTERRUPTS.mask("msi", "mei", "sei")
_MTI, _STI = INTERRUPTS.mask("mti"), INTERRUPTS.mask("sti")
_STCE = MENVCFG.mask("stce")
_N = {name: row.number for name, row in VMCS_FIELDS.items()}
_EXCEPTION = INTERRUPTION.encode(valid=1, type=InterruptionType.EXCEPTION)

#: What a monitor in C does at every exit besides finding its way: the registers that its calling
#: convention lets a callee change are saved and restored, reason, qualification, pc and instruction
#: length are read, and pc is written.
_EXIT = {"exit": 1, "gpr": 32, "vmcs": 5}
#: An access of a device: gpa, instruction and data are read; then the instruction is counted.
_DEVICE = {"device": 1, "vmcs": 4}
#: A page entered in the EPT: its gpa, the way down its tables, the entry.
_FILL = {"vmcs": 1, "guest_word": LEVELS + 1}


class End(Enum):
    """Why a guest does not go on."""

    BUDGET = 1
    FINISHED = 2
    TEXT = 3


def _merged(*bitmaps: dict[str, int]) -> dict[str, int]:
    fields: dict[str, int] = {}
    for bitmap in bitmaps:
        for name, bits in bitmap.items():
            fields[name] = fields.get(name, 0) | bits
    return fields


class VmxGuest:
    """A guest of one virtual CPU in non-root operation, with EPT and the VM's emulated devices.

    It starts in M-mode at the reset vector. Its timers are the hardware's; the VMM drives the other
    interrupt lines, and lets the preemption timer run to the next cycle at which a device has
    something to do. Guest time is the machine's.

    Parameters
    ----------
    vm : Vm
    charges : ChargeModel
    allocator : PageAllocator
        Gives the pages of VMCS, EPT and host code; the machine is in VMX operation.
    vpid : int
    slots : iterable of MemorySlot or None
        Where guest RAM lies; None: the VM's own place, as one slot.
    ahead : bool
        Fill the EPT before the guest starts.
    largest : int
        Level of the largest page of the EPT.
    wfi_exits : bool
        A wfi comes to the VMM.

    Members
    -------
    now : int
        The machine cycle; while an exit is handled, that at which the guest goes on.
    until : int
        The cycle at which the budget ends.
    slice_end : int
        The cycle at which the guest has to make way.
    end : End or None
    waits : bool
        It has exited by wfi.
    charge, rd, value, pc, retires :
        What the exit under way adds up to, and how the guest goes on.
    """

    def __init__(
        self,
        vm: Vm,
        charges: ChargeModel,
        allocator: PageAllocator,
        *,
        vpid: int = 1,
        slots: Iterable[MemorySlot] | None = None,
        ahead: bool = False,
        largest: int = LEVELS - 1,
        wfi_exits: bool = False,
    ):
        self.vm = vm
        self._machine = machine = vm.machine
        self.vcpu = Vcpu(machine, range(vm.ram_base, vm.ram_end))
        self.vmcs = Vmcs(machine, allocator.take(VMCS_REGION))
        self.ept = Ept(
            machine,
            allocator,
            [*([vm.slot] if slots is None else slots), self._rom(allocator)],
            largest=largest,
        )
        if slots is not None:
            self._scatter()
        self.ept.fill(_ROM.base, Access.FETCH)
        if ahead:
            self.ept.fill_all()
        self._read, self._write = machine.read_field, machine.write_field
        self._vpid, self._wfi_exits = vpid, wfi_exits
        self._host_pc = allocator.take()
        self._exit_price = charges.price(**_EXIT)
        self._device_price = charges.price(**_DEVICE)
        self._fill_price = charges.price(**_FILL)
        self._field_price = charges.price(vmcs=1)
        self._csr_price = charges.price(csr=1)
        self._injection_price = charges.price(vmcs=2)
        self.now = self.until = 0
        self.slice_end = _NEVER
        self.end: End | None = None
        self.exit_code: int | None = None
        self.charge = self.rd = self.value = 0
        self.pc = 0
        self.retires = False
        #: Instructions the VMM has carried out instead of the hart.
        self.emulated = 0
        self.launched = False
        self.waits = False
        #: Instructions the hart had retired when the guest was last seen.
        self._left_at = self.vcpu.record.instret
        self._counters = EventCounters()
        self._retired = InstructionCounter(self.vcpu.record.instret)
        self._changed = True
        # Cycles at which a device does something, and at which the preemption timer exits.
        self._event: int | None = None
        self._deadline: int | None = None
        # What the fields hold.
        self._mtimecmp = self._timer = _NEVER
        self._lines = 0
        self._time_base = self._time_offset = vm.clint.offset
        self._handlers: dict[type, Callable] = {
            MmioRead: self._mmio_read,
            MmioWrite: self._mmio_write,
            EptViolation: self._ept_violation,
            PreemptionTimer: self._preemption_timer,
        }

    def _rom(self, allocator: PageAllocator) -> MemorySlot:
        """The machine's boot ROM, or of several VMs a copy each."""
        hpa = _ROM.base
        if not self.vm.alone:
            hpa = allocator.take(_ROM.size)
            self._machine.write_memory(hpa, self.vm.rom.content)
        return MemorySlot(_ROM.base, hpa, _ROM.size, (Access.READ, Access.FETCH))

    def _scatter(self) -> None:
        """Put guest RAM where the slots are, and let the devices find it there."""
        vm = self.vm
        content = vm.memory.read_bytes(vm.ram_base, vm.ram_size)
        vm.use_memory(MappedMemory(self._machine, vm.ram_base, vm.ram_size, self.ept.hpa_of))
        vm.memory.write_bytes(vm.ram_base, content)

    # -- the beginning -----------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the VMCS current and write every field that is not zero."""
        self.load()
        self.vmcs.update(**self._fields())
        self.pc = self._start_pc()

    def load(self) -> None:
        """Make the VMCS current, and let the machine watch the guest's ``tohost``."""
        self.vmcs.load()
        self._retired.skip(self._machine.park.instret - self._left_at)
        tohost = self.vm.tohost
        self._machine.stop_at_tohost(None if tohost is None else self.ept.hpa_of(tohost))

    def _start_pc(self) -> int:
        return self.vm.reset_vector

    def _fields(self) -> dict[str, int]:
        controls = ["preemption_timer", "enable_vpid", "use_csr_bitmap"]
        if self._wfi_exits:
            controls.append("wfi_exiting")
        return {
            **reset_state(),
            "execution_controls": control_word("execution_controls", *controls),
            **_merged(self._counters.bitmaps, self._retired.bitmaps),
            "eptp": self.ept.eptp,
            "vpid": self._vpid,
            "host_pc": self._host_pc,
            "guest_preemption_timer": self._timer,
        }

    # -- in and out --------------------------------------------------------------------------------

    def enter(self) -> None:
        """Let the next run of the vCPU go on in the guest. Raises MachineError."""
        if self.launched:
            self.vcpu.resume(self.pc, self.rd, self.value, self.charge, self.retires)
            return
        self._write(_N["guest_pc"], self.pc)
        self._spend(self.charge)
        self.launched = True
        self.vcpu.launch()

    def _spend(self, cycles: int) -> None:
        while cycles:
            self._machine.charge(min(cycles, _LARGEST_CHARGE))
            cycles -= min(cycles, _LARGEST_CHARGE)

    def handle(self, exit_: Exit) -> None:
        """Do what the exit asks for, so that the guest can go on or has ended.

        Raises GuestStopped when it cannot.
        """
        record = self.vcpu.record
        self.now = record.cycle
        self._left_at = record.instret
        self.pc = record.pc
        self.waits = self.retires = False
        self.rd = self.value = 0
        self.charge = self._exit_price
        self._changed = True
        handler = self._handlers.get(type(exit_))
        if handler is None:
            self._handle_rare(exit_)
        else:
            handler(exit_)
        self.now += self.charge
        if self.end is not None:
            return
        if self._changed or self._deadline is not None:
            self.attend()
        elif self.now >= self.until:
            self.end = End.BUDGET

    def _handle_rare(self, exit_: Exit) -> None:
        match exit_:
            case MemoryFault(access):
                self.inject(ACCESS_FAULT[access], self.vcpu.record.gva)
            case FetchFault():
                self.inject(Exception_.INSTRUCTION_ACCESS_FAULT, self.vcpu.record.gva)
            case CsrAccess(number) as access if number in self._counters:
                self._changed = False
                self.charge += self._csr_price
                self.rd, self.value = access.rd, self._counters.access(access)
                self._retire()
            case CsrAccess(number) as access if number in self._retired:
                self._changed = False
                self.charge += self._csr_price
                value, fields = self._retired.access(access, self.vcpu.record.instret)
                self.rd, self.value = access.rd, value
                self.vmcs.update(**fields)
                self.pc = self.pc + self.vcpu.record.length & _ALL
                self.emulated += 1
            case VmxInstruction() | Hypercall():
                # The virtual hart has no such extension.
                self.inject(Exception_.ILLEGAL_INSTRUCTION, self.vcpu.record.instruction)
            case GuestException() | EptMisconfiguration():
                raise self._stopped(exit_.reason)
            case EntryFailure(check):
                raise self._stopped(exit_.reason, check)
            case Wfi():
                self._wait()
            case Stopped():
                raise self._refused()
            case Finished() | BudgetSpent():
                # It parked in the same cycle.
                self.finish(exit_)
            case unknown:
                raise UnhandledExit(unknown)

    def finish(self, exit_: Exit, *, park: bool = True) -> None:
        """The hart came back without parking: the guest has ended, or its budget is spent."""
        if isinstance(exit_, Finished):
            self.end, self.exit_code = End.FINISHED, exit_.exit_code
        else:
            self.end = End.BUDGET
        self.charge = 0
        if park:
            self.vcpu.stop()
            self.now = self.vcpu.record.cycle

    # -- exits -------------------------------------------------------------------------------------

    def _mmio_read(self, exit_: MmioRead) -> None:
        self.charge += self._device_price
        try:
            value = self.vm.bus.read(exit_.gpa, exit_.size, self.now)
        except BusError:
            self.inject(Exception_.LOAD_ACCESS_FAULT, self.vcpu.record.gva)
            return
        if exit_.signed:
            sign = 1 << 8 * exit_.size - 1
            value = (value ^ sign) - sign & _ALL
        self.rd, self.value = exit_.rd, value
        self._retire()

    def _mmio_write(self, exit_: MmioWrite) -> None:
        self.charge += self._device_price
        try:
            self.vm.bus.write(exit_.gpa, exit_.size, exit_.data, self.now)
        except BusError:
            self.inject(Exception_.STORE_ACCESS_FAULT, self.vcpu.record.gva)
            return
        self._retire()

    def _ept_violation(self, exit_: EptViolation) -> None:
        self.charge += self._fill_price
        try:
            filled = self.ept.fill(exit_.gpa, exit_.access)
        except BadImage as error:
            raise self._stopped(exit_.reason, str(error)) from error
        if not filled:
            self.inject(ACCESS_FAULT[exit_.access], self.vcpu.record.gva)
        self._changed = False

    def _wait(self) -> None:
        """The guest waits as in wfi when it goes on."""
        self.waits = True
        self.pc = self.pc + self.vcpu.record.length & _ALL
        self._write(_N["guest_activity"], ActivityState.WFI.value)
        self.charge += self._field_price

    def is_waiting(self) -> bool:
        """Whether it waits in wfi, after an exit by that or any other; its VMCS is current."""
        return self.waits or self._read(_N["guest_activity"]) == ActivityState.WFI.value

    def wake_at(self) -> int | None:
        """The cycle at which something may end the guest's waiting; None for never.

        Its VMCS is current. What is pending already, and enabled, ends it now.
        """
        read, now, clint = self._read, self.now, self.vm.clint
        enabled = read(_N["guest_mie"])
        if (self._lines | read(_N["guest_mip"])) & enabled:
            return now
        events = [self._event]
        if enabled & _MTI:
            events.append(clint.cycle_of(self._mtimecmp, now))
        if enabled & _STI and read(_N["guest_menvcfg"]) & _STCE:
            events.append(clint.cycle_of(read(_N["guest_stimecmp"]), now))
        return min((at for at in events if at is not None), default=None)

    def _preemption_timer(self, exit_: PreemptionTimer) -> None:
        # What has become due is found by looking.
        pass

    def inject(self, cause: int, tval: int) -> None:
        """Let the guest take an exception at the pc of the exit."""
        self.charge += self._injection_price
        self._write(_N["entry_interruption_value"], tval)
        self._write(_N["entry_interruption"], _EXCEPTION | int(cause))

    def _retire(self) -> None:
        """The instruction that exited has been carried out, and the guest counts it."""
        self.emulated += 1
        self.retires = True
        self.pc = self.pc + self.vcpu.record.length & _ALL
        self._retired.count()

    # -- between an exit and the next entry --------------------------------------------------------

    def attend(self) -> None:
        """Ends of the run, interrupt lines, and the next cycle at which the VMM is needed."""
        vm, now = self.vm, self.now
        if vm.finisher.exit_code is not None:
            self.end, self.exit_code = End.FINISHED, vm.finisher.exit_code
            return
        lines = vm.lines(now) & _LINES
        if vm.uart.text_seen:
            self.end = End.TEXT
            return
        if now >= self.until:
            self.end = End.BUDGET
            return
        clint = vm.clint
        if clint.mtimecmp != self._mtimecmp:
            self._mtimecmp = clint.mtimecmp
            self._set("guest_mtimecmp", self._mtimecmp)
        if clint.offset != self._time_offset:
            self._time_offset = clint.offset
            self._set("time_offset", clint.offset - self._time_base & _ALL)
        if lines != self._lines:
            self._lines = lines
            self._set("guest_lines", lines)
        self._arm()

    def _set(self, name: str, value: int) -> None:
        self._write(_N[name], value)
        self.charge += self._field_price
        self.now += self._field_price

    def _arm(self) -> None:
        """Let the preemption timer run to the next cycle at which a device may do something."""
        vm, now = self.vm, self.now
        event = vm.next_event(now, _EXTERNAL)
        if vm.stop_text:
            text = vm.uart.text_due()
            if text is not None and (event is None or text < event):
                event = text
        self._event = event
        if self.slice_end != _NEVER and (event is None or self.slice_end < event):
            event = self.slice_end
        self._deadline = event
        # Only an entry that passes time in the guest comes nearer to it.
        timer = _NEVER if event is None else max(1, event - now)
        if timer != self._timer:
            self._timer = timer
            self._set("guest_preemption_timer", timer)

    # -- what cannot go on -------------------------------------------------------------------------

    def _refused(self) -> VmxFailure:
        """VMRESUME was a VMfail: the controls or the host state, both the VMM's own doing."""
        return VmxFailure("vmresume", failed_check(self.vmcs.entry_check))

    def _stopped(self, reason: str, why: str = "") -> GuestStopped:
        return GuestStopped(reason, self.vcpu.record.pc, self.registers(), why)

    def registers(self) -> str:
        """pc, privilege, GPRs and CSRs of the parked guest, for people.

        Without the CSRs where the hart was stopped inside the guest: they can be had behind an exit.
        """
        machine, read, record = self._machine, self._read, self.vcpu.record
        values = {
            "pc": record.pc,
            **{f"x{number}": machine.read_gpr(number) for number in range(1, 32)},
            "privilege": record.privilege,
        }
        if record.kind == ParkKind.VM_EXIT:
            fields = ("privilege", *GUEST_CSRS)
            values |= {name: read(_N[f"guest_{name}"]) for name in fields}
        shown = [f"{name:>11} {value:016x}" for name, value in values.items()]
        return "\n".join(" ".join(shown[at : at + 3]) for at in range(0, len(shown), 3))

"""Typed exits: why a virtual CPU's ``run`` came back, decoded once and matched by the technique.

What every exit has in common (pc, instruction bits, cycle) stands in the vCPU's ``record``.
"""

from dataclasses import dataclass
from enum import Enum

from rtl.arch.paging import Access
from rtl.arch.traps import Exception_, Interrupt

__all__ = [
    "BudgetSpent",
    "ConsoleText",
    "CsrAccess",
    "EntryFailure",
    "EnvironmentCall",
    "EptMisconfiguration",
    "EptViolation",
    "Exit",
    "FetchFault",
    "Finished",
    "GuestException",
    "Hypercall",
    "InterruptExit",
    "InterruptWindow",
    "MemoryFault",
    "MmioRead",
    "MmioWrite",
    "Operation",
    "PreemptionTimer",
    "PrivilegedInstruction",
    "SfenceVma",
    "Stopped",
    "VmxInstruction",
    "Wfi",
    "WindowAccess",
]


class Operation(Enum):
    """Privileged instructions without a CSR operand."""

    MRET = "mret"
    SRET = "sret"
    WFI = "wfi"
    SFENCE_VMA = "sfence.vma"


@dataclass(slots=True)
class MmioRead:
    """A load from an address that is not guest RAM; ``rd`` gets the extended value."""

    gpa: int
    size: int
    signed: bool
    rd: int

    @property
    def reason(self) -> str:
        return "mmio_read"


@dataclass(slots=True)
class MmioWrite:
    """A store to an address that is not guest RAM."""

    gpa: int
    size: int
    data: int

    @property
    def reason(self) -> str:
        return "mmio_write"


@dataclass(slots=True)
class MemoryFault:
    """An access outside guest RAM that no device can serve: lr, sc, amo, the part of an access
    behind the end of a double word, or a guest's page table that lies there.
    """

    access: Access
    gpa: int

    @property
    def reason(self) -> str:
        return "memory_fault"


@dataclass(slots=True)
class FetchFault:
    """An instruction fetch outside guest RAM."""

    gpa: int

    @property
    def reason(self) -> str:
        return "fetch"


@dataclass(slots=True)
class CsrAccess:
    """A CSR instruction. ``operand`` is rs1's value or the immediate.

    ``writes`` is False for csrrs and csrrc with x0 or a zero immediate.
    """

    csr: int
    function: int
    operand: int
    rd: int
    writes: bool

    @property
    def reason(self) -> str:
        return "csr_write" if self.writes else "csr_read"


@dataclass(slots=True)
class PrivilegedInstruction:
    """mret, sret, wfi or sfence.vma."""

    operation: Operation

    @property
    def reason(self) -> str:
        return self.operation.value


@dataclass(slots=True)
class EnvironmentCall:
    """An ecall; the virtual privilege says which exception the guest sees."""

    @property
    def reason(self) -> str:
        return "ecall"


@dataclass(slots=True)
class GuestException:
    """An exception the guest itself has to handle."""

    cause: int
    tval: int

    @property
    def reason(self) -> str:
        return Exception_(self.cause).name.lower()


@dataclass(slots=True)
class InterruptExit:
    """A root interrupt while the guest ran."""

    interrupt: int

    @property
    def reason(self) -> str:
        return f"interrupt_{Interrupt(self.interrupt).name.lower()}"


@dataclass(slots=True)
class EptViolation:
    """The EPT does not permit an access to guest RAM.

    ``final`` is False when it is refused on the way through the guest's own page tables; ``gpa`` is
    then that of the entry.
    """

    gpa: int
    access: Access
    final: bool

    @property
    def reason(self) -> str:
        return "ept_violation"


@dataclass(slots=True)
class EptMisconfiguration:
    """An entry of the EPT makes no sense."""

    gpa: int

    @property
    def reason(self) -> str:
        return "ept_misconfiguration"


@dataclass(slots=True)
class Hypercall:
    """VMCALL; what it wants stands in registers."""

    @property
    def reason(self) -> str:
        return "vmcall"


@dataclass(slots=True)
class Wfi:
    """A wfi of a guest whose wfi exits."""

    @property
    def reason(self) -> str:
        return "wfi"


@dataclass(slots=True)
class SfenceVma:
    """A sfence.vma of a guest whose sfence.vma exits; None stands for x0."""

    gva: int | None
    asid: int | None

    @property
    def reason(self) -> str:
        return "sfence_vma"


@dataclass(slots=True)
class PreemptionTimer:
    """The preemption timer came to zero."""

    @property
    def reason(self) -> str:
        return "preemption_timer"


@dataclass(slots=True)
class InterruptWindow:
    """The guest could take an interrupt of the window mask."""

    @property
    def reason(self) -> str:
        return "interrupt_window"


@dataclass(slots=True)
class VmxInstruction:
    """The guest wants to be a hypervisor: any VMX instruction but VMCALL, by its name."""

    name: str

    @property
    def reason(self) -> str:
        return self.name


@dataclass(slots=True)
class EntryFailure:
    """The VM entry found the guest state bad; ``check`` is the name of the entry check."""

    check: str

    @property
    def reason(self) -> str:
        return "bad_guest_state"


@dataclass(slots=True)
class WindowAccess:
    """An access to the hardware's device window waits for an answer."""

    address: int
    write: bool
    mask: int
    data: int

    @property
    def reason(self) -> str:
        return "window"


@dataclass(slots=True)
class Stopped:
    """The hart parked because it was asked to."""

    @property
    def reason(self) -> str:
        return "stop"


@dataclass(slots=True)
class BudgetSpent:
    """The cycle budget is used up."""

    @property
    def reason(self) -> str:
        return "budget"


@dataclass(slots=True)
class ConsoleText:
    """The text to stop at has appeared on the console."""

    @property
    def reason(self) -> str:
        return "console"


@dataclass(slots=True)
class Finished:
    """The guest ended: by the test finisher, or by ``tohost``."""

    exit_code: int

    @property
    def reason(self) -> str:
        return "finished"


Exit = (
    MmioRead
    | MmioWrite
    | MemoryFault
    | FetchFault
    | CsrAccess
    | PrivilegedInstruction
    | EnvironmentCall
    | GuestException
    | InterruptExit
    | EptViolation
    | EptMisconfiguration
    | Hypercall
    | Wfi
    | SfenceVma
    | PreemptionTimer
    | InterruptWindow
    | VmxInstruction
    | EntryFailure
    | WindowAccess
    | Stopped
    | BudgetSpent
    | ConsoleText
    | Finished
)

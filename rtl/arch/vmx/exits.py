"""VM exits: reasons, and what the exit qualification says for each."""

from dataclasses import dataclass
from enum import IntEnum

from rtl.arch.layout import Field, Layout

__all__ = [
    "CSR_QUALIFICATION",
    "ENTRY_FAILURE",
    "EPT_QUALIFICATION",
    "EXIT_REASONS",
    "EXIT_REASON_BITS",
    "INTERRUPTION",
    "ExitReason",
    "ExitReasonRow",
    "InterruptionType",
]

#: Bit of the exit reason that says the VM entry failed: no guest instruction was executed.
ENTRY_FAILURE = 31
#: Bits of the reason below it.
EXIT_REASON_BITS = 7


class ExitReason(IntEnum):
    """Basic exit reasons, Intel's numbers where the meaning is the same (SDM vol. 3, appendix C)."""

    EXCEPTION = 0
    EXTERNAL_INTERRUPT = 1
    TRAP_LOOP = 2
    INTERRUPT_WINDOW = 7
    WFI = 12
    SFENCE_VMA = 14
    COUNTER_READ = 15
    TIME_READ = 16
    VMCALL = 18
    VMCLEAR = 19
    VMLAUNCH = 20
    VMPTRLD = 21
    VMPTRST = 22
    VMREAD = 23
    VMRESUME = 24
    VMWRITE = 25
    VMXOFF = 26
    VMXON = 27
    SATP_OR_STATUS = 28
    CSR_READ = 31
    CSR_WRITE = 32
    BAD_GUEST_STATE = 33
    MONITOR_TRAP = 37
    PAUSE = 40
    THRESHOLD = 43
    VIRTUAL_EOI = 45
    EPT_VIOLATION = 48
    EPT_MISCONFIGURATION = 49
    INVEPT = 50
    PREEMPTION_TIMER = 52
    INVVPID = 53
    VMFUNC = 59
    PML_FULL = 62


class InterruptionType(IntEnum):
    """What is injected, or what an exit of reason 0 or 1 was about."""

    INTERRUPT = 0
    EXCEPTION = 3


# fmt: off
INTERRUPTION = Layout("interruption", 64, (
    Field("cause", 0, 6, "Exception or interrupt code."),
    Field("type", 8, 3, "Interrupt or exception (InterruptionType)."),
    Field("valid", 31, 1, "There is one."),
))
EPT_QUALIFICATION = Layout("ept_violation", 64, (
    Field("read", 0, 1, "The access reads; exactly one of this and the next two is 1."),
    Field("write", 1, 1, "The access writes, is atomic other than lr, or counts as a write."),
    Field("fetch", 2, 1, "The access fetches an instruction."),
    Field("readable", 3, 1, "R of the EPT leaf; 0 when there is none."),
    Field("writable", 4, 1, "W of the EPT leaf; 0 when there is none."),
    Field("executable", 5, 1, "X of the EPT leaf; 0 when there is none."),
    Field("gva_valid", 7, 1, "The field gva holds the virtual address: always."),
    Field("final", 8, 1, "1: the translation of the address itself; 0: of an entry of the guest's "
                         "page table."),
    Field("level", 12, 2, "Level of the EPT entry at which the walk ended; that of the root for a "
                          "gpa that is too large."),
))
CSR_QUALIFICATION = Layout("csr_access", 64, (
    Field("csr", 0, 12, "Number of the CSR."),
    Field("function", 12, 2, "1 write, 2 set, 3 clear: the low bits of funct3."),
    Field("immediate", 14, 1, "The operand is the immediate in the rs1 field."),
    Field("rd", 16, 5, "Register that gets the old value."),
))


@dataclass(frozen=True)
class ExitReasonRow:
    """``qualification`` is a layout, a sentence, or "" for zero; ``reachable``: some control or
    instruction of this revision can bring it about.

    ``instruction``, ``address`` and ``interruption`` say which more fields of the information area
    it fills: exit_instruction, exit_instruction_length, exit_rs1 and exit_rs2; exit_gva and
    exit_gpa; exit_interruption.
    """

    reason: ExitReason
    text: str
    qualification: Layout | str = ""
    reachable: bool = True
    instruction: bool = True
    address: bool = False
    interruption: bool = False

    @property
    def name(self) -> str:
        """As profiles and JSON show it."""
        return self.reason.name.lower()


def _rows():
    row, reason = ExitReasonRow, ExitReason
    yield row(reason.EXCEPTION, "An exception whose bit in the exception bitmap is set.",
              "The trap value.", interruption=True)
    yield row(reason.EXTERNAL_INTERRUPT, "A root interrupt that is pending and enabled.",
              instruction=False, interruption=True)
    yield row(reason.TRAP_LOOP, "The same trap again with no instruction retired between.",
              "The trap value.", reachable=False, interruption=True)
    yield row(reason.INTERRUPT_WINDOW, "The guest could take an interrupt of the window mask.",
              instruction=False)
    yield row(reason.WFI, "wfi.")
    yield row(reason.SFENCE_VMA, "sfence.vma.")
    yield row(reason.COUNTER_READ, "A read of cycle, instret or an hpmcounter.", CSR_QUALIFICATION)
    yield row(reason.TIME_READ, "A read of time.", CSR_QUALIFICATION)
    yield row(reason.VMCALL, "VMCALL.")
    for name in ("VMCLEAR", "VMLAUNCH", "VMPTRLD", "VMPTRST", "VMREAD", "VMRESUME", "VMWRITE",
                 "VMXOFF", "VMXON"):
        yield row(reason[name], f"{name}.")
    yield row(reason.SATP_OR_STATUS, "A write of satp; a write that would change a bit of mstatus "
              "or sstatus that the host owns.", CSR_QUALIFICATION)
    yield row(reason.CSR_READ, "A CSR read whose bit in the read bitmap is set.", CSR_QUALIFICATION)
    yield row(reason.CSR_WRITE, "A CSR write whose bit in the write bitmap is set.",
              CSR_QUALIFICATION)
    yield row(reason.BAD_GUEST_STATE, "The VM entry found the guest state bad.",
              "Number of the check that failed.", instruction=False)
    yield row(reason.MONITOR_TRAP, "One instruction was executed.", reachable=False,
              instruction=False)
    yield row(reason.PAUSE, "pause.", reachable=False)
    yield row(reason.THRESHOLD, "The virtual interrupt threshold fell.", reachable=False,
              instruction=False)
    yield row(reason.VIRTUAL_EOI, "The guest ended a virtual interrupt.", reachable=False,
              instruction=False)
    yield row(reason.EPT_VIOLATION, "The EPT does not permit the access.", EPT_QUALIFICATION,
              address=True)
    yield row(reason.EPT_MISCONFIGURATION, "An EPT entry makes no sense.", address=True)
    yield row(reason.INVEPT, "INVEPT.")
    yield row(reason.PREEMPTION_TIMER, "The preemption timer came to zero.", instruction=False)
    yield row(reason.INVVPID, "INVVPID.")
    yield row(reason.VMFUNC, "VMFUNC that failed.", reachable=False)
    yield row(reason.PML_FULL, "The page-modification log is full.", reachable=False,
              instruction=False, address=True)
# fmt: on


EXIT_REASONS = {row.reason: row for row in _rows()}

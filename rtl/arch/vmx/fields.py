"""The VMCS: its region in memory and its fields.

A field is 64 bits wide. Its number is what VMREAD and VMWRITE take, and the index of its double
word in the region.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from rtl.arch.csrs import CSRS, INTERRUPTS, MSTATUS, MSTATUS_CONSTANT
from rtl.arch.layout import Field, Layout
from rtl.arch.memory_map import PHYSICAL_BITS
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPTP
from rtl.arch.vmx.exits import ENTRY_FAILURE, EXIT_REASON_BITS, INTERRUPTION, ExitReason
from rtl.arch.vmx.instructions import INVVPID_OPERAND

__all__ = [
    "CSR_BITMAP",
    "CSR_BITMAP_WORDS",
    "CSR_REASONS",
    "GUEST_CSRS",
    "TIME_SCALE_FRACTION",
    "VMCS_FIELDS",
    "VMCS_FIELD_BY_NUMBER",
    "VMCS_HEADER",
    "VMCS_LAUNCH_STATE",
    "VMCS_NUMBER_BITS",
    "VMCS_REGION_BITS",
    "VMCS_REVISION",
    "ActivityState",
    "LaunchState",
    "VmcsArea",
    "VmcsField",
]

_ALL = (1 << 64) - 1
#: Logarithm of the region's size and alignment in bytes.
VMCS_REGION_BITS = 12
#: Bits that tell the region's double words apart.
VMCS_NUMBER_BITS = VMCS_REGION_BITS - 3
#: Bits of time_scale below the binary point: 1 << 48 is the rate of the machine's own time.
TIME_SCALE_FRACTION = 48


class LaunchState(Enum):
    """Which of VMLAUNCH and VMRESUME enters the guest."""

    CLEAR = 0
    LAUNCHED = 1


class ActivityState(Enum):
    """What the guest is doing between its instructions."""

    ACTIVE = 0
    WFI = 1


class VmcsArea(Enum):
    """A group of fields, by the number of its first."""

    CONTROL = 0x008
    INFORMATION = 0x040
    GUEST = 0x060
    HOST = 0x0A0


@dataclass(frozen=True)
class VmcsField:
    """``reserved``: bits that must have their value in ``required``, or the check of that name
    fails at VM entry; VMREAD gives back what was written all the same.
    """

    name: str
    number: int
    area: VmcsArea
    text: str
    reserved: int = 0
    required: int = 0
    layout: Layout | None = None
    #: The guest CSR the field holds.
    csr: str = ""

    @property
    def read_only(self) -> bool:
        """VMWRITE refuses it."""
        return self.area is VmcsArea.INFORMATION

    @property
    def offset(self) -> int:
        """Its bytes' place in the region."""
        return 8 * self.number


# fmt: off
#: The double word at the region's start.
VMCS_HEADER = Layout("vmcs_header", 64, (
    Field("revision", 0, 31, "The revision identifier; software writes it before VMPTRLD."),
    Field("shadow", 31, 1, "A shadow VMCS: not in this revision."),
))
#: Number of the double word that holds the launch state; no field of VMREAD.
VMCS_LAUNCH_STATE = 1

#: Guest CSRs with a field each; every other CSR of the guest is constant or follows from these.
GUEST_CSRS = (
    "mstatus", "medeleg", "mideleg", "mie", "mip", "mtvec", "mcounteren", "menvcfg",
    "mcountinhibit", "mscratch", "mepc", "mcause", "mtval", "mcycle", "minstret",
    "stvec", "scounteren", "senvcfg", "sscratch", "sepc", "scause", "stval", "stimecmp", "satp",
)
#: Counters that stand still or count in the guest; its event counters read zero.
_GUEST_COUNTINHIBIT = 0b101

#: CSRs whose accesses exit for a reason of their own; every other one is for the CSR bitmaps.
CSR_REASONS = {
    **dict.fromkeys(("mstatus", "sstatus", "satp"), ExitReason.SATP_OR_STATUS),
    "time": ExitReason.TIME_READ,
    **dict.fromkeys(("cycle", "instret"), ExitReason.COUNTER_READ),
    **{name: ExitReason.COUNTER_READ for name in CSRS if name.startswith("hpmcounter")},
}
#: The CSR of each bit of the CSR bitmaps: bit n of the whole, 64 to a field.
CSR_BITMAP = tuple(csr.name for csr in sorted(CSRS.values(), key=lambda csr: csr.number)
                   if csr.name not in CSR_REASONS)
CSR_BITMAP_WORDS = -(-len(CSR_BITMAP) // 64)
# fmt: on


def _from_layout(layout: Layout) -> dict[str, object]:
    return {"layout": layout, "reserved": _ALL & ~layout.mask()}


def _controls() -> Iterator[tuple[str, str, dict]]:
    for name, word in CONTROL_WORDS.items():
        text = f"VM-{name.removesuffix('_controls')} controls."
        yield name, text, _from_layout(word.layout)
    lines = INTERRUPTS.mask()
    yield "exception_bitmap", "Bit n: an exception of code n exits.", {}
    yield (
        "interrupt_passthrough",
        "Root interrupt lines that appear in the guest's mip instead of exiting.",
        {"layout": INTERRUPTS, "reserved": _ALL & ~lines},
    )
    yield (
        "interrupt_window_mask",
        "Interrupts the guest could take one of when the window opens.",
        {"layout": INTERRUPTS, "reserved": _ALL & ~lines},
    )
    status = MSTATUS.mask() & CSRS["mstatus"].writable
    yield (
        "status_mask",
        "Bits of mstatus and sstatus that the host owns: the guest reads them from status_shadow.",
        {"layout": MSTATUS, "reserved": _ALL & ~status},
    )
    yield "status_shadow", "What the guest reads in the bits of status_mask.", {"layout": MSTATUS}
    yield "time_offset", "Ticks added to the machine's time to make the guest's.", {}
    yield (
        "time_scale",
        f"Rate of guest time, {TIME_SCALE_FRACTION} bits of it behind the binary point.",
        {},
    )
    yield "eptp", "The EPT.", _from_layout(EPTP)
    yield (
        "vpid",
        "Virtual-processor identifier.",
        {"reserved": _ALL & ~INVVPID_OPERAND["vpid"].mask},
    )
    for kind in ("read", "write"):
        for word in range(CSR_BITMAP_WORDS):
            left = len(CSR_BITMAP) - 64 * word
            used = (1 << min(64, left)) - 1
            text = f"CSRs {64 * word} to {64 * word + min(64, left) - 1} whose {kind} exits."
            yield f"csr_{kind}_bitmap_{word}", text, {"reserved": _ALL & ~used}
    yield "entry_interruption", "What is injected at the next entry.", _from_layout(INTERRUPTION)
    yield "entry_interruption_value", "Trap value of an injected exception.", {}


_REASON = Layout(
    "exit_reason",
    64,
    (
        Field("reason", 0, EXIT_REASON_BITS, "The basic reason (ExitReason)."),
        Field("entry_failure", ENTRY_FAILURE, 1, "The entry failed: nothing was executed."),
    ),
)


def _information() -> Iterator[tuple[str, str, dict]]:
    yield "instruction_error", "Number of the latest VMfailValid.", {}
    yield "entry_check", "Number of the entry check that failed last.", {}
    yield "exit_reason", "Why the latest exit happened.", {"layout": _REASON}
    yield "exit_qualification", "More of it, by the reason.", {}
    yield "exit_gva", "The virtual address of an EPT exit.", {}
    yield "exit_gpa", "The guest-physical address of an EPT exit.", {}
    yield "exit_pc", "Address of the instruction that did not retire.", {}
    yield "exit_instruction", "Its bits as they stand in memory.", {}
    yield "exit_instruction_length", "Its length in bytes; 0 when it could not be fetched.", {}
    yield "exit_rs1", "Value of its first source register.", {}
    yield "exit_rs2", "Value of its second source register.", {}
    yield "exit_interruption", "The exception or interrupt that exited.", {"layout": INTERRUPTION}


def _guest() -> Iterator[tuple[str, str, dict]]:
    yield "guest_pc", "Where the guest goes on.", {"reserved": 1}
    yield "guest_privilege", "Its privilege level.", {"reserved": _ALL & ~3}
    for name in GUEST_CSRS:
        csr = CSRS[name]
        writable = csr.writable & (_GUEST_COUNTINHIBIT if name == "mcountinhibit" else _ALL)
        required = MSTATUS_CONSTANT if name == "mstatus" else 0
        reserved = {"reserved": _ALL & ~writable, "required": required, "layout": csr.layout}
        yield f"guest_{name}", csr.text, {**reserved, "csr": name}
    yield "guest_mhartid", "Number the guest reads of its hart.", {}
    yield "guest_activity", "Active or in wfi (ActivityState).", {"reserved": _ALL & ~1}
    yield (
        "guest_lines",
        "Interrupt lines of the guest's devices, as they appear in its mip.",
        {"layout": INTERRUPTS, "reserved": _ALL & ~INTERRUPTS.mask()},
    )
    yield "guest_mtimecmp", "M timer deadline in guest ticks; all ones is never.", {}
    yield "guest_preemption_timer", "Guest cycles until the preemption timer exits.", {}
    yield "guest_link_pointer", "Shadow VMCS: -1 for none.", {"reserved": _ALL, "required": _ALL}


def _host() -> Iterator[tuple[str, str, dict]]:
    reserved = _ALL << PHYSICAL_BITS & _ALL | 1
    yield "host_pc", "Where root M-mode goes on after an exit.", {"reserved": reserved}


def _fields() -> Iterator[VmcsField]:
    areas = {
        VmcsArea.CONTROL: _controls,
        VmcsArea.INFORMATION: _information,
        VmcsArea.GUEST: _guest,
        VmcsArea.HOST: _host,
    }
    for area, rows in areas.items():
        for index, (name, text, more) in enumerate(rows()):
            yield VmcsField(name, area.value + index, area, text, **more)


#: By name, in the order of their numbers.
VMCS_FIELDS = {field.name: field for field in _fields()}
VMCS_FIELD_BY_NUMBER = {field.number: field for field in VMCS_FIELDS.values()}
#: The revision identifier: it changes whenever a field does.
VMCS_REVISION = (
    zlib.crc32(" ".join(f"{row.number}:{row.name}" for row in VMCS_FIELDS.values()).encode())
    & VMCS_HEADER["revision"].mask
)

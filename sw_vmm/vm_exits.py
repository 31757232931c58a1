"""From the park record of a VM exit to a typed exit (docs/isa/vmx.md#exit)."""

from collections.abc import Callable
from functools import cache

from rtl.arch.paging import Access
from rtl.arch.vmx.checks import ENTRY_CHECKS
from rtl.arch.vmx.exits import (
    ENTRY_FAILURE,
    EPT_QUALIFICATION,
    INTERRUPTION,
    ExitReason,
)
from rtl.arch.vmx.fields import VMCS_FIELDS
from sw_vmm.errors import UnhandledExit
from sw_vmm.exits import (
    CsrAccess,
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    Exit,
    FetchFault,
    GuestException,
    Hypercall,
    InterruptExit,
    InterruptWindow,
    MemoryFault,
    MmioRead,
    MmioWrite,
    PreemptionTimer,
    SfenceVma,
    VmxInstruction,
    Wfi,
)
from sw_vmm.hart import CsrFunction
from sw_vmm.interpreter.decode import decode
from sw_vmm.interpreter.operations import LOADS, STORES
from sw_vmm.machine import Machine, ParkRecord

__all__ = ["csr_access", "decode_vm_exit"]

_ALL = (1 << 64) - 1
_WRITE, _FETCH, _FINAL = (EPT_QUALIFICATION[name].mask for name in ("write", "fetch", "final"))
_CAUSE = INTERRUPTION["cause"]
_INTERRUPTION = VMCS_FIELDS["exit_interruption"].number
_CHECKS = {check.number: name for name, check in ENTRY_CHECKS.items()}
_FUNCTIONS = {
    "csrrw": CsrFunction.WRITE,
    "csrrs": CsrFunction.SET,
    "csrrc": CsrFunction.CLEAR,
}


@cache
def _csr_instruction(word: int) -> tuple[int, int, int, bool, int, bool] | None:
    """number, function, rd, immediate form, its immediate, writes; None for anything else."""
    decoded = decode(word)
    if decoded is None or not decoded.name.startswith("csrr"):
        return None
    function = _FUNCTIONS[decoded.name.removesuffix("i")]
    immediate_form = decoded.name.endswith("i")
    writes = function == CsrFunction.WRITE or decoded.rs1 != 0
    return decoded.immediate, function, decoded.rd, immediate_form, decoded.rs1, writes


def csr_access(record: ParkRecord) -> CsrAccess | None:
    """The CSR instruction that did not retire; None when it is another one."""
    found = _csr_instruction(record.instruction)
    if found is None:
        return None
    number, function, rd, immediate_form, immediate, writes = found
    return CsrAccess(number, function, immediate if immediate_form else record.rs1, rd, writes)


@cache
def _data_access(word: int) -> tuple[int, int, bool, int, int] | None:
    """Offset, size, sign, rd and the mask of what is stored; a mask of 0 is a load. None for
    instructions that are neither load nor store.
    """
    decoded = decode(word)
    if decoded is None:
        return None
    if decoded.name in LOADS:
        size, signed = LOADS[decoded.name]
        return decoded.immediate, size, signed, decoded.rd, 0
    if decoded.name in STORES:
        size = STORES[decoded.name]
        return decoded.immediate, size, False, 0, (1 << 8 * size) - 1
    return None


@cache
def _access_of(word: int) -> Access:
    """Which access fault the instruction raises; a word of 0 could not be fetched."""
    if not word:
        return Access.FETCH
    name = decode(word).name
    return Access.READ if name in LOADS or name.startswith("lr.") else Access.WRITE


def _ept_violation(machine: Machine, record: ParkRecord, ram: range) -> Exit:
    gpa, qualification = record.gpa, record.qualification
    if ram.start <= gpa < ram.stop:
        access = Access.READ
        if qualification & (_WRITE | _FETCH):
            access = Access.WRITE if qualification & _WRITE else Access.FETCH
        return EptViolation(gpa, access, bool(qualification & _FINAL))
    if qualification & _FINAL:
        if qualification & _FETCH:
            return FetchFault(gpa)
        found = _data_access(record.instruction)
        # The address of a second part is not the instruction's own.
        if found is not None and record.rs1 + found[0] & _ALL == record.gva:
            _, size, signed, rd, mask = found
            if mask:
                return MmioWrite(gpa, size, record.rs2 & mask)
            return MmioRead(gpa, size, signed, rd)
    return MemoryFault(_access_of(record.instruction), gpa)


def _csr(machine: Machine, record: ParkRecord, ram: range) -> Exit:
    access = csr_access(record)
    if access is None:
        raise UnhandledExit(record, "a CSR exit of an instruction that accesses none")
    return access


def _sfence_vma(machine: Machine, record: ParkRecord, ram: range) -> Exit:
    decoded = decode(record.instruction)
    return SfenceVma(
        record.rs1 if decoded.rs1 else None,
        record.rs2 if decoded.rs2 else None,
    )


def _cause(machine: Machine) -> int:
    return _CAUSE.extract(machine.read_field(_INTERRUPTION))


def _instruction(name: str) -> Callable[[Machine, ParkRecord, range], Exit]:
    return lambda machine, record, ram: VmxInstruction(name)


_READERS: dict[int, Callable[[Machine, ParkRecord, range], Exit]] = {
    ExitReason.EXCEPTION: lambda machine, record, ram: GuestException(
        _cause(machine), record.qualification
    ),
    ExitReason.EXTERNAL_INTERRUPT: lambda machine, record, ram: InterruptExit(_cause(machine)),
    ExitReason.INTERRUPT_WINDOW: lambda machine, record, ram: InterruptWindow(),
    ExitReason.WFI: lambda machine, record, ram: Wfi(),
    ExitReason.SFENCE_VMA: _sfence_vma,
    ExitReason.VMCALL: lambda machine, record, ram: Hypercall(),
    ExitReason.EPT_VIOLATION: _ept_violation,
    ExitReason.EPT_MISCONFIGURATION: lambda machine, record, ram: EptMisconfiguration(record.gpa),
    ExitReason.PREEMPTION_TIMER: lambda machine, record, ram: PreemptionTimer(),
    ExitReason.BAD_GUEST_STATE | 1 << ENTRY_FAILURE: lambda machine, record, ram: EntryFailure(
        _CHECKS[record.qualification]
    ),
    **dict.fromkeys(
        (
            ExitReason.COUNTER_READ,
            ExitReason.TIME_READ,
            ExitReason.SATP_OR_STATUS,
            ExitReason.CSR_READ,
            ExitReason.CSR_WRITE,
        ),
        _csr,
    ),
    **{
        ExitReason[name.upper()]: _instruction(name)
        for name in (
            "vmclear", "vmlaunch", "vmptrld", "vmptrst", "vmread", "vmresume", "vmwrite", "vmxoff",
            "vmxon", "invept", "invvpid",
        )
    },
}  # fmt: skip
# Enumeration members are slow keys: their hash is Python code.
_READERS = {int(reason): reader for reason, reader in _READERS.items()}


def decode_vm_exit(machine: Machine, record: ParkRecord, ram: range) -> Exit:
    """The typed exit of a record of kind VM_EXIT; accesses outside ``ram`` are device accesses.

    Raises UnhandledExit for a reason that no control of this revision brings about.
    """
    reader = _READERS.get(record.reason)
    if reader is None:
        raise UnhandledExit(record, "a VM exit with an unknown reason")
    return reader(machine, record, ram)

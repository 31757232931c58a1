"""The VMX instructions (docs/isa/vmx.md#instructions)."""

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS
from rtl.arch.traps import Exception_, Privilege
from rtl.arch.vmx.ept import EPT_ROOT_BITS, EPTP, EptMode
from rtl.arch.vmx.exits import ExitReason
from rtl.arch.vmx.instructions import (
    INVVPID_OPERAND,
    VMX_INSTRUCTIONS,
    InveptType,
    InvvpidType,
    VmInstructionError,
)
from sim.golden.memory_unit import Trap
from sim.golden.translation import canonical
from sim.golden.vmx.exits import VmExit

__all__ = ["EXECUTE", "perform"]

_WORD = (1 << 64) - 1


def _vmread(vmx, number):
    value, status = vmx.vmcs.vmread(number)
    name = vmx.vmcs.name_of(number)
    if not status and name in vmx.vmcs.uncertain:
        value = vmx.observed(name)
    return status, value


def _invept(vmx, kind, eptp):
    history = vmx.history
    match kind:
        case InveptType.SINGLE_CONTEXT if _is_eptp(eptp):
            history.drop_ept(EPTP["ppn"].extract(eptp))
        case InveptType.ALL_CONTEXTS:
            history.drop_ept(None)
        case _:
            return vmx.vmcs.fail(VmInstructionError.INVALID_INVALIDATION)
    return 0


def _is_eptp(eptp):
    fields, ram = EPTP.decode(eptp), MEMORY_MAP["ram"]
    root, size = fields["ppn"] << PAGE_BITS, 1 << EPT_ROOT_BITS
    return (
        not eptp & ~EPTP.mask()
        and fields["mode"] == EptMode.SV39X4
        and root % size == 0
        and ram.base <= root <= ram.end - size
    )


def _invvpid(vmx, operand, gva):
    history = vmx.history
    fields = INVVPID_OPERAND.decode(operand)
    vpid, kind = fields["vpid"], fields["type"]
    bad = bool(operand & ~INVVPID_OPERAND.mask())
    bad |= vpid == 0 and kind != InvvpidType.ALL_CONTEXTS
    bad |= kind == InvvpidType.INDIVIDUAL_ADDRESS and not canonical(gva)
    if bad:
        return vmx.vmcs.fail(VmInstructionError.INVALID_INVALIDATION)
    match kind:
        case InvvpidType.INDIVIDUAL_ADDRESS:
            history.drop_address(vpid, gva)
        case InvvpidType.SINGLE_CONTEXT:
            history.drop(lambda space: space.vpid == vpid)
        case InvvpidType.ALL_CONTEXTS:
            history.drop(lambda space: True)
        case InvvpidType.SINGLE_CONTEXT_RETAINING_GLOBALS:
            history.drop_local(vpid)
    return 0


def perform(
    vmx, name: str, first: int = 0, second: int = 0, *, retires: bool = False
) -> tuple[int | None, int | None]:
    """What a VMX instruction does in root M-mode: its status, and what rd gets instead.

    ``first`` and ``second`` are the values of rs1 and rs2. A status of None: an entry that went on
    elsewhere, and writes no register. What the host port issues does not retire.
    """
    unit = vmx.vmcs
    value = None
    match name:
        case "vmxon":
            status = unit.vmxon()
        case "vmxoff":
            status = unit.vmxoff()
        case "vmclear":
            status = unit.vmclear(first)
        case "vmptrld":
            status = unit.vmptrld(first)
        case "vmptrst":
            status, value = 0, unit.vmptrst()
        case "vmread":
            status, value = _vmread(vmx, first)
        case "vmwrite":
            status = unit.vmwrite(first, second)
        case "vmlaunch" | "vmresume":
            status = vmx.enter(launch=name == "vmlaunch", instruction=retires)
        case "invept":
            status = _invept(vmx, first, second)
        case "invvpid":
            status = _invvpid(vmx, first, second)
        case "vmcall":
            status = unit.fail(VmInstructionError.VMCALL_IN_ROOT)
        case _:
            raise ValueError(f"{name} does nothing in root operation")
    vmx.root_csr.values["vmxstatus"] = status or 0
    return status, value


def _instruction(name):
    def execute(hart, i):
        vmx = hart.vmx
        if hart.world and name != "vmfunc":
            raise VmExit(ExitReason[name.upper()])
        legal = name == "vmxon" or (vmx.vmcs.on and name != "vmfunc")
        if hart.privilege != Privilege.MACHINE or not legal:
            raise Trap(Exception_.ILLEGAL_INSTRUCTION, i.bits)
        status, value = perform(vmx, name, hart.x[i.rs1], hart.x[i.rs2], retires=True)
        if status is not None:
            hart.x[i.rd] = status if value is None else value

    return execute


#: Semantics by name.
EXECUTE = {name: _instruction(name) for name in VMX_INSTRUCTIONS}

"""Encodings of the VMX instructions, their operands, and how they say what became of them.

All stand in the opcode custom-0 with funct3 = 0; funct7 tells them apart. A register field for
which an instruction has no use is zero; anything else there is an illegal instruction.
"""

from dataclasses import dataclass
from enum import IntEnum

from rtl.arch.instructions import RD, RS1, RS2, Format, Instruction, Opcode
from rtl.arch.layout import Field, Layout

__all__ = [
    "INVVPID_OPERAND",
    "VMX_INSTRUCTIONS",
    "VM_FAIL_INVALID",
    "InveptType",
    "InvvpidType",
    "VmInstructionError",
    "VmxInstruction",
]

#: What ``rd`` gets for VMfailInvalid: -1. VMsucceed is 0, VMfailValid(n) is n.
VM_FAIL_INVALID = (1 << 64) - 1


class VmInstructionError(IntEnum):
    """Numbers of VMfailValid, Intel's where the meaning is the same (SDM vol. 3, "VM-Instruction
    Error Numbers").
    """

    VMCALL_IN_ROOT = 1
    VMCLEAR_INVALID_ADDRESS = 2
    VMLAUNCH_NOT_CLEAR = 4
    VMRESUME_NOT_LAUNCHED = 5
    ENTRY_INVALID_CONTROLS = 7
    ENTRY_INVALID_HOST_STATE = 8
    VMPTRLD_INVALID_ADDRESS = 9
    VMPTRLD_WRONG_REVISION = 11
    UNSUPPORTED_FIELD = 12
    VMWRITE_READ_ONLY_FIELD = 13
    VMXON_IN_ROOT = 15
    INVALID_INVALIDATION = 28


class InveptType(IntEnum):
    """rs1 of INVEPT."""

    SINGLE_CONTEXT = 1
    ALL_CONTEXTS = 2


class InvvpidType(IntEnum):
    """The type in rs1 of INVVPID."""

    INDIVIDUAL_ADDRESS = 0
    SINGLE_CONTEXT = 1
    ALL_CONTEXTS = 2
    SINGLE_CONTEXT_RETAINING_GLOBALS = 3


# fmt: off
INVVPID_OPERAND = Layout("invvpid", 64, (
    Field("vpid", 0, 16, "The virtual-processor identifier; not zero but for all contexts."),
    Field("type", 16, 2, "What is dropped (InvvpidType)."),
))


@dataclass(frozen=True)
class VmxInstruction:
    """``encoding`` with what its operands mean; an operand without a word is not there."""

    encoding: Instruction
    rd: str
    rs1: str
    rs2: str
    text: str


def _rows():
    status = "status"
    table = (
        ("vmxon", status, "", "", "Enter VMX operation."),
        ("vmxoff", status, "", "", "Leave VMX operation; no VMCS is current any more."),
        ("vmclear", status, "hpa of a VMCS region", "",
         "Write the VMCS back if it is current, and make its launch state clear."),
        ("vmptrld", status, "hpa of a VMCS region", "", "Make a VMCS current."),
        ("vmptrst", "hpa of the current VMCS region, -1 without one", "", "",
         "Read the current-VMCS pointer."),
        ("vmread", "value, 0 on failure", "field", "", "Read a field of the current VMCS."),
        ("vmwrite", status, "field", "value", "Write a field of the current VMCS."),
        ("vmlaunch", status, "", "", "Enter the guest of a clear VMCS."),
        ("vmresume", status, "", "", "Enter the guest of a launched VMCS."),
        ("invept", status, "InveptType", "EPTP", "Drop translations that come from an EPT."),
        ("invvpid", status, "VPID and type", "gva", "Drop translations of a VPID."),
        ("vmcall", status, "", "", "Call the VMM: a VM exit, with every register as it is."),
        ("vmfunc", status, "function", "argument", "Invoke a VM function without a VM exit."),
    )
    for number, (name, rd, rs1, rs2, text) in enumerate(table):
        mask, match = 0x7F | 7 << 12 | 0x7F << 25, Opcode.CUSTOM_0 | number << 25
        for operand, (lsb, width) in ((rd, RD), (rs1, RS1), (rs2, RS2)):
            if not operand:
                mask |= (1 << width) - 1 << lsb
        encoding = Instruction(name, Format.R, mask, int(match), "vmx")
        yield VmxInstruction(encoding, rd, rs1, rs2, text)
# fmt: on


#: By name; their order is that of funct7.
VMX_INSTRUCTIONS = {row.encoding.name: row for row in _rows()}

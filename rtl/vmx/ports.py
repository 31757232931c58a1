"""What passes between the VMX unit and the hart."""

from enum import IntEnum

from amaranth.lib import data, enum

from rtl.arch.vmx.ept import EPT_TAG_BITS
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from rtl.lib.layouts import enum_of
from rtl.mmu.context import Privilege, World

__all__ = ["GuestContext", "Injection", "VmxAnswer", "VmxOperation", "VmxOutcome", "VmxRequest"]

#: The VMX instructions by name, with funct7 as their number.
VmxOperation = enum_of(
    IntEnum("VmxOperation", {name.upper(): n for n, name in enumerate(VMX_INSTRUCTIONS)}),
    width=(len(VMX_INSTRUCTIONS) - 1).bit_length(),
)


class VmxRequest(data.Struct):
    """A VMX instruction that is legal in root M-mode, with the values of rs1 and rs2.

    ``moves_pc`` comes with VMRESUME only: the guest's pc becomes ``rs1`` first.
    """

    operation: VmxOperation
    rs1: 64
    rs2: 64
    moves_pc: 1


class VmxOutcome(enum.Enum, shape=2):
    """Where the hart goes on."""

    #: In root M-mode, behind the instruction.
    NEXT = 0
    #: In the guest.
    GUEST = 1
    #: In root M-mode at ``host_pc``: the guest state is bad.
    HOST = 2


class Injection(data.Struct):
    """A trap the guest takes before its first instruction; ``value`` is its trap value."""

    valid: 1
    interrupt: 1
    cause: 6
    value: 64


class VmxAnswer(data.Struct):
    """What became of a request.

    With ``writes_rd`` rd gets ``value``. ``pc`` is that of the guest or of the host; ``privilege``,
    ``waiting`` (in wfi) and ``injection`` are the guest's. ``parks`` comes with HOST only.
    """

    outcome: VmxOutcome
    writes_rd: 1
    value: 64
    pc: 64
    privilege: Privilege
    waiting: 1
    injection: Injection
    parks: 1


class GuestContext(data.Struct):
    """What the world adds to a ``TranslationContext``, under the same names; zero in root."""

    world: World
    vpid: 16
    ept_tag: EPT_TAG_BITS
    ept: 1
    ept_ad: 1
    ept_root: 44

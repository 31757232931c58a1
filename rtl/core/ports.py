"""What crosses the edge of the hart besides the buses."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch import records
from rtl.lib.layouts import enum_of, struct_of
from rtl.lib.skip import Skip

__all__ = [
    "HartEvents",
    "HostCommand",
    "HostPort",
    "HostRequest",
    "HostResponse",
    "InterruptLines",
    "Park",
    "PipelineStages",
    "Resume",
    "Retirement",
    "RetirementPort",
    "Skip",
    "WaitingAccess",
    "Written",
]

Park = struct_of(records.PARK)
Resume = struct_of(records.RESUME)
Retirement = struct_of(records.RETIREMENT)
PipelineStages = struct_of(records.STAGES)
HostCommand = enum_of(records.HostCommand, width=4)


class InterruptLines(data.Struct):
    """Level-sensitive interrupt lines of the platform, as they appear in mip."""

    msi: 1
    mti: 1
    sei: 1
    mei: 1


class HostRequest(data.Struct):
    """A command to the parked hart.

    ``index`` is the GPR or CSR number, that of a field, or funct7 of a VMX instruction, whose rs1 is
    ``operand`` and rs2 ``data``. For SFENCE_VMA, bit 0 says that a page is given and bit 1
    that an ASID is; ``data`` holds the page number (27 bits) and from bit 32 the ASID. For
    WRITE_PRIVILEGE and CHARGE, ``data`` holds the privilege and the cycles.
    """

    command: HostCommand
    index: 12
    operand: 64
    data: 64


class HostResponse(data.Struct):
    """``error``: no such CSR, or it cannot be written; no such field, or none can be read or written
    now; no such VMX instruction here.
    """

    data: 64
    error: 1


class HostPort(wiring.Signature):
    """Host commands, one at a time, answered in order; the host takes every response."""

    def __init__(self):
        super().__init__(
            {
                "request": Out(stream.Signature(HostRequest)),
                "response": In(stream.Signature(HostResponse)),
            }
        )


class RetirementPort(wiring.Signature):
    """At most one record per cycle, for observers; nothing waits for it."""

    def __init__(self):
        super().__init__({"valid": Out(1), "record": Out(Retirement)})


class WaitingAccess(data.Struct):
    """A memory instruction that waits for the one before it; ``address`` is a gva, ``reads``
    says that it only reads.
    """

    valid: 1
    address: 64
    reads: 1


class Written(data.Struct):
    """A bus master other than the hart has written the eight bytes at ``address`` (hpa)."""

    valid: 1
    address: 32


class HartEvents(data.Struct):
    """What the counters count; levels hold for the cycle, strobes come once per event.

    ``transition`` and ``charging`` say where a cycle with ``advance`` goes; in all others it is
    the guest's. ``exit`` strobes when a trap or VM exit that parks is taken, with ``reason`` = flags
    that tell interrupts and VM exits, and the code.
    """

    retired: 1
    transition: 1
    charging: 1
    walking: 1
    instruction_miss: 1
    data_miss: 1
    instruction_walk: 1
    data_walk: 1
    exit: 1
    reason: data.StructLayout({"code": 6, "interrupt": 1, "vm_exit": 1})

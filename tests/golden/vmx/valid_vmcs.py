"""A VMCS that passes every check, and the states that fail one."""

from rtl.arch.csrs import MSTATUS_CONSTANT
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS
from rtl.arch.traps import Privilege
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPTP, EptMode
from rtl.arch.vmx.exits import INTERRUPTION, InterruptionType
from rtl.arch.vmx.fields import VMCS_FIELDS

__all__ = ["RAM_SIZE", "mutations", "valid_fields"]

RAM_SIZE = 16 << 20
_RAM = MEMORY_MAP["ram"].base
_WORD = (1 << 64) - 1


def valid_fields() -> dict[str, int]:
    """Every writable field, such that the entry succeeds."""
    fields = {name: 0 for name, field in VMCS_FIELDS.items() if not field.read_only}
    fields.update(
        execution_controls=CONTROL_WORDS["execution_controls"].required,
        eptp=EPTP.encode(ppn=_RAM + (1 << 20) >> PAGE_BITS, mode=EptMode.SV39X4),
        guest_pc=_RAM,
        guest_privilege=Privilege.MACHINE,
        guest_mstatus=MSTATUS_CONSTANT,
        guest_link_pointer=_WORD,
        host_pc=_RAM + 0x100,
    )
    return {name: int(value) for name, value in fields.items()}


def mutations():
    """(check that fails first, field, value): one field of the valid VMCS changed.

    Each value stands for a class of its own: one reserved bit, one control, one value of an
    enumeration.
    """
    valid = valid_fields()
    for name, value in valid.items():
        field = VMCS_FIELDS[name]
        for bit in range(64):
            if field.reserved >> bit & 1:
                yield f"{name}_reserved", name, value ^ 1 << bit
    for name, word in CONTROL_WORDS.items():
        for row in word.controls:
            if row.required:
                yield f"{name}_required", name, valid[name] & ~(1 << row.bit)
            elif not row.allowed:
                yield f"{name}_allowed", name, valid[name] | 1 << row.bit
    execution = CONTROL_WORDS["execution_controls"].layout
    controls = valid["execution_controls"]
    yield "vpid_zero", "execution_controls", controls | execution["enable_vpid"].mask
    yield "time_scale_zero", "execution_controls", controls | execution["use_time_scale"].mask
    eptp = valid["eptp"]
    for mode in range(16):
        if mode != EptMode.SV39X4:
            yield "eptp_mode", "eptp", EPTP["mode"].insert(eptp, mode)
    root = EPTP["ppn"].extract(eptp)
    end = MEMORY_MAP["ram"].end
    outside = (0, (_RAM >> PAGE_BITS) - 4, end >> PAGE_BITS, (1 << 44) - 4)
    for frame in (root + 1, root + 2, root + 3, *outside):
        yield "eptp_root", "eptp", EPTP["ppn"].insert(eptp, frame)
    for kind in range(8):
        if kind not in set(InterruptionType):
            value = INTERRUPTION.encode(valid=1, type=kind, cause=3)
            yield "injection_type", "entry_interruption", value
    causes = {
        InterruptionType.INTERRUPT: {1, 3, 5, 7, 9, 11},
        InterruptionType.EXCEPTION: {*range(10), 11, 12, 13, 15},
    }
    for kind, known in causes.items():
        for cause in set(range(64)) - known:
            value = INTERRUPTION.encode(valid=1, type=kind, cause=cause)
            yield "injection_cause", "entry_interruption", value
    yield "guest_privilege_level", "guest_privilege", 2
    yield "guest_mstatus_mpp", "guest_mstatus", MSTATUS_CONSTANT | 2 << 11
    for mode in set(range(16)) - {0, 8}:
        yield "guest_satp_mode", "guest_satp", mode << 60

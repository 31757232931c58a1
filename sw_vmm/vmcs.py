"""The current VMCS by the names of its fields, and the VMX instructions around it."""

from collections.abc import Callable

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.traps import Privilege
from rtl.arch.vmx.checks import ENTRY_CHECKS
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.fields import (
    GUEST_CSRS,
    VMCS_FIELDS,
    VMCS_REGION_BITS,
    VMCS_REVISION,
    VmcsField,
)
from rtl.arch.vmx.instructions import VM_FAIL_INVALID, VmInstructionError
from sw_vmm.errors import VmxFailure
from sw_vmm.machine import Machine

__all__ = [
    "VMCS_REGION",
    "Vmcs",
    "control_word",
    "execute",
    "failed_check",
    "reset_state",
    "start_vmx",
]

#: Bytes of a VMCS region, and its alignment.
VMCS_REGION = 1 << VMCS_REGION_BITS
_ALL = (1 << 64) - 1
_ERRORS = {int(error): error.name.lower() for error in VmInstructionError}
_CHECKS = {check.number: name for name, check in ENTRY_CHECKS.items()}


def control_word(name: str, *controls: str) -> int:
    """The control word of that name with its required bits and ``controls`` set."""
    word = CONTROL_WORDS[name]
    return word.required | word.layout.encode(**dict.fromkeys(controls, 1))


def reset_state() -> dict[str, int]:
    """The fields of a hart after reset, in M-mode; what else an entry needs are ``eptp``,
    ``guest_pc`` and ``host_pc``.
    """
    return {
        "execution_controls": control_word("execution_controls"),
        "exit_controls": control_word("exit_controls"),
        "guest_privilege": int(Privilege.MACHINE),
        **{f"guest_{name}": CSRS[name].reset for name in GUEST_CSRS},
        "guest_mtimecmp": _ALL,
        "guest_link_pointer": VMCS_FIELDS["guest_link_pointer"].required,
    }


def execute(machine: Machine, name: str, first: int = 0, second: int = 0) -> None:
    """Carry out a VMX instruction that gives a status. Raises VmxFailure."""
    status = machine.vmx(name, first, second)
    if status == VM_FAIL_INVALID:
        takes_region = name in ("vmclear", "vmptrld")
        why = _refusal(machine, name, first) if takes_region else "there is no current VMCS"
        raise VmxFailure(name, why)
    if status:
        raise VmxFailure(name, _ERRORS.get(status, f"error {status}"))


def _refusal(machine: Machine, name: str, region: int) -> str:
    """Why a region is refused, where no VMCS is current that could tell the error number."""
    ram = MEMORY_MAP["ram"].base
    inside = ram <= region <= ram + machine.config.ram_size - VMCS_REGION
    if name == "vmclear" or region % VMCS_REGION or not inside:
        return f"{name}_invalid_address"
    return f"{name}_wrong_revision"


def start_vmx(machine: Machine) -> None:
    """Enter VMX operation, with every exit and every root trap parking. Raises VmxFailure."""
    execute(machine, "vmxon")
    machine.park_on(_ALL, _ALL)
    machine.park_on_exits(_ALL)


def failed_check(number: int) -> str:
    """The name of the entry check that ``entry_check`` tells."""
    return _CHECKS.get(number, f"check {number}")


def _field(row: VmcsField) -> property:
    number = row.number

    def read(self: "Vmcs") -> int:
        return self.read_field(number)

    def write(self: "Vmcs", value: int) -> None:
        self.write_field(number, value)

    return property(read, None if row.read_only else write, doc=row.text)


class Vmcs:
    """A VMCS in its region of RAM: every field of ``VMCS_FIELDS`` is an attribute.

    Fields can be read and written while it is current: from ``load`` until another one is loaded.

    Parameters
    ----------
    machine : Machine
        In VMX operation.
    region : int
        hpa of ``VMCS_REGION`` bytes that belong to the VMCS; what they hold is lost.

    Raises VmxFailure when no VMCS can lie there.
    """

    def __init__(self, machine: Machine, region: int):
        self._machine = machine
        self.region = region
        # First of all it tells whether there can be one.
        execute(machine, "vmclear", region)
        header = VMCS_REVISION.to_bytes(8, "little")
        machine.write_memory(region, header.ljust(VMCS_REGION, b"\0"))
        self.read_field: Callable[[int], int] = machine.read_field
        self.write_field: Callable[[int, int], None] = machine.write_field

    def load(self) -> None:
        """Make it current."""
        execute(self._machine, "vmptrld", self.region)

    def clear(self) -> None:
        """Write it back; the next entry into its guest is a launch."""
        execute(self._machine, "vmclear", self.region)

    def update(self, **fields: int) -> None:
        """Write fields by name. Raises KeyError for a name without a field."""
        for name, value in fields.items():
            self.write_field(VMCS_FIELDS[name].number, value)


for _name, _row in VMCS_FIELDS.items():
    setattr(Vmcs, _name, _field(_row))

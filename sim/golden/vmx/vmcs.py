"""The VMCSs of a hart: which is current, and what the instructions on them do."""

from typing import NamedTuple, Protocol

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.vmx.checks import CheckClass, EntryCheck
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.fields import (
    VMCS_FIELD_BY_NUMBER,
    VMCS_FIELDS,
    VMCS_HEADER,
    VMCS_LAUNCH_STATE,
    VMCS_REGION_BITS,
    VMCS_REVISION,
    LaunchState,
)
from rtl.arch.vmx.instructions import VM_FAIL_INVALID, VmInstructionError
from sim.golden.vmx.entry_checks import first_failure

__all__ = ["EntryFailure", "VmcsUnit"]

_WORD = (1 << 64) - 1
_NO_VMCS = _WORD
_REGION = 1 << VMCS_REGION_BITS
_DOUBLE_WORD = 8
_ERROR = VMCS_FIELDS["instruction_error"].name


class Ram(Protocol):
    """Double words of RAM at an hpa."""

    def read_double_word(self, hpa: int) -> int: ...
    def write_double_word(self, hpa: int, value: int) -> None: ...


class EntryFailure(NamedTuple):
    """Bad guest state: the entry becomes an exit."""

    check: EntryCheck


class VmcsUnit:
    """The VMX instructions of root M-mode that touch nothing but VMCSs.

    Methods named as instructions give their status: 0, ``VM_FAIL_INVALID`` or an error number.

    Members
    -------
    on : bool
        In VMX operation.
    pointer : int
        hpa of the current VMCS; all ones for none.
    fields : dict of str to int
        Those of the current VMCS. The hart keeps the guest state that it changes here as well.
    launched : bool
        Launch state of the current VMCS.
    uncertain : dict of str to int
        Fields whose value only the world outside can tell, since cycles made it; and the greatest
        they may have.
    opaque : dict of int to int
        The same of double words in memory, by hpa.
    masks : dict of str to int
        What software lets a control word have, by the word's name.
    """

    def __init__(self, ram: Ram, ram_size: int):
        self._ram = ram
        self._ram_size = ram_size
        self.on = False
        self.pointer = _NO_VMCS
        self.fields = dict.fromkeys(VMCS_FIELDS, 0)
        self.launched = False
        self.uncertain: dict[str, int] = {}
        self.opaque: dict[int, int] = {}
        self.masks = dict.fromkeys(CONTROL_WORDS, _WORD)

    @property
    def has_current(self) -> bool:
        return self.pointer != _NO_VMCS

    def fail(self, error: VmInstructionError) -> int:
        """VMfailValid where there is a VMCS to name the error in, VMfailInvalid elsewhere."""
        if not self.has_current:
            return VM_FAIL_INVALID
        self.fields[_ERROR] = int(error)
        return int(error)

    def vmxon(self) -> int:
        if self.on:
            return self.fail(VmInstructionError.VMXON_IN_ROOT)
        self.on = True
        self.pointer = _NO_VMCS
        return 0

    def vmxoff(self) -> int:
        self.on = False
        self.pointer = _NO_VMCS
        self.uncertain.clear()
        return 0

    def vmptrst(self) -> int:
        """The pointer itself; it cannot fail."""
        return self.pointer

    def vmptrld(self, hpa: int) -> int:
        if not self._is_region(hpa):
            return self.fail(VmInstructionError.VMPTRLD_INVALID_ADDRESS)
        if hpa == self.pointer:
            return 0
        header = VMCS_HEADER.decode(self._ram.read_double_word(hpa))
        if header["revision"] != VMCS_REVISION or header["shadow"]:
            return self.fail(VmInstructionError.VMPTRLD_WRONG_REVISION)
        self._write_back()
        self.pointer = hpa
        launch = self._ram.read_double_word(hpa + _DOUBLE_WORD * VMCS_LAUNCH_STATE)
        self.launched = launch == LaunchState.LAUNCHED.value
        for name, field in VMCS_FIELDS.items():
            self.fields[name] = self._ram.read_double_word(hpa + field.offset)
            if hpa + field.offset in self.opaque:
                self.uncertain[name] = self.opaque[hpa + field.offset]
        return 0

    def vmclear(self, hpa: int) -> int:
        if not self._is_region(hpa):
            return self.fail(VmInstructionError.VMCLEAR_INVALID_ADDRESS)
        if hpa == self.pointer:
            self._write_back()
            self.pointer = _NO_VMCS
        self._ram.write_double_word(hpa + _DOUBLE_WORD * VMCS_LAUNCH_STATE, LaunchState.CLEAR.value)
        return 0

    @staticmethod
    def name_of(number: int) -> str:
        """Name of a field; "" for none."""
        field = VMCS_FIELD_BY_NUMBER.get(number)
        return field.name if field else ""

    def vmread(self, number: int) -> tuple[int, int]:
        """Value and status."""
        if not self.has_current:
            return 0, VM_FAIL_INVALID
        field = VMCS_FIELD_BY_NUMBER.get(number)
        if field is None:
            return 0, self.fail(VmInstructionError.UNSUPPORTED_FIELD)
        return self.fields[field.name], 0

    def vmwrite(self, number: int, value: int) -> int:
        field = VMCS_FIELD_BY_NUMBER.get(number)
        if field is None:
            return self.fail(VmInstructionError.UNSUPPORTED_FIELD)
        if not self.has_current:
            return VM_FAIL_INVALID
        if field.read_only:
            return self.fail(VmInstructionError.VMWRITE_READ_ONLY_FIELD)
        self.fields[field.name] = value & _WORD
        self.uncertain.pop(field.name, None)
        return 0

    def enter(self, *, launch: bool) -> int | EntryFailure:
        """The steps of VMLAUNCH and VMRESUME up to the guest: a status, or bad guest state.

        0 means that the guest runs now; a launch has made the VMCS launched.
        """
        if not self.has_current:
            return VM_FAIL_INVALID
        if launch and self.launched:
            return self.fail(VmInstructionError.VMLAUNCH_NOT_CLEAR)
        if not launch and not self.launched:
            return self.fail(VmInstructionError.VMRESUME_NOT_LAUNCHED)
        check = first_failure(self.state())
        if check is None:
            self.launched = True
            return 0
        self.fields["entry_check"] = check.number
        match check.check_class:
            case CheckClass.CONTROLS:
                return self.fail(VmInstructionError.ENTRY_INVALID_CONTROLS)
            case CheckClass.HOST_STATE:
                return self.fail(VmInstructionError.ENTRY_INVALID_HOST_STATE)
            case CheckClass.GUEST_STATE:
                return EntryFailure(check)

    def state(self) -> dict[str, int]:
        """What the entry checks read."""
        masks = {f"mask:{name}": mask for name, mask in self.masks.items()}
        return {**self.fields, **masks}

    def _is_region(self, hpa):
        ram = MEMORY_MAP["ram"].base
        return hpa % _REGION == 0 and ram <= hpa <= ram + self._ram_size - _REGION

    def _write_back(self):
        if not self.has_current:
            return
        launch = LaunchState.LAUNCHED if self.launched else LaunchState.CLEAR
        self._ram.write_double_word(self.pointer + _DOUBLE_WORD * VMCS_LAUNCH_STATE, launch.value)
        for name, field in VMCS_FIELDS.items():
            hpa = self.pointer + field.offset
            self._ram.write_double_word(hpa, self.fields[name])
            self.opaque.pop(hpa, None)
            if name in self.uncertain:
                self.opaque[hpa] = self.uncertain[name]
        self.uncertain.clear()

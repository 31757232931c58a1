"""The typed view of a VMCS: an attribute for every field of the table, and failures by name."""

import pytest

from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.fields import VMCS_FIELDS
from sw_vmm.errors import MachineError, VmxFailure
from sw_vmm.vmcs import VMCS_REGION, Vmcs, control_word, execute, failed_check, start_vmx
from tests.sw_vmm.golden_machine import GoldenMachine
from tests.sw_vmm.vmx_machine import MONITOR

FIRST, SECOND = MONITOR.start, MONITOR.start + VMCS_REGION
WRITABLE = [name for name, row in VMCS_FIELDS.items() if not row.read_only]


@pytest.fixture
def machine():
    machine = GoldenMachine()
    start_vmx(machine)
    return machine


def test_every_field_is_an_attribute_of_its_own(machine):
    vmcs = Vmcs(machine, FIRST)
    vmcs.load()
    for value, name in enumerate(WRITABLE, start=1000):
        setattr(vmcs, name, value)
    for value, name in enumerate(WRITABLE, start=1000):
        assert getattr(vmcs, name) == value
        assert machine.read_field(VMCS_FIELDS[name].number) == value


def test_what_the_hart_alone_writes_cannot_be_written(machine):
    vmcs = Vmcs(machine, FIRST)
    vmcs.load()
    for name in set(VMCS_FIELDS) - set(WRITABLE):
        assert getattr(vmcs, name) == 0
        with pytest.raises(AttributeError):
            setattr(vmcs, name, 1)


def test_fields_stay_with_their_vmcs(machine):
    first, second = Vmcs(machine, FIRST), Vmcs(machine, SECOND)
    first.load()
    first.update(vpid=3, guest_mscratch=5)
    second.load()
    assert (second.vpid, second.guest_mscratch) == (0, 0)
    second.vpid = 7
    first.load()
    assert (first.vpid, first.guest_mscratch) == (3, 5)
    first.clear()
    with pytest.raises(MachineError):
        first.vpid  # noqa: B018


def test_an_unknown_name_is_refused(machine):
    vmcs = Vmcs(machine, FIRST)
    vmcs.load()
    with pytest.raises(KeyError):
        vmcs.update(guest_cr0=1)


def test_failures_are_named(machine):
    with pytest.raises(VmxFailure, match="vmlaunch failed: there is no current VMCS"):
        execute(machine, "vmlaunch")
    vmcs = Vmcs(machine, FIRST)
    vmcs.load()
    with pytest.raises(VmxFailure, match="vmptrld failed: vmptrld_invalid_address"):
        execute(machine, "vmptrld", FIRST + 8)
    with pytest.raises(VmxFailure, match="vmresume failed: vmresume_not_launched"):
        execute(machine, "vmresume")
    with pytest.raises(VmxFailure, match="vmlaunch failed: entry_invalid_controls"):
        execute(machine, "vmlaunch")
    assert failed_check(vmcs.entry_check) == "execution_controls_required"
    with pytest.raises(VmxFailure, match="vmptrld failed"):
        machine.write_memory(SECOND, bytes(8))
        execute(machine, "vmptrld", SECOND)


def test_control_words_have_what_is_required():
    for name, word in CONTROL_WORDS.items():
        assert control_word(name) == word.required
        for row in word.controls:
            assert control_word(name, row.name) == word.required | 1 << row.bit

"""VMX instructions by the host port, in lockstep: outcomes, fields, refusals."""

import pytest

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, PTE
from rtl.arch.records import ParkKind
from rtl.arch.vmx.exits import ExitReason
from rtl.arch.vmx.fields import VMCS_FIELDS, VMCS_REVISION
from rtl.arch.vmx.instructions import VM_FAIL_INVALID, VmInstructionError
from rtl.soc.config import SocConfig
from sim.library import LibraryMachine
from sim.lockstep import Divergence, Lockstep, LockstepMachine
from sw_vmm.machine import Event, MachineError
from tests.golden.vmx.test_instructions import FAILURES
from tests.golden.vmx.valid_vmcs import valid_fields
from tests.golden.vmx.world import FULL, RAM_SIZE, VMCS, vmx_word

RAM = MEMORY_MAP["ram"].base
NO_FIELD = 1 + max(field.number for field in VMCS_FIELDS.values())
EPT_ROOT = RAM + (1 << 20)


@pytest.fixture(scope="module")
def raw():
    return LibraryMachine(SocConfig(vmx=True), ram_size=RAM_SIZE)


@pytest.fixture
def machine(raw):
    """In VMX operation, with a VMCS that can be entered."""
    machine = LockstepMachine(raw)
    machine.reset()
    machine.lockstep = Lockstep(ram_size=RAM_SIZE, vmx=True)
    machine.write_memory(VMCS, VMCS_REVISION.to_bytes(8, "little"))
    assert machine.vmx("vmxon") == machine.vmx("vmptrld", VMCS) == 0
    for name, value in valid_fields().items():
        machine.write_field(VMCS_FIELDS[name].number, value)
    return machine


@pytest.mark.parametrize(("name", "first", "second", "error"), FAILURES)
def test_failures(machine, name, first, second, error):
    assert machine.vmx(name, first, second) == (0 if name == "vmread" else error)
    number = VMCS_FIELDS["instruction_error"].number
    assert machine.read_field(number) == error
    assert machine.vmx("vmclear", VMCS) == 0
    assert machine.vmx(name, first, second) == (0 if name == "vmread" else VM_FAIL_INVALID)


def test_every_field(machine):
    writable = [field for field in VMCS_FIELDS.values() if not field.read_only]
    for field in writable:
        machine.write_field(field.number, field.number * 0x0123_4567_89AB)
    assert machine.vmx("vmclear", VMCS) == machine.vmx("vmptrld", VMCS) == 0
    for field in writable:
        assert machine.read_field(field.number) == field.number * 0x0123_4567_89AB


def test_fields_that_there_are_not(machine):
    with pytest.raises(MachineError, match=f"no VMCS field {NO_FIELD}"):
        machine.read_field(NO_FIELD)
    number = VMCS_FIELDS["instruction_error"].number
    assert machine.read_field(number) == VmInstructionError.UNSUPPORTED_FIELD
    with pytest.raises(MachineError, match="no VMCS field"):
        machine.write_field(number, 0)
    assert machine.read_field(number) == VmInstructionError.VMWRITE_READ_ONLY_FIELD


def test_what_a_guest_keeps_from_the_host(machine):
    """The hart stopped in a guest takes no VMX instruction; once the guest has left it does."""
    # One leaf of 1 GiB shows the guest all of RAM, where zeros are illegal instructions.
    leaf = PTE.encode(**FULL, ppn=RAM >> PAGE_BITS)
    machine.write_memory(EPT_ROOT + 8 * (RAM >> 30), leaf.to_bytes(8, "little"))
    machine.write_field(VMCS_FIELDS["guest_mtvec"].number, RAM + 0x400)
    machine.host_port.control.write(step=1)
    assert machine.vmx("vmlaunch") == 0
    assert machine.run(1000) == Event.PARKED
    assert (machine.park.kind, machine.park.world) == (ParkKind.STOP, 1)
    for refused in (
        lambda: machine.vmx("vmptrst"),
        lambda: machine.vmx("vmresume"),
        lambda: machine.read_field(VMCS_FIELDS["guest_pc"].number),
        lambda: machine.write_field(VMCS_FIELDS["guest_pc"].number, 0),
    ):
        with pytest.raises(MachineError, match="not now"):
            refused()
    machine.write_memory(machine.park.pc, vmx_word("vmcall").to_bytes(4, "little"))
    machine.fence_i()
    machine.resume(machine.park.pc)
    assert machine.run(1000) == Event.PARKED
    assert machine.park.world == 0
    assert machine.read_field(VMCS_FIELDS["exit_reason"].number) == ExitReason.VMCALL
    machine.host_port.control.write(step=0)


def test_a_failed_entry_that_parks(machine):
    machine.write_field(VMCS_FIELDS["guest_privilege"].number, 2)
    machine.park_on_exits(1 << 33)
    assert machine.vmx("vmlaunch") == 0
    assert machine.run(1000) == Event.PARKED
    assert machine.park.reason == 1 << 31 | 33
    machine.park_on_exits(0)


def test_a_wrong_answer_is_noticed(machine, monkeypatch, raw):
    monkeypatch.setattr(raw, "vmx", lambda *operands: 1)
    with pytest.raises(Divergence, match="vmptrst gives 0x1, not 0x80010000"):
        machine.vmx("vmptrst")
    monkeypatch.setattr(raw, "read_field", lambda number: 5)
    with pytest.raises(Divergence, match="vmread gives 0x5"):
        machine.read_field(VMCS_FIELDS["vpid"].number)


def test_there_is_no_vmfunc(machine):
    with pytest.raises(MachineError, match="no such VMX instruction"):
        machine.vmx("vmfunc")

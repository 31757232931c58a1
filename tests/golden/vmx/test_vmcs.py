"""The VMCS unit of the golden model against docs/isa/vmx.md, case by case."""

import pytest

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.traps import Privilege
from rtl.arch.vmx.checks import ENTRY_CHECKS, CheckClass
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.exits import INTERRUPTION, InterruptionType
from rtl.arch.vmx.fields import VMCS_FIELDS, VMCS_REVISION
from rtl.arch.vmx.instructions import VM_FAIL_INVALID, VmInstructionError
from sim.golden.vmx.vmcs import EntryFailure, VmcsUnit
from tests.golden.vmx.valid_vmcs import RAM_SIZE, mutations, valid_fields

pytestmark = pytest.mark.model_only

RAM = MEMORY_MAP["ram"].base
ONE, OTHER = RAM + 0x10000, RAM + 0x20000
ERROR = VmInstructionError
MUTATIONS = list(mutations())


class Words(dict):
    """RAM by double words; all zero at first."""

    def read_double_word(self, hpa):
        return self.get(hpa, 0)

    def write_double_word(self, hpa, value):
        self[hpa] = value


@pytest.fixture
def ram():
    return Words({ONE: VMCS_REVISION, OTHER: VMCS_REVISION})


@pytest.fixture
def unit(ram):
    unit = VmcsUnit(ram, RAM_SIZE)
    assert unit.vmxon() == 0
    return unit


def number(name):
    return VMCS_FIELDS[name].number


def write(unit, **fields):
    for name, value in fields.items():
        assert unit.vmwrite(number(name), value) == 0


@pytest.fixture
def valid(unit):
    """The unit with a VMCS current that can be entered."""
    assert unit.vmclear(ONE) == unit.vmptrld(ONE) == 0
    write(unit, **valid_fields())
    return unit


def test_without_a_current_vmcs_every_failure_is_invalid(unit):
    assert unit.vmptrst() == (1 << 64) - 1
    assert unit.vmread(number("eptp")) == (0, VM_FAIL_INVALID)
    assert unit.vmwrite(number("eptp"), 1) == VM_FAIL_INVALID
    assert unit.vmwrite(0, 1) == VM_FAIL_INVALID
    assert unit.enter(launch=True) == unit.enter(launch=False) == VM_FAIL_INVALID
    assert unit.vmptrld(1) == unit.vmclear(1) == unit.vmxon() == VM_FAIL_INVALID


@pytest.mark.parametrize(
    "hpa", [RAM + 1, RAM + 0x800, 0, RAM - 0x1000, RAM + RAM_SIZE, RAM | 1 << 40]
)
def test_a_pointer_that_is_no_region_leaves_the_current_one(valid, hpa):
    assert valid.vmptrld(hpa) == ERROR.VMPTRLD_INVALID_ADDRESS
    assert valid.vmread(number("instruction_error")) == (9, 0)
    assert valid.vmclear(hpa) == ERROR.VMCLEAR_INVALID_ADDRESS
    assert valid.vmptrst() == ONE


@pytest.mark.parametrize("header", [0, VMCS_REVISION ^ 1, VMCS_REVISION | 1 << 31])
def test_a_wrong_revision_leaves_the_current_one(valid, ram, header):
    ram[OTHER] = header
    assert valid.vmptrld(OTHER) == ERROR.VMPTRLD_WRONG_REVISION
    assert valid.vmptrst() == ONE
    assert valid.enter(launch=True) == 0


def test_fields_stay_with_their_vmcs(valid):
    write(valid, guest_sscratch=1)
    assert valid.vmptrld(OTHER) == 0
    assert valid.vmread(number("guest_sscratch")) == (0, 0)
    write(valid, guest_sscratch=2)
    assert valid.vmptrld(ONE) == 0
    assert valid.vmread(number("guest_sscratch")) == (1, 0)
    assert valid.vmclear(ONE) == valid.vmptrld(OTHER) == 0
    assert valid.vmread(number("guest_sscratch")) == (2, 0)


def test_memory_of_a_current_vmcs_is_not_looked_at(valid, ram):
    offset = VMCS_FIELDS["guest_sscratch"].offset
    write(valid, guest_sscratch=1)
    ram[ONE + offset] = 5
    assert valid.vmptrld(ONE) == 0
    assert valid.vmread(number("guest_sscratch")) == (1, 0)


def test_launch_state(valid):
    assert valid.enter(launch=False) == ERROR.VMRESUME_NOT_LAUNCHED
    assert valid.enter(launch=True) == 0
    assert valid.enter(launch=True) == ERROR.VMLAUNCH_NOT_CLEAR
    assert valid.enter(launch=False) == 0
    assert valid.vmptrld(OTHER) == valid.vmptrld(ONE) == 0
    assert valid.enter(launch=False) == 0
    assert valid.vmclear(ONE) == valid.vmptrld(ONE) == 0
    assert valid.enter(launch=True) == 0


def test_vmclear_of_another_vmcs_leaves_the_current_one(valid):
    assert valid.vmptrld(OTHER) == 0
    assert valid.vmclear(ONE) == 0
    assert valid.vmptrst() == OTHER


def test_fields_that_do_not_exist_or_cannot_be_written(valid):
    assert valid.vmread(0) == (0, ERROR.UNSUPPORTED_FIELD)
    assert valid.vmwrite(1 << 12, 0) == ERROR.UNSUPPORTED_FIELD
    assert valid.vmwrite(number("exit_reason"), 0) == ERROR.VMWRITE_READ_ONLY_FIELD
    assert valid.vmread(number("instruction_error")) == (13, 0)


def test_vmxon_twice_and_vmxoff(valid):
    assert valid.vmxon() == ERROR.VMXON_IN_ROOT
    assert valid.vmxoff() == valid.vmxon() == 0
    assert valid.vmptrst() == (1 << 64) - 1


def test_the_valid_vmcs_passes(valid):
    assert valid.enter(launch=True) == 0
    assert valid.fields["entry_check"] == 0


@pytest.mark.parametrize("check", ENTRY_CHECKS)
def test_each_check_fails_by_one_field(valid, check):
    """Every mutation reports its check in the way of the check's class, and changes no more."""
    cases = [(name, value) for wanted, name, value in MUTATIONS if wanted == check]
    if not cases:
        assert check in NEEDS_MORE
        return
    original = valid_fields()
    for name, value in cases:
        write(valid, **{name: value})
        before = dict(valid.fields)
        result = valid.enter(launch=True)
        row = ENTRY_CHECKS[check]
        error = before["instruction_error"]
        match row.check_class:
            case CheckClass.CONTROLS:
                error = 7
                assert result == error
            case CheckClass.HOST_STATE:
                error = 8
                assert result == error
            case CheckClass.GUEST_STATE:
                assert result == EntryFailure(row)
        expected = {**before, "entry_check": row.number, "instruction_error": error}
        assert valid.fields == expected, (name, hex(value))
        assert not valid.launched
        assert valid.vmread(number(name)) == (value, 0)
        write(valid, **{name: original[name]})
    assert valid.enter(launch=True) == 0


#: Checks no single field can fail first: a required or not allowed control fails before, or two
#: fields are needed.
NEEDS_MORE = {
    "unrestricted_guest_needs",
    "satp_targets_needs",
    "enable_pml_needs",
    "ept_violation_exception_needs",
    "exit_controls_allowed",
    "guest_activity_privilege",
    "guest_activity_injection",
}


def test_the_mask_narrows_what_is_allowed(valid):
    layout = CONTROL_WORDS["exit_controls"].layout
    write(valid, exit_controls=layout["save_preemption_timer"].mask)
    valid.masks["exit_controls"] = 0
    assert valid.enter(launch=True) == ERROR.ENTRY_INVALID_CONTROLS
    assert valid.fields["entry_check"] == ENTRY_CHECKS["exit_controls_allowed"].number
    valid.masks["exit_controls"] = (1 << 64) - 1
    assert valid.enter(launch=True) == 0


@pytest.mark.parametrize(
    ("privilege", "status", "passes"),
    [
        (Privilege.MACHINE, 1 << 21, True),
        (Privilege.SUPERVISOR, 0, True),
        (Privilege.SUPERVISOR, 1 << 21, False),
        (Privilege.USER, 0, False),
    ],
)
def test_wfi_where_it_is_legal(valid, privilege, status, passes):
    mstatus = valid_fields()["guest_mstatus"] | status
    write(valid, guest_activity=1, guest_privilege=privilege, guest_mstatus=mstatus)
    result = valid.enter(launch=True)
    failure = EntryFailure(ENTRY_CHECKS["guest_activity_privilege"])
    assert result == (0 if passes else failure)


@pytest.mark.parametrize(
    ("kind", "passes"), [(InterruptionType.INTERRUPT, True), (InterruptionType.EXCEPTION, False)]
)
def test_injection_into_wfi(valid, kind, passes):
    event = INTERRUPTION.encode(valid=1, type=kind, cause=5)
    write(valid, guest_activity=1, entry_interruption=event)
    failure = EntryFailure(ENTRY_CHECKS["guest_activity_injection"])
    assert valid.enter(launch=True) == (0 if passes else failure)


def test_an_injection_that_is_not_valid_may_say_anything(valid):
    write(valid, entry_interruption=INTERRUPTION.encode(type=7, cause=63))
    assert valid.enter(launch=True) == 0


def test_the_first_check_in_order_is_reported(valid):
    write(valid, guest_privilege=2, host_pc=1, vpid=1 << 16)
    assert valid.enter(launch=True) == ERROR.ENTRY_INVALID_CONTROLS
    write(valid, vpid=0)
    assert valid.enter(launch=True) == ERROR.ENTRY_INVALID_HOST_STATE
    write(valid, host_pc=0)
    assert valid.enter(launch=True) == EntryFailure(ENTRY_CHECKS["guest_privilege_level"])

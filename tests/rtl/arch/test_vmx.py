"""The facts of the virtualization extension fit together."""

import pytest

from rtl.arch.csrs import CSR_BY_NUMBER, CSRS, csr_privilege, csr_read_only
from rtl.arch.instructions import decode
from rtl.arch.traps import Privilege
from rtl.arch.vmx.capability import VMX_CSRS
from rtl.arch.vmx.checks import ENTRY_CHECKS, CheckClass
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.exits import EXIT_REASON_BITS, EXIT_REASONS, ExitReason
from rtl.arch.vmx.fields import (
    CSR_BITMAP,
    CSR_BITMAP_WORDS,
    GUEST_CSRS,
    VMCS_FIELD_BY_NUMBER,
    VMCS_FIELDS,
    VMCS_LAUNCH_STATE,
    VMCS_REGION_BITS,
    VmcsArea,
)
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS


def test_fields_have_numbers_of_their_own_within_their_area_and_the_region():
    assert len(VMCS_FIELD_BY_NUMBER) == len(VMCS_FIELDS)
    starts = sorted(area.value for area in VmcsArea)
    for field in VMCS_FIELDS.values():
        after = [start for start in starts if start > field.area.value]
        assert field.area.value <= field.number < min(after, default=1 << 9)
        assert field.number > VMCS_LAUNCH_STATE
        assert field.offset < 1 << VMCS_REGION_BITS
        assert not field.required & ~field.reserved


def test_every_csr_a_guest_could_change_is_a_field():
    held = {field.csr for field in VMCS_FIELDS.values()} - {""}
    assert held == set(GUEST_CSRS)
    views = {"sstatus", "sie", "sip"}
    events = {name for name in CSRS if name.startswith(("mhpmevent", "mhpmcounter"))}
    assert {csr.name for csr in CSRS.values() if csr.writable} - views - events == held


@pytest.mark.parametrize("name", GUEST_CSRS)
def test_what_a_csr_holds_after_reset_is_no_bad_guest_state(name):
    field = VMCS_FIELDS[f"guest_{name}"]
    assert CSRS[name].reset & field.reserved == field.required


def test_each_csr_has_at_most_one_bit_and_no_other_reason():
    assert len(set(CSR_BITMAP)) == len(CSR_BITMAP) <= 64 * CSR_BITMAP_WORDS
    assert not {"mstatus", "sstatus", "satp", "time", "cycle", "instret"} & set(CSR_BITMAP)
    assert set(CSR_BITMAP) < set(CSRS)


def test_control_bits_do_not_meet_and_what_is_required_is_allowed():
    for word in CONTROL_WORDS.values():
        names = {row.name for row in word.controls}
        assert len(names) == len(word.controls)
        assert word.layout.mask().bit_count() == len(word.controls)
        assert not word.required & ~word.allowed
        for row in word.controls:
            assert set(row.needs) <= names


def test_checks_are_numbered_in_the_order_of_their_classes():
    checks = list(ENTRY_CHECKS.values())
    assert [check.number for check in checks] == list(range(1, len(checks) + 1))
    order = [CheckClass.CONTROLS, CheckClass.HOST_STATE, CheckClass.GUEST_STATE]
    places = [order.index(check.check_class) for check in checks]
    assert places == sorted(places)
    for check in checks:
        areas = {VMCS_FIELDS[name].area for name in check.fields}
        assert check.check_class.value in areas


def test_every_field_with_reserved_bits_has_its_check():
    reserved = {f"{row.name}_reserved" for row in VMCS_FIELDS.values() if row.reserved}
    assert reserved <= set(ENTRY_CHECKS)


def test_instructions_decode_to_themselves_and_to_nothing_else():
    rows = [row.encoding for row in VMX_INSTRUCTIONS.values()]
    for row in rows:
        assert [other.name for other in rows if row.match & other.mask == other.match] == [row.name]
        assert decode(row.match) is None


def test_exit_reasons_fit_their_bits_and_all_have_a_row():
    assert set(EXIT_REASONS) == set(ExitReason)
    assert max(ExitReason) < 1 << EXIT_REASON_BITS


def test_the_registers_are_machine_level_and_new():
    for csr in VMX_CSRS.values():
        assert csr.number not in CSR_BY_NUMBER
        assert csr_privilege(csr.number) is Privilege.MACHINE
        assert csr_read_only(csr.number) == (csr.writable == 0)

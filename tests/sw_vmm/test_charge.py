"""The charge model: prices, factor, and constants that belong to one configuration."""

import json
from dataclasses import replace

import pytest

from sw_vmm.charge import ChargeModel, Charges, load_charges, save_charges
from sw_vmm.errors import ChargesError

CHARGES = Charges(exit=40, csr=3, gpr=2, guest_word=4, device=50, instruction=60)
CONFIGURATION = {"ram_latency": 12, "tlb_entries": 8}
OTHER = {"ram_latency": 12, "tlb_entries": 4}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "charges.json"
    save_charges([(OTHER, replace(CHARGES, exit=41)), (CONFIGURATION, CHARGES)], path)
    return path


def test_a_price_is_the_sum_of_its_operations_times_the_factor():
    assert ChargeModel(CHARGES).price(exit=1, csr=4, gpr=62) == 40 + 12 + 124
    assert ChargeModel(CHARGES, 2).price(device=3) == 300
    assert ChargeModel(CHARGES, 0.5).price(csr=3) == 4
    assert ChargeModel(CHARGES, 0).price(instruction=1000) == 0


def test_an_operation_that_the_hart_does_not_have_has_no_price():
    with pytest.raises(ChargesError, match="no charge constant for vmcs"):
        ChargeModel(CHARGES).price(exit=1, vmcs=2)
    assert ChargeModel(replace(CHARGES, vmcs=5)).price(exit=1, vmcs=2) == 50


def test_a_free_vmm_needs_no_constants():
    assert ChargeModel(None, 0).price(exit=1) == 0


@pytest.mark.parametrize("factor", [-1, float("inf"), float("nan")])
def test_bad_factors_are_refused(factor):
    with pytest.raises(ChargesError):
        ChargeModel(CHARGES, factor)


def test_a_charge_without_constants_is_refused():
    with pytest.raises(ChargesError, match="make calibrate"):
        ChargeModel(None, 1.0)


def test_constants_come_back_for_their_configuration(file):
    assert load_charges(CONFIGURATION, file) == CHARGES
    assert load_charges(OTHER, file).exit == 41
    assert "vmcs" not in json.loads(file.read_text())["measurements"][0]["cycles"]
    with_vmx = replace(CHARGES, vmcs=7, vmptrld=70)
    save_charges([(CONFIGURATION, with_vmx)], file)
    assert load_charges(CONFIGURATION, file) == with_vmx


def test_constants_of_another_configuration_are_refused_by_name(file):
    """Named is what differs from the nearest one."""
    with pytest.raises(ChargesError, match=r"another configuration \(ram_latency\)"):
        load_charges({**CONFIGURATION, "ram_latency": 13}, file)
    with pytest.raises(ChargesError, match=r"another configuration \(ways\)"):
        load_charges({**OTHER, "ways": 2}, file)


def test_missing_constants_say_what_to_do(tmp_path):
    with pytest.raises(ChargesError, match="make calibrate"):
        load_charges(CONFIGURATION, tmp_path / "charges.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: "[]",
        lambda content: content.replace('"csr": 3', '"csr": "3"'),
        lambda content: content.replace('"csr"', '"cst"'),
        lambda content: content.replace('"format": 2', '"format": 1'),
        lambda content: json.dumps({**json.loads(content), "measurements": []}),
        lambda content: json.dumps({**json.loads(content), "measurements": [{"cycles": {}}]}),
    ],
)
def test_damaged_constants_are_refused_in_one_line(file, damage):
    content = file.read_text()
    assert damage(content) != content
    file.write_text(damage(content))
    with pytest.raises(ChargesError) as caught:
        load_charges(CONFIGURATION, file)
    assert "\n" not in str(caught.value)

"""The manual has every fact once, and every anchor that is cited."""

import re
from pathlib import Path

import pytest

from rtl.arch.vmx.checks import ENTRY_CHECKS
from rtl.arch.vmx.exits import EXIT_REASONS
from rtl.arch.vmx.fields import VMCS_FIELDS
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from sim.errors import BuildError
from sim.isa_manual import ISA_MANUAL, TABLES, expand, isa_manual

PROJECT = Path(__file__).resolve().parents[2]


def test_every_table_is_asked_for_once():
    places = re.findall(r"^table: (\S+)$", ISA_MANUAL.read_text(), re.MULTILINE)
    assert sorted(places) == sorted(TABLES)


def test_every_fact_has_a_row():
    rows = re.findall(r"^\| (\S+) \| (\S+) \|", isa_manual(), re.MULTILINE)
    for field in VMCS_FIELDS.values():
        assert rows.count((f"{field.number:#05x}", f"`{field.name}`")) == 1
    for check in ENTRY_CHECKS.values():
        assert rows.count((str(check.number), f"`{check.name}`")) == 1
    for reason, row in EXIT_REASONS.items():
        assert rows.count((str(int(reason)), f"`{row.name}`")) == 1
    for number, name in enumerate(VMX_INSTRUCTIONS):
        assert rows.count((name.upper(), str(number))) == 1


def test_a_table_that_does_not_exist_is_an_error():
    with pytest.raises(BuildError, match="nonsense"):
        expand("before\ntable: nonsense\n")


def test_the_anchors_cited_exist():
    anchors = set(re.findall(r'<a id="([\w-]+)"></a>', ISA_MANUAL.read_text()))
    cited = set(re.findall(r"\]\(#([\w-]+)\)", ISA_MANUAL.read_text()))
    for file in (*PROJECT.glob("rtl/**/*.py"), *PROJECT.glob("tests/**/*.py")):
        cited |= set(re.findall(r"vmx\.md#([\w-]+)", file.read_text()))
    assert cited
    assert cited <= anchors

"""JSON documents: each keeps to its schema, the schema to its manual, and damage is noticed."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import VmxlabError
from sim.program_costs import ProgramCost
from sim.result_diff import DIFF_SCHEMA
from sim.results import (
    COMPARE_SCHEMA,
    EXIT_SCHEMA,
    RUN_SCHEMA,
    Run,
    compare_document,
    differences,
    exit_document,
    run_document,
    violations,
    write_json,
)
from sw_vmm.result import Cycles, ExitStatistics, Outcome, Result, Spread

MANUAL = Path(__file__).parents[2] / "docs/json.md"
SCHEMAS = (RUN_SCHEMA, COMPARE_SCHEMA, EXIT_SCHEMA, DIFF_SCHEMA)


def make_run(technique="native", **outcome):
    values = {"finished": True, "exit_code": 0, "console": b"hello\r\n"} | outcome
    signature = values.pop("signature", b"abcd")
    exits = {"ecall": ExitStatistics(3, Spread.of({5: 2, 9: 1}), 12)}
    return Run(
        guest="hello",
        images=(("hello.elf", "0" * 64),),
        result=Result(technique, Outcome(**values), Cycles(9, 3, 3, 1, 3), 4, exits, {"cycles": 9}),
        configuration_name="full",
        configuration={"ram_latency": 12},
        ram_size=1 << 26,
        charge=1.0,
        signature=signature,
        seconds=0.5,
        simulator="verilator 0",
        programs={"compute": ProgramCost(9, 4)},
    )


def places(document, path=()):
    """Every place in a document, as keys and indices."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def changed(document, place, change):
    document = copy.deepcopy(document)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    change(inner, place[-1])
    return document


RUN = run_document(make_run())
COMPARE = compare_document("hello", [make_run(), make_run("trap-emulate")])


@pytest.mark.parametrize(("document", "schema"), [(RUN, RUN_SCHEMA), (COMPARE, COMPARE_SCHEMA)])
def test_documents_keep_to_their_schemas(document, schema):
    assert violations(document, schema) == []
    assert violations(json.loads(json.dumps(document)), schema) == []


@pytest.mark.parametrize(("document", "schema"), [(RUN, RUN_SCHEMA), (COMPARE, COMPARE_SCHEMA)])
def test_every_missing_or_strange_member_is_noticed(document, schema):
    free = ("configuration", "exits", "programs", "counters")
    for place in places(document):
        strange = changed(document, place, lambda inner, key: inner.__setitem__(key, {"x": ()}))
        assert violations(strange, schema), place
        inner = document
        for key in place[:-1]:
            inner = inner[key]
        if isinstance(inner, dict) and not (len(place) > 1 and place[-2] in free):
            missing = changed(document, place, lambda inner, key: inner.pop(key))
            assert violations(missing, schema), place


def test_unknown_members_are_noticed():
    assert violations(RUN | {"color": "red"}, RUN_SCHEMA) == ["color is unknown"]
    assert violations(RUN | {"schema": "vmxlab.run/0"}, RUN_SCHEMA)
    assert violations([], RUN_SCHEMA)


def test_bool_is_no_number():
    wrong = changed(RUN, ("instructions",), lambda inner, key: inner.__setitem__(key, True))
    assert violations(wrong, RUN_SCHEMA) == ["instructions is no integer"]
    wrong = changed(RUN, ("outcome", "finished"), lambda inner, key: inner.__setitem__(key, 1))
    assert violations(wrong, RUN_SCHEMA) == ["outcome.finished is no boolean"]


def test_exits_have_optional_members():
    row = dict.fromkeys(("cycle", "instret", "pc", "privilege", "instruction", "charged"), 0)
    row |= {"reason": "mmio_read", "cycles": 7}
    assert violations(exit_document(row), EXIT_SCHEMA) == []
    assert violations(exit_document(row | {"gpa": 4096, "signed": True}), EXIT_SCHEMA) == []
    assert violations(exit_document(row | {"gpa": "4096"}), EXIT_SCHEMA)
    assert violations(exit_document({**row, "mood": 1}), EXIT_SCHEMA)
    del row["pc"]
    assert violations(exit_document(row), EXIT_SCHEMA) == ["pc is missing"]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_manual_holds_the_schema(schema):
    text = MANUAL.read_text()
    assert f"`{schema.name}`" in text
    if schema is not COMPARE_SCHEMA:  # its runs stand in the manual once
        assert schema.markdown() in text
    else:
        own = [row for row in schema.rows if not row.path.startswith("runs.*.")]
        assert dataclasses.replace(schema, rows=tuple(own)).markdown() in text


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_console_difference_names_the_first_byte(one, two):
    found = differences([make_run(console=one), make_run("trap-emulate", console=two)])
    if one == two:
        assert found == []
        return
    shared = 0
    while one[shared : shared + 1] == two[shared : shared + 1]:
        shared += 1
    assert found == [
        "native and trap-emulate: console bytes differ from byte "
        f"{shared} on ({len(one)} and {len(two)} bytes)"
    ]


@pytest.mark.parametrize(
    "other",
    [{"exit_code": 1}, {"signature": b"abce"}, {"signature": None}, {"finished": False}],
)
def test_every_part_of_the_outcome_counts(other):
    assert len(differences([make_run(), make_run("interpret", **other)])) == 1
    document = compare_document("hello", [make_run(), make_run("interpret", **other)])
    assert document["equal_outcome"] is False


def test_write_refuses_what_breaks_the_schema(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, RUN, [RUN_SCHEMA])
    assert json.loads(path.read_text()) == RUN
    with pytest.raises(AssertionError, match="instructions is missing"):
        write_json(path, {k: v for k, v in RUN.items() if k != "instructions"}, [RUN_SCHEMA])
    with pytest.raises(VmxlabError, match="cannot write"):
        write_json(tmp_path, RUN, [RUN_SCHEMA])

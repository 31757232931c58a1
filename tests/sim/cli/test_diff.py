"""vmxlab diff: growth recomputed here, thresholds met exactly, bad input told in one line."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtl.soc.config import SocConfig
from sim.benchmarks import Measurement, bench_document
from sim.cli.main import main
from sim.result_diff import DIFF_SCHEMA, Change, diff_results
from sim.results import violations
from tests.sim.test_results import COMPARE, RUN

BENCH = bench_document(
    {"crc": Measurement(1000, 400, {}, {}), "sort": Measurement(2000, 900, {}, {})},
    SocConfig(),
    "verilator 0",
)


def changed(document, *path, value):
    document = copy.deepcopy(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


@pytest.fixture
def diff(tmp_path, capsys):
    """Runs the command on two documents (or texts); gives exit code, output and errors."""

    def run(before, after, *options):
        files = []
        for name, document in (("a.json", before), ("b.json", after)):
            file = tmp_path / name
            file.write_text(document if isinstance(document, str) else json.dumps(document))
            files.append(str(file))
        try:
            code = main(["diff", *files, *map(str, options)])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 300))
def test_growth_is_exact(before, after, percent):
    change = Change("x", before, after)
    assert change.exceeds(percent) == (100 * (after - before) > percent * before)
    if before:
        assert change.percent == pytest.approx(100 * after / before - 100, abs=1e-6)
    else:
        assert change.percent == (None if after else 0.0)


@pytest.mark.parametrize("document", [RUN, COMPARE, BENCH], ids=lambda d: d["schema"])
def test_a_result_does_not_differ_from_itself(diff, document):
    code, out, err = diff(document, document, "--fail-above", 0)
    assert (code, err) == (0, "")
    found = diff_results(document, document)
    assert found.changes and all(change.percent == 0 for change in found.changes)
    assert f"{len(found.changes)} of {len(found.changes)} numbers are the same" in out


@pytest.mark.parametrize(
    ("path", "measure"),
    [
        (("cycles", "total"), "cycles.total"),
        (("cycles", "walk"), "cycles.walk"),
        (("instructions",), "instructions"),
        (("exits", "ecall", "count"), "exits.ecall.count"),
        (("exits", "ecall", "cycles", "mean"), "exits.ecall.cycles.mean"),
        (("programs", "compute", "cycles"), "programs.compute.cycles"),
    ],
)
def test_growth_of_each_number_is_seen_and_judged(diff, path, measure):
    one, two = changed(RUN, *path, value=1000), changed(RUN, *path, value=1050)
    code, out, _ = diff(one, two, "--fail-above", 5)
    assert code == 0
    assert f"{measure}" in out and "+5.00%" in out and "FAILED" not in out
    code, out, _ = diff(one, two, "--fail-above", "4.9%")
    assert code == 1
    assert f"FAILED: {measure} grew by more than 4.9%" in out
    assert diff(one, two)[0] == 0
    assert diff(two, one, "--fail-above", 0)[0] == 0


def test_runs_of_a_comparison_are_told_by_technique(diff):
    grown = changed(COMPARE, "runs", 1, "cycles", "total", value=99)
    code, out, _ = diff(COMPARE, grown, "--fail-above", 0)
    assert code == 1
    assert "FAILED: trap-emulate: cycles.total" in out and "native: cycles.total" not in out


def test_benchmarks_are_told_by_name(diff):
    name = next(iter(BENCH["benchmarks"]))
    cycles = BENCH["benchmarks"][name]["cycles"]
    grown = changed(BENCH, "benchmarks", name, "cycles", value=2 * cycles)
    code, out, _ = diff(BENCH, grown, "--fail-above", 99)
    assert code == 1 and f"benchmarks.{name}.cycles" in out and "+100.00%" in out


def test_a_new_exit_reason_grew_beyond_every_threshold(diff):
    new = changed(RUN, "exits", "wfi", value=RUN["exits"]["ecall"])
    code, out, _ = diff(RUN, new, "--fail-above", 1000)
    assert code == 1 and "exits.wfi.count" in out and "new" in out
    assert diff(new, RUN, "--fail-above", 0)[0] == 0


@pytest.mark.parametrize(
    ("name", "value"), [("console_sha256", "1" * 64), ("exit_code", 3), ("finished", False)]
)
def test_another_outcome_fails_without_a_threshold(diff, name, value):
    code, out, _ = diff(RUN, changed(RUN, "outcome", name, value=value))
    assert code == 1 and f"DIFFERENT outcome: {name}" in out


def test_another_machine_is_noted(diff):
    other = changed(RUN, "machine", "configuration", "ram_latency", value=20)
    other = changed(other, "charge", value=2.0)
    code, out, _ = diff(RUN, other)
    assert code == 0
    assert "note: ram_latency: 12 and 20" in out and "note: charge: 1.0 and 2.0" in out


def test_document_keeps_to_its_schema(diff, tmp_path):
    file = tmp_path / "diff.json"
    grown = changed(RUN, "cycles", "total", value=18)
    assert diff(RUN, grown, "--fail-above", 50, "--json", file)[0] == 1
    document = json.loads(file.read_text())
    assert violations(document, DIFF_SCHEMA) == []
    assert document["failed"] and document["worst_percent"] == 100.0
    row = document["changes"][0]
    assert row == {"measure": "cycles.total", "before": 9, "after": 18, "percent": 100.0}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("{", RUN, "not a JSON document"),
        ("[" * 100_000, RUN, "not a JSON document"),
        ("[]", RUN, "not a result that can be compared"),
        ('{"schema": ["x"]}', RUN, "not a result that can be compared"),
        ('{"schema": "vmxlab.exit/1"}', RUN, "not a result that can be compared"),
        (RUN, changed(RUN, "cycles", value=7), "cycles is no object"),
        (RUN, COMPARE, "nothing to compare"),
        (RUN, changed(RUN, "guest", value="u-boot"), "different guests: hello and u-boot"),
    ],
)
def test_bad_documents_are_one_line(diff, before, after, told):
    code, out, err = diff(before, after)
    assert (code, out) == (1, "")
    assert told in err and err.count("\n") == 1


def test_bad_arguments_are_one_line(diff, tmp_path):
    for options in (["--fail-above", "much"], ["--fail-above=-1"], ["--fail-above", "nan"]):
        code, out, err = diff(RUN, RUN, *options)
        assert (code, out) == (2, "") and err.count("\n") == 1
    code, _, err = diff(RUN, RUN, "--json", tmp_path / "none" / "x.json")
    assert code == 1 and "cannot write" in err
    assert main(["diff", str(tmp_path / "none.json"), str(tmp_path / "none.json")]) == 1

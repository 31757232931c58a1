"""The benchmarks: their results, their cycles to the last one, and the record of both."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import sw_vmm.guests
from rtl.arch.performance import PERFORMANCE_EVENTS, STALLS
from rtl.soc.config import CONFIGURATIONS, SocConfig
from sim.benchmarks import (
    BENCH_SCHEMA,
    BENCHMARKS,
    HISTORY_FILE,
    HISTORY_SCHEMA,
    RAM_SIZE,
    Measurement,
    bench_document,
    changes,
    event_table,
    load_history,
    mean_ipc,
    measure,
    record,
    stall_table,
)
from sim.cli.main import main
from sim.cli.session import run_guest
from sim.elf import Image
from sim.errors import VmxlabError
from sim.library import LibraryMachine
from sim.results import violations
from sim.toolchain import compiler_command, compiler_environment
from tests.sim.fake_machine import FakeMachine

MANUAL = Path(__file__).parents[2] / "docs/json.md"
CONFIGURATION = SocConfig().as_dict()
CAUSES = [event.name.removeprefix("stall_") for event in STALLS]
OTHERS = [event.name for event in PERFORMANCE_EVENTS[len(STALLS) :]]


@pytest.fixture(scope="module")
def machine():
    return LibraryMachine(SocConfig(), ram_size=RAM_SIZE + (16 << 20))


@pytest.fixture(scope="module")
def measured(machine):
    """Measures a benchmark; once for all tests."""
    return once(machine)


@pytest.fixture(scope="module")
def measured_small():
    return once(LibraryMachine(CONFIGURATIONS["small"], ram_size=RAM_SIZE + (16 << 20)))


@pytest.fixture(scope="module")
def measured_vmx():
    return once(LibraryMachine(CONFIGURATIONS["vmx"], ram_size=RAM_SIZE + (16 << 20)))


def once(machine):
    found = {}

    def give(name):
        if name not in found:
            found[name] = measure(
                name, lambda guest: run_guest(machine, guest, "native", quiet=True)
            )
        return found[name]

    return give


@pytest.mark.parametrize("name", BENCHMARKS)
def test_cycles_and_instructions_are_as_recorded(measured, name):
    """A change of performance is a change of the record: vmxlab bench --record."""
    assert changes(load_history(), {name: measured(name)}, CONFIGURATION) == []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_cycles_of_the_small_configuration_are_as_recorded(measured_small, name):
    """vmxlab bench --record --config small"""
    small = CONFIGURATIONS["small"].as_dict()
    assert changes(load_history(), {name: measured_small(name)}, small) == []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_virtualization_that_is_off_costs_no_cycle(measured_vmx, name):
    """vmxlab bench --record --config vmx"""
    found, history = measured_vmx(name), load_history()
    for configuration in ("vmx", "full"):
        assert changes(history, {name: found}, CONFIGURATIONS[configuration].as_dict()) == []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_cycle_has_its_cause(measured, name):
    found = measured(name)
    assert found.cycles == found.instructions + sum(found.stalls.values())
    assert 50_000 <= found.instructions <= 400_000
    assert list(found.stalls) == CAUSES and list(found.events) == OTHERS


def test_benchmarks_stress_what_they_are_for(measured):
    """Each stalls for its own reason more than the others do."""

    def share(name, cause):
        return measured(name).stalls[cause] / measured(name).cycles

    assert share("chase", "data_cache") == max(share(name, "data_cache") for name in BENCHMARKS)
    assert share("matrix", "multiply") == max(share(name, "multiply") for name in BENCHMARKS)
    assert share("integer", "divide") == max(share(name, "divide") for name in BENCHMARKS)
    assert measured("chase").events["data_cache_miss"] > 8000
    assert measured("recursion").events["jump"] > 4000
    assert measured("sort").events["mispredict"] > measured("crc").events["mispredict"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_expected_results_are_those_of_the_host(tmp_path, name):
    """The same sources on the processor the tests run on."""
    folder = Path(sw_vmm.guests.__file__).parent / "bench"
    main_file, program = tmp_path / "main.c", tmp_path / name
    main_file.write_text(
        '#include "bench.h"\nint main(void) { prepare(); return kernel() == expected ? 0 : 1; }\n'
    )
    sources = [str(main_file), str(folder / f"{name}.c")]
    subprocess.run(
        [*compiler_command(), "-O1", "-fwrapv", f"-I{folder}", "-o", str(program), *sources],
        env=os.environ | compiler_environment(),
        check=True,
        capture_output=True,
    )
    assert subprocess.run([str(program)], check=False).returncode == 0


# The documents.


def some(cycles=200, instructions=100, fetch=60, name="sort"):
    stalls = dict.fromkeys(CAUSES, 0) | {"fetch": fetch, "trap": cycles - instructions - fetch}
    return {name: Measurement(cycles, instructions, stalls, dict.fromkeys(OTHERS, 3))}


def test_wrong_results_and_endless_kernels_are_failures(machine):
    """A table of constants is damaged; the budget is too small."""
    with pytest.raises(VmxlabError, match="crc failed with exit code 1"):
        measure("crc", lambda guest: run_damaged(machine, guest))
    with pytest.raises(VmxlabError, match="did not end"):
        measure("crc", lambda guest: run_short(machine, guest))


def run_damaged(machine, guest):
    (image, *others) = guest.images
    patch = Image(image.entry, ((image.symbols["expected"], bytes(8)),))
    return run_guest(machine, replace(guest, images=(image, *others, patch)), "native", quiet=True)


def run_short(machine, guest):
    return run_guest(machine, replace(guest, cycles=1000), "native", quiet=True)


def test_documents_keep_to_their_schemas():
    document = bench_document(some(), SocConfig(), "verilator 0")
    assert violations(json.loads(json.dumps(document)), BENCH_SCHEMA) == []
    assert document["mean_ipc"] == 0.5
    assert bench_document(some(name="chase"), SocConfig(), "")["mean_ipc"] is None
    damaged = document | {"benchmarks": {"sort": {"cycles": 1}}}
    assert violations(damaged, BENCH_SCHEMA)
    assert violations(load_history(), HISTORY_SCHEMA) == []


@pytest.mark.parametrize("schema", [BENCH_SCHEMA, HISTORY_SCHEMA], ids=lambda schema: schema.name)
def test_manual_holds_the_schema(schema):
    text = MANUAL.read_text()
    assert f"`{schema.name}`" in text
    assert schema.markdown() in text


def test_manual_holds_the_events():
    text = (MANUAL.parent / "benchmarks.md").read_text()
    for event in PERFORMANCE_EVENTS:
        assert f"| {event.number} | `{event.name}` | {event.text} |\n" in text
    for row in BENCHMARKS.values():
        assert f"| `{row.name}` | {row.text} |" in text


def test_changes_name_what_changed(tmp_path):
    empty = load_history(tmp_path / "none.json")
    assert changes(empty, some(), CONFIGURATION) == ["nothing is recorded for this configuration"]
    history = record(empty, some(), CONFIGURATION, date="2026-11-20", revision="a")
    assert changes(history, some(), CONFIGURATION) == []
    assert changes(history, some(cycles=210), CONFIGURATION) == [
        "sort: 210 cycles, recorded 200 (+5.00 %)"
    ]
    assert changes(history, some(instructions=99), CONFIGURATION) == [
        "sort: 99 instructions, recorded 100 (-1.00 %)"
    ]
    (sentence,) = changes(history, some(fetch=61), CONFIGURATION)
    assert sentence.startswith("sort: stalls {'fetch': 61, 'trap': 39}")
    assert changes(history, some(name="crc"), CONFIGURATION) == ["crc: not recorded"]
    other = CONFIGURATION | {"ram_latency": 99}
    assert changes(history, some(), other) == ["nothing is recorded for this configuration"]


def test_history_grows_only_by_what_changed():
    history = {"schema": HISTORY_SCHEMA.name, "command": "", "measurements": []}

    def revisions(history):
        assert violations(history, HISTORY_SCHEMA) == []
        return [row["revision"] for row in history["measurements"]]

    def add(history, cycles, revision):
        return record(history, some(cycles), CONFIGURATION, date="2026-11-20", revision=revision)

    history = add(history, 200, "a-dirty")
    history = add(history, 200, "b")
    assert revisions(history) == ["a-dirty"]
    history = add(history, 201, "b-dirty")
    assert revisions(history) == ["a-dirty", "b-dirty"]
    # Not committed yet: what was measured before that was never anybody's.
    history = add(history, 202, "b-dirty")
    assert revisions(history) == ["a-dirty", "b-dirty"]
    assert history["measurements"][-1]["results"]["sort"]["cycles"] == 202
    history = add(history, 203, None)
    history = add(history, 204, None)
    assert revisions(history) == ["a-dirty", "b-dirty", None, None]


def test_tables_show_shares():
    text = stall_table(some()).plain()
    assert "sort          200           100  0.500   30.0  20.0" in text
    assert "data_cache" not in text and "D$" not in text.splitlines()[2]
    assert "caches: 0.500" in text
    assert "30.0" in event_table(some()).plain()
    assert mean_ipc(some() | some(cycles=100, name="crc", fetch=0)) == 0.75


# The command.


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """Runs vmxlab bench with invented measurements and a record of its own."""
    monkeypatch.setattr("sim.cli.bench.open_machine", FakeMachine)
    monkeypatch.setattr("sim.cli.bench.measure", lambda name, run: some(name=name)[name])
    monkeypatch.setattr("sim.cli.bench.HISTORY_FILE", tmp_path / "bench.json")
    monkeypatch.setattr("sim.cli.bench.load_history", lambda: load_history(tmp_path / "bench.json"))

    def run(*arguments):
        try:
            code = main(["bench", *map(str, arguments)])
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_bench_shows_writes_and_records(bench, tmp_path):
    code, out, _ = bench("--json", tmp_path / "out.json")
    assert code == 0
    assert "changed: nothing is recorded" in out
    document = json.loads((tmp_path / "out.json").read_text())
    assert violations(document, BENCH_SCHEMA) == []
    assert list(document["benchmarks"]) == list(BENCHMARKS)
    assert bench("--record")[0] == 0
    history = json.loads((tmp_path / "bench.json").read_text())
    assert violations(history, HISTORY_SCHEMA) == []
    code, out, _ = bench("sort", "crc", "sort")
    assert out.count("\nsort ") == 2  # once in each table
    assert "all as recorded" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing"], 2, "no benchmark 'nothing'; there are integer, sort"),
        (["--record", "sort"], 2, "--record takes all benchmarks"),
        (["--json", "/nowhere/at/all.json"], 1, "cannot write /nowhere/at/all.json"),
    ],
)
def test_mistakes_are_one_line(bench, arguments, code, message):
    found, out, err = bench(*arguments)
    assert (found, out) == (code, "")
    assert message in err and err.count("\n") == 1


def test_the_record_is_where_the_manual_says():
    assert HISTORY_FILE.name == "bench.json" and HISTORY_FILE.is_file()

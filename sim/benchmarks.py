"""The benchmarks: small bare programs, what the counters say about them, and the record of it."""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import sw_vmm.guests
from rtl.arch.performance import HPM_COUNTERS, PERFORMANCE_EVENTS, STALLS, PerformanceEvent
from rtl.soc.config import SocConfig
from sim.elf import Image
from sim.errors import VmxlabError
from sim.guests import Guest, GuestOptions, bare_program, platform_defines
from sim.profile import Table
from sim.results import Run, Schema, SchemaRow, git_revision
from sim.toolchain import build_program, compiler_version

__all__ = [
    "BENCHMARKS",
    "BENCH_SCHEMA",
    "HISTORY_FILE",
    "HISTORY_SCHEMA",
    "RAM_SIZE",
    "Benchmark",
    "Measurement",
    "bench_document",
    "build_benchmark",
    "changes",
    "event_table",
    "load_history",
    "mean_ipc",
    "measure",
    "record",
    "stall_table",
]

#: What every benchmark gets; they use less than 1 MiB.
RAM_SIZE = 4 << 20
_BUDGET = 50_000_000
_SOURCES = Path(sw_vmm.guests.__file__).parent
_PROJECT = Path(__file__).resolve().parents[1]
#: Every recorded measurement; the newest of a configuration is what the machine does today.
HISTORY_FILE = _PROJECT / "docs" / "data" / "bench.json"
#: cycles, instructions, a count per event counter, the kernel's result (bench.c).
_SIGNATURE = struct.Struct(f"<2Q{len(HPM_COUNTERS)}QQ")


@dataclass(frozen=True)
class Benchmark:
    """A kernel in ``sw_vmm/guests/bench``; ``fits``: its code and data fit the default caches."""

    name: str
    text: str
    fits: bool = True


#: By name.
BENCHMARKS = {
    row.name: row
    for row in (
        Benchmark("integer", "shifts, logic, multiplications, some divisions"),
        Benchmark("sort", "quicksort of 1500 random words"),
        Benchmark("crc", "CRC-32 by table, byte by byte"),
        Benchmark("matrix", "product of two 26 x 26 matrices"),
        Benchmark("string", "length, comparison, search, reversal"),
        Benchmark("chase", "pointers through 128 KiB", fits=False),
        Benchmark("state_machine", "cutting text into tokens"),
        Benchmark("copy", "copies within the cache and beyond", fits=False),
        Benchmark("recursion", "calls and returns"),
    )
}


@dataclass(frozen=True)
class Measurement:
    """What the counters held after the kernel: cycles = instructions + the sum of ``stalls``."""

    cycles: int
    instructions: int
    stalls: Mapping[str, int]
    events: Mapping[str, int]

    @property
    def ipc(self) -> float:
        return self.instructions / self.cycles


def build_benchmark(name: str) -> Path:
    """The ELF file of a benchmark, built from source at first use."""
    folder = _SOURCES / "bench"
    return build_program(
        name,
        [folder / "start.S", folder / "bench.c", folder / f"{name}.c"],
        script=_SOURCES / "bare.ld",
        headers=[folder / "bench.h"],
        defines=platform_defines(),
        flags=("-Wall", "-Wextra", "-Werror", "-fwrapv"),
    )


def measure(name: str, run: Callable[[Guest], Run]) -> Measurement:
    """Run a benchmark as often as it takes to count every event; ``run`` resets its machine.

    Raises VmxlabError when the kernel's result is wrong, or when two runs differ in cycles.
    """
    path = build_benchmark(name)
    options = GuestOptions(ram_size=RAM_SIZE, cycles=_BUDGET)
    guest = bare_program(path, options)
    counts, totals = {}, set()
    for first in range(0, len(PERFORMANCE_EVENTS), len(HPM_COUNTERS)):
        events = PERFORMANCE_EVENTS[first : first + len(HPM_COUNTERS)]
        cycles, instructions, values = _measure_once(name, guest, events, run)
        totals.add((cycles, instructions))
        counts |= {event.name: value for event, value in zip(events, values, strict=True)}
    if len(totals) > 1:
        raise VmxlabError(f"benchmark {name}: runs differ in cycles: {sorted(totals)}")
    stalls = {event.name.removeprefix("stall_"): counts.pop(event.name) for event in STALLS}
    return Measurement(cycles, instructions, stalls, counts)


def _measure_once(
    name: str, guest: Guest, events: Sequence[PerformanceEvent], run: Callable[[Guest], Run]
) -> tuple[int, int, tuple[int, ...]]:
    selected = [event.number for event in events]
    selected += [0] * (len(HPM_COUNTERS) - len(selected))
    image = guest.images[0]
    table = struct.pack(f"<{len(selected)}Q", *selected)
    patch = Image(image.entry, ((image.symbols["bench_events"], table),))
    done = run(replace(guest, images=(image, patch)))
    outcome = done.result.outcome
    if not outcome.finished:
        raise VmxlabError(f"benchmark {name} did not end within {guest.cycles} cycles")
    if outcome.exit_code:
        raise VmxlabError(f"benchmark {name} failed with exit code {outcome.exit_code}")
    cycles, instructions, *counts, _ = _SIGNATURE.unpack_from(done.signature)
    return cycles, instructions, tuple(counts[: len(events)])


def mean_ipc(measurements: Mapping[str, Measurement]) -> float | None:
    """Arithmetic mean over the benchmarks that fit the caches; None without any."""
    fitting = [found.ipc for name, found in measurements.items() if BENCHMARKS[name].fits]
    return sum(fitting) / len(fitting) if fitting else None


# Tables.

_HEADINGS = {
    "instruction_cache": "I$",
    "instruction_tlb": "ITLB",
    "load_use": "load-use",
    "data_cache": "D$",
    "data_tlb": "DTLB",
}
_PER_THOUSAND = {
    "branch": "branches",
    "branch_taken": "taken",
    "jump": "jumps",
    "mispredict": "mispredicts",
    "load": "loads",
    "store": "stores",
    "instruction_cache_miss": "I$ misses",
    "data_cache_miss": "D$ misses",
}


def stall_table(measurements: Mapping[str, Measurement]) -> Table:
    """Cycles, IPC, and where the cycles without an instruction went; causes nobody has left out."""
    causes = [
        cause
        for cause in (event.name.removeprefix("stall_") for event in STALLS)
        if any(found.stalls[cause] for found in measurements.values())
    ]
    rows = tuple(
        (
            name,
            str(found.cycles),
            str(found.instructions),
            f"{found.ipc:.3f}",
            *(f"{100 * found.stalls[cause] / found.cycles:.1f}" for cause in causes),
        )
        for name, found in measurements.items()
    )
    mean = mean_ipc(measurements)
    return Table(
        "Cycles by benchmark; stalls in percent of the cycles",
        (
            "benchmark",
            "cycles",
            "instructions",
            "IPC",
            *(_HEADINGS.get(cause, cause) for cause in causes),
        ),
        rows,
        "" if mean is None else f"Mean IPC of the benchmarks that fit the caches: {mean:.3f}",
    )


def event_table(measurements: Mapping[str, Measurement]) -> Table:
    """How often things happen."""
    rows = tuple(
        (
            name,
            *(f"{1000 * found.events[key] / found.instructions:.1f}" for key in _PER_THOUSAND),
        )
        for name, found in measurements.items()
    )
    columns = ("benchmark", *_PER_THOUSAND.values())
    return Table("Events per thousand instructions", columns, rows)


# Documents.

# fmt: off
#: ``vmxlab bench --json``.
BENCH_SCHEMA = Schema("vmxlab.bench/1", (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("machine", "object", "What ran the benchmarks."),
    SchemaRow("machine.revision", "string or null", "Git revision of vmxlab, `-dirty` when changed; null outside a checkout."),
    SchemaRow("machine.configuration_name", "string or null", "Name of the configuration; null when it has none."),
    SchemaRow("machine.configuration", "object", "Parameters of the SoC."),
    SchemaRow("machine.configuration.*", "integer or boolean", "One parameter (`SocConfig`)."),
    SchemaRow("machine.simulator", "string", "Name and version of the simulator."),
    SchemaRow("compiler", "string", "Name and version of the compiler of the benchmarks."),
    SchemaRow("mean_ipc", "number or null", "Mean IPC of those run that fit the caches; null when none does."),
    SchemaRow("benchmarks", "object", "By name."),
    SchemaRow("benchmarks.*", "object", "One benchmark; cycles = instructions + all stalls."),
    SchemaRow("benchmarks.*.fits", "boolean", "Its code and data fit the default caches."),
    SchemaRow("benchmarks.*.cycles", "integer", "Cycles of the kernel, from cold caches."),
    SchemaRow("benchmarks.*.instructions", "integer", "Instructions retired in the kernel."),
    SchemaRow("benchmarks.*.ipc", "number", "Instructions per cycle."),
    SchemaRow("benchmarks.*.stalls", "object", "Cycles in which no instruction retired, by cause."),
    SchemaRow("benchmarks.*.stalls.*", "integer", "Cycles of one cause (`rtl/arch/performance.py`)."),
    SchemaRow("benchmarks.*.events", "object", "How often each other event happened."),
    SchemaRow("benchmarks.*.events.*", "integer", "Number of one event (`rtl/arch/performance.py`)."),
))
#: ``docs/data/bench.json``.
HISTORY_SCHEMA = Schema("vmxlab.bench-history/1", (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("command", "string", "The command that adds a measurement."),
    SchemaRow("measurements", "list", "The newest last."),
    SchemaRow("measurements.*.date", "string", "Day of the measurement, in UTC."),
    SchemaRow("measurements.*.revision", "string or null", "Git revision it was made on; `-dirty`: on changes that were committed with it."),
    SchemaRow("measurements.*.compiler", "string", "Name and version of the compiler of the benchmarks."),
    SchemaRow("measurements.*.configuration", "object", "Parameters of the SoC."),
    SchemaRow("measurements.*.configuration.*", "integer or boolean", "One parameter (`SocConfig`)."),
    SchemaRow("measurements.*.results", "object", "By benchmark."),
    SchemaRow("measurements.*.results.*", "object", "One benchmark."),
    SchemaRow("measurements.*.results.*.cycles", "integer", "Cycles of the kernel, from cold caches."),
    SchemaRow("measurements.*.results.*.instructions", "integer", "Instructions retired in the kernel."),
    SchemaRow("measurements.*.results.*.stalls", "object", "Causes of the other cycles; what is not named is 0."),
    SchemaRow("measurements.*.results.*.stalls.*", "integer", "Cycles of one cause."),
))
# fmt: on


def _compiler_name() -> str:
    return f"ziglang {compiler_version()}"


def bench_document(
    measurements: Mapping[str, Measurement], config: SocConfig, simulator: str
) -> dict:
    """The JSON object of a run of ``vmxlab bench``."""
    mean = mean_ipc(measurements)
    return {
        "schema": BENCH_SCHEMA.name,
        "machine": {
            "revision": git_revision(),
            "configuration_name": config.name,
            "configuration": config.as_dict(),
            "simulator": simulator,
        },
        "compiler": _compiler_name(),
        "mean_ipc": None if mean is None else round(mean, 4),
        "benchmarks": {
            name: {
                "fits": BENCHMARKS[name].fits,
                "cycles": found.cycles,
                "instructions": found.instructions,
                "ipc": round(found.ipc, 4),
                "stalls": dict(found.stalls),
                "events": dict(found.events),
            }
            for name, found in measurements.items()
        },
    }


def _result(found: Measurement) -> dict:
    stalls = {cause: count for cause, count in found.stalls.items() if count}
    return {"cycles": found.cycles, "instructions": found.instructions, "stalls": stalls}


def load_history(path: Path = HISTORY_FILE) -> dict:
    """The record, empty when there is none yet. Raises VmxlabError when it cannot be read."""
    if not path.exists():
        return {
            "schema": HISTORY_SCHEMA.name,
            "command": "vmxlab bench --record",
            "measurements": [],
        }
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise VmxlabError(f"cannot read {path}: {error}") from error


def _newest(history: dict, configuration: Mapping[str, int | bool]) -> dict | None:
    rows = [row for row in history["measurements"] if row["configuration"] == dict(configuration)]
    return rows[-1] if rows else None


def changes(
    history: dict, measurements: Mapping[str, Measurement], configuration: Mapping[str, int | bool]
) -> list[str]:
    """What is not as recorded for this configuration, one sentence each."""
    newest = _newest(history, configuration)
    if newest is None:
        return ["nothing is recorded for this configuration"]
    found = []
    for name, measurement in measurements.items():
        recorded, now = newest["results"].get(name), _result(measurement)
        if recorded is None:
            found.append(f"{name}: not recorded")
            continue
        for key in ("cycles", "instructions"):
            was, is_ = recorded[key], now[key]
            if was != is_:
                found.append(
                    f"{name}: {is_} {key}, recorded {was} ({100 * (is_ - was) / was:+.2f} %)"
                )
        if not found and recorded["stalls"] != now["stalls"]:
            found.append(f"{name}: stalls {now['stalls']}, recorded {recorded['stalls']}")
    return found


def record(
    history: dict,
    measurements: Mapping[str, Measurement],
    configuration: Mapping[str, int | bool],
    *,
    date: str,
    revision: str | None,
) -> dict:
    """The history with a measurement added, unless it is as recorded.

    It takes the place of one made on changes to the same revision, which were not committed yet.
    """
    if not changes(history, measurements, configuration):
        return history
    row = {
        "date": date,
        "revision": revision,
        "compiler": _compiler_name(),
        "configuration": dict(configuration),
        "results": {name: _result(found) for name, found in measurements.items()},
    }
    rows = [old for old in history["measurements"] if not _replaces(row, old)]
    return history | {"measurements": [*rows, row]}


def _replaces(row: dict, old: dict) -> bool:
    if row["revision"] is None or row["configuration"] != old["configuration"]:
        return False
    return row["revision"].removesuffix("-dirty") == (old["revision"] or "").removesuffix("-dirty")

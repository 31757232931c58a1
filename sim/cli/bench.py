"""vmxlab bench: the benchmarks, in cycles, with the causes of their stalls."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from sim.benchmarks import (
    BENCH_SCHEMA,
    BENCHMARKS,
    HISTORY_FILE,
    HISTORY_SCHEMA,
    RAM_SIZE,
    bench_document,
    changes,
    event_table,
    load_history,
    measure,
    record,
    stall_table,
)
from sim.cli.options import UsageError, add_configuration_option
from sim.cli.session import open_machine, run_guest
from sim.errors import VmxlabError
from sim.profile import print_table
from sim.results import git_revision, simulator_name, write_json

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="run the benchmarks and show cycles, IPC and stalls",
        description="Run benchmarks natively. Benchmarks: "
        + "; ".join(f"{row.name} ({row.text})" for row in BENCHMARKS.values())
        + ".",
    )
    parser.add_argument(
        "names", metavar="NAME", nargs="*", type=_name, help="benchmarks to run (default all)"
    )
    add_configuration_option(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result")
    parser.add_argument(
        "--record",
        action="store_true",
        help=f"make this what is expected: add it to {HISTORY_FILE.name} of a checkout",
    )
    parser.set_defaults(command=_bench)


def _name(text: str) -> str:
    if text not in BENCHMARKS:
        raise argparse.ArgumentTypeError(
            f"no benchmark {text!r}; there are {', '.join(BENCHMARKS)}"
        )
    return text


def _bench(arguments: argparse.Namespace) -> int:
    if arguments.record and arguments.names:
        raise UsageError("--record takes all benchmarks, so no NAME")
    files = [arguments.json] if arguments.json else []
    if arguments.record:
        files.append(HISTORY_FILE)
    for path in files:
        if not path.absolute().parent.is_dir():
            raise VmxlabError(f"cannot write {path}: no such folder")
    configuration = arguments.config.as_dict()
    machine = open_machine(RAM_SIZE, arguments.config)
    measurements = {}
    for name in dict.fromkeys(arguments.names) or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        measurements[name] = measure(
            name, lambda guest: run_guest(machine, guest, "native", quiet=True)
        )
    if arguments.json:
        document = bench_document(measurements, arguments.config, simulator_name())
        write_json(arguments.json, document, [BENCH_SCHEMA])
    print_table(stall_table(measurements), sys.stdout)
    print()
    print_table(event_table(measurements), sys.stdout)
    if not HISTORY_FILE.parent.is_dir():
        return 0
    history = load_history()
    found = changes(history, measurements, configuration)
    print()
    for sentence in found:
        print(f"changed: {sentence}")
    if not found:
        print("all as recorded")
    if arguments.record:
        today = datetime.now(UTC).date().isoformat()
        history = record(history, measurements, configuration, date=today, revision=git_revision())
        write_json(HISTORY_FILE, history, [HISTORY_SCHEMA])
    return 0

"""make split: the simulator built with and without Verilator's splitting does the same.

Splitting of always blocks was seen to break another core.
"""

import argparse
import dataclasses
import sys
from importlib.metadata import version
from pathlib import Path

from rtl.soc.config import CONFIGURATIONS
from sim.benchmarks import BENCHMARKS, build_benchmark
from sim.errors import VmxlabError
from sim.guests import GUESTS, Guest, GuestOptions, bare_program
from sim.host_machine import HostPortMachine, MachineConfig
from sim.model import library_file
from sim.profile import Table, print_table
from sim.progress import progress
from sim.results import Schema, SchemaRow, git_revision, write_json
from sim.verilated import Verilated
from sw_vmm.vm import MONITOR_SIZE
from tests.programs.directed import PROGRAMS, build_directed
from tests.split.comparison import SLICE, Comparison, compare

__all__ = ["SPLIT_SCHEMA", "main"]

RECORD = Path(__file__).resolve().parents[2] / "docs/data/split.json"
_RAM_SIZE = 64 << 20
_SMALL = 4 << 20
_CYCLES = 100_000_000
# fmt: off
SPLIT_SCHEMA = Schema("vmxlab.split/1", (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("command", "string", "The command that makes this document."),
    SchemaRow("revision", "string or null", "Git revision of vmxlab, `-dirty` when changed; null outside a checkout."),
    SchemaRow("verilator", "string", "Version of Verilator."),
    SchemaRow("flag", "string", "What the second build gets besides the flags of the first."),
    SchemaRow("configuration", "string", "Name of the machine's configuration."),
    SchemaRow("slice", "integer", "Cycles of one comparison."),
    SchemaRow("runs", "list", "The guests, each run on both builds."),
    SchemaRow("runs.*.guest", "string", "Name of the guest."),
    SchemaRow("runs.*.technique", "string", "How it was virtualized."),
    SchemaRow("runs.*.cycles", "integer", "Machine cycles it ran on the first build."),
    SchemaRow("runs.*.slices", "integer", "Comparisons."),
    SchemaRow("runs.*.digest", "string", "SHA-256 of all that was compared."),
    SchemaRow("runs.*.identical", "boolean", "Both builds have shown the same."),
    SchemaRow("runs.*.first", "integer or null", "The cycle in which they part; null when they do not, or only in RAM or counters at the end."),
))
# fmt: on
FLAG = "-fno-split"
CONFIGURATION = "full"


def guests(chosen: str, say) -> list[tuple[Guest, str]]:
    """The guests with ``chosen`` in their name, and how they are virtualized."""
    small = GuestOptions(ram_size=_SMALL, cycles=_CYCLES)
    makers = [
        ("hello", "native", lambda: GUESTS["hello"].load(small, say)),
        ("hello", "trap-emulate", lambda: GUESTS["hello"].load(small, say)),
        *(
            (name, "native", lambda name=name: bare_program(build_directed(name), small))
            for name in PROGRAMS
        ),
        *(
            (name, "native", lambda name=name: bare_program(build_benchmark(name), small))
            for name in BENCHMARKS
        ),
        (
            "u-boot",
            "native",
            lambda: GUESTS["u-boot"].load(GuestOptions(ram_size=_RAM_SIZE), say),
        ),
    ]
    return [(make(), technique) for name, technique, make in makers if chosen in name]


def machines() -> list[HostPortMachine]:
    """The machine, built with and without splitting."""
    config = CONFIGURATIONS[CONFIGURATION]
    size = _RAM_SIZE + MONITOR_SIZE
    whole = MachineConfig(**config.as_dict(), ram_size=size)
    libraries = [library_file(config, flags=flags) for flags in ((), (FLAG,))]
    if len(set(libraries)) < len(libraries):
        raise VmxlabError("both builds are the same library")
    return [
        HostPortMachine(
            Verilated(library, ram_size=size, cycles_per_tick=config.cycles_per_tick), whole
        )
        for library in libraries
    ]


def document(found: list[Comparison]) -> dict:
    """The comparisons as ``SPLIT_SCHEMA`` describes them."""
    return {
        "schema": SPLIT_SCHEMA.name,
        "command": "make split",
        "revision": git_revision(),
        "verilator": version("verilator"),
        "flag": FLAG,
        "configuration": CONFIGURATION,
        "slice": SLICE,
        "runs": [dataclasses.asdict(each) for each in found],
    }


def main(arguments: list[str] | None = None) -> int:
    """Compare; the value is the exit code: 0, 1 for a difference or a failure, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.split", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="guests with this in their name")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name} in docs/data")
    chosen = parser.parse_args(arguments)
    found = []
    try:
        pair = machines()
        with progress("Comparing") as say:
            for guest, technique in guests(chosen.only, lambda text: say(text)):
                say(f"{guest.name} under {technique}")
                found.append(compare(pair, guest, technique))
        if not found:
            raise VmxlabError(f"no guest has {chosen.only!r} in its name")
        if chosen.record:
            write_json(RECORD, document(found), [SPLIT_SCHEMA])
    except VmxlabError as error:
        print(f"vmxlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nvmxlab: interrupted", file=sys.stderr)
        return 130
    rows = tuple(
        (
            f"{each.guest}, {each.technique}",
            str(each.cycles),
            str(each.slices),
            "identical"
            if each.identical
            else f"differs{'' if each.first is None else f' in cycle {each.first}'}",
        )
        for each in found
    )
    columns = ("guest", "cycles", "comparisons", f"with and without {FLAG}")
    print_table(Table("", columns, rows), sys.stdout)
    return 0 if all(each.identical for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())

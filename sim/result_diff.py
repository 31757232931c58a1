"""What changed from one result document to another: cycles, exits and means, one by one."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sim.benchmarks import BENCH_SCHEMA
from sim.errors import VmxlabError
from sim.profile import Table
from sim.results import COMPARE_SCHEMA, RUN_SCHEMA, Schema, SchemaRow, violations

__all__ = [
    "DIFF_SCHEMA",
    "Change",
    "ResultDiff",
    "diff_document",
    "diff_results",
    "diff_table",
    "failed",
    "load_result",
]

_SCHEMAS = {schema.name: schema for schema in (RUN_SCHEMA, COMPARE_SCHEMA, BENCH_SCHEMA)}
_CYCLES = ("total", "guest", "transition", "walk", "charged")
_OUTCOME = (
    "finished",
    "text_seen",
    "exit_code",
    "console_sha256",
    "virtio_console_sha256",
    "signature_sha256",
)

# fmt: off
#: ``vmxlab diff --json``.
DIFF_SCHEMA = Schema("vmxlab.diff/1", (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("fail_above", "number or null", "The threshold in percent, if one was given."),
    SchemaRow("worst_percent", "number or null", "The largest growth; null when nothing can be compared in percent."),
    SchemaRow("failed", "boolean", "Something grew beyond the threshold, or outcomes differ."),
    SchemaRow("notes", "list", "What else differs: configuration, images, names on one side only."),
    SchemaRow("notes.*", "string", "One sentence."),
    SchemaRow("differences", "list", "Outcomes that differ."),
    SchemaRow("differences.*", "string", "One sentence."),
    SchemaRow("changes", "list", "Every number that both documents can have."),
    SchemaRow("changes.*.measure", "string", "Where it stands in the document, behind the technique in a comparison."),
    SchemaRow("changes.*.before", "number or null", "The first document's; null when it has none."),
    SchemaRow("changes.*.after", "number or null", "The second document's; null when it has none."),
    SchemaRow("changes.*.percent", "number or null", "Growth; null when there is nothing to divide by."),
))
# fmt: on


@dataclass(frozen=True)
class Change:
    """One number in both documents; None where a document does not have it."""

    measure: str
    before: float | None
    after: float | None

    @property
    def percent(self) -> float | None:
        if self.before is None or self.after is None:
            return None
        if self.before == self.after:
            return 0.0
        return 100 * (self.after - self.before) / self.before if self.before else None

    def exceeds(self, percent: float) -> bool:
        """It grew by more than so many percent; from nothing to something always does."""
        if self.before is None or self.after is None:
            return False
        return 100 * (self.after - self.before) > percent * self.before


@dataclass(frozen=True)
class ResultDiff:
    """All changes; ``differences`` are outcomes that differ, ``notes`` what else does."""

    changes: tuple[Change, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]

    def failures(self, percent: float) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.exceeds(percent))

    @property
    def worst_percent(self) -> float | None:
        known = [change.percent for change in self.changes if change.percent is not None]
        return max(known, default=None)


def load_result(path: Path) -> dict:
    """A document of ``vmxlab run``, ``compare`` or ``bench``. Raises VmxlabError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VmxlabError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise VmxlabError(f"{path}: not a JSON document") from error
    name = document.get("schema") if isinstance(document, dict) else None
    schema = _SCHEMAS.get(name) if isinstance(name, str) else None
    if schema is None:
        raise VmxlabError(
            f"{path}: not a result that can be compared (schema {name!r}; "
            f"there are {', '.join(_SCHEMAS)})"
        )
    wrong = violations(document, schema)
    if wrong:
        raise VmxlabError(f"{path}: not as {schema.name} should be: {wrong[0]}")
    return document


def diff_results(before: dict, after: dict) -> ResultDiff:
    """Compare two documents of one kind and one guest. Raises VmxlabError when they are not."""
    kinds = before["schema"], after["schema"]
    if kinds[0] != kinds[1]:
        raise VmxlabError(f"{kinds[0]} and {kinds[1]} have nothing to compare")
    guests = before.get("guest"), after.get("guest")
    if guests[0] != guests[1]:
        raise VmxlabError(f"results of different guests: {guests[0]} and {guests[1]}")
    if kinds[0] == COMPARE_SCHEMA.name:
        return _diff_comparisons(before, after)
    if kinds[0] == RUN_SCHEMA.name:
        return _diff_runs(before, after)
    notes = _machine_notes(before, after)
    if before["compiler"] != after["compiler"]:
        notes.append(f"compilers {before['compiler']} and {after['compiler']}")
    one, two = (
        {name: row["cycles"] for name, row in document["benchmarks"].items()}
        for document in (before, after)
    )
    changes = tuple(_pair(one, two, "benchmarks.{}.cycles"))
    return ResultDiff(changes, (), (*notes, *_missing(one, two, "benchmark")))


def _diff_comparisons(before, after):
    one, two = ({run["technique"]: run for run in document["runs"]} for document in (before, after))
    changes, differences = [], []
    notes = _missing(one, two, "technique")
    for technique in one:
        if technique not in two:
            continue
        diff = _diff_runs(one[technique], two[technique])
        changes += [
            Change(f"{technique}: {row.measure}", row.before, row.after) for row in diff.changes
        ]
        differences += [f"{technique}: {text}" for text in diff.differences]
        notes += [text for text in diff.notes if text not in notes]
    if not changes:
        raise VmxlabError("the comparisons have no technique in common")
    return ResultDiff(tuple(changes), tuple(differences), tuple(notes))


def _diff_runs(before, after):
    changes = [
        Change(f"cycles.{name}", before["cycles"][name], after["cycles"][name]) for name in _CYCLES
    ]
    changes.append(Change("instructions", before["instructions"], after["instructions"]))
    for reason in _union(before["exits"], after["exits"]):
        one, two = (document["exits"].get(reason) for document in (before, after))
        counts = (row["count"] if row else 0 for row in (one, two))
        means = (row["cycles"]["mean"] if row else None for row in (one, two))
        changes.append(Change(f"exits.{reason}.count", *counts))
        changes.append(Change(f"exits.{reason}.cycles.mean", *means))
    programs = tuple(
        {name: row["cycles"] for name, row in document["programs"].items()}
        for document in (before, after)
    )
    changes += _pair(*programs, "programs.{}.cycles")
    notes = [*_machine_notes(before, after), *_missing(*programs, "program")]
    if before["images"] != after["images"]:
        notes.append("the images of the guest differ")
    for name in ("technique", "charge"):
        if before[name] != after[name]:
            notes.append(f"{name}: {before[name]} and {after[name]}")
    differences = [
        f"{name}: {before['outcome'][name]} and {after['outcome'][name]}"
        for name in _OUTCOME
        if before["outcome"][name] != after["outcome"][name]
    ]
    return ResultDiff(tuple(changes), tuple(differences), tuple(notes))


def _union(one, two) -> list[str]:
    return list(dict.fromkeys([*one, *two]))


def _pair(one, two, measure) -> Iterator[Change]:
    for name in _union(one, two):
        yield Change(measure.format(name), one.get(name), two.get(name))


def _missing(one, two, what) -> list[str]:
    return [
        f"{what} {name} is in the {'first' if name in one else 'second'} document only"
        for name in _union(one, two)
        if (name in one) != (name in two)
    ]


def _machine_notes(before, after) -> list[str]:
    one, two = (document["machine"] for document in (before, after))
    flat = [
        {**{name: machine.get(name) for name in ("ram_size", "simulator")}, **parameters}
        for machine, parameters in ((one, one["configuration"]), (two, two["configuration"]))
    ]
    return [
        f"{name}: {flat[0].get(name)} and {flat[1].get(name)}"
        for name in _union(*flat)
        if flat[0].get(name) != flat[1].get(name)
    ]


def diff_document(diff: ResultDiff, fail_above: float | None) -> dict:
    """The JSON object of a diff."""
    return {
        "schema": DIFF_SCHEMA.name,
        "fail_above": fail_above,
        "worst_percent": diff.worst_percent,
        "failed": failed(diff, fail_above),
        "notes": list(diff.notes),
        "differences": list(diff.differences),
        "changes": [{**asdict(row), "percent": row.percent} for row in diff.changes],
    }


def failed(diff: ResultDiff, fail_above: float | None) -> bool:
    """Outcomes differ, or something grew by more than the threshold, if there is one."""
    return bool(diff.differences or (fail_above is not None and diff.failures(fail_above)))


def diff_table(before: str, after: str, diff: ResultDiff) -> Table:
    """The changes for people; numbers that are the same in both are left out."""
    rows = tuple(
        (row.measure, _number(row.before), _number(row.after), _growth(row))
        for row in diff.changes
        if row.before != row.after
    )
    same = len(diff.changes) - len(rows)
    return Table(
        title=f"From {before} to {after}",
        columns=("", "before", "after", "change"),
        rows=rows,
        footer=f"{same} of {len(diff.changes)} numbers are the same.",
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value}" if isinstance(value, int) else f"{value:.1f}"


def _growth(row: Change) -> str:
    if row.percent is not None:
        return f"{row.percent:+.2f}%"
    return "-" if row.before is None or row.after is None else "new"

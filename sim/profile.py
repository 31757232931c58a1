"""Tables for people: the exit profile in the manner of ``perf kvm stat``, and the comparison."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from sim.program_costs import ProgramCost
from sw_vmm.result import ExitStatistics, Result

__all__ = [
    "ProfileRow",
    "Table",
    "comparison_table",
    "exits_table",
    "print_table",
    "profile_rows",
    "profile_table",
    "programs_table",
]


@dataclass(frozen=True)
class Table:
    """Cells are text already; the first column is set left, the others right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footer: str = ""

    def plain(self) -> str:
        """Aligned text, one line per row, for files and pipes."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        text = [self.title, ""] if self.title else []
        for line in lines:
            cells = [line[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            text.append("  ".join(cells).rstrip())
        if self.footer:
            text += ["", self.footer]
        return "\n".join(text) + "\n"


def print_table(table: Table, file: TextIO) -> None:
    """Print with rich on a terminal that is wide enough, as plain aligned text otherwise."""
    if not file.isatty():
        file.write(table.plain())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(file=file)
    plain = table.plain()
    # rich would cut cells short; its columns are two characters wider than ours, at most.
    if max(map(len, plain.splitlines())) + 2 * len(table.columns) > console.width:
        file.write(plain)
        return
    shown = RichTable(
        title=table.title or None,
        caption=table.footer or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for place, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown, markup=False)


@dataclass(frozen=True)
class ProfileRow:
    """One exit reason; times in cycles, shares of all exits in percent."""

    reason: str
    samples: int
    samples_percent: float
    time: float
    time_percent: float
    min: int
    max: int
    mean: float


def profile_rows(exits: dict[str, ExitStatistics]) -> list[ProfileRow]:
    """One row per reason, the most frequent first."""
    samples = sum(row.count for row in exits.values())
    time = sum(row.count * row.cycles.mean for row in exits.values())
    rows = [
        ProfileRow(
            reason=reason,
            samples=row.count,
            samples_percent=100 * row.count / samples,
            time=row.count * row.cycles.mean,
            time_percent=100 * row.count * row.cycles.mean / time if time else 0.0,
            min=row.cycles.min,
            max=row.cycles.max,
            mean=row.cycles.mean,
        )
        for reason, row in exits.items()
        if row.count
    ]
    return sorted(rows, key=lambda row: (-row.samples, row.reason))


def profile_table(guest: str, result: Result) -> Table:
    """The exits of one run, in the columns of ``perf kvm stat report``."""
    rows = profile_rows(result.exits)
    samples = sum(row.samples for row in rows)
    time = round(sum(row.time for row in rows))
    return Table(
        title=f"Analyze events for {guest} under {result.technique}:",
        columns=("VM-EXIT", "Samples", "Samples%", "Time%", "Min Time", "Max Time", "Avg time"),
        rows=tuple(
            (
                row.reason,
                f"{row.samples}",
                f"{row.samples_percent:.2f}%",
                f"{row.time_percent:.2f}%",
                f"{row.min}",
                f"{row.max}",
                f"{row.mean:.1f}",
            )
            for row in rows
        ),
        footer=f"Total Samples: {samples}, total events handled time: {time} cycles.",
    )


def programs_table(
    guest: str, programs: Mapping[str, Mapping[str, ProgramCost]], reference: str = "native"
) -> Table | None:
    """The guest's user programs by technique, in cycles; None when no technique has any.

    Behind the cycles stands the slowdown against ``reference``, when that is among the techniques.
    """
    names = list(dict.fromkeys(name for costs in programs.values() for name in costs))
    if not names:
        return None

    def cell(name: str, technique: str) -> str:
        cost = programs[technique].get(name)
        if cost is None:
            return "-"
        base = programs.get(reference, {}).get(name)
        if technique == reference or base is None or not base.cycles:
            return f"{cost.cycles}"
        return f"{cost.cycles} ({cost.cycles / base.cycles:.3f}x)"

    return Table(
        title=f"User programs of {guest}, in cycles",
        columns=("program", *programs),
        rows=tuple((name, *(cell(name, technique) for technique in programs)) for name in names),
    )


def exits_table(guest: str, results: Sequence[Result]) -> Table | None:
    """Exits by reason and technique: how many, and how many in a million guest instructions.

    None when no technique has any.
    """
    with_exits = [result for result in results if result.exits]
    if not with_exits:
        return None
    counts: dict[str, int] = {}
    for result in with_exits:
        for reason, row in result.exits.items():
            counts[reason] = counts.get(reason, 0) + row.count

    def cell(result: Result, reason: str) -> str:
        row = result.exits.get(reason)
        if row is None:
            return "-"
        rate = 1e6 * row.count / result.instructions if result.instructions else 0.0
        return f"{row.count} ({rate:.1f})"

    return Table(
        title=f"Exits of {guest}, in brackets per million instructions",
        columns=("VM-EXIT", *(result.technique for result in with_exits)),
        rows=tuple(
            (reason, *(cell(result, reason) for result in with_exits))
            for reason in sorted(counts, key=lambda reason: (-counts[reason], reason))
        ),
    )


def comparison_table(guest: str, results: Sequence[Result]) -> Table:
    """One column per technique; slowdown is against ``native``, when that is among them."""
    native = next((result for result in results if result.technique == "native"), None)

    def rate(result: Result) -> str:
        exits = sum(row.count for row in result.exits.values())
        return f"{1e6 * exits / result.instructions:.1f}" if result.instructions else "-"

    def slowdown(result: Result) -> str:
        return f"{result.cycles.total / native.cycles.total:.2f}x" if native else "-"

    # fmt: off
    rows: tuple[tuple[str, Callable[[Result], object]], ...] = (
        ("cycles, total", lambda result: result.cycles.total),
        ("  guest", lambda result: result.cycles.guest),
        ("    page walks", lambda result: result.cycles.walk),
        ("  transition", lambda result: result.cycles.transition),
        ("  charged", lambda result: result.cycles.charged),
        ("    idle", lambda result: result.cycles.idle),
        ("instructions", lambda result: result.instructions),
        ("exits", lambda result: sum(row.count for row in result.exits.values())),
        ("exits per million instructions", rate),
        ("slowdown", slowdown),
    )
    # fmt: on
    return Table(
        title=f"{guest} under {len(results)} techniques",
        columns=("", *(result.technique for result in results)),
        rows=tuple((name, *(str(value(result)) for result in results)) for name, value in rows),
    )

"""Tables: numbers recomputed here from the samples themselves."""

import io
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.profile import (
    Table,
    comparison_table,
    exits_table,
    print_table,
    profile_rows,
    profile_table,
    programs_table,
)
from sim.program_costs import ProgramCost
from sw_vmm.result import Cycles, ExitStatistics, Outcome, Result, Spread

SAMPLES = st.dictionaries(
    st.sampled_from(["csr_read", "csr_write", "mmio_read", "mmio_write", "ecall", "wfi", "mret"]),
    st.lists(st.integers(1, 10_000), min_size=1, max_size=30),
    min_size=1,
)


def statistics(samples):
    counts = {}
    for value in samples:
        counts[value] = counts.get(value, 0) + 1
    return ExitStatistics(len(samples), Spread.of(counts), sum(samples) // 2)


def result(technique="trap-emulate", exits=None, total=1000, instructions=500, exit_code=0):
    return Result(
        technique,
        Outcome(True, exit_code, b"hello\n"),
        Cycles(total, total // 2, total // 4, 3, total // 4),
        instructions,
        exits or {},
    )


@given(SAMPLES)
def test_rows_agree_with_the_samples(samples):
    rows = profile_rows({reason: statistics(values) for reason, values in samples.items()})
    count = sum(map(len, samples.values()))
    time = sum(map(sum, samples.values()))
    assert [row.samples for row in rows] == sorted(map(len, samples.values()), reverse=True)
    for row in rows:
        values = samples[row.reason]
        assert (row.samples, row.min, row.max) == (len(values), min(values), max(values))
        assert row.mean == pytest.approx(fmean(values))
        assert row.samples_percent == pytest.approx(100 * len(values) / count)
        assert row.time_percent == pytest.approx(100 * sum(values) / time)
    assert sum(row.samples_percent for row in rows) == pytest.approx(100)
    assert sum(row.time_percent for row in rows) == pytest.approx(100)


@given(SAMPLES)
def test_profile_reads_like_perf(samples):
    exits = {reason: statistics(values) for reason, values in samples.items()}
    text = profile_table("hello", result(exits=exits)).plain()
    lines = text.splitlines()
    assert lines[0] == "Analyze events for hello under trap-emulate:"
    assert lines[2].split()[:4] == ["VM-EXIT", "Samples", "Samples%", "Time%"]
    assert f"Total Samples: {sum(map(len, samples.values()))}" in lines[-1]
    named = {line.split()[0] for line in lines[3:-2]}
    assert named == set(samples)


def test_run_without_exits_has_an_empty_profile():
    assert profile_rows({}) == []
    assert "Total Samples: 0" in profile_table("hello", result("native")).plain()


def cells(table):
    """By row name and technique."""
    return {
        (row[0].strip(), technique): cell
        for row in table.rows
        for technique, cell in zip(table.columns[1:], row[1:], strict=True)
    }


def test_comparison_is_against_native():
    exits = {"ecall": statistics([10] * 5)}
    shown = cells(comparison_table("hello", [result("native"), result(exits=exits, total=2500)]))
    assert shown["slowdown", "native"] == "1.00x"
    assert shown["slowdown", "trap-emulate"] == "2.50x"
    assert shown["exits", "native"] == "0"
    assert shown["exits", "trap-emulate"] == "5"
    assert shown["exits per million instructions", "trap-emulate"] == "10000.0"
    assert shown["cycles, total", "trap-emulate"] == "2500"
    assert shown["charged", "trap-emulate"] == "625"
    alone = cells(comparison_table("hello", [result(exits=exits)]))
    assert alone["slowdown", "trap-emulate"] == "-"


@given(st.lists(st.lists(st.text("abc", max_size=9), min_size=3, max_size=3), max_size=5))
def test_plain_columns_line_up(rows):
    table = Table("", ("name", "one", "two"), tuple(map(tuple, rows)))
    lines = table.plain().splitlines()
    assert len(lines) == len(rows) + 1
    widths = [max(len(line[place]) for line in (table.columns, *rows)) for place in range(3)]
    for line, cells in zip(lines, (table.columns, *rows), strict=True):
        padded = line.ljust(sum(widths) + 4)
        assert padded[: widths[0]].rstrip() == cells[0]
        assert padded[widths[0] + 2 : widths[0] + 2 + widths[1]].strip() == cells[1]
        assert padded[-widths[2] :].strip() == cells[2] or not cells[2]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_terminal_and_pipe_show_the_same_cells():
    table = comparison_table("hello", [result("native"), result(total=3000)])
    terminal, pipe = Terminal(), io.StringIO()
    print_table(table, terminal)
    print_table(table, pipe)
    assert pipe.getvalue() == table.plain() != terminal.getvalue()
    for row in (table.columns, *table.rows):
        for cell in row:
            assert cell in pipe.getvalue()
            assert cell in terminal.getvalue()


def test_narrow_terminal_cuts_nothing_short(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    terminal = Terminal()
    print_table(comparison_table("hello", [result("native"), result(total=3000)]), terminal)
    assert "exits per million instructions" in terminal.getvalue()
    assert "trap-emulate" in terminal.getvalue()


def test_programs_stand_side_by_side():
    native = {"compute": ProgramCost(1000, 1), "forks": ProgramCost(200, 1)}
    other = {"compute": ProgramCost(1050, 1), "disk": ProgramCost(7, 1)}
    table = programs_table("tiny", {"native": native, "vmx-ept": other})
    assert table.columns == ("program", "native", "vmx-ept")
    assert table.rows == (
        ("compute", "1000", "1050 (1.050x)"),
        ("forks", "200", "-"),
        ("disk", "-", "7"),
    )
    assert programs_table("tiny", {"vmx-ept": other}).rows[0] == ("compute", "1050")
    assert programs_table("hello", {"native": {}}) is None


def test_exits_stand_side_by_side_with_their_rates():
    def exits(**counts):
        return {
            name: ExitStatistics(count, Spread(1, 1.0, 1, 1, 1), 0)
            for name, count in counts.items()
        }

    one = result(exits=exits(csr_read=4, mmio_read=2), instructions=2_000_000)
    other = result("vmx-ept", exits=exits(mmio_read=3), instructions=1_000_000)
    table = exits_table("hello", [result("native"), one, other])
    assert table.columns == ("VM-EXIT", "trap-emulate", "vmx-ept")
    assert table.rows == (("mmio_read", "2 (1.0)", "3 (3.0)"), ("csr_read", "4 (2.0)", "-"))
    assert exits_table("hello", [result("native")]) is None

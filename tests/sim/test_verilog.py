"""What is changed in Yosys' Verilog stands for the same bits."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.verilog import with_narrow_sums, with_registers, with_replications

_NAMES = st.sampled_from(["a", "\\b$1 "])


@st.composite
def _parts(draw):
    """Bits in a row, some of them repeated, written as Yosys writes them."""
    bits = []
    for _ in range(draw(st.integers(1, 6))):
        name, high = draw(_NAMES), draw(st.integers(0, 5))
        for place in range(high, draw(st.integers(0, high)) - 1, -1):
            bits += [(name, place)] * draw(st.integers(1, 4))
    parts = []
    while bits:
        name, high = bits[0]
        length = 1
        while length < len(bits) and bits[length] == (name, high - length):
            length += 1
        low = high - length + 1
        parts.append(f"{name}[{high}]" if length == 1 else f"{name}[{high}:{low}]")
        del bits[:length]
    return parts


def _bits(concatenation: str) -> list[tuple[str, int]]:
    """All bits of a concatenation with replications, the highest first."""
    bits = []
    for count, part in re.findall(r"(?:\{(\d+)\{ )?([^,{}]+\])", concatenation):
        name, high, low = re.fullmatch(r" *(.+)\[(\d+)(?::(\d+))?\]", part).groups()
        for _ in range(int(count or 1)):
            bits += [(name, place) for place in range(int(high), int(low or high) - 1, -1)]
    return bits


@given(_parts())
def test_a_concatenation_with_replications_has_the_same_bits(parts):
    written = f"{{ {', '.join(parts)} }}"
    assert _bits(with_replications(written)) == _bits(written)


def test_a_bit_that_repeats_is_written_once():
    # What Yosys makes of a[2] twice, a[1] three times and b.
    written = "assign c = { a[2], a[2:1], a[1], a[1], b };"
    assert with_replications(written) == "assign c = { {2{ a[2] }}, {3{ a[1] }}, b };"


def _module(*uses: str, value: str = "a + b") -> str:
    """A sum of 65 bits and what uses it, in a module as Yosys writes them."""
    return "\n".join(
        [
            "module m(a, b);",
            "  wire [64:0] \\$1 ;",
            "  wire [65:0] \\$2 ;",
            f"  assign \\$1  = {value};",
            *uses,
            "endmodule",
        ]
    )


@pytest.mark.parametrize(
    "uses",
    [
        ["    x <= \\$1 [63:0];"],
        ["  assign x = \\$1 [5];", "  assign y = \\$1 [63:6];"],
        # As far as the sum it goes into is used.
        ["  assign \\$2  = \\$1  + c;", "  assign x = \\$2 [63:0];"],
    ],
)
def test_a_sum_is_a_word_where_its_carry_is_not_used(uses):
    made = with_narrow_sums(_module(*uses))
    assert "  assign \\$1  = 64'(a) + 64'(b);\n" in made
    assert "  wire [63:0] \\$1 ;\n" in made
    assert "64:0" not in made


@pytest.mark.parametrize(
    ("uses", "value"),
    [
        (["    x <= \\$1 ;"], "a + b"),
        (["    x <= \\$1 [64:1];"], "a + b"),
        (["    x <= \\$1 [64];", "    y <= \\$1 [63:0];"], "a - b"),
        (["  assign \\$2  = \\$1  + c;", "  assign x = \\$2 [64:0];"], "a + b"),
        (["  assign \\$2  = { \\$1 , c } + c;", "  assign x = \\$2 [63:0];"], "a + b"),
        # One sign alone decides how neither is extended.
        (["    x <= \\$1 [63:0];"], "$signed(a) + b"),
    ],
)
def test_a_sum_stays_where_all_of_it_may_be_used(uses, value):
    module = _module(*uses, value=value)
    assert "  wire [64:0] \\$1 ;\n" in with_narrow_sums(module)
    assert f"  assign \\$1  = {value};" in with_narrow_sums(module)


_DECIDED = """\
module m(clk, enable, next);
  reg [7:0] \\$1 ;
  reg [7:0] kept;
  always @(posedge clk)
    kept <= \\$1 ;
  always @* begin
    if (\\$auto$verilog_backend.cc:2355:dump_module$1 ) begin end
    \\$1 [0] = kept[0];
    \\$1 [7:1] = next[7:1];
    if (enable) begin
      \\$1 [0] = 1'h1;
    end
    if (rst) begin
      \\$1  = 8'h00;
    end
  end
endmodule
"""


def test_a_register_is_assigned_where_its_next_value_is_decided():
    made = with_registers(_DECIDED)
    assert "always @*" not in made and "kept[0] <= kept[0];" not in made
    assert (
        made.split("  reg [7:0] kept;\n")[1]
        == """\
  always @(posedge clk) begin
    kept[7:1] <= next[7:1];
    if (enable) begin
      kept[0] <= 1'h1;
    end
    if (rst) begin
      kept <= 8'h00;
    end
  end
endmodule
"""
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Somebody else looks at the next value, or it is looked at on the way.
        ("endmodule", "  assign seen = \\$1 ;\nendmodule"),
        ("next[7:1]", "\\$1 [7:1]"),
        # It is not all that is decided there.
        ("    if (rst)", "    \\$2  = 1'h0;\n    if (rst)"),
        # Nothing takes it.
        ("    kept <= \\$1 ;", "    kept <= \\$3 ;"),
    ],
)
def test_what_is_more_than_a_register_stays(old, new):
    module = _DECIDED.replace(old, new)
    assert module != _DECIDED and with_registers(module) == module

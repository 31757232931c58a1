"""The Verilog of the top: what is changed in Yosys' text stands for the same bits."""

import re

from hypothesis import given
from hypothesis import strategies as st

from sim.top import with_replications

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

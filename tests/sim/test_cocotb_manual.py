"""docs/cocotb.md does what it says: its own code runs."""

import re
from pathlib import Path

import pytest

_MANUAL = Path(__file__).resolve().parents[2] / "docs" / "cocotb.md"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """The manual's bench_mine.py where the simulator finds it."""
    blocks = re.findall(r"```python\n(.*?)```", _MANUAL.read_text(), re.DOTALL)
    (text,) = [block for block in blocks if "@cocotb.test()" in block]
    (tmp_path / "bench_mine.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return text


def test_the_manuals_bench_passes(soc, bench):
    folder = soc.run("bench_mine")
    assert "counts_to_ten" in (folder / "results.xml").read_text()


def test_a_wrong_expectation_in_it_fails(soc, bench, tmp_path):
    (tmp_path / "bench_mine.py").write_text(bench.replace("10) == 10", "10) == 11"))
    with pytest.raises(AssertionError, match="failed: counts_to_ten"):
        soc.run("bench_mine")

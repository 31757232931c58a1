"""The cocotb simulation against the library: the same words in the same cycles."""

import json
from pathlib import Path

import pytest

from rtl.soc.config import SocConfig
from sim.cocotb_model import cocotb_model
from sim.verilated import Verilated
from tests.sim import stand_in
from tests.sim.scenario import RAM_SIZE, scenario


@pytest.fixture(scope="session")
def model():
    return cocotb_model(SocConfig(), stand_in.build, sources=(Path(stand_in.__file__).resolve(),))


def test_both_machines_tell_the_same_story(model, library, tmp_path):
    record = tmp_path / "story.json"
    model.run("tests.sim.bench_stand_in", folder=tmp_path, environment={"STORY": str(record)})
    told = json.loads(record.read_text())
    expected = scenario(Verilated(library, ram_size=RAM_SIZE, cycles_per_tick=10))
    assert told == expected


def test_a_failing_cocotb_test_is_named(model, tmp_path):
    with pytest.raises(AssertionError, match=r"failed: this_one_fails[\s\S]*as it should"):
        model.run("tests.sim.bench_failing", folder=tmp_path)

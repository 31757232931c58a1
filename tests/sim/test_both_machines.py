"""The same VMM, guest and SoC on both machines: the same exits in the same cycles."""

import json

import pytest

from rtl.soc.config import CONFIGURATIONS
from sim.library import LibraryMachine
from tests.sim.hello import RAM_SIZE, outcome


@pytest.mark.parametrize(
    ("technique", "name"), [("native", "full"), ("trap-emulate", "full"), ("vmx-ept", "vmx")]
)
def test_hello_is_the_same_on_the_library_and_in_cocotb(soc_with, technique, name):
    config = CONFIGURATIONS[name]
    soc = soc_with(**config.as_dict())
    file = soc.folder / "outcome.json"
    soc.run("tests.sim.bench_hello", TECHNIQUE=technique, OUTCOME=str(file))
    told = json.loads(file.read_text())
    expected = outcome(LibraryMachine(config, ram_size=RAM_SIZE), technique)
    assert expected["document"]["outcome"]["finished"]
    assert bool(expected["exits"]) == (technique != "native")
    assert told == json.loads(json.dumps(expected))

"""Random programs on the RTL and the golden model in lockstep; see docs/testing.md."""

import json
from pathlib import Path

import pytest

from rtl.soc.config import CONFIGURATIONS, SocConfig
from sim.library import LibraryMachine
from sim.lockstep import Divergence
from sim.random_programs import generate
from sim.random_programs.differential import Differential, reduced, report
from sim.random_programs.program import RAM_SIZE, RandomProgram

#: Programs of every run, and how many one test runs.
COUNT, CHUNK = 500, 25
#: Programs that run on each of the other configurations.
OTHER_COUNT = 100
REGRESSIONS = json.loads((Path(__file__).parent / "regressions.json").read_text())


@pytest.fixture(scope="module")
def differential():
    return Differential(LibraryMachine(SocConfig(), ram_size=RAM_SIZE))


@pytest.fixture(scope="module", params=[name for name in CONFIGURATIONS if name != "full"])
def other(request):
    return Differential(LibraryMachine(CONFIGURATIONS[request.param], ram_size=RAM_SIZE))


def check(differential, program):
    try:
        differential.run(program)
    except Divergence:
        small = reduced(differential, program)
        pytest.fail(report(differential, program, small), pytrace=False)


@pytest.mark.parametrize("first", range(0, COUNT, CHUNK))
def test_programs(differential, first):
    unknowable = differential.unknowable
    for seed in range(first, first + CHUNK):
        check(differential, generate(seed))
    assert differential.unknowable - unknowable <= 1


@pytest.mark.parametrize("first", range(COUNT, COUNT + OTHER_COUNT, CHUNK))
def test_programs_on_other_configurations(other, first):
    unknowable = other.unknowable
    for seed in range(first, first + CHUNK):
        check(other, generate(seed))
    assert other.unknowable - unknowable <= 1


@pytest.mark.parametrize("stored", REGRESSIONS, ids=lambda stored: f"seed {stored['seed']}")
def test_regressions(differential, stored):
    """Programs that once diverged, for the ``reason`` given, as they were then and shrunk."""
    check(differential, RandomProgram.from_json(stored))

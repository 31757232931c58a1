"""Random programs on the RTL and the golden model in lockstep; see docs/testing.md."""

import json
from pathlib import Path

import pytest

from rtl.soc.config import CONFIGURATIONS, SocConfig
from sim.library import LibraryMachine
from sim.lockstep import Divergence
from sim.random_programs import generate
from sim.random_programs.differential import Differential, report
from sim.random_programs.program import RAM_SIZE

#: Programs of every run, and how many one test runs.
COUNT, CHUNK = 500, 25
#: Programs that run on the small configuration too.
SMALL_COUNT = 100
REGRESSIONS = json.loads((Path(__file__).parent / "regressions.json").read_text())


@pytest.fixture(scope="module")
def differential():
    return Differential(LibraryMachine(SocConfig(), ram_size=RAM_SIZE))


@pytest.fixture(scope="module")
def small():
    return Differential(LibraryMachine(CONFIGURATIONS["small"], ram_size=RAM_SIZE))


def check(differential, seed):
    try:
        differential.run(generate(seed))
    except Divergence:
        pytest.fail(report(differential, generate(seed)), pytrace=False)


@pytest.mark.parametrize("first", range(0, COUNT, CHUNK))
def test_programs(differential, first):
    unknowable = differential.unknowable
    for seed in range(first, first + CHUNK):
        check(differential, seed)
    assert differential.unknowable - unknowable <= 1


@pytest.mark.parametrize("first", range(COUNT, COUNT + SMALL_COUNT, CHUNK))
def test_programs_on_the_small_configuration(small, first):
    unknowable = small.unknowable
    for seed in range(first, first + CHUNK):
        check(small, seed)
    assert small.unknowable - unknowable <= 1


@pytest.mark.parametrize("reason", REGRESSIONS)
def test_regressions(differential, reason):
    for seed in REGRESSIONS[reason]:
        check(differential, seed)

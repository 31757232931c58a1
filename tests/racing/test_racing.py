"""Random programs in lockstep while a bus master races them; see docs/testing.md."""

import pytest

from rtl.soc.config import SocConfig
from sim.lockstep import Divergence
from sim.random_programs.differential import reduced, report
from tests.racing import lockstep
from tests.racing.commands import contended_program, racing_program
from tests.racing.lockstep import Race, racing_machine

#: Seeds of every run, for each kind of program.
CHUNK = 10


@pytest.fixture(scope="module")
def machine():
    return racing_machine(SocConfig())


def run(machine, programs):
    race = Race(machine)
    for program in programs:
        try:
            race.run(program)
        except Divergence:
            pytest.fail(report(race, program, reduced(race, program)), pytrace=False)
    assert race.unknowable <= 1
    # It is a race: the master gets to memory often.
    assert race.raced > 50 * CHUNK
    return race


@pytest.mark.parametrize("first", range(0, 4 * CHUNK, CHUNK))
def test_random_programs(machine, first):
    run(machine, map(racing_program, range(first, first + CHUNK)))


def test_contended_lines(machine):
    race = run(machine, map(contended_program, range(CHUNK)))
    # Often between lr and sc, too.
    assert race.broken > 100


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_lost_access_is_noticed(machine, monkeypatch, kind):
    """The model leaves out what the tenth access of that kind does, as a cache might."""
    racing = lockstep._Master

    class Forgetful(racing):
        def advance(self, accesses):
            changes = []
            while self.accesses < accesses:
                done, fold = self.accesses, self._fold
                these = super().advance(done + 1)
                if self._count(bool(these)) == 10:
                    for change in these:
                        self._memory.write_physical(
                            change.address, change.before.to_bytes(8, "little")
                        )
                    self._fold = fold
                changes += these
            return changes

        def _count(self, write):
            if write == (kind == "write"):
                self.counted = getattr(self, "counted", 0) + 1
                return self.counted
            return 0

    monkeypatch.setattr(lockstep, "_Master", Forgetful)
    race = Race(machine)
    with pytest.raises(Divergence):
        for seed in range(5):
            race.run(contended_program(seed))

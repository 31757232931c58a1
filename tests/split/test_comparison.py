"""Two builds of the machine are compared cycle by cycle, and a difference is found."""

import pytest

from rtl.soc.config import CONFIGURATIONS
from sim.guests import GUESTS, GuestOptions
from sim.library import LibraryMachine
from tests.split.comparison import compare

RAM_SIZE = 4 << 20


@pytest.fixture(scope="module")
def hello():
    return GUESTS["hello"].load(GuestOptions(ram_size=RAM_SIZE), lambda _: None)


@pytest.fixture(scope="module")
def machines():
    full = CONFIGURATIONS["full"]
    return [LibraryMachine(full, ram_size=2 * RAM_SIZE) for _ in range(2)]


def test_the_same_machine_twice_is_identical(machines, hello):
    found = compare(machines, hello, "native")
    assert found.identical
    assert found.first is None
    assert found.slices > 1


def test_a_difference_is_found_in_its_cycle(machines, hello):
    class Late:
        """The second machine, which hides one retirement record of cycle 5000 or later."""

        def __init__(self, machine):
            self._machine, self.hidden = machine, None

        def __getattr__(self, name):
            return getattr(self._machine, name)

        def reset(self):
            self.hidden = None
            self._machine.reset()

        def traced(self, most):
            records = self._machine.traced(most)
            if self.hidden is None and self._machine.cycles > 5000 and records:
                self.hidden = self._machine.cycles
                return records[:-8]
            return records

    late = Late(machines[1])
    found = compare([machines[0], late], hello, "native")
    assert not found.identical
    # Looked for cycle by cycle, it is the cycle in which the record was hidden.
    assert found.first == late.hidden - 1
    assert found.first >= 5000

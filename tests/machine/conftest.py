"""The Verilated machine, with and without the extension, one each for all tests of this folder."""

import pytest

from rtl.soc.config import CONFIGURATIONS
from sim.library import LibraryMachine
from tests.machine.board import RAM_SIZE, Board


@pytest.fixture(scope="session", params=["full", "vmx"])
def library_machine(request):
    return LibraryMachine(CONFIGURATIONS[request.param], ram_size=RAM_SIZE)


@pytest.fixture
def board(library_machine):
    """A board after reset: RAM zero, the hart parked, no trap parks."""
    board = Board(library_machine)
    board.reset()
    return board

"""The Verilated machine, one for all tests of this folder."""

import pytest

from rtl.soc.config import SocConfig
from sim.library import LibraryMachine
from tests.machine.board import RAM_SIZE, Board


@pytest.fixture(scope="session")
def library_machine():
    return LibraryMachine(SocConfig(), ram_size=RAM_SIZE)


@pytest.fixture
def board(library_machine):
    """A board after reset: RAM zero, the hart parked, no trap parks."""
    board = Board(library_machine)
    board.reset()
    return board

"""Machines around the stand-in of ``stand_in.py``, and the command line called as a function."""

from pathlib import Path

import pytest

from rtl.soc.config import SocConfig
from sim.cli.main import main
from sim.model import library_file
from sim.verilated import Verilated
from tests.sim import stand_in

RAM_SIZE = 1 << 20


def stand_in_library(ram_latency=12):
    return library_file(
        SocConfig(ram_latency=ram_latency),
        stand_in.build,
        sources=(Path(stand_in.__file__).resolve(),),
    )


@pytest.fixture(scope="session")
def library():
    return stand_in_library()


@pytest.fixture
def machine(library):
    return Verilated(library, ram_size=RAM_SIZE, cycles_per_tick=10)


@pytest.fixture
def vmxlab(capfdbinary):
    """Runs a command; gives exit code, standard output, standard error."""

    def run(*arguments):
        capfdbinary.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run

"""Options of the test suite, and the fixtures a user's own tests get too."""

from hypothesis import settings

pytest_plugins = ["sim.fixtures"]

# Two runs are the same. ``--hypothesis-profile=default`` tries other examples in each.
settings.register_profile("fixed", derandomize=True, database=None)
settings.load_profile("fixed")


def pytest_addoption(parser):
    parser.addoption(
        "--riscv-tests",
        metavar="DIR",
        help="folder of the built riscv-tests (isa/): run all of them",
    )

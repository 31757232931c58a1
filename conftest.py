"""Options of the test suite, and the fixtures a user's own tests get too."""

pytest_plugins = ["sim.fixtures"]


def pytest_addoption(parser):
    parser.addoption(
        "--riscv-tests",
        metavar="DIR",
        help="folder of the built riscv-tests (isa/): run all of them",
    )

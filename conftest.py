"""Options of the test suite."""


def pytest_addoption(parser):
    parser.addoption(
        "--riscv-tests",
        metavar="DIR",
        help="folder of the built riscv-tests (isa/): run all of them",
    )

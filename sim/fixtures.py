"""pytest fixtures for your own cocotb tests of the SoC: ``pytest_plugins = ["sim.fixtures"]``.

See docs/cocotb.md.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from rtl.soc.config import SocConfig
from sim.cocotb_model import CocotbModel, cocotb_model

__all__ = ["BuiltSoc", "soc", "soc_with"]


class BuiltSoc:
    """The SoC as a built simulation, at the service of one pytest test.

    Members
    -------
    config : SocConfig
    folder : Path
        Where log and results of the runs go, one folder each.
    """

    def __init__(self, model: CocotbModel, folder: Path):
        self._model = model
        self.config = model.config
        self.folder = folder
        self._runs = 0

    def run(self, test_module: str, *, testcase: str | None = None, **environment: str) -> Path:
        """Run the cocotb tests of a module, all or one, and give the folder of log and results.

        ``environment`` is seen by the tests in ``os.environ``. Raises AssertionError that names
        the cocotb tests that failed.
        """
        self._runs += 1
        folder = self.folder / f"run{self._runs}"
        self._model.run(test_module, folder=folder, testcase=testcase, environment=environment)
        return folder


@pytest.fixture
def soc_with(tmp_path) -> Callable[..., BuiltSoc]:
    """``soc_with(ram_latency=1)``: the SoC of a configuration, built if it is not in the cache."""

    def build(**settings: int) -> BuiltSoc:
        config = SocConfig(**settings)
        return BuiltSoc(cocotb_model(config), tmp_path)

    return build


@pytest.fixture
def soc(soc_with) -> BuiltSoc:
    """The SoC of the default configuration, built if it is not in the cache."""
    return soc_with()

"""The whole MMU in Verilator under cocotb, its memory answered by a model of the bus."""

from pathlib import Path

import pytest

from rtl.soc.config import SocConfig
from sim.cocotb_model import cocotb_model
from tests.rtl.mmu import mmu_block


@pytest.mark.parametrize("seed", range(3))
def test_translations_of_random_guests_are_the_manuals(seed, tmp_path):
    sources = (Path(mmu_block.__file__).resolve(),)
    model = cocotb_model(SocConfig(), mmu_block.build, sources=sources)
    model.run("tests.rtl.mmu.bench_mmu", folder=tmp_path, environment={"SEED": str(seed)})

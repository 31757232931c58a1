"""The data cache and a bus master on its snoop port, in Verilator under cocotb."""

from pathlib import Path

import pytest

from rtl.soc.config import SocConfig
from sim.cocotb_model import cocotb_model
from tests.rtl.core import data_cache_block


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ram_latency", [1, 12])
def test_hart_and_bus_master_see_one_memory(ram_latency, seed, tmp_path):
    sources = (Path(data_cache_block.__file__).resolve(),)
    config = SocConfig(ram_latency=ram_latency)
    model = cocotb_model(config, data_cache_block.build, sources=sources)
    model.run("tests.rtl.core.bench_data_cache", folder=tmp_path, environment={"SEED": str(seed)})

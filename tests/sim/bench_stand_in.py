"""cocotb side of test_cocotb_machine.py: one scenario, recorded, to compare with the library."""

import json
import os
from pathlib import Path

import cocotb
from cocotb.task import bridge

from sim.cocotb_machine import CocotbSoc
from tests.sim.scenario import RAM_SIZE, scenario


@cocotb.test()
async def record_the_scenario(dut):
    soc = CocotbSoc(dut, ram_size=RAM_SIZE)
    await soc.start()
    story = await bridge(scenario)(soc)
    Path(os.environ["STORY"]).write_text(json.dumps(story))


@cocotb.test()
async def only_the_ports_are_public(dut):
    names = {handle._name for handle in dut}
    assert {"clk", "rst", "park", "host__request__payload"} <= names
    assert not any("$" in name or "." in name or name == "soc" for name in names), names

"""cocotb side of test_virtual_machines.py: a story told by the cocotb machine."""

import json
import os
from pathlib import Path

import cocotb
from cocotb.task import bridge

from sim.cocotb_machine import CocotbMachine
from tests.sim.virtual_machines import RAM_SIZE, STORIES


@cocotb.test()
async def tell(dut):
    machine = await CocotbMachine.create(dut, ram_size=RAM_SIZE)
    told = await bridge(STORIES[os.environ["STORY"]])(machine)
    Path(os.environ["TOLD"]).write_text(json.dumps(told))

"""cocotb side of test_both_machines.py: the guest ``hello`` on the cocotb machine."""

import json
import os
from pathlib import Path

import cocotb
from cocotb.task import bridge

from sim.cocotb_machine import CocotbMachine
from tests.sim.hello import RAM_SIZE, outcome


@cocotb.test()
async def hello(dut):
    machine = await CocotbMachine.create(dut, ram_size=RAM_SIZE)
    told = await bridge(outcome)(machine, os.environ["TECHNIQUE"])
    Path(os.environ["OUTCOME"]).write_text(json.dumps(told))

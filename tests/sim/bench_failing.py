"""A cocotb test that fails, for test_cocotb_machine.py."""

import cocotb


@cocotb.test()
async def this_one_fails(dut):
    raise AssertionError("as it should")


@cocotb.test()
async def this_one_passes(dut):
    assert len(dut.park) > 0

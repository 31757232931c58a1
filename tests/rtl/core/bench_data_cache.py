"""Inside the simulator: the hart and a bus master race on the data cache's two ports."""

import ctypes
import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Combine, FallingEdge, ReadOnly

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS
from rtl.bus.snoop import SnoopRequest, SnoopResponse
from rtl.core.lsu.data_cache import DataAccess, DataResult

RAM = MEMORY_MAP["ram"].base
#: Words of lines that share two sets, more of them than there are ways.
WORDS = [RAM + 0x100 * line + 8 * word for line in range(4) for word in (0, 3)]
ACCESSES = 400


async def settled(dut, *names):
    """Outputs as they stand before the next rising edge; returns behind that edge."""
    await ReadOnly()
    values = [int(getattr(dut, name).value) for name in names]
    await FallingEdge(dut.clk)
    return values


async def hart(dut, address, write=None):
    """A load, or a store of ``write``; gives the word, as it was before a store."""
    dut.i_index__payload.value = address % (1 << PAGE_BITS)
    dut.i_index__valid.value = 1
    while not (await settled(dut, "i_index__ready"))[0]:
        pass
    dut.i_index__valid.value = 0
    access = {"valid": 1, "frame": address >> PAGE_BITS, "write": write is not None}
    access |= {"mask": 0xFF, "data": write or 0}
    dut.access.value = DataAccess.const(access).as_bits()
    while True:
        (bits,) = await settled(dut, "o_result")
        dut.access.value = DataAccess.const(access | {"valid": 0, "frame": 0}).as_bits()
        result = DataResult.from_bits(bits)
        if result.valid:
            assert not result.error
            dut.access.value = 0
            return result.data


async def master(dut, address, write=None):
    """The same by the snoop port."""
    request = {"address": address, "write": write is not None, "forward": 1}
    request |= {"mask": 0xFF, "data": write or 0}
    dut.snoop__request__payload.value = SnoopRequest.const(request).as_bits()
    dut.snoop__request__valid.value = 1
    while not (await settled(dut, "snoop__request__ready"))[0]:
        pass
    dut.snoop__request__valid.value = 0
    while True:
        valid, bits = await settled(dut, "snoop__response__valid", "snoop__response__payload")
        if valid:
            response = SnoopResponse.from_bits(bits)
            assert not response.error
            return response.data


@cocotb.test()
async def one_view_of_memory(dut):
    """Each word has one writer, who counts up; whoever reads sees no count go back.

    A read gives at least what was written when it began, and at most what is being written when
    it ends.
    """
    ctypes.CDLL(None).vmxlab_ram_fit(ctypes.c_uint64(1 << 20))
    for name in ("i_index", "walker__request", "snoop__request", "i_clean"):
        getattr(dut, f"{name}__valid").value = 0
    dut.access.value = 0
    dut.lock.value = 0
    dut.walker__response__ready.value = 1
    dut.snoop__response__ready.value = 1
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="ns").start(start_high=False)
    for _ in range(3):
        await FallingEdge(dut.clk)
    dut.rst.value = 0
    for _ in range(2):
        await FallingEdge(dut.clk)

    seed = int(os.environ["SEED"])
    begun, done = dict.fromkeys(WORDS, 0), dict.fromkeys(WORDS, 0)

    async def agent(access, own, number):
        choose = random.Random(seed * 2 + number)
        for _ in range(ACCESSES):
            address = choose.choice(WORDS)
            if address in own and choose.random() < 0.6:
                begun[address] += 1
                await access(dut, address, begun[address])
                done[address] = begun[address]
            else:
                least = done[address]
                seen = await access(dut, address)
                assert least <= seen <= begun[address], hex(address)
            for _ in range(choose.choice((0, 0, 0, 1, 5))):
                await FallingEdge(dut.clk)

    await Combine(
        cocotb.start_soon(agent(hart, WORDS[0::2], 0)),
        cocotb.start_soon(agent(master, WORDS[1::2], 1)),
    )
    assert min(done.values()) > 5
    for address in WORDS:
        assert await hart(dut, address) == await master(dut, address) == done[address]

"""The preemption timer, cycle by cycle, against a count."""

import random

import pytest

from rtl.vmx.preemption_timer import PreemptionTimer
from tests.streams import simulate


@pytest.mark.parametrize("start", [0, 1, 2, 17])
def test_it_expires_after_so_many_cycles_of_the_guest(start):
    dut = PreemptionTimer()
    choose = random.Random(start)

    async def testbench(ctx):
        ctx.set(dut.load, 1)
        ctx.set(dut.start, start)
        await ctx.tick()
        ctx.set(dut.load, 0)
        left = start
        for _ in range(60):
            assert ctx.get(dut.left) == left
            assert ctx.get(dut.expired) == (left == 0)
            counting = choose.randrange(2)
            ctx.set(dut.counting, counting)
            left = max(0, left - counting)
            assert ctx.get(dut.expiring) == (left == 0)
            await ctx.tick()
        assert left == 0

    simulate(dut, testbench)


def test_a_long_time_is_kept_whole():
    dut = PreemptionTimer()

    async def testbench(ctx):
        ctx.set(dut.load, 1)
        ctx.set(dut.start, 1 << 63)
        await ctx.tick()
        ctx.set(dut.load, 0)
        ctx.set(dut.counting, 1)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.left) == (1 << 63) - 3
        assert not ctx.get(dut.expired)

    simulate(dut, testbench)

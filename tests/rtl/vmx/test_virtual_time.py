"""Virtual time against its formula, over ticks, jumps and changes of scale."""

import random

import pytest

from rtl.vmx.virtual_time import VirtualTime
from tests.streams import simulate

WORD = (1 << 64) - 1
ONE = 1 << 48


def formula(time, scale, offset):
    return (time * scale >> 48) + offset & WORD


def run(scenario):
    dut = VirtualTime()

    async def testbench(ctx):
        await scenario(ctx, dut)

    simulate(dut, testbench, cycles=50_000)


async def settle(ctx, dut, limit=200):
    """Cycles until ready; the value is then for the time that stands."""
    ctx.set(dut.changed, 0)
    for cycles in range(limit):
        await ctx.tick()
        if ctx.get(dut.ready) and cycles >= 3:
            await ctx.tick()
            return cycles
    raise AssertionError("it does not settle")


@pytest.mark.parametrize("seed", range(3))
def test_jumps_and_scales(seed):
    choose = random.Random(seed)

    async def scenario(ctx, dut):
        ctx.set(dut.scaled, 1)
        time = 0
        for _ in range(40):
            scale = choose.choice([ONE, ONE // 3, 3 * ONE, 1, WORD, choose.getrandbits(64)])
            offset = choose.choice([0, WORD, choose.getrandbits(64)])
            time = time + choose.choice([0, 1, 5, 63, 64, 1000, choose.getrandbits(62)]) & WORD
            for name, value in (("scale", scale), ("offset", offset), ("time", time)):
                ctx.set(getattr(dut, name), value)
            ctx.set(dut.changed, 1)
            await ctx.tick()
            await settle(ctx, dut)
            assert ctx.get(dut.value) == formula(time, scale, offset)
            for step in (1, 1, choose.randrange(64), choose.randrange(1 << 20)):
                time = time + step & WORD
                ctx.set(dut.time, time)
                await settle(ctx, dut)
                assert ctx.get(dut.value) == formula(time, scale, offset)

    run(scenario)


@pytest.mark.parametrize("cycles_per_tick", [1, 2, 10])
def test_it_follows_a_running_clock(cycles_per_tick):
    scale, offset = 5 * ONE // 7, 1000

    async def scenario(ctx, dut):
        ctx.set(dut.scaled, 1)
        ctx.set(dut.scale, scale)
        ctx.set(dut.offset, offset)
        times = []
        ready = 0
        for cycle in range(2000):
            times.append(1 << 40 | cycle // cycles_per_tick)
            ctx.set(dut.time, times[-1])
            await ctx.tick()
            if ctx.get(dut.ready):
                ready += 1
                recent = {formula(time, scale, offset) for time in times[-3:]}
                assert ctx.get(dut.value) in recent
        assert ready > 1500

    run(scenario)


def test_without_a_scale_it_is_the_machines_time():
    async def scenario(ctx, dut):
        ctx.set(dut.offset, WORD)
        for time in (5, 1 << 50, 0):
            ctx.set(dut.time, time)
            await ctx.tick().repeat(2)
            assert ctx.get(dut.ready)
            assert ctx.get(dut.value) == time - 1 & WORD

    run(scenario)


def test_a_changed_scale_is_not_ready_at_once():
    async def scenario(ctx, dut):
        ctx.set(dut.scaled, 1)
        ctx.set(dut.scale, ONE)
        ctx.set(dut.time, 1 << 30)
        await settle(ctx, dut)
        ctx.set(dut.scale, 2 * ONE)
        ctx.set(dut.changed, 1)
        await ctx.tick()
        ctx.set(dut.changed, 0)
        for _ in range(60):
            assert not ctx.get(dut.ready)
            await ctx.tick()
        await settle(ctx, dut)
        assert ctx.get(dut.value) == 1 << 31

    run(scenario)

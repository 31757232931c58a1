"""The CLINT against a model of SiFive's register map and of machine time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.irq.clint import Clint
from tests.streams import access, refusal, simulate

MSIP, MTIMECMP, MTIME = 0x0, 0x4000, 0xBFF8
ALL = 2**64 - 1


def merged(old, mask, data):
    lanes = sum(0xFF << 8 * lane for lane in range(8) if mask >> lane & 1)
    return old & ~lanes | data & lanes


masks = st.sampled_from([0x0F, 0xF0, 0xFF, 0x01, 0x80, 0x3C])
values = st.one_of(st.integers(0, 40), st.integers(ALL - 40, ALL), st.integers(0, ALL))
steps = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 25), st.booleans()),
    st.tuples(st.just("skip"), st.integers(0, 300)),
    st.tuples(st.just("arm"), st.integers(0, 4)),
    st.tuples(
        st.just("access"),
        st.sampled_from([MSIP, MTIMECMP, MTIME]),
        st.booleans(),
        masks,
        values,
        st.booleans(),
    ),
)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([1, 2, 7, 10]), st.lists(steps, min_size=15, max_size=40))
def test_registers_time_and_lines_follow_the_map(cycles_per_tick, traffic):
    dut = Clint(cycles_per_tick=cycles_per_tick)
    # mtime is the machine's whole ticks plus what software has moved it by.
    model = {"cycles": 0, "offset": 0, "compare": ALL, "msip": 0}

    def mtime():
        return (model["cycles"] // cycles_per_tick + model["offset"]) & ALL

    def check(ctx):
        assert ctx.get(dut.time) == mtime()
        assert ctx.get(dut.mti) == (mtime() >= model["compare"])
        assert ctx.get(dut.msi) == model["msip"]

    async def play(ctx):
        for kind, *rest in traffic:
            if kind == "wait":
                cycles, advance = rest
                ctx.set(dut.advance, advance)
                for _ in range(cycles):
                    await ctx.tick()
                    model["cycles"] += advance
                    check(ctx)
                ctx.set(dut.advance, 0)
            elif kind == "skip":
                (cycles,) = rest
                before = model["cycles"]
                model["cycles"] += cycles
                ctx.set(dut.skip.valid, 1)
                ctx.set(dut.skip.cycles, cycles)
                ticks = model["cycles"] // cycles_per_tick - before // cycles_per_tick
                ctx.set(dut.skip.ticks, ticks)
                ctx.set(dut.skip.phase, model["cycles"] % cycles_per_tick)
                await ctx.tick()
                ctx.set(dut.skip.valid, 0)
            elif kind == "arm":
                deadline = mtime() + rest[0] & ALL
                await register_access(ctx, MTIMECMP, True, 0xFF, deadline, False)
            else:
                await register_access(ctx, *rest)
            check(ctx)

    async def register_access(ctx, address, write, mask, data, advance):
        if address == MSIP:
            mask = mask & 0x0F or 0x0F
        # The access acts in the cycle that takes it; the bus is idle then, so in the first.
        ctx.set(dut.advance, advance)
        ctx.set(dut.bus.request.valid, 1)
        payload = {"address": address, "write": write, "mask": mask, "data": data}
        ctx.set(dut.bus.request.payload, payload)
        _, _, ready = await ctx.tick().sample(dut.bus.request.ready)
        assert ready
        ctx.set(dut.bus.request.valid, 0)
        ctx.set(dut.advance, 0)
        registers = {MSIP: model["msip"], MTIMECMP: model["compare"], MTIME: mtime()}
        model["cycles"] += advance
        if write and address == MSIP:
            model["msip"] = merged(model["msip"], mask, data) & 1
        if write and address == MTIMECMP:
            model["compare"] = merged(model["compare"], mask, data)
        if write and address == MTIME:
            model["offset"] += merged(mtime(), mask, data) - mtime()
        check(ctx)
        ctx.set(dut.bus.response.ready, 1)
        valid = False
        while not valid:
            _, _, valid, response = await ctx.tick().sample(
                dut.bus.response.valid, dut.bus.response.payload
            )
        ctx.set(dut.bus.response.ready, 0)
        assert not response.error
        if not write:
            assert merged(0, mask, response.data) == merged(0, mask, registers[address])

    simulate(dut, play)


def test_what_the_map_leaves_out_is_an_error():
    dut = Clint(cycles_per_tick=10)

    async def host(ctx):
        # The map has one hart: no second msip, mtimecmp, and nothing in the upper half.
        for address, mask in ((0x0, 0xF0), (0x8, 0x0F), (0x4008, 0xFF), (0xFFF8, 0xFF)):
            assert (await access(ctx, dut.bus, address, mask=mask)).error
        assert not (await access(ctx, dut.bus, MSIP, mask=0x0F)).error

    simulate(dut, host)


@pytest.mark.parametrize("cycles", [0, 65537, 1.5])
def test_a_tick_that_cannot_be_built_is_refused(cycles):
    assert "65536" in refusal(lambda: Clint(cycles_per_tick=cycles))

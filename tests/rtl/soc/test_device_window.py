"""The device window: what the machine sees, and when the hart sees the answer."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtl.arch.memory_map import MEMORY_MAP
from rtl.soc.device_window import DeviceWindow
from tests.streams import access, get, put, refusal, simulate, wait

WINDOW = MEMORY_MAP["window"]

accesses = st.tuples(
    st.integers(0, WINDOW.size // 8 - 1),
    st.booleans(),
    st.integers(1, 255),
    st.integers(0, 2**64 - 1),
    st.integers(0, 9),
    st.integers(0, 9),
)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(accesses, min_size=1, max_size=8),
    st.lists(st.booleans(), min_size=1, max_size=20).filter(any),
)
@example(1, [(0, False, 15, 0, 0, 0)], [True])
@example(12, [(1, True, 15, 5, 3, 9)], [True, False])
def test_the_answer_comes_after_exactly_the_latency(latency, traffic, advances):
    dut = DeviceWindow(device_latency=latency)
    seen = []
    # How many cycles of machine time lie before the end of each clock cycle.
    clock = {"cycle": 0, "advanced": 0}

    async def advance(ctx):
        while True:
            # As in the SoC: the machine's time stands still while an answer is overdue.
            running = advances[clock["cycle"] % len(advances)] and not ctx.get(dut.overdue)
            ctx.set(dut.advance, running)
            await ctx.tick()
            clock["cycle"] += 1
            clock["advanced"] += running

    async def machine(ctx):
        for *_, take, think in traffic:
            await wait(ctx, take)
            request = await get(ctx, dut.request)
            seen.append((request.address, request.write, request.mask, request.data))
            await wait(ctx, think)
            assert not ctx.get(dut.idle)
            await put(ctx, dut.response, {"data": ~request.data % 2**64, "error": think == 9})

    async def hart(ctx):
        for index, write, mask, data, _, think in traffic:
            payload = {"address": 8 * index, "write": write, "mask": mask, "data": data}
            ctx.set(dut.bus.request.payload, payload)
            ctx.set(dut.bus.request.valid, 1)
            assert ctx.get(dut.idle)
            await ctx.tick()
            from_hart = advances[(clock["cycle"] - 1) % len(advances)]
            before = clock["advanced"] - from_hart
            ctx.set(dut.bus.request.valid, 0)
            ctx.set(dut.bus.response.ready, 1)
            (response,) = (
                await ctx.tick().sample(dut.bus.response.payload).until(dut.bus.response.valid)
            )
            ctx.set(dut.bus.response.ready, 0)
            assert (response.data, response.error) == (~data % 2**64, think == 9)
            if from_hart:
                # The last cycle is the one in which the response was there.
                last = advances[(clock["cycle"] - 1) % len(advances)]
                assert clock["advanced"] - last - before == latency
            await wait(ctx, 2)

    simulate(dut, hart, machine, background=[advance])
    assert seen == [(WINDOW.base + 8 * i, w, m, d) for i, w, m, d, *_ in traffic]


def test_the_host_is_answered_while_time_stands_still():
    dut = DeviceWindow(device_latency=50)

    async def machine(ctx):
        request = await get(ctx, dut.request)
        await put(ctx, dut.response, {"data": request.address, "error": 0})

    async def host(ctx):
        assert await access(ctx, dut.bus, 0x2008) == (WINDOW.base + 0x2008, 0)

    simulate(dut, host, machine, cycles=30)


@given(st.integers(0, 255))
@settings(max_examples=5, deadline=None)
def test_interrupt_lines_pass_through(lines):
    dut = DeviceWindow(device_latency=1)

    async def check(ctx):
        ctx.set(dut.interrupts, lines)
        assert ctx.get(dut.lines) == lines

    simulate(dut, check)


def test_a_latency_that_cannot_be_built_is_refused():
    assert "positive" in refusal(lambda: DeviceWindow(device_latency=0))

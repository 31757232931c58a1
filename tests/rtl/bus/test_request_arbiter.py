"""The arbiter: nothing lost, nothing mixed up, nobody starved."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.bus.register_bus import RegisterBus
from rtl.bus.request_arbiter import RequestArbiter
from tests.streams import access, get, put, refusal, simulate, wait

pauses = st.lists(st.integers(0, 5), min_size=1, max_size=15)


@settings(max_examples=20, deadline=None)
@given(st.lists(pauses, min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=1))
def test_each_initiator_gets_its_own_answers_in_order(schedule, delays):
    dut = RequestArbiter(signature=RegisterBus(), count=len(schedule))
    seen = []

    def initiator(number):
        async def run(ctx):
            for index, pause in enumerate(schedule[number]):
                await wait(ctx, pause)
                data = number << 32 | index
                answer = await access(
                    ctx, dut.initiators[number], 8 * index, write=1, mask=number, data=data
                )
                assert answer == (data ^ 0xFFFF, index & 1)

        return run

    async def target(ctx):
        while True:
            request = await get(ctx, dut.bus.request)
            assert request.mask == request.data >> 32
            seen.append((request.mask, request.address // 8))
            delay = delays[len(seen) % len(delays)]
            await wait(ctx, delay)
            response = {"data": request.data ^ 0xFFFF, "error": request.address // 8 & 1}
            await put(ctx, dut.bus.response, response)

    simulate(dut, *map(initiator, range(len(schedule))), background=[target])
    for number, own in enumerate(schedule):
        assert [index for who, index in seen if who == number] == list(range(len(own)))


@given(st.integers(2, 5))
@settings(max_examples=4, deadline=None)
def test_initiators_that_always_ask_are_served_in_turn(count):
    dut = RequestArbiter(signature=RegisterBus(), count=count)
    served = []

    def initiator(number):
        async def run(ctx):
            while True:
                await access(ctx, dut.initiators[number], 8 * number)

        return run

    async def target(ctx):
        for _ in range(6 * count):
            request = await get(ctx, dut.bus.request)
            served.append(request.address // 8)
            await put(ctx, dut.bus.response, {"data": 0, "error": 0})

    simulate(dut, target, background=[initiator(number) for number in range(count)])
    for first in range(len(served) - count + 1):
        assert sorted(served[first : first + count]) == list(range(count))


@given(st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=10, deadline=None)
def test_a_request_that_waits_is_not_replaced_by_another(first, late):
    dut = RequestArbiter(signature=RegisterBus(), count=4)
    shown = set()

    def ask(number, pause):
        async def run(ctx):
            await wait(ctx, pause)
            ctx.set(dut.initiators[number].request.payload.address, 8 * number)
            ctx.set(dut.initiators[number].request.valid, 1)

        return run

    async def target(ctx):
        for _ in range(12):
            if ctx.get(dut.bus.request.valid):
                shown.add(ctx.get(dut.bus.request.payload.address) // 8)
            await ctx.tick()

    asks = [ask(first, 2)] + [ask(other, 3 + late) for other in range(4) if other != first]
    simulate(dut, target, *asks)
    assert shown == {first}


@pytest.mark.parametrize("count", [0, -1, 1.0])
def test_a_count_that_cannot_be_built_is_refused(count):
    assert "positive" in refusal(lambda: RequestArbiter(signature=RegisterBus(), count=count))

"""The queue against Python's."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.lib.queue import Queue
from tests.streams import refusal, simulate

#: Per cycle: the payload on offer or None, whether the taker is ready, whether to clear.
cycles = st.tuples(
    st.none() | st.integers(0, 255), st.booleans(), st.integers(0, 15).map(lambda n: n == 7)
)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.lists(cycles, min_size=20, max_size=80))
def test_it_keeps_order_and_loses_nothing_it_took(depth, traffic):
    dut = Queue(shape=8, depth=depth)
    model = deque()

    async def play(ctx):
        for offer, ready, clear in traffic:
            ctx.set(dut.i.valid, offer is not None)
            ctx.set(dut.i.payload, offer or 0)
            ctx.set(dut.o.ready, ready)
            ctx.set(dut.clear, clear)
            assert ctx.get(dut.level) == len(model)
            assert ctx.get(dut.o.valid) == bool(model)
            if model:
                assert ctx.get(dut.o.payload) == model[0]
            takes = ready and bool(model)
            assert ctx.get(dut.i.ready) == (len(model) < depth or takes)
            if takes:
                model.popleft()
            if offer is not None and len(model) < depth:
                model.append(offer)
            if clear:
                model.clear()
            await ctx.tick()

    simulate(dut, play)


@pytest.mark.parametrize("depth", [0, -3, 2.0])
def test_a_depth_that_cannot_be_built_is_refused(depth):
    assert "positive" in refusal(lambda: Queue(shape=8, depth=depth))

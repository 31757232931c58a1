"""The skid buffer: order, no cycle lost, and a ready that waits for nobody."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.lib.skid_buffer import SkidBuffer
from tests.streams import simulate

cycles = st.lists(
    st.fixed_dictionaries(
        {"offered": st.booleans(), "taken": st.booleans(), "cleared": st.sampled_from([0, 0, 0, 1])}
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(cycles)
def test_what_is_not_taken_is_held_and_comes_first(drawn):
    dut = SkidBuffer(shape=8)

    async def testbench(ctx):
        held, sent = None, 0
        for cycle in drawn:
            ctx.set(dut.i.payload, sent % 256)
            ctx.set(dut.i.valid, cycle["offered"])
            ctx.set(dut.clear, cycle["cleared"])
            # Whoever is behind has no say in it.
            for taken in (not cycle["taken"], cycle["taken"]):
                ctx.set(dut.o.ready, taken)
                assert ctx.get(dut.i.ready) == (held is None)
            assert ctx.get(dut.full) == (held is not None)
            here = held if held is not None else sent % 256 if cycle["offered"] else None
            assert ctx.get(dut.o.valid) == (here is not None)
            assert here is None or ctx.get(dut.o.payload) == here
            if held is None and cycle["offered"]:
                sent += 1
            held = None if cycle["taken"] or cycle["cleared"] else here
            await ctx.tick()

    simulate(dut, testbench)

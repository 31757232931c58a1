"""The first guess at the next packet against a table of what was taught."""

from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.core.frontend.next_packet import NextPacket

addresses = st.integers(0, (1 << 20) - 1).map(lambda value: 0x8000_0000 + 2 * value)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(addresses, addresses, st.booleans()), min_size=1, max_size=40))
def test_what_was_taught_last_is_guessed_at_once(lessons):
    """A guess is what this very address was taught last, and a forgotten address gives none."""
    dut, taught = NextPacket(), {}

    async def testbench(ctx):
        for pc, target, learns in lessons:
            ctx.set(dut.learnt_pc, pc)
            ctx.set(dut.learnt_target, target)
            ctx.set(dut.learn, learns)
            ctx.set(dut.forget, not learns)
            await ctx.tick()
            ctx.set(dut.learn, 0)
            ctx.set(dut.forget, 0)
            taught[pc] = target if learns else None
            ctx.set(dut.pc, pc)
            await ctx.delay(0)
            assert ctx.get(dut.hit) == learns
            for known, expected in taught.items():
                ctx.set(dut.pc, known)
                await ctx.delay(0)
                if ctx.get(dut.hit):
                    assert ctx.get(dut.target) == expected

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()

"""The register file against a list."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.core.regfile import RegisterFile
from tests.streams import simulate

numbers = st.integers(0, 31) | st.integers(0, 3)
cycles = st.lists(
    st.tuples(numbers, numbers, numbers, st.integers(0, 2**64 - 1)), min_size=100, max_size=200
)


@settings(max_examples=10, deadline=None)
@given(cycles)
def test_reads_see_the_newest_value_and_x0_is_zero(drawn):
    dut = RegisterFile()
    registers = [0] * 32

    async def testbench(ctx):
        for rs1, rs2, rd, value in drawn:
            ctx.set(dut.rs1, rs1)
            ctx.set(dut.rs2, rs2)
            ctx.set(dut.rd, rd)
            ctx.set(dut.value, value)
            # The write of this cycle is seen in this cycle.
            registers[rd] = value
            registers[0] = 0
            _, _, one, two = await ctx.tick().sample(dut.rs1_value, dut.rs2_value)
            assert (one, two) == (registers[rs1], registers[rs2])
        ctx.set(dut.rd, 0)
        for number in range(32):
            ctx.set(dut.rs1, number)
            _, _, one = await ctx.tick().sample(dut.rs1_value)
            assert one == registers[number]

    simulate(dut, testbench)

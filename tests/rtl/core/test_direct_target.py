"""Direct targets against the figures of the manual and the decode table."""

from amaranth.sim import Simulator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtl.arch.instructions import decode
from rtl.core.direct_target import DirectTarget

#: Pieces of the immediate as the manual prints them, highest bit of the instruction first.
FIGURES = {
    "jal": ((31, "20"), (30, "10:1"), (20, "11"), (19, "19:12")),
    "auipc": ((31, "31:12"),),
    "beq": ((31, "12"), (30, "10:5"), (11, "4:1"), (7, "11")),
    "c.j": ((12, "11|4|9:8|10|6|7|3:1|5"),),
    "c.beqz": ((12, "8|4:3"), (6, "7:6|2:1|5")),
}
BRANCHES = ("beq", "bne", "blt", "bge", "bltu", "bgeu")


def offset_of(word, name):
    value = top = 0
    for at, figure in FIGURES[name]:
        for piece in figure.split("|"):
            first, last = int(piece.split(":")[0]), int(piece.split(":")[-1])
            for bit in range(first, last - 1, -1):
                value |= (word >> at & 1) << bit
                top, at = max(top, bit), at - 1
    return value - (1 << top + 1) if value >> top & 1 else value


words = st.lists(
    st.builds(
        lambda opcode, rest: opcode | rest << 7,
        st.sampled_from([0x6F, 0x63, 0x17]),
        st.integers(0, (1 << 25) - 1),
    )
    | st.integers(0, 0xFFFF)
    | st.integers(0, 0x1FFF).map(lambda low: (low & ~3) | 0xA001)
    | st.integers(0, 0x3FFF).map(lambda low: (low & ~3) | 0xC001),
    min_size=20,
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(words)
@example([0xFE000EE3, 0xBFFD, 0xDFFD, 0xFFFFF06F, 0xFFFFF097])
def test_kinds_and_offsets_are_those_of_the_manual(fetched):
    dut = DirectTarget()

    async def testbench(ctx):
        for word in fetched:
            row = decode(word)
            name = row.name if row else ""
            kind = {"c.bnez": "c.beqz", **dict.fromkeys(BRANCHES, "beq")}.get(name, name)
            ctx.set(dut.bits, word)
            if word & 0x7F != 0x63 or name:  # branches that are reserved may be told as such
                assert ctx.get(dut.jumps) == (kind in ("jal", "c.j"))
                assert ctx.get(dut.branches) == (kind in ("beq", "c.beqz"))
            if kind in FIGURES:
                assert ctx.get(dut.offset) == offset_of(word, kind)

    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()

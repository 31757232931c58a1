"""The ROM against a dictionary."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.memory_map import MEMORY_MAP
from rtl.soc.rom import Rom
from tests.streams import access, simulate

WORDS = MEMORY_MAP["rom"].size // 8

indices = st.one_of(st.integers(0, 3), st.integers(0, WORDS - 1), st.just(WORDS - 1))
accesses = st.tuples(
    indices, st.booleans(), st.booleans(), st.integers(0, 255), st.integers(0, 2**64 - 1)
)


@settings(max_examples=15, deadline=None)
@given(st.lists(accesses, min_size=1, max_size=60))
def test_only_the_host_writes(traffic):
    dut = Rom()

    async def initiator(ctx):
        contents = {}
        for index, write, writable, mask, data in traffic:
            ctx.set(dut.writable, writable)
            answer = await access(ctx, dut.bus, 8 * index, write=write, mask=mask, data=data)
            before = contents.setdefault(index, bytes(8))
            assert answer.error == (write and not writable)
            if not write:
                assert answer.data == int.from_bytes(before, "little")
            elif writable:
                new = data.to_bytes(8, "little")
                contents[index] = bytes(
                    new[lane] if mask >> lane & 1 else before[lane] for lane in range(8)
                )
        for index, word in contents.items():
            assert ctx.get(dut.words[index]) == int.from_bytes(word, "little")

    simulate(dut, initiator)

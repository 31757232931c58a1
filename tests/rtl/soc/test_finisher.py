"""The finisher against sifive,test's description."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtl.soc.finisher import Finisher
from tests.streams import Answer, access, simulate

PASS, FAIL, RESET = 0x5555, 0x3333, 0x7777

words = st.one_of(
    st.integers(0, 2**32 - 1),
    st.builds(
        lambda code, status: code << 16 | status,
        st.integers(0, 0xFFFF),
        st.sampled_from([PASS, FAIL, RESET, PASS ^ 1]),
    ),
)
masks = st.sampled_from([0x0F, 0x0F, 0x03, 0x0C, 0x01, 0x07])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), words, masks), min_size=1, max_size=10))
@example([(True, FAIL, 0x01), (True, FAIL, 0x0C), (True, PASS, 0x03), (True, FAIL, 0x0F)])
@example([(True, 3 << 16 | FAIL, 0x0F), (True, PASS, 0x0F)])
def test_the_first_word_that_ends_the_run_stays(traffic):
    dut = Finisher()

    async def guest(ctx):
        ended = None
        for write, word, mask in traffic:
            answer = await access(ctx, dut.bus, 0, write=write, mask=mask, data=word)
            assert answer.error == 0
            assert write or answer.data == 0
            kept = sum(word & 0xFF << 8 * lane for lane in range(4) if mask >> lane & 1)
            whole = mask & 3 == 3
            if write and whole and ended is None and kept & 0xFFFF in (PASS, FAIL, RESET):
                ended = kept
            assert ctx.get(dut.o.valid) == (ended is not None)
            if ended is not None:
                assert ctx.get(dut.o.word) == ended
        assert await access(ctx, dut.bus, 8, write=1, data=PASS) == Answer(0, 1)

    simulate(dut, guest)

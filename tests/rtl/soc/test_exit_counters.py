"""The exit table against a list of exits, summed up in Python."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.soc.exit_counters import REASON_COUNT, ExitCounters
from tests.streams import get, put, simulate

# Few reasons, so that exits for one reason follow each other at every distance.
REASONS = st.sampled_from((0, 1, 5, REASON_COUNT - 1))
# What happens in a cycle: an exit, whether the cycle counts, whether everything is cleared.
CYCLES = st.lists(
    st.tuples(st.none() | REASONS, st.booleans(), st.integers(0, 15).map(lambda n: n == 0)),
    max_size=40,
)


def table(cycles):
    """Count and cycles per reason: the meaning of the table."""
    rows, latest = {}, None
    for reason, counts, clear in cycles:
        if clear:
            rows, latest = {}, None
            continue
        if reason is not None:
            latest = reason
            count, spent = rows.get(latest, (0, 0))
            rows[latest] = (count + 1, spent)
        if latest is not None and counts:
            count, spent = rows[latest]
            rows[latest] = (count, spent + 1)
    return rows


async def play(ctx, dut, cycles):
    for reason, counts, clear in cycles:
        ctx.set(dut.exit, reason is not None)
        ctx.set(dut.reason, reason or 0)
        ctx.set(dut.transition, counts)
        ctx.set(dut.clear, clear)
        await ctx.tick()
    ctx.set(dut.exit, 0)
    ctx.set(dut.transition, 0)
    ctx.set(dut.clear, 0)


async def row(ctx, dut, reason):
    await put(ctx, dut.i_query, reason)
    payload = await get(ctx, dut.o_row)
    return payload.count, payload.cycles


@settings(deadline=None, max_examples=60)
@given(CYCLES, CYCLES)
def test_rows_are_the_sums_over_all_exits(before, after):
    dut = ExitCounters()

    async def bench(ctx):
        seen = []
        for cycles in (before, after):
            await play(ctx, dut, cycles)
            seen += cycles
            expected = table(seen)
            for reason in (0, 1, 5, 64, REASON_COUNT - 1):
                assert await row(ctx, dut, reason) == expected.get(reason, (0, 0))

    simulate(dut, bench)


@settings(deadline=None, max_examples=60)
@given(CYCLES, REASONS, st.integers(0, 40))
def test_a_row_is_never_in_between(cycles, asked, delay):
    """A row read while exits go on is the table as it stood after one of the cycles."""
    dut, answers = ExitCounters(), []

    async def player(ctx):
        await play(ctx, dut, cycles)

    async def reader(ctx):
        for _ in range(delay):
            await ctx.tick()
        answers.append(await row(ctx, dut, asked))

    simulate(dut, player, reader)
    possible = {table(cycles[:n]).get(asked, (0, 0)) for n in range(len(cycles) + 1)}
    assert answers[0] in possible

"""The predictor against its contract: what it learns, what it forgets, how it is repaired."""

from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.core.frontend.predictor import CALL_DEPTH, BranchKind, Predictor

SWEEP = 1100


def run(testbench):
    dut = Predictor()

    async def whole(ctx):
        await ctx.tick().repeat(SWEEP)
        await testbench(ctx, dut)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(whole)
    simulator.run()


async def predict(ctx, dut, pc, *, accept=True):
    """The prediction for the packet entered at ``pc``, as a dict of its fields."""
    ctx.set(dut.pc, pc)
    ctx.set(dut.read, 1)
    await ctx.tick()
    ctx.set(dut.read, 0)
    ctx.set(dut.current, pc)
    ctx.set(dut.accept, accept)
    p = dut.prediction
    names = ("known", "taken", "last", "target", "history", "counter", "calls")
    result = {name: ctx.get(getattr(p, name)) for name in names}
    await ctx.tick()
    ctx.set(dut.accept, 0)
    return result


async def update(ctx, dut, **values):
    ctx.set(dut.update, values)
    await ctx.tick()
    ctx.set(dut.update, {})


async def learn(ctx, dut, end, target, kind=BranchKind.JUMP):
    await update(ctx, dut, learn=1, pc=end, target=target, kind=kind, taken=1)


places = st.integers(0, (1 << 38) - 1).map(lambda value: value << 1)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(places, places), min_size=1, max_size=6), places)
def test_what_was_learnt_last_is_predicted_and_nothing_before_its_entry(jumps, other):
    async def testbench(ctx, dut):
        assert not (await predict(ctx, dut, other))["known"]
        for end, target in jumps:
            await learn(ctx, dut, end, target)
            last = end >> 1 & 3
            for entry in range(4):
                seen = await predict(ctx, dut, (end & ~7) + 2 * entry)
                assert seen["known"] == seen["taken"] == (entry <= last)
                assert not seen["known"] or (seen["last"], seen["target"]) == (last, target)
            await update(ctx, dut, forget=1, pc=end)
            assert not (await predict(ctx, dut, end & ~7))["known"]
            await learn(ctx, dut, end, target)

    run(testbench)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=24))
def test_direction_follows_a_two_bit_counter(outcomes):
    """With the history held still there is one counter: it starts weakly taken."""

    async def testbench(ctx, dut):
        await learn(ctx, dut, 0x8000_0106, 0x8000_0200, BranchKind.BRANCH)
        counter = 2
        for outcome in outcomes:
            seen = await predict(ctx, dut, 0x8000_0100, accept=False)
            assert seen["known"]
            assert (seen["counter"], seen["taken"]) == (counter, counter >= 2)
            await update(
                ctx, dut, count=1, pc=0x8000_0106, taken=outcome,
                history=seen["history"], counter=seen["counter"],
            )  # fmt: skip
            counter = min(counter + 1, 3) if outcome else max(counter - 1, 0)

    run(testbench)


def test_an_alternating_branch_is_learnt_by_its_history():
    async def testbench(ctx, dut):
        await learn(ctx, dut, 0x8000_0106, 0x8000_0200, BranchKind.BRANCH)
        wrong = []
        for turn in range(60):
            seen = await predict(ctx, dut, 0x8000_0100)
            taken = turn % 2
            wrong.append(seen["taken"] != taken)
            await update(
                ctx, dut, count=1, pc=0x8000_0106, taken=taken,
                history=seen["history"], counter=seen["counter"],
            )  # fmt: skip
            if wrong[-1]:
                ctx.set(
                    dut.repair,
                    {
                        "valid": 1,
                        "history": seen["history"],
                        "calls": seen["calls"],
                        "branch": 1,
                        "taken": taken,
                        "kind": BranchKind.BRANCH,
                    },
                )
                await ctx.tick()
                ctx.set(dut.repair, {"kind": BranchKind.BRANCH})
        assert any(wrong[:30])
        assert not any(wrong[30:])

    run(testbench)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=CALL_DEPTH, unique=True))
def test_returns_go_behind_their_calls(sites):
    async def testbench(ctx, dut):
        calls = [0x8000_1008 + 0x40 * site for site in sites]
        for call in calls:
            await learn(ctx, dut, call + 2, 0x8000_4000, BranchKind.CALL)
        await learn(ctx, dut, 0x8000_4002, 0, BranchKind.RETURN)
        for call in calls:
            assert (await predict(ctx, dut, call))["target"] == 0x8000_4000
        # A wrong path returns once; the repair takes that back.
        seen = await predict(ctx, dut, 0x8000_4000)
        ctx.set(
            dut.repair,
            {
                "valid": 1,
                "history": seen["history"],
                "calls": seen["calls"],
                "kind": BranchKind.JUMP,
            },
        )
        await ctx.tick()
        ctx.set(dut.repair, {"kind": BranchKind.BRANCH})
        for call in reversed(calls):
            seen = await predict(ctx, dut, 0x8000_4000)
            assert (seen["taken"], seen["target"]) == (1, call + 4)

    run(testbench)


def test_nothing_is_predicted_before_the_tables_are_swept():
    dut = Predictor()

    async def testbench(ctx):
        await learn(ctx, dut, 0x8000_0000, 0x8000_0100)
        assert not (await predict(ctx, dut, 0x8000_0000))["known"]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()

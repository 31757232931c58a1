"""The predictor against its contract: what it learns, what it forgets, how it is repaired."""

from amaranth.sim import Simulator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtl.core.frontend.predictor import CALL_DEPTH, BranchKind, Predictor

#: Large enough for what the tests teach.
SIZES = {"target_count": 256, "counter_count": 1024, "indirect_count": 512}


def run(testbench):
    dut = Predictor(**SIZES)

    async def whole(ctx):
        while not ctx.get(dut.ready):
            await ctx.tick()
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
    names = ("known", "taken", "last", "target", "looked_up", "history", "calls")
    result = {name: ctx.get(getattr(p, name)) for name in names}
    result["direction"] = ctx.get(p.direction.as_value())
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


async def resolve(ctx, dut, packet, taken, target):
    """Predict the branch at the end of ``packet`` and say how it went; gives whether that was wrong."""
    seen = await predict(ctx, dut, packet)
    assert seen["known"]
    wrong = seen["taken"] != taken
    ctx.set(dut.update.count, 1)
    ctx.set(dut.update.pc, packet + 6)
    ctx.set(dut.update.taken, taken)
    ctx.set(dut.update.looked_up, seen["looked_up"])
    ctx.set(dut.update.direction.as_value(), seen["direction"])
    repair = {"history": seen["history"], "calls": seen["calls"], "taken": taken}
    repair |= {"kind": BranchKind.BRANCH, "target": target}
    ctx.set(dut.repair, {"valid": wrong, **repair})
    await ctx.tick()
    ctx.set(dut.update.count, 0)
    ctx.set(dut.repair, {"kind": BranchKind.BRANCH})
    return wrong


@settings(max_examples=8, deadline=None)
@given(places, st.lists(st.booleans(), min_size=1, max_size=6))
def test_a_branch_that_repeats_a_pattern_in_a_loop_is_learnt(place, pattern):
    """History is a path: what was not taken shows in the address of what is taken next."""
    packet = place & ~7
    end, elsewhere = packet ^ 0x40, 0x8000_0200

    async def testbench(ctx, dut):
        await learn(ctx, dut, packet + 6, elsewhere, BranchKind.BRANCH)
        await learn(ctx, dut, end + 6, packet, BranchKind.BRANCH)
        wrong = []
        for taken in pattern * (180 // len(pattern)):
            wrong.append(await resolve(ctx, dut, packet, taken, elsewhere))
            assert not await resolve(ctx, dut, end, 1, packet)
        assert not any(wrong[-24:])
        # Known since it was taken once, so taken is what it starts with.
        assert wrong[0] == (not pattern[0])
        if all(pattern):
            assert not any(wrong)

    run(testbench)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=3, max_size=5))
@example([0, 1, 1, 1, 1])
def test_an_indirect_jump_goes_where_it_went_after_the_same_history(pattern):
    """Targets are told apart by the jumps before, as in a loop around a switch.

    The table's index has a few bits of each of nine jumps.
    """

    async def testbench(ctx, dut):
        site, wrong = 0x8000_0100, []
        for turn in range(40 * len(pattern)):
            target = 0x8000_1012 + 0x24 * pattern[turn % len(pattern)]
            seen = await predict(ctx, dut, site)
            wrong.append(not seen["known"] or seen["target"] != target)
            if wrong[-1]:
                kind = BranchKind.INDIRECT
                state = {"target": target, "taken": 1, "kind": kind}
                before = {"history": seen["history"], "calls": seen["calls"]}
                ctx.set(dut.repair, {"valid": 1, **before, **state})
                looked_up = seen["looked_up"]
                await update(ctx, dut, learn=1, pc=site + 2, looked_up=looked_up, **state)
                ctx.set(dut.repair, {"kind": BranchKind.BRANCH})
        assert not any(wrong[-2 * len(pattern) :])

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
    dut = Predictor(**SIZES)

    async def testbench(ctx):
        await learn(ctx, dut, 0x8000_0000, 0x8000_0100)
        assert not (await predict(ctx, dut, 0x8000_0000))["known"]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()

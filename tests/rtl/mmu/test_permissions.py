"""Every leaf against every access and context; every entry against every level."""

from dataclasses import replace
from itertools import product

from amaranth.sim import Simulator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE, Access
from rtl.arch.traps import Privilege
from rtl.mmu.permissions import LeafPermission, PteCheck, PteKind
from tests.rtl.mmu import sv39_reference as sv39

ROOT = MEMORY_MAP["ram"].base // 4096
POINTER = PTE.encode(v=1, ppn=ROOT)
SOME_LEAF = sv39.Leaf(0, 0, 4096, *7 * [False])


def judge(dut, cases, ask):
    """What ``ask(ctx, case)`` says for each case, from one combinational simulation."""
    answers = []

    async def testbench(ctx):
        for case in cases:
            answers.append(await ask(ctx, case))

    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()
    return answers


def test_leaf_allows_what_the_manual_allows():
    dut = LeafPermission()
    cases = list(product(range(64), Access, Privilege, (0, 1), (0, 1)))

    async def ask(ctx, case):
        rights, access, privilege, sum_, mxr = case
        bits = {name: rights >> k & 1 for k, name in enumerate("rwxuad")}
        bits["mxr"] = bits["r"] | bits["x"]
        ctx.set(dut.rights, bits)
        ctx.set(dut.access, access)
        ctx.set(dut.context, {"privilege": privilege, "sum": sum_, "mxr": mxr, "paged": 1})
        await ctx.delay(1e-9)
        return ctx.get(dut.allowed)

    def allowed(rights, access, privilege, sum_, mxr):
        flags = [bool(rights >> k & 1) for k in range(6)]
        names = ("readable", "writable", "executable", "user", "accessed", "dirty")
        leaf = replace(SOME_LEAF, **dict(zip(names, flags, strict=True)))
        return sv39.permits(leaf, access, privilege, sum_, mxr)

    wanted = [allowed(*case) for case in cases]
    assert 0 < sum(wanted) < len(wanted)
    assert judge(dut, cases, ask) == wanted


def kind_by_walk(word, level):
    """What the entry is to a walk that meets it at ``level``, by the reference's behaviour."""

    def read(address):
        reads.append(address)
        return word if len(reads) == 3 - level else POINTER

    reads = []
    try:
        leaf = sv39.find_leaf(read, ROOT, 0)
    except sv39.PageFault:
        # The pointers behind it lead the walk to its end: that is a fault of the third entry.
        if len(reads) != 3 - level:
            return PteKind.POINTER
        return PteKind.MALFORMED if word & 1 else PteKind.INVALID
    except sv39.AccessFault:
        return PteKind.POINTER
    assert leaf.size == 4096 << 9 * level
    return PteKind.LEAF


_low_bits = st.integers(0, 0xFF) | st.sampled_from([0x01, 0xCF, 0xD7, 0x0B])
_frames = st.builds(
    lambda frame, shift: frame << shift & (1 << 44) - 1,
    st.integers(0, 2**44 - 1),
    st.sampled_from([0, 1, 8, 9, 10, 17, 18]),
) | st.sampled_from([1 << k for k in range(44)])
_words = st.builds(
    lambda low, frame, rsw, high: low | rsw << 8 | frame << 10 | high << 54,
    _low_bits,
    _frames,
    st.integers(0, 3),
    st.just(0) | st.sampled_from([1 << k for k in range(10)]) | st.integers(0, 1023),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_words, st.integers(0, 2)), min_size=100, max_size=200))
@example([(low | 1 << 28, level) for low in range(256) for level in range(3)])
def test_entry_is_what_the_manual_says(cases):
    dut = PteCheck()

    async def ask(ctx, case):
        ctx.set(dut.pte.as_value(), case[0])
        ctx.set(dut.level, case[1])
        await ctx.delay(1e-9)
        return ctx.get(dut.kind)

    assert judge(dut, cases, ask) == [kind_by_walk(*case) for case in cases]

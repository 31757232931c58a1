"""The decoder against the memory map's own lookup."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.memory_map import MEMORY_MAP, Region, region_of
from rtl.bus.register_decoder import RegisterDecoder
from tests.streams import access, get, put, refusal, simulate, wait

REGIONS = [region for region in MEMORY_MAP.values() if not region.cached]

addresses = st.one_of(
    st.integers(0, 2**29 - 1).map(lambda word: 8 * word),
    st.sampled_from(REGIONS).flatmap(
        lambda region: st.integers(-2, region.size // 8 + 1).map(lambda n: region.base + 8 * n)
    ),
    st.sampled_from(REGIONS).flatmap(
        lambda region: st.sampled_from([region.base - 8, region.base, region.end - 8, region.end])
    ),
)
accesses = st.tuples(
    addresses,
    st.booleans(),
    st.integers(0, 255),
    st.integers(0, 2**64 - 1),
    st.integers(0, 3),
    st.integers(0, 3),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(accesses, min_size=1, max_size=40))
def test_every_access_reaches_the_device_the_memory_map_names(traffic):
    dut = RegisterDecoder(REGIONS)
    seen = []
    answers = []

    def target(region):
        async def serve(ctx):
            bus = getattr(dut, region.name)
            while True:
                request = await get(ctx, bus.request)
                relative, data = request.address, request.data
                seen.append((region.name, relative, request.write, request.mask, data))
                delay, error = traffic[len(answers)][4], traffic[len(answers)][5] == 3
                await wait(ctx, delay)
                await put(ctx, bus.response, {"data": data ^ relative, "error": error})

        return serve

    async def initiator(ctx):
        for address, write, mask, data, *_ in traffic:
            answers.append(await access(ctx, dut.bus, address, write=write, mask=mask, data=data))

    simulate(dut, initiator, background=[target(region) for region in REGIONS])

    expected = []
    for (address, write, mask, data, _, error), answer in zip(traffic, answers, strict=True):
        region = region_of(address)
        if region is None or region.cached:
            assert answer.error
        else:
            relative = address - region.base
            expected.append((region.name, relative, write, mask, data))
            assert answer == (data ^ relative, error == 3)
    assert seen == expected


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 64), min_size=2, max_size=8, unique=True).map(sorted),
    st.sampled_from([0, 2**31, 2**32 - 512]),
)
def test_regions_need_not_be_aligned_to_their_size(edges, base):
    """Every word of 65, the last of which may lie behind the address space."""
    regions = [
        Region(f"r{start}", base + 8 * start, 8 * (end - start), "")
        for start, end in itertools.pairwise(edges)
    ][::2]
    dut = RegisterDecoder(regions)
    seen = {}

    async def bench(ctx):
        ctx.set(dut.bus.request.valid, 1)
        for address in range(base, min(base + 65 * 8, 2**32), 8):
            ctx.set(dut.bus.request.payload.address, address)
            asked = [
                (region, ctx.get(getattr(dut, region.name).request.payload.address))
                for region in regions
                if ctx.get(getattr(dut, region.name).request.valid)
            ]
            seen[address] = asked
        await ctx.tick()

    simulate(dut, bench)
    assert len(seen) in (64, 65)
    for address, asked in seen.items():
        assert asked == [(r, address - r.base) for r in regions if address in r]


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([Region("a", 0, 16, ""), Region("b", 8, 16, "")], "overlap"),
        ([Region("a", 0, 16, ""), Region("a", 32, 16, "")], "names"),
        ([Region("bus", 0, 16, "")], "names"),
        ([Region("a", 4, 16, "")], "whole"),
        ([Region("a", 0, 12, "")], "whole"),
    ],
)
def test_regions_that_cannot_be_told_apart_are_refused(regions, message):
    assert message in refusal(lambda: RegisterDecoder(regions))

"""Register blocks: external parts, arrays, enumerations, and what they refuse."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.lib.rdl.source import MapError, load_map
from rtl.lib.register_block import Refusal, RegisterBlock
from rtl.maps import map_path
from tests.streams import access, get, put, refusal, simulate

PROPERTIES = map_path("host_port").with_name("properties.rdl")

EXTERNAL = """
addrmap outside {
    reg narrow { regwidth = 16; field {} value[16]; };
    reg whole { regwidth = 64; field {} value[64]; };
    external narrow halves[6] @ 0x04;
    external reg { regwidth = 8; field { sw = r; } value[8]; } seen @ 0x18;
    external reg { regwidth = 8; field { sw = w; } value[8]; } sent @ 0x18;
    reg { regwidth = 32; field { sw = rw; hw = r; } value[32] = 7; } own @ 0x1C;
    external regfile { whole a; whole b; } group[2] @ 0x20 += 0x20;
    external mem { mementries = 4; memwidth = 32; } words @ 0x68;
    external mem { mementries = 8; memwidth = 64; } rows @ 0x80;
};
"""
# Where each element is: (port, index) and its bytes, first to last.
ELEMENTS = {
    **{("halves", n): range(0x04 + 2 * n, 0x06 + 2 * n) for n in range(6)},
    # From the first register file's start to the second one's end, in words.
    **{("group", n): range(0x20 + 8 * n, 0x28 + 8 * n) for n in range(6)},
    **{("words", n): range(0x68 + 4 * n, 0x6C + 4 * n) for n in range(4)},
    **{("rows", n): range(0x80 + 8 * n, 0x88 + 8 * n) for n in range(8)},
}
READABLE, WRITABLE = {("seen", 0): range(0x18, 0x19)}, {("sent", 0): range(0x18, 0x19)}
INSIDE = set(range(0x1C, 0x20))
PORTS = ("halves", "seen", "sent", "group", "words", "rows")


def written(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("rdl")
    (folder / "properties.rdl").write_text(PROPERTIES.read_text())
    source = folder / "map.rdl"
    source.write_text(text)
    return source


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    return load_map(written(tmp_path_factory, EXTERNAL))


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 0x18).map(lambda word: 8 * word),
            st.integers(1, 255) | st.sampled_from([3, 12, 48, 192, 15, 240, 255]),
            st.integers(0, 2**64 - 1),
        ),
        max_size=20,
    ),
    st.integers(0, 3),
)
def test_external_accesses_reach_their_element(outside, accesses, delay):
    dut = RegisterBlock(outside)
    seen, error_at = [], {("rows", 5), ("halves", 2)}

    def owner(name):
        async def serve(ctx):
            """Always ready, so that a request made twice would be seen twice."""
            port = getattr(dut, name)
            width = len(port.request.payload.data)
            ctx.set(port.request.ready, 1)
            while True:
                _, _, valid, request = await ctx.tick().sample(
                    port.request.valid, port.request.payload
                )
                if not valid:
                    continue
                for _ in range(delay):
                    _, _, again = await ctx.tick().sample(port.request.valid)
                    assert not again
                seen.append((name, request.index, request.write, request.mask, request.data))
                # The answer tells who gave it.
                data = (0x1111_1111_1111_1111 * (request.index + 1)) & (1 << width) - 1
                error = (name, request.index) in error_at
                await put(ctx, port.response, {"data": data, "error": int(error)})

        return serve

    async def bench(ctx):
        inside = 7
        for write, address, mask, data in accesses:
            seen.clear()
            answer = await access(ctx, dut.bus, address, write=int(write), mask=mask, data=data)
            wanted = [address + lane for lane in range(8) if mask >> lane & 1]
            elements = {**(WRITABLE if write else READABLE), **ELEMENTS}
            hit = [element for element, span in elements.items() if set(wanted) <= set(span)]
            if set(wanted) <= INSIDE:
                assert not answer.error and seen == []
                for byte in wanted:
                    at, lane = 8 * (byte - 0x1C), 8 * (byte - address)
                    if write:
                        inside = inside & ~(0xFF << at) | (data >> lane & 0xFF) << at
                    else:
                        assert answer.data >> lane & 0xFF == inside >> at & 0xFF
            elif not hit:
                assert answer.error and seen == []
            else:
                ((name, index),) = hit
                span = elements[name, index]
                ((by, at, wrote, bytes_asked, given_data),) = seen
                assert (by, at, wrote) == (name, index, int(write))
                assert bytes_asked == sum(1 << byte - span[0] for byte in wanted)
                assert answer.error == ((name, index) in error_at)
                for byte in wanted:
                    place, lane = 8 * (byte - span[0]), 8 * (byte - address)
                    if write:
                        assert given_data >> place & 0xFF == data >> lane & 0xFF
                    elif not answer.error:
                        assert answer.data >> lane & 0xFF == 0x11 * (index + 1) & 0xFF

    simulate(dut, bench, background=[owner(name) for name in PORTS])


STRUCTURE = """
`include "properties.rdl"
addrmap structure {
    enum Mode { OFF = 0; SLOW = 2; FAST = 5; };
    reg { regwidth = 8; field { sw = rw; hw = r; } value[8] = 0x5A; } bytes[5] @ 0x3;
    regfile {
        reg { field { sw = rw; hw = r; encode = Mode; } mode[2:0] = 2; } control;
        reg { field { sw = r; hw = w; encode = Mode; } mode[10:8]; } status;
        regfile {
            reg { regwidth = 64; field { sw = rw; hw = r; } value[64] = 0; } limit[2];
        } deep @ 0x8;
    } channel[3] @ 0x20 += 0x20;
    reg { field { sw = rw; hw = na; } value[32] = 9; } unseen @ 0x80;
};
"""


def test_members_are_named_like_the_map(tmp_path_factory):
    dut = RegisterBlock(load_map(written(tmp_path_factory, STRUCTURE)), base=0x100)
    mode = dut.enums["Mode"]

    async def bench(ctx):
        async def write(address, mask, data):
            answer = await access(ctx, dut.bus, 0x100 + address, write=1, mask=mask, data=data)
            assert not answer.error

        async def read(address):
            answer = await access(
                ctx, dut.bus, 0x100 + address, mask=0x0F if address == 0x80 else 0xFF
            )
            assert not answer.error
            return answer.data

        assert [ctx.get(byte.value.value) for byte in dut.bytes] == [0x5A] * 5
        await write(0x0, 0b0100_1000, 0x00AA_0000_BB00_0000)
        assert [ctx.get(byte.value.value) for byte in dut.bytes] == [0xBB, 0x5A, 0x5A, 0xAA, 0x5A]
        for index, channel in enumerate(dut.channel):
            assert ctx.get(channel.control.mode.value) == mode.SLOW
            await write(0x20 + 0x20 * index, 0x0F, 5)
            assert ctx.get(channel.control.mode.value) == mode.FAST
            ctx.set(channel.status.mode.next, mode.SLOW)
            assert await read(0x20 + 0x20 * index) == 5 | 2 << 40
            await write(0x30 + 0x20 * index, 0xFF, 1000 + index)
            assert ctx.get(channel.deep.limit[1].value.value) == 1000 + index
            assert ctx.get(channel.deep.limit[0].value.value) == 0
        await write(0x80, 0x0F, 77)
        assert await read(0x80) == 77
        assert not hasattr(dut, "unseen") and not hasattr(dut, "busy")
        for outside in (0x000, 0x200, 0x4100, 0x8000_0100):
            assert (await access(ctx, dut.bus, outside, mask=0b1000)).error
        assert not (await access(ctx, dut.bus, 0x100, mask=0b1000)).error

    simulate(dut, bench)


def test_refusals_say_why(tmp_path_factory):
    text = """
    `include "properties.rdl"
    addrmap gated {
        idle_only;
        reg { regwidth = 64; field { sw = rw; hw = r; } value[64] = 0; } settings;
        reg { regwidth = 64; idle_only = false; field { sw = r; hw = w; } value[64]; } state;
        external reg { regwidth = 64; field {} value[64]; } owned;
    };
    """
    dut = RegisterBlock(load_map(written(tmp_path_factory, text)))
    refused = Counter()

    async def watch(ctx):
        while True:
            _, _, why = await ctx.tick().sample(dut.refused)
            refused[why] += why != Refusal.NONE

    async def owner(ctx):
        while True:
            request = await get(ctx, dut.owned.request)
            await put(ctx, dut.owned.response, {"data": 1, "error": request.write})

    async def bench(ctx):
        async def refusal_of(address, write):
            before = Counter(refused)
            answer = await access(ctx, dut.bus, address, write=write, data=99)
            await ctx.tick()
            (why,) = (refused - before).keys() or (Refusal.NONE,)
            assert sum((refused - before).values()) == answer.error
            return why

        ctx.set(dut.busy, 1)
        for write in (0, 1):
            assert await refusal_of(0, write) == Refusal.BUSY
            assert await refusal_of(8, write) == Refusal.NONE
            assert await refusal_of(16, write) == Refusal.BUSY
            assert await refusal_of(24, write) == Refusal.NO_SUCH_REGISTER
        assert ctx.get(dut.settings.value.value) == 0
        ctx.set(dut.busy, 0)
        assert await refusal_of(0, 1) == Refusal.NONE
        assert ctx.get(dut.settings.value.value) == 99
        assert await refusal_of(16, 0) == Refusal.NONE
        assert await refusal_of(16, 1) == Refusal.EXTERNAL

    simulate(dut, bench, background=[watch, owner])


REFUSED = {
    "counter": ("reg { field { counter; } f[4]; } x;", "property counter is not supported"),
    "interrupt": ("reg { field { intr; } f; } x;", "property intr is not supported"),
    "sticky": ("reg { field { hw = w; sticky; } f; } x;", "property sticky is not supported"),
    "wide": ("reg { regwidth = 128; field {} f; } x;", "regwidth 128 is not supported"),
    "ruser": (
        "external reg { field { onread = ruser; } f; } x;",
        "onread = ruser is not supported",
    ),
    "rw1": ("reg { field { sw = rw1; } f; } x;", "sw = rw1 is not supported"),
    "reference": (
        "reg { field {} a; field { we; } b; b->we = a; } x;",
        "we as a reference is not supported",
    ),
    "reset reference": (
        "reg { field {} a; field {} b; b->reset = a; } x;",
        "reset by reference is not supported",
    ),
    "signal": ("signal {} s; reg { field {} f; } x;", "a signal is not supported"),
    "nested map": ("addrmap { reg { field {} f; } x; } inner;", "a addrmap is not supported"),
    "matrix": ("reg { field {} f; } x[2][2];", "arrays have one dimension"),
    "gaps": ("reg { field {} f; } x[2] += 8;", "an array of registers with gaps"),
    "keyword": ("reg { field {} f; } class;", "the name cannot be used in Python"),
    "misaligned": ("reg { regwidth = 64; field {} f; } x @ 4;", "not aligned"),
    "virtual": (
        "external mem { mementries = 4; memwidth = 32; reg { field {sw=rw;} f; } x; } m;",
        "virtual registers in a memory are not supported",
    ),
    "user property": (
        "reg { colour = true; field {} f; } x;",
        "property colour is not supported",
    ),
    "signals of external fields": (
        "external reg { field { hwset; } f; } x;",
        "fields of external registers have no hardware signals",
    ),
    "overlap": ("reg { field {} f; } a @ 0; reg { field {} f; } b @ 0;", "overlap"),
    "syntax": ("reg { field {} f } x;", "missing ';'"),
}


@pytest.mark.parametrize("body, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_honoured_is_refused(tmp_path_factory, body, message):
    declared = "property colour { component = reg; type = boolean; };\n"
    source = written(tmp_path_factory, f"{declared}addrmap refused {{\n{body}\n}};")
    with pytest.raises(MapError, match=rf"map\.rdl:3: .*{re.escape(message)}"):
        load_map(source)


def test_guides_example_makes_a_block(tmp_path_factory):
    guide = (Path(__file__).parents[3] / "docs" / "registers.md").read_text()
    (text,) = re.findall(r"```systemrdl\n(.*?)```", guide, re.DOTALL)
    dut = RegisterBlock(load_map(written(tmp_path_factory, text)))

    async def bench(ctx):
        ctx.set(dut.left.ticks.next, 77)
        assert (await access(ctx, dut.bus, 0)).data == 77 << 32
        assert not (await access(ctx, dut.bus, 0, write=1, mask=3, data=0x0001)).error
        assert ctx.get(dut.control.mode.value) == dut.enums["Mode"].AGAIN

    simulate(dut, bench)


def test_missing_source_is_refused(tmp_path):
    with pytest.raises(MapError, match="no such file"):
        load_map(tmp_path / "nothing.rdl")


@pytest.mark.parametrize("name", ["bus", "refused", "elaborate", "signature"])
def test_names_of_the_block_are_refused(tmp_path_factory, name):
    drawn = load_map(
        written(tmp_path_factory, f"addrmap names {{ reg {{ field {{}} f; }} {name}; }};")
    )
    assert "the block itself uses this name" in refusal(lambda: RegisterBlock(drawn))


@pytest.mark.parametrize("base", [0x10, 0x44, 1 << 32, -0x100])
def test_bases_that_cannot_be_decoded_are_refused(tmp_path_factory, base):
    drawn = load_map(written(tmp_path_factory, STRUCTURE))
    assert "multiple of 0x100" in refusal(lambda: RegisterBlock(drawn, base=base))

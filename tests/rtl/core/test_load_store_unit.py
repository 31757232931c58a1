"""The load/store unit on a memory that always answers: values, and the reservation."""

from amaranth import *
from amaranth.lib import wiring
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtl.arch.instructions import INSTRUCTIONS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.core.decode import MemoryOperation
from rtl.core.lsu.load_store_unit import LoadStoreUnit
from rtl.mmu.context import frame_of
from tests.streams import simulate

RAM = MEMORY_MAP["ram"].base
LINE = 64
LINES = 3
ALL = (1 << 64) - 1
OPERATIONS = {
    "lr": MemoryOperation.LOAD_RESERVED,
    "sc": MemoryOperation.STORE_CONDITIONAL,
    "l": MemoryOperation.LOAD,
    "s": MemoryOperation.STORE,
    "amoadd": MemoryOperation.AMO,
}


class OnMemory(wiring.Component):
    """The unit, translating nothing, on some lines of memory that answer at once."""

    def __init__(self):
        self.unit = LoadStoreUnit()
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        words = Array(Signal(64, name=f"word{n}") for n in range(LINES * LINE // 8))
        offset = Signal(12)
        word = words[offset[3:]]
        access = unit.access
        m.d.comb += [
            unit.index.ready.eq(1),
            unit.translation.hit.eq(1),
            unit.result.valid.eq(access.valid),
            unit.result.data.eq(word),
        ]
        m.d.sync += [
            offset.eq(unit.index.payload),
            unit.translation.translation.frame.eq(frame_of(unit.translation.query.gva[12:56])),
        ]
        with m.If(access.valid & access.write):
            for lane in range(8):
                with m.If(access.mask[lane]):
                    m.d.sync += word.word_select(lane, 8).eq(access.data.word_select(lane, 8))
        return m


async def carry_out(ctx, unit, name, size, address, data, at_once):
    """One instruction; its value, and whether memory was written.

    ``at_once`` are the inputs set in the cycle that finishes it.
    """
    funct5 = INSTRUCTIONS["amoadd.d"].match >> 27
    ctx.set(
        unit.instruction,
        {
            "operation": OPERATIONS[name],
            "funct3": size,
            "funct5": funct5,
            "address": address,
            "alignment": {
                "misaligned": address % (1 << size) != 0,
                "crosses": address % 8 + (1 << size) > 8,
            },
            "data": data,
        },
    )
    ctx.set(unit.start, 1)
    for _ in range(20):
        done = ctx.get(unit.done)
        if done:
            for port, value in at_once:
                ctx.set(port, value)
            value, stored, fault = ctx.get(unit.value), ctx.get(unit.stored), ctx.get(unit.fault)
            assert not fault
        await ctx.tick()
        ctx.set(unit.start, 0)
        ctx.set(unit.written.valid, 0)
        ctx.set(unit.clear_reservation, 0)
        if done:
            return value, stored
    raise AssertionError(f"{name} is not done")


places = st.integers(0, LINES * LINE - 1)
steps = st.one_of(
    st.tuples(st.sampled_from(["lr", "sc", "lr", "sc", "amoadd"]), st.sampled_from([2, 3]), places),
    st.tuples(st.sampled_from(["l", "s"]), st.integers(0, 3), places),
    st.tuples(st.sampled_from(["written", "clear", "late written"]), st.just(0), places),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(steps, st.integers(0, ALL)), min_size=20, max_size=60))
@example([(("lr", 3, 0), 0), (("sc", 3, 0), 1), (("sc", 3, 0), 2)])
@example([(("lr", 3, 0), 0), (("s", 3, 0), 1), (("sc", 3, LINE), 2), (("sc", 3, 0), 3)])
def test_values_and_the_reservation_are_those_of_a_model(drawn):
    """Written by others or cleared, a line is no longer reserved; own stores leave it so."""
    dut = OnMemory()
    unit = dut.unit

    async def testbench(ctx):
        memory = bytearray(LINES * LINE)
        reserved, late = None, []
        for (name, size, place), data in drawn:
            bytes_ = 1 << size
            if name in ("written", "late written"):
                written = (unit.written, {"valid": 1, "address": RAM + place & ~7})
                if name == "late written":
                    late = [(written, place // LINE)]  # in the cycle the next access is done
                    continue
                ctx.set(*written)
                await ctx.tick()
                ctx.set(unit.written.valid, 0)
                if reserved == place // LINE:
                    reserved = None
                continue
            if name == "clear":
                ctx.set(unit.clear_reservation, 1)
                await ctx.tick()
                ctx.set(unit.clear_reservation, 0)
                reserved = None
                continue
            if name in ("lr", "sc", "amoadd"):
                place &= ~(bytes_ - 1)
            place = min(place, LINES * LINE - bytes_)
            # One told of in the cycle an lr is done came before it, and may or may not count.
            late = [] if name == "lr" else late
            at_once = [port for port, _ in late]
            value, stored = await carry_out(ctx, unit, name, size, RAM + place, data, at_once)
            old = int.from_bytes(memory[place : place + bytes_], "little", signed=True) & ALL
            writes = {"l": False, "lr": False, "sc": reserved == place // LINE}.get(name, True)
            assert stored == writes, name
            if name in ("l", "lr", "amoadd"):
                assert value == old, name
            if name == "sc":
                assert value == (0 if writes else 1)
                reserved = None
            if writes:
                new = old + data if name == "amoadd" else data
                memory[place : place + bytes_] = (new % 256**bytes_).to_bytes(bytes_, "little")
            if name == "lr":
                reserved = place // LINE
            if late and late[0][1] == reserved:
                reserved = None
            late = []

    simulate(dut, testbench)

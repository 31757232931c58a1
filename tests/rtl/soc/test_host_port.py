"""The host port against models of the hart, RAM and devices."""

import functools
import itertools
from collections import Counter
from typing import NamedTuple

import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch import records
from rtl.arch.memory_map import MEMORY_MAP
from rtl.core.ports import HostCommand
from rtl.lib.rdl import model
from rtl.lib.rdl.source import load_map
from rtl.maps import map_path
from rtl.soc.host_port import HostPortUnit
from tests.streams import access, get, put, wait

MAP = load_map(map_path("host_port"))
ERRORS = MAP.enumerations["AccessError"].as_enum()
RAM = MEMORY_MAP["ram"]
WORDS = st.integers(0, 2**64 - 1)
SLOW = settings(deadline=None, max_examples=25)


def registers():
    """Every register and memory by its path: (first address, item)."""
    found = {}

    def visit(items, base, path):
        for item in items:
            if isinstance(item, model.Group):
                visit(item.items, base + item.offset, f"{path}{item.name}.")
            else:
                found[path + item.name] = (base + item.offset, item)

    visit(MAP.items, 0, "")
    return found


REGISTERS = registers()


def field(path, name):
    return next(field for field in REGISTERS[path][1].fields if field.name == name)


def word(path, **fields):
    """The register's word with these fields."""
    return sum(value << field(path, name).lsb for name, value in fields.items())


class Host(NamedTuple):
    """The host side of the port, inside a testbench."""

    ctx: object
    dut: HostPortUnit

    async def access(self, path, *, index=0, write=0, data=0, size=8):
        address = REGISTERS[path][0] + 8 * index
        return await access(
            self.ctx, self.dut.host, address, write=write, data=data, mask=(1 << size) - 1
        )

    async def write(self, path, data, *, index=0, size=8):
        answer = await self.access(path, index=index, write=1, data=data, size=size)
        assert not answer.error, (path, await self.error())

    async def read(self, path, *, index=0, size=8):
        answer = await self.access(path, index=index, size=size)
        assert not answer.error, (path, await self.error())
        return answer.data & (1 << 8 * size) - 1

    async def error(self):
        """The error the port remembers; it forgets it."""
        address = REGISTERS["status"][0]
        answer = await access(self.ctx, self.dut.host, address)
        assert not answer.error
        error = field("status", "error")
        await access(self.ctx, self.dut.host, address, write=1, mask=1 << error.lsb // 8)
        return ERRORS((answer.data & error.mask) >> error.lsb)

    async def refused(self, path, **arguments):
        """The reason for which an access fails."""
        assert (await self.access(path, **arguments)).error
        return await self.error()


class Hart:
    """A parked hart's side of the host commands: registers, and a list of everything else."""

    def __init__(self, dut, *, missing=()):
        self.dut, self.missing = dut, missing
        self.gpr, self.csr, self.log = Counter(), Counter(), []

    async def serve(self, ctx):
        while True:
            request = await get(ctx, self.dut.command.request)
            data, error = 0, 0
            match request.command:
                case HostCommand.READ_GPR:
                    data = self.gpr[request.index]
                case HostCommand.WRITE_GPR:
                    self.gpr[request.index] = request.data
                case HostCommand.READ_CSR | HostCommand.WRITE_CSR if request.index in self.missing:
                    error = 1
                case HostCommand.READ_CSR:
                    data = self.csr[request.index]
                case HostCommand.WRITE_CSR:
                    self.csr[request.index] = request.data
                case other:
                    self.log.append((other, request.index, request.data))
            await ctx.tick()
            await put(ctx, self.dut.command.response, {"data": data, "error": error})


class Memory:
    """Bytes behind a bus; those at the addresses in ``holes`` answer with an error."""

    def __init__(self, bus, *, holes=()):
        self.bus, self.holes, self.bytes = bus, holes, {}
        self.accesses = 0

    async def serve(self, ctx):
        while True:
            request = await get(ctx, self.bus.request)
            self.accesses += 1
            lanes = [lane for lane in range(8) if request.mask >> lane & 1]
            error = any(request.address + lane in self.holes for lane in lanes)
            data = 0x5A5A_5A5A_5A5A_5A5A
            for lane in lanes if not error else ():
                if request.write:
                    self.bytes[request.address + lane] = request.data >> 8 * lane & 0xFF
                byte = self.bytes.get(request.address + lane, 0)
                data = data & ~(0xFF << 8 * lane) | byte << 8 * lane
            await put(ctx, self.bus.response, {"data": data, "error": int(error)})


class Bench:
    """One simulation of the port with everything around it, used by many tests in turn."""

    def __init__(self):
        self.dut = HostPortUnit()
        self.hart = Hart(self.dut)
        self.ram, self.devices = Memory(self.dut.snoop), Memory(self.dut.peripheral)
        self.parked, self.testbenches, self.watched, self.used = 1, [], [], False
        self.simulator = Simulator(self.dut)
        self.simulator.add_clock(1e-6)
        for process in (self._watch, self.hart.serve, self.ram.serve, self.devices.serve):
            self.simulator.add_testbench(process, background=True)
        for number in range(3):
            self.simulator.add_testbench(functools.partial(self._run, number))

    async def _watch(self, ctx):
        """Keep what happens at ``resume``; end a test that does not end by itself."""
        resume = self.dut.resume
        for _ in range(5000):
            _, _, *seen, payload = await ctx.tick().sample(
                resume.valid, resume.ready, self.dut.reset_request, resume.payload
            )
            self.watched.append((*seen, plain(payload)))
        raise AssertionError("the test does not end")

    async def _run(self, number, ctx):
        ctx.set(self.dut.parked, self.parked)
        if number < len(self.testbenches):
            await self.testbenches[number](Host(ctx, self.dut))

    def run(self, *testbenches, missing=(), holes=(), parked=1):
        """Reset everything and run the testbenches, each called with a Host, side by side."""
        self.hart.__init__(self.dut, missing=missing)
        self.ram.__init__(self.dut.snoop, holes=holes)
        self.devices.__init__(self.dut.peripheral, holes=holes)
        self.parked, self.testbenches = parked, testbenches
        self.watched.clear()
        # A reset makes new coroutines of the testbenches; those it replaces must have been run.
        if self.used:
            self.simulator.reset()
        self.used = True
        self.simulator.run()


@functools.cache
def shared_bench():
    return Bench()


def run(bench, **surroundings):
    """Run ``bench(host, dut, hart, ram, devices)``."""
    shared = shared_bench()

    async def testbench(host):
        await bench(host, shared.dut, shared.hart, shared.ram, shared.devices)

    shared.run(testbench, **surroundings)
    return shared.watched


def test_maps_enumerations_are_the_facts():
    kinds = MAP.enumerations["ParkKind"].as_enum()
    assert dict(kinds.__members__) == dict(records.ParkKind.__members__)


def test_map_has_every_field_of_the_park_record():
    for fact in records.PARK.fields:
        (value,) = REGISTERS[f"park.{fact.name}"][1].fields
        assert (value.width, value.sw_write) == (fact.width, False)
    named = {path for path in REGISTERS if path.startswith("park.")}
    assert named == {f"park.{fact.name}" for fact in records.PARK.fields}


@SLOW
@given(st.lists(st.tuples(st.sampled_from(["gpr", "csr"]), st.integers(0, 31), WORDS), max_size=8))
def test_gprs_and_csrs_are_the_harts(writes):
    async def bench(host, dut, hart, ram, devices):
        held = {"gpr": Counter(), "csr": Counter()}
        for path, index, value in writes:
            # CSR numbers use all twelve bits.
            number = index if path == "gpr" else index * 0x84 + 3
            await host.write(path, value, index=number)
            held[path][number] = value
        assert (hart.gpr, hart.csr) == (held["gpr"], held["csr"])
        for path, values in held.items():
            for number, value in values.items():
                assert await host.read(path, index=number) == value

    run(bench)


def test_csr_the_hart_lacks_is_refused():
    async def bench(host, dut, hart, ram, devices):
        assert await host.refused("csr", index=0x7FF) == ERRORS.REFUSED
        assert await host.refused("csr", index=0x7FF, write=1) == ERRORS.REFUSED
        assert await host.error() == ERRORS.NONE
        await host.write("csr", 5, index=0x300)

    run(bench, missing={0x7FF})


@SLOW
@given(
    page=st.integers(0, 2**27 - 1), asid=st.integers(0, 2**16 - 1), cycles=st.integers(0, 2**32 - 1)
)
def test_commands_carry_their_arguments(page, asid, cycles):
    async def bench(host, dut, hart, ram, devices):
        for match_page in (0, 1):
            for match_asid in (0, 1):
                fence = {"match_page": match_page, "match_asid": match_asid}
                await host.write("sfence_vma", word("sfence_vma", page=page, asid=asid, **fence))
                (done,) = hart.log
                assert done == (
                    HostCommand.SFENCE_VMA,
                    match_page | match_asid << 1,
                    page | asid << 32,
                )
                hart.log.clear()
        await host.write("privilege", 3)
        await host.write("fence_i", 1)
        await host.write("clean", 1)
        await host.write("charge", cycles)
        assert hart.log == [
            (HostCommand.WRITE_PRIVILEGE, 0, 3),
            (HostCommand.FENCE_I, 0, 0),
            (HostCommand.CLEAN, 0, 0),
            (HostCommand.CHARGE, 0, cycles),
        ]
        hart.log.clear()
        for command in ("fence_i", "clean"):
            await host.write(command, 0)
        assert hart.log == []

    run(bench)


@pytest.mark.parametrize("path", ["gpr", "csr", "privilege", "sfence_vma", "fence_i", "charge"])
def test_partial_command_writes_are_refused(path):
    async def bench(host, dut, hart, ram, devices):
        assert await host.refused(path, write=1, data=1, size=4) == ERRORS.BAD_SIZE
        assert (hart.gpr, hart.csr, hart.log) == ({}, {}, [])

    run(bench)


PLACES = st.sampled_from((RAM.base, RAM.end - 64, MEMORY_MAP["uart"].base, 0x0500_0000, 0))
MEMORY_ACCESSES = st.lists(
    st.tuples(st.integers(0, 63), st.sampled_from((1, 2, 4, 8)), st.booleans(), WORDS),
    min_size=1,
    max_size=8,
)


@SLOW
@given(PLACES, MEMORY_ACCESSES, st.integers(0, 63))
def test_memory_is_what_was_written(base, accesses, hole):
    async def bench(host, dut, hart, ram, devices):
        expected = {}
        for offset, size, write, value in accesses:
            address = base + offset
            span = range(address, address + size)
            await host.write("memory.address", address)
            arguments = {"size": size, "write": int(write), "data": value}
            if address % size:
                assert await host.refused("memory.data", **arguments) == ERRORS.BAD_SIZE
                assert await host.read("memory.address") == address
                continue
            if base + hole in span:
                assert await host.refused("memory.data", **arguments) == ERRORS.BUS_ERROR
                assert await host.read("memory.address") == address
                continue
            if write:
                await host.write("memory.data", value, size=size)
                for place, byte in zip(span, value.to_bytes(8, "little"), strict=False):
                    expected[place] = byte
            else:
                answer = await host.read("memory.data", size=size)
                assert answer == sum(expected.get(at, 0) << 8 * n for n, at in enumerate(span))
            assert await host.read("memory.address") == address + size
        here, there = (ram, devices) if base >= RAM.base else (devices, ram)
        assert here.bytes == expected
        assert there.accesses == 0

    run(bench, holes={base + hole})


@pytest.mark.parametrize("address", [1 << 32, 1 << 63, RAM.end])
def test_addresses_behind_the_bus_answer_with_an_error(address):
    async def bench(host, dut, hart, ram, devices):
        await host.write("memory.address", address)
        assert await host.refused("memory.data") == ERRORS.BUS_ERROR
        assert (ram.accesses, devices.accesses) == (0, 0)

    run(bench)


def test_data_takes_whole_sizes_only():
    async def bench(host, dut, hart, ram, devices):
        await host.write("memory.address", RAM.base)
        for mask in set(range(256)) - {0, 0x01, 0x03, 0x0F, 0xFF}:
            answer = await access(host.ctx, dut.host, REGISTERS["memory.data"][0], mask=mask)
            assert answer.error
            assert await host.error() == ERRORS.BAD_SIZE
        assert ram.accesses == 0

    run(bench)


RUNNING = {"control", "status", "exits.count", "exits.cycles", "vmx.rd"} | {
    path for path in REGISTERS if path.startswith("counters.")
}


@pytest.mark.parametrize("write", [0, 1])
def test_running_hart_leaves_little(write):
    async def bench(host, dut, hart, ram, devices):
        for path in REGISTERS:
            if path in RUNNING:
                assert not (await host.access(path, write=write)).error, path
            else:
                assert await host.refused(path, write=write, data=1) == ERRORS.BUSY, path
        assert (hart.gpr, hart.csr, hart.log, ram.accesses, devices.accesses) == ({}, {}, [], 0, 0)
        assert host.ctx.get(dut.resume.valid) == 0
        assert host.ctx.get(dut.park_exceptions) == 0

    run(bench, parked=0)


def test_parked_hart_answers_everything():
    async def bench(host, dut, hart, ram, devices):
        for path in set(REGISTERS) - {"memory.data"}:
            assert not (await host.access(path)).error, path

    run(bench)


@SLOW
@given(st.integers(0, 0xFFF8 // 8).map(lambda n: 8 * n), st.integers(1, 255))
def test_addresses_that_hold_nothing_are_errors(address, mask):
    held = set()
    for first, register in REGISTERS.values():
        count = register.entries if isinstance(register, model.Memory) else register.count or 1
        for index in range(count):
            held |= set(range(first + 8 * index, first + 8 * index + register.width // 8))

    async def bench(host, dut, hart, ram, devices):
        answer = await access(host.ctx, dut.host, address, mask=mask)
        if address == REGISTERS["memory.data"][0]:
            return
        missing = {address + lane for lane in range(8) if mask >> lane & 1} - held
        assert answer.error == bool(missing)
        assert await host.error() == (ERRORS.NO_SUCH_REGISTER if missing else ERRORS.NONE)

    run(bench)


@SLOW
@given(st.fixed_dictionaries({f.name: st.integers(0, 2**f.width - 1) for f in records.PARK.fields}))
def test_park_record_can_be_read(park):
    park["kind"] %= 3

    async def bench(host, dut, hart, ram, devices):
        host.ctx.set(dut.park, park)
        for name, value in park.items():
            assert await host.read(f"park.{name}") == value
        status = await host.read("status")
        assert status == word("status", parked=1, kind=park["kind"])

    run(bench)


RESUMES = st.fixed_dictionaries(
    {f.name: st.integers(0, 2**f.width - 1) for f in records.RESUME.fields}
)


async def resume_by_registers(host, resume):
    """Resume; everything is written before ``go``."""
    await host.write("resume.value", resume["value"])
    await host.write("resume.pc", resume["pc"])
    start = word("resume.start", go=1, **{n: resume[n] for n in ("charge", "rd", "retires")})
    await host.write("resume.start", start)


def plain(resume):
    return {f.name: resume[f.name] for f in records.RESUME.fields}


@SLOW
@given(RESUMES, st.integers(0, 6))
def test_resume_by_registers_is_one_resume(resume, delay):
    async def bench(host, dut, hart, ram, devices):
        await resume_by_registers(host, resume)
        await wait(host.ctx, delay)
        # Until the hart takes it, the resume is under way.
        assert await host.refused("gpr") == ERRORS.BUSY
        assert await host.read("status") & field("status", "parked").mask == 0
        assert plain(await get(host.ctx, dut.resume)) == resume
        for _ in range(4):
            assert host.ctx.get(dut.resume.valid) == 0
            await host.ctx.tick()
        await host.read("gpr")

    run(bench)


@SLOW
@given(RESUMES, RESUMES, st.integers(0, 4), st.integers(0, 12))
def test_both_ways_to_resume_are_served_and_hold_still(first, second, wide_delay, taken_delay):
    """A payload offered to the hart never changes before it is taken."""
    shared, refused = shared_bench(), []

    async def registers(host):
        await host.write("resume.value", first["value"])
        await host.write("resume.pc", first["pc"])
        start = word("resume.start", go=1, **{n: first[n] for n in ("charge", "rd", "retires")})
        # The port is busy when the wide resume came first.
        refused.append((await host.access("resume.start", write=1, data=start)).error)

    async def wide(host):
        # Not before value and pc are written.
        await wait(host.ctx, wide_delay + 4)
        await put(host.ctx, host.dut.resume_wide, second)

    async def taker(host):
        await wait(host.ctx, taken_delay + 12)
        for _ in range(20):
            host.ctx.set(host.dut.resume.ready, 1)
            await host.ctx.tick()
            host.ctx.set(host.dut.resume.ready, 0)
            await host.ctx.tick()

    shared.run(registers, wide, taker)
    taken = [payload for valid, ready, _reset, payload in shared.watched if valid and ready]
    expected = [second] if refused[0] else [first, second]
    assert taken in (expected, expected[::-1])
    for (valid, ready, _, before), (still, _, _, after) in itertools.pairwise(shared.watched):
        if valid and not ready:
            assert still and after == before


def test_stop_is_held_until_the_hart_parks():
    async def bench(host, dut, hart, ram, devices):
        stop = word("control", stop=1)
        await host.write("control", stop)
        for _ in range(20):
            assert host.ctx.get(dut.stop) == 1
            await host.ctx.tick()
        host.ctx.set(dut.parked, 1)
        await host.ctx.tick()
        assert host.ctx.get(dut.stop) == 0
        # A stop that follows a resume is not lost, though the hart is still parked.
        await resume_by_registers(host, {field.name: 0 for field in records.RESUME.fields})
        await host.write("control", stop)
        await wait(host.ctx, 5)
        await get(host.ctx, dut.resume)
        host.ctx.set(dut.parked, 0)
        await host.ctx.tick()
        assert host.ctx.get(dut.stop) == 1

    run(bench, parked=0)


def test_settings_reach_the_hart():
    async def bench(host, dut, hart, ram, devices):
        await host.write("park_exceptions", 0x8000_0000_0000_0123)
        await host.write("park_interrupts", 0x4000_0000_0000_0456)
        await host.write("control", word("control", step=1))
        await host.ctx.tick()
        assert host.ctx.get(dut.park_exceptions) == 0x8000_0000_0000_0123
        assert host.ctx.get(dut.park_interrupts) == 0x4000_0000_0000_0456
        assert host.ctx.get(dut.step) == 1
        assert await host.read("park_exceptions") == 0x8000_0000_0000_0123

    run(bench)


FLAGS = ("retired", "walking", "instruction_miss", "data_miss", "instruction_walk", "data_walk")
CYCLES = st.lists(
    st.fixed_dictionaries(
        {
            "advance": st.booleans(),
            "where": st.sampled_from(("guest", "transition", "charged")),
            "flags": st.sets(st.sampled_from(FLAGS)),
            "exit": st.none() | st.sampled_from((0, 8, 64 + 7)),
            "skip": st.none() | st.integers(0, 2**32 - 1),
        }
    ),
    max_size=25,
)


def count(cycles):
    """The counters and the exit table, by their definition."""
    counters, exits, latest = Counter(), {}, None
    for cycle in cycles:
        if cycle["skip"] is not None:
            counters["cycles"] += cycle["skip"]
            counters["charged"] += cycle["skip"]
        if not cycle["advance"]:
            continue
        counters["cycles"] += 1
        counters[cycle["where"]] += 1
        counters.update(cycle["flags"])
        if cycle["exit"] is not None:
            latest = cycle["exit"]
            times, spent = exits.get(latest, (0, 0))
            exits[latest] = (times + 1, spent)
        if latest is not None and cycle["where"] == "transition":
            times, spent = exits[latest]
            exits[latest] = (times, spent + 1)
    return counters, exits


async def play(ctx, dut, cycles):
    for cycle in cycles:
        reason = cycle["exit"] or 0
        ctx.set(dut.advance, cycle["advance"])
        ctx.set(
            dut.events,
            {
                **{flag: flag in cycle["flags"] for flag in FLAGS},
                "transition": cycle["where"] == "transition",
                "charging": cycle["where"] == "charged",
                "exit": cycle["exit"] is not None,
                "reason": {"code": reason % 64, "interrupt": reason // 64},
            },
        )
        skip = cycle["skip"]
        ctx.set(dut.skip, {"valid": skip is not None, "cycles": 123 if skip is None else skip})
        await ctx.tick()
    ctx.set(dut.advance, 0)
    ctx.set(dut.skip.valid, 0)


@SLOW
@given(CYCLES)
def test_counters_follow_their_definition(cycles):
    names = {
        "cycles": "cycles",
        "guest": "guest",
        "transition": "transition",
        "charged": "charged",
        "walk": "walking",
        "instructions": "retired",
        "instruction_misses": "instruction_miss",
        "data_misses": "data_miss",
        "instruction_walks": "instruction_walk",
        "data_walks": "data_walk",
    }

    async def bench(host, dut, hart, ram, devices):
        await play(host.ctx, dut, cycles)
        counters, exits = count(cycles)
        assert counters["cycles"] == sum(counters[n] for n in ("guest", "transition", "charged"))
        for register, name in names.items():
            assert await host.read(f"counters.{register}") == counters[name], register
        for reason in (0, 7, 8, 64, 64 + 7):
            times, spent = exits.get(reason, (0, 0))
            assert await host.read("exits.count", index=reason) == times
            assert await host.read("exits.cycles", index=reason) == spent
        await host.write("control", word("control", reset=1))
        for register in names:
            assert await host.read(f"counters.{register}") == 0
        for reason in (0, 8, 64 + 7):
            assert await host.read("exits.count", index=reason) == 0
            assert await host.read("exits.cycles", index=reason) == 0

    run(bench)


def test_reset_is_a_strobe():
    async def bench(host, dut, hart, ram, devices):
        await host.write("control", word("control", reset=1))
        await wait(host.ctx, 10)

    watched = run(bench)
    assert sum(reset for _valid, _ready, reset, _payload in watched) == 1

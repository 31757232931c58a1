"""The machine on the real SoC: what ``sw_vmm.machine.Machine`` promises."""

import functools
import itertools
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sw_vmm.guests
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.records import RETIREMENT, ParkKind
from rtl.soc.config import SocConfig
from sim.elf import load_elf
from sim.guests import platform_defines
from sim.library import LibraryMachine
from sim.toolchain import build_program
from sim.verilated import RETIREMENT_BYTES
from sw_vmm.machine import BusError, Event, MachineBusy, MachineError

RAM = MEMORY_MAP["ram"].base
ROM = MEMORY_MAP["rom"].base
WINDOW = MEMORY_MAP["window"].base
SIZE = 1 << 20
BUFFER = RAM + 0x8000
BREAKPOINT, CALL_FROM_USER = 3, 8
USER, MACHINE = 0, 3
MCYCLE, MSCRATCH, MIE = 0xB00, 0x340, 0x304

examples = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@functools.cache
def probe():
    """The image of probe.S; no fixture, as Hypothesis shows the arguments of an example."""
    elf = build_program(
        "probe",
        [Path(__file__).with_name("probe.S")],
        script=Path(sw_vmm.guests.__file__).parent / "bare.ld",
        defines=platform_defines(),
    )
    return load_elf(elf, ram_size=SIZE)


@pytest.fixture(scope="session")
def shared():
    return LibraryMachine(SocConfig(), ram_size=SIZE)


@pytest.fixture
def machine(shared):
    """A machine after reset with the probe in RAM; breakpoints and calls from U-mode park."""
    shared.reset()
    shared.trace(0)
    shared.skip_charges(True)
    for base, data in probe().segments:
        shared.write_memory(base, data)
    shared.park_on(1 << BREAKPOINT | 1 << CALL_FROM_USER, 0)
    return shared


def go(machine, label, *, cycles=100_000, **registers):
    """Run from ``label`` with some registers set."""
    for name, value in registers.items():
        machine.write_gpr(int(name[1:]), value)
    machine.resume(probe().symbols[label])
    return machine.run(cycles)


def test_reset_parks_the_hart_at_the_reset_vector(machine):
    record = machine.park
    assert (record.kind, record.pc, record.privilege) == (ParkKind.STOP, ROM, MACHINE)
    assert (record.cycle, record.instret, record.time) == (0, 0, 0)
    assert set(machine.counters().values()) == {0}


@examples
@given(st.lists(st.integers(0, 2**64 - 1), min_size=31, max_size=31))
def test_registers_keep_what_is_written(machine, values):
    for number, value in enumerate(values, 1):
        machine.write_gpr(number, value)
    machine.write_gpr(0, 5)
    assert [machine.read_gpr(number) for number in range(32)] == [0, *values]
    machine.write_csr(MSCRATCH, values[0])
    assert machine.read_csr(MSCRATCH) == values[0]


def test_a_csr_that_is_not_there_is_refused(machine):
    with pytest.raises(MachineError, match="no CSR 0x800"):
        machine.read_csr(0x800)
    with pytest.raises(MachineError, match="no CSR 0xf11"):
        machine.write_csr(0xF11, 1)
    assert machine.read_csr(MIE) == 0, "a refusal does no harm"


@pytest.mark.parametrize("address", [0, 0x5000_0000, RAM + SIZE, RAM + SIZE - 4, 1 << 40])
def test_memory_that_is_not_there_is_a_bus_error(machine, address):
    with pytest.raises(BusError):
        machine.read_memory(address, 8)
    with pytest.raises(BusError):
        machine.write_memory(address, bytes(8))


def test_the_device_window_is_not_for_its_own_host(machine):
    with pytest.raises(BusError):
        machine.read_memory(WINDOW, 4)
    assert machine.read_memory(ROM, 4) == bytes(4), "the bus is free again"


@examples
@given(
    accesses=st.lists(
        st.tuples(st.integers(0, 560), st.binary(min_size=1, max_size=40)), min_size=1, max_size=8
    )
)
def test_memory_is_one_with_the_caches(machine, accesses):
    """Host writes of any place and length against a copy, over lines the hart has dirtied."""
    assert go(machine, "dirty", x10=1, x11=BUFFER) == Event.PARKED
    copy = bytearray(machine.read_memory(BUFFER, 600))
    assert copy[:16] == (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    for place, data in accesses:
        machine.write_memory(BUFFER + place, data)
        copy[place : place + len(data)] = data
        assert machine.read_memory(BUFFER + place, len(data)) == data
    assert machine.read_memory(BUFFER, 600) == copy
    machine.clean()
    assert machine.read_memory(BUFFER, 600) == copy
    place = accesses[0][0] // 8 * 8
    go(machine, "load", x11=BUFFER + place)
    assert machine.read_gpr(10) == int.from_bytes(copy[place : place + 8], "little")


def test_the_rom_is_written_by_the_host(machine):
    data = bytes(range(256)) * 16
    machine.write_memory(ROM, data)
    assert machine.read_memory(ROM, len(data)) == data
    assert machine.read_memory(ROM + 3, 6) == data[3:9]


def test_a_running_hart_is_left_alone(machine):
    assert go(machine, "spin", cycles=1000) == Event.BUDGET
    for access in (
        lambda: machine.read_gpr(1),
        lambda: machine.write_csr(MSCRATCH, 1),
        lambda: machine.read_memory(RAM, 4),
        lambda: machine.resume(RAM),
        lambda: machine.charge(1),
        lambda: machine.park,
    ):
        with pytest.raises(MachineBusy):
            access()
    assert machine.counters()["instructions"] > 400
    machine.stop()
    assert machine.run(1000) == Event.PARKED
    assert machine.park.kind == ParkKind.STOP
    assert machine.park.pc in (RAM, RAM + 4)
    assert machine.read_gpr(1) > 200


def test_resume_writes_its_register_and_keeps_the_privilege(machine):
    machine.write_privilege(USER)
    machine.resume(probe().symbols["calls"], rd=12, value=2)
    assert machine.run(10_000) == Event.PARKED
    first = machine.park
    assert (first.reason, first.privilege, first.kind) == (
        CALL_FROM_USER,
        USER,
        ParkKind.ROOT_TRAP,
    )
    machine.resume(first.pc + 4)
    assert machine.run(10_000) == Event.PARKED
    assert (machine.park.reason, machine.park.privilege) == (CALL_FROM_USER, USER)
    assert machine.read_gpr(12) == 1


def calls(machine, charges):
    """Exits with charges; everything that can be seen afterwards."""
    machine.write_privilege(USER)
    machine.write_gpr(12, len(charges) + 1)
    machine.resume(probe().symbols["calls"])
    seen = []
    for charge in charges:
        assert machine.run(100_000) == Event.PARKED
        seen.append((machine.park, machine.transition))
        machine.resume(machine.park.pc + 4, charge=charge)
    assert machine.run(100_000) == Event.PARKED
    return [*seen, machine.park, machine.counters(), machine.cycles]


@settings(examples, max_examples=15)
@given(charges=st.lists(st.integers(0, 3000), min_size=1, max_size=5))
def test_skipped_and_clocked_charges_are_identical(machine, charges):
    told = []
    for skipping in (True, False):
        machine.reset()
        for base, data in probe().segments:
            machine.write_memory(base, data)
        machine.park_on(1 << BREAKPOINT | 1 << CALL_FROM_USER, 0)
        machine.skip_charges(skipping)
        told.append(calls(machine, charges))
    assert told[0] == told[1]
    *_, counters, cycles = told[0]
    assert counters["charged"] == sum(charges)
    assert counters["cycles"] == cycles
    assert cycles == counters["guest"] + counters["transition"] + counters["charged"]


def test_time_runs_at_its_rate_through_charges(machine):
    *_, record, counters, _ = calls(machine, [1, 2, 3, 99, 1000, 12345])
    assert record.time == counters["cycles"] // machine.config.cycles_per_tick


def test_a_charge_alone_is_machine_time(machine):
    machine.charge(1234)
    machine.skip_charges(False)
    machine.charge(1_500_000)
    assert machine.counters()["charged"] == machine.counters()["cycles"] == 1_501_234
    assert machine.read_csr(MCYCLE) == 1_501_234


def test_transition_counts_the_exits_before(machine):
    # The first rounds teach the predictor the loop.
    *exits, _, counters, _ = calls(machine, [0, 500, 0, 7] * 4)
    totals = [transition for _, transition in exits]
    assert totals == sorted(totals)
    assert totals[-1] < counters["transition"]
    steps = [after - before for before, after in itertools.pairwise(totals)][-8:]
    assert len(set(steps)) == 1, "equal exits have equal transitions, whatever is charged"

    # From the first exit on: what is charged changes no transition.
    told = []
    for charges in ([0, 500, 0, 7], [0, 0, 0, 0]):
        machine.reset()
        for base, data in probe().segments:
            machine.write_memory(base, data)
        machine.park_on(1 << BREAKPOINT | 1 << CALL_FROM_USER, 0)
        told.append([transition for _, transition in calls(machine, charges)[:-3]])
    assert told[0] == told[1]


def test_tohost_ends_a_run(machine):
    machine.stop_at_tohost(probe().symbols["tohost"])
    assert go(machine, "end_by_tohost") == Event.TOHOST
    assert machine.tohost == 7 << 1 | 1


def test_the_finisher_ends_a_run(machine):
    assert go(machine, "end_by_finisher") == Event.FINISHED
    assert machine.finisher == 0x3333 | 9 << 16


def test_keys_are_typed_when_their_text_has_appeared(machine):
    machine.write_memory(BUFFER, b"Hit any key\0")
    machine.type_after(b"any key", b"abcdefghijklmnopqrstuvwxyz\n")
    machine.stop_at_text(b"xyz")
    assert go(machine, "talk", x11=BUFFER) == Event.CONSOLE
    assert machine.console().endswith(b"xyz")
    assert machine.run(100_000) == Event.PARKED
    assert machine.console() == b"Hit any keyabcdefghijklmnopqrstuvwxyz\n"


def test_a_device_in_the_window_answers_after_the_latency_however_long_it_takes(machine):
    assert go(machine, "device", x10=0xABCD, x11=WINDOW + 0x40) == Event.WINDOW
    address, write, mask, _ = machine.window_request()
    assert (address, write, mask) == (WINDOW + 0x40, False, 0x0F)
    machine.answer_window(0x1234_5678)
    assert machine.run(10_000) == Event.WINDOW
    address, write, mask, data = machine.window_request()
    assert (address, write, mask) == (WINDOW + 0x40, True, 0xF0)
    assert data >> 32 == 0xABCD
    machine.answer_window(0)
    assert machine.run(10_000) == Event.PARKED
    assert machine.read_gpr(12) == 0x1234_5678


def test_every_retired_instruction_is_traced(machine):
    machine.trace(100)
    machine.write_privilege(USER)
    go(machine, "calls", x12=3)
    data = machine.traced()
    rows = [
        RETIREMENT.decode(int.from_bytes(data[place : place + RETIREMENT_BYTES], "little"))
        for place in range(0, len(data), RETIREMENT_BYTES)
    ]
    start = probe().symbols["calls"]
    assert [(row["pc"], row["trap"]) for row in rows] == [(start, 0), (start + 4, 1)]
    assert {row["privilege"] for row in rows} == {USER}


def test_two_runs_are_identical(machine):
    one = calls(machine, [0, 100, 20])
    machine.reset()
    for base, data in probe().segments:
        machine.write_memory(base, data)
    machine.park_on(1 << BREAKPOINT | 1 << CALL_FROM_USER, 0)
    assert calls(machine, [0, 100, 20]) == one


@pytest.mark.parametrize("size", [0, 7, 12, 1 << 32])
def test_ram_that_cannot_be_is_refused(size):
    with pytest.raises(ValueError, match="RAM must have"):
        LibraryMachine(SocConfig(), ram_size=size)


def test_a_jump_into_nothing_does_not_hang(machine):
    machine.resume(0x5000_0000)
    assert machine.run(20_000) == Event.BUDGET
    machine.stop()
    assert machine.run(20_000) == Event.PARKED


def test_a_simple_exit_is_quick(machine):
    """Resume, run, decode: most of it is simulation, none of it a millisecond."""
    count = 500
    machine.write_privilege(USER)
    machine.write_gpr(12, count + 2)
    machine.resume(probe().symbols["calls"])
    machine.run(10_000)
    start = time.process_time()
    for _ in range(count):
        machine.resume(machine.park.pc + 4)
        machine.run(10_000)
    assert (time.process_time() - start) / count < 1e-3

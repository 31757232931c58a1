"""Machine time on the Verilated SoC: frozen while parked, charged, skipped, and repeatable."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rtl.arch.csrs import CSRS, INTERRUPTS, MENVCFG, MSTATUS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.traps import Exception_, Privilege
from sim.verilated import RETIREMENT_BYTES
from sw_vmm.machine import Event
from tests.machine.board import ALL, PAGE, RAM, RAM_SIZE, Tables, program
from tests.machine.words import encode

CLINT = MEMORY_MAP["clint"].base
MTIMECMP, MTIME = CLINT + 0x4000, CLINT + 0xBFF8
TRACED = 4096
E = Exception_

examples = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def prepare(board, *, mtimecmp=ALL, stimecmp=ALL, every=ALL >> 1):
    image = program("timers")
    board.reset()
    board.load(image)
    board.park_on(E.BREAKPOINT, E.ECALL_FROM_USER)
    board.set_csr("mtvec", image.symbols["vector"])
    board.set_csr("menvcfg", MENVCFG.encode(stce=1))
    board.set_csr("mie", INTERRUPTS.encode(mti=1, sti=1))
    board.set_word(MTIMECMP, mtimecmp)
    board.set_csr("stimecmp", stimecmp)
    board.machine.write_gpr(9, every)
    board.machine.trace(TRACED)


def sees(board):
    """Everything time leaves its mark on."""
    machine = board.machine
    exits = machine.host_port.exits
    return (
        machine.park,
        machine.counters(),
        machine.transition,
        machine.cycles,
        [board.csr(name) for name in ("mcycle", "minstret", "time", "mip", "mcause", "mepc")],
        board.word(MTIME),
        [exits.cycles[n].value for n in (E.BREAKPOINT, E.ECALL_FROM_USER)],
        [machine.read_gpr(n) for n in range(32)],
    )


def exits_with(board, charges, skipping, commands=False, idle=0, **timers):
    """Exits with charges, in resume or apart from it; what is seen at each."""
    prepare(board, **timers)
    machine = board.machine
    machine.skip_charges(skipping)

    def wait():
        for _ in range(idle):
            machine.read_gpr(0)

    wait()
    machine.write_privilege(Privilege.USER)
    machine.write_gpr(12, len(charges) + 1)
    machine.resume(program("timers").symbols["calls"])
    seen = []
    for charge in charges:
        assert machine.run(100_000) == Event.PARKED
        seen.append(sees(board))
        wait()
        pc = machine.park.pc + 4
        if commands:
            machine.charge(charge)
            charge = 0
        machine.resume(pc, charge=charge)
    assert machine.run(100_000) == Event.PARKED
    return [*seen, sees(board), machine.traced(TRACED)]


deadlines = st.integers(0, 400) | st.just(ALL)


@examples
@given(
    charges=st.lists(st.integers(0, 120) | st.integers(0, 2500), min_size=1, max_size=6),
    mtimecmp=deadlines,
    stimecmp=deadlines,
    every=st.integers(20, 300),
    commands=st.booleans(),
)
@example(charges=list(range(20, 60)), mtimecmp=12, stimecmp=ALL, every=20, commands=False)
@example(charges=[0, 246], mtimecmp=0, stimecmp=0, every=20, commands=False)
@example(charges=list(range(20, 60)), mtimecmp=ALL, stimecmp=12, every=20, commands=True)
def test_skipped_and_clocked_charges_are_identical(
    board, charges, mtimecmp, stimecmp, every, commands
):
    """In every cycle and counter, with timers that fire in charges and between them."""
    timers = {"mtimecmp": mtimecmp, "stimecmp": stimecmp, "every": every, "commands": commands}
    skipped = exits_with(board, charges, True, **timers)
    assert skipped == exits_with(board, charges, False, **timers)
    *_, (_, counters, _, cycles, *_), _ = skipped
    assert counters["charged"] == sum(charges)
    assert counters["cycles"] == cycles
    assert cycles == counters["guest"] + counters["transition"] + counters["charged"]


@pytest.mark.parametrize("idle", [1, 40, 1500])
def test_parked_cycles_change_nothing(board, idle):
    """However long the host lets the hart wait, after reset too: the rest is identical."""
    charges = [0, 200, 0, 246, 31]
    timers = {"mtimecmp": 0, "stimecmp": 0, "every": 20}
    quick = exits_with(board, charges, True, **timers)
    assert exits_with(board, charges, True, idle=idle, **timers) == quick


def test_timers_do_fire_in_charges(board):
    """What the property above would not see if no timer ever fired."""
    *_, (*_, registers), _ = exits_with(board, [1000] * 5, True, mtimecmp=20, stimecmp=33, every=50)
    assert registers[2] > 15, "interrupts taken"
    assert registers[1] == 6, "calls made"


def test_a_charge_moves_time_and_nothing_else(board):
    told = []
    for charge in (0, 10_000):
        *_, last, trace = exits_with(board, [charge], True)
        told.append((last, trace))
    (without, trace), (with_, charged_trace) = told
    assert trace == charged_trace
    for name, value in without[1].items():
        extra = 10_000 if name in ("cycles", "charged") else 0
        assert with_[1][name] == value + extra, name
    assert with_[7] == without[7], "registers"


def test_time_is_frozen_while_parked(board):
    exits_with(board, [5], True)
    machine = board.machine
    tables = Tables(board, RAM + RAM_SIZE // 2)
    before = sees(board)
    for round_ in range(20):
        board.set_word(RAM + 0x8000 + 64 * round_, round_)
        tables.map(round_ << 12, RAM)
        board.csr("misa")
        machine.write_gpr(3, machine.read_gpr(3))
        machine.sfence_vma()
        machine.fence_i()
        machine.clean()
        machine.read_memory(CLINT, 4)
        machine.run(50)
    assert sees(board) == before


@pytest.mark.parametrize("inhibit", [0, 1, 4, 5])
def test_a_counter_that_is_inhibited_stands_still(board, inhibit):
    prepare(board)
    board.set_csr("mcountinhibit", inhibit)
    board.set_csr("mcycle", 1000)
    board.set_csr("minstret", 2000)
    record = board.run(program("timers").symbols["calls"], privilege=Privilege.USER)
    board.machine.charge(100)
    board.machine.skip_charges(False)
    board.machine.charge(100)
    counted = record.cycle + 200
    assert board.csr("mcycle") == 1000 + (0 if inhibit & 1 else counted)
    assert board.csr("minstret") == 2000 + (0 if inhibit & 4 else 1)
    counters = board.machine.counters()
    assert (counters["cycles"], counters["instructions"]) == (counted, 1)


@examples
@given(deadline=st.integers(30, 300), timer=st.sampled_from(["mtimecmp", "stimecmp"]))
def test_a_timer_wakes_the_hart_in_its_tick(board, deadline, timer):
    prepare(board, **{timer: deadline})
    board.set_csr("mstatus", 0)
    record = board.run(program("timers").symbols["sleeps"])
    assert record.reason == E.BREAKPOINT
    pending = INTERRUPTS.encode(**{"mti" if timer == "mtimecmp" else "sti": 1})
    assert board.machine.read_gpr(4) == pending
    assert board.machine.read_gpr(3) - deadline in (0, 1)
    assert board.machine.read_gpr(1) == 1


def test_every_cycle_is_somebodys(board):
    """total = guest + transition + charged, at any time, while running too."""
    prepare(board, mtimecmp=50, every=40)
    machine = board.machine
    machine.write_gpr(12, 1000)
    machine.write_privilege(Privilege.USER)
    machine.resume(program("timers").symbols["calls"], charge=77)
    for _ in range(100):
        event = machine.run(13)
        counters = machine.counters()
        # A read of another counter comes some cycles later, while the hart runs.
        if event == Event.PARKED:
            total = counters["guest"] + counters["transition"] + counters["charged"]
            assert counters["cycles"] == total == machine.cycles
            machine.resume(machine.park.pc + 4, charge=7)
    assert counters["charged"] > 77


def test_two_runs_of_one_program_are_identical(board):
    runs = [
        exits_with(board, [0, 333, 0, 12], True, mtimecmp=25, stimecmp=31, every=22)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0][-1]) >= 50 * RETIREMENT_BYTES


def test_reset_by_the_host_port_is_power_on_but_for_memory(board):
    """Counters, devices and CSRs start anew, and so does time."""
    exits_with(board, [5, 6], True, mtimecmp=20, every=40)
    machine = board.machine
    machine.host_port.control.write(reset=1)
    machine.run(1)
    assert machine.run(10_000) == Event.PARKED
    assert (machine.park.pc, machine.park.kind) == (MEMORY_MAP["rom"].base, 0)
    assert set(machine.counters().values()) == {0}
    assert (board.csr("mcycle"), board.csr("mtvec"), board.csr("mie")) == (0, 0, 0)
    assert board.word(MTIME) == 0
    for csr in CSRS.values():
        if csr.name != "sstatus":  # a view of mstatus
            assert machine.read_csr(csr.number) == csr.reset, csr.name
    assert machine.host_port.exits.count[E.ECALL_FROM_USER].value == 0


def test_reset_by_the_host_port_forgets_translations(board):
    """Pages read before it, more than the first level holds, lie elsewhere after it."""
    machine, pages = board.machine, 32
    place, data = RAM + 0x8000, RAM + 0x4_0000

    def read_by(satp):
        board.put(
            RAM,
            encode("addi", rd=10, rs1=11),
            encode("ld", rd=12, rs1=10),
            encode("add", rd=13, rs1=13, rs2=12),
            encode("add", rd=10, rs1=10, rs2=14),
            encode("bne", rs1=10, rs2=15, imm=-12),
            encode("ebreak"),
        )
        board.park_on(E.BREAKPOINT)
        board.set_csr("satp", satp)
        board.set_csr("mstatus", MSTATUS.encode(mprv=1, mpp=Privilege.SUPERVISOR))
        registers = {11: 0x4000_0000, 13: 0, 14: PAGE, 15: 0x4000_0000 + pages * PAGE}
        assert board.run(RAM, registers=registers).reason == E.BREAKPOINT
        return machine.read_gpr(13)

    for shift in (0, pages):
        tables = Tables(board, place)
        for page in range(pages):
            tables.map(0x4000_0000 + page * PAGE, data + (page + shift) * PAGE)
            board.set_word(data + (page + shift) * PAGE, page + shift)
        assert read_by(tables.satp) == sum(range(shift, shift + pages))
        machine.host_port.control.write(reset=1)
        machine.run(1)
        assert machine.run(10_000) == Event.PARKED

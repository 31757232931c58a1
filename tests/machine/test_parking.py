"""Parking, the park record, resuming and stepping on the Verilated SoC."""

import itertools

import pytest

from rtl.arch.csrs import CSRS, MSTATUS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.records import ParkKind
from rtl.arch.traps import INTERRUPT_BIT, Exception_, Interrupt, Privilege
from sw_vmm.machine import Event
from tests.machine.board import ALL, PAGE, RAM, RAM_END, RAM_SIZE, Tables, program

USER, SUPERVISOR, MACHINE = Privilege.USER, Privilege.SUPERVISOR, Privilege.MACHINE
NOWHERE = 0x5000_0000
BUFFER = RAM + RAM_SIZE // 2
TABLES = RAM + RAM_SIZE // 4
SP, A0, A1, A2 = 2, 10, 11, 12
VALUE = 0x0123_4567_89AB_CDEF
E = Exception_


@pytest.fixture(scope="module")
def image():
    return program("parking")


@pytest.fixture
def loaded(board, image):
    board.load(image)
    board.park_on(*Exception_)
    return board


# Label, exception, mtval (None: the instruction's bits; "pc"; or a value), registers that the
# record's rs1 and rs2 are read from (None: not told).
# fmt: off
TRAPS = [
    ("ebreak_wide", E.BREAKPOINT, "pc", None, None),
    ("ebreak_narrow", E.BREAKPOINT, "pc", None, None),
    ("illegal_wide", E.ILLEGAL_INSTRUCTION, None, None, None),
    ("illegal_narrow", E.ILLEGAL_INSTRUCTION, None, None, None),
    ("illegal_narrow_reserved", E.ILLEGAL_INSTRUCTION, None, None, None),
    ("illegal_csr", E.ILLEGAL_INSTRUCTION, None, A1, None),
    ("load_wide", E.LOAD_ACCESS_FAULT, NOWHERE, A0, None),
    ("load_narrow", E.LOAD_ACCESS_FAULT, NOWHERE, A0, None),
    ("load_stack_narrow", E.LOAD_ACCESS_FAULT, NOWHERE, SP, None),
    ("store_wide", E.STORE_ACCESS_FAULT, NOWHERE, A0, A1),
    ("store_narrow", E.STORE_ACCESS_FAULT, NOWHERE, A0, A1),
    ("store_stack_narrow", E.STORE_ACCESS_FAULT, NOWHERE, SP, A1),
    ("amo", E.STORE_ACCESS_FAULT, NOWHERE, A0, A1),
    ("load_reserved", E.LOAD_ACCESS_FAULT, NOWHERE, A0, None),
    ("store_conditional", E.STORE_ACCESS_FAULT, NOWHERE, A0, A1),
    ("amo", E.STORE_ADDRESS_MISALIGNED, BUFFER + 2, A0, A1),
    ("store_conditional", E.STORE_ADDRESS_MISALIGNED, BUFFER + 4, A0, A1),
    ("load_reserved", E.LOAD_ADDRESS_MISALIGNED, BUFFER + 1, A0, None),
]
# fmt: on


def instruction_at(image, pc):
    """Bits and length of the instruction in the program's own bytes."""
    ((base, data),) = [s for s in image.segments if s[0] <= pc < s[0] + len(s[1])]
    word = int.from_bytes(data[pc - base : pc - base + 4], "little")
    return (word, 4) if word & 3 == 3 else (word & 0xFFFF, 2)


@pytest.mark.parametrize("privilege", [USER, SUPERVISOR, MACHINE], ids=lambda p: p.name)
@pytest.mark.parametrize(("label", "cause", "value", "rs1", "rs2"), TRAPS)
def test_record_describes_the_trap(loaded, image, label, cause, value, rs1, rs2, privilege):
    pc = image.symbols[label]
    bits, length = instruction_at(image, pc)
    address = value if isinstance(value, int) else NOWHERE
    registers = {A0: address, A1: VALUE, SP: address, A2: 5}
    loaded.set_csr("mstatus", MSTATUS.encode(mie=1))
    record = loaded.run(pc, privilege=privilege, registers=registers)
    value = {None: bits, "pc": pc}.get(value, value)
    assert (record.kind, record.reason) == (ParkKind.ROOT_TRAP, cause)
    assert (record.pc, record.instruction, record.length) == (pc, bits, length)
    assert (record.qualification, record.privilege, record.world) == (value, privilege, 0)
    assert record.gva == value
    for told, number in ((record.rs1, rs1), (record.rs2, rs2)):
        assert number is None or told == registers[number]
    # The trap has been taken as the architecture says, and nothing else has happened.
    assert (loaded.csr("mcause"), loaded.csr("mepc"), loaded.csr("mtval")) == (cause, pc, value)
    status = MSTATUS.decode(loaded.csr("mstatus"))
    assert (status["mpp"], status["mpie"], status["mie"]) == (privilege, 1, 0)
    assert {n: loaded.machine.read_gpr(n) for n in registers} == registers


@pytest.mark.parametrize(
    ("privilege", "cause"),
    [
        (USER, E.ECALL_FROM_USER),
        (SUPERVISOR, E.ECALL_FROM_SUPERVISOR),
        (MACHINE, E.ECALL_FROM_MACHINE),
    ],
)
def test_record_of_a_call_names_the_privilege(loaded, image, privilege, cause):
    record = loaded.run(image.symbols["ecall"], privilege=privilege)
    assert (record.reason, record.qualification, record.privilege) == (cause, 0, privilege)


@pytest.mark.parametrize("privilege", [USER, SUPERVISOR], ids=lambda p: p.name)
@pytest.mark.parametrize("label", ["machine_return", "supervisor_return", "fence", "read_time"])
def test_record_of_what_needs_more_privilege(loaded, image, label, privilege):
    loaded.set_csr("mstatus", MSTATUS.encode(tvm=1, tsr=1))
    pc = image.symbols[label]
    record = loaded.run(pc, privilege=privilege, registers={A0: 1, A1: 2})
    assert (record.reason, record.privilege) == (E.ILLEGAL_INSTRUCTION, privilege)
    assert record.instruction == record.qualification == instruction_at(image, pc)[0]


@pytest.mark.parametrize(
    ("pc", "at"),
    [
        (NOWHERE, NOWHERE),
        (NOWHERE + 2, NOWHERE + 2),
        (RAM_END, RAM_END),
        (RAM_END - 2, RAM_END),
        (1 << 40, 1 << 40),
        (ALL - 1, ALL - 1),
    ],
)
def test_record_of_a_fetch_that_fails(loaded, pc, at):
    """``at`` is the half that could not be fetched."""
    loaded.machine.write_memory(RAM_END - 2, b"\x13\x00")
    record = loaded.run(pc)
    assert (record.kind, record.reason) == (ParkKind.ROOT_TRAP, E.INSTRUCTION_ACCESS_FAULT)
    assert (record.pc, record.qualification, record.length) == (pc, at, 0)
    assert (record.privilege, loaded.csr("mepc"), loaded.csr("mtval")) == (MACHINE, pc, at)


@pytest.mark.parametrize("offset", [0, 2, 0xFFE])
def test_record_of_page_faults(loaded, image, offset):
    tables = Tables(loaded, TABLES)
    code = 0x40_0000
    for page in range(2):
        tables.map(code + page * PAGE, RAM + page * PAGE, u=1)
    # The first half of an instruction at the end of the last page.
    loaded.machine.write_memory(RAM + 2 * PAGE - 2, b"\x13\x00")
    loaded.set_csr("satp", tables.satp)
    hole = code + 2 * PAGE
    where = {
        E.INSTRUCTION_PAGE_FAULT: (hole + offset, hole + offset, None),
        E.LOAD_PAGE_FAULT: ("load_narrow", hole + offset, "load_narrow"),
        E.STORE_PAGE_FAULT: ("store_wide", hole + offset, "store_wide"),
    }
    for cause, (pc, value, label) in where.items():
        if label:
            pc = image.symbols[label] - RAM + code
        registers = {A0: value, A1: VALUE}
        record = loaded.run(pc, privilege=USER, registers=registers)
        assert (record.reason, record.pc, record.qualification) == (cause, pc, value)
        bits, length = instruction_at(image, image.symbols[label]) if label else (0, 0)
        assert record.length == length
        if label:
            assert (record.instruction, record.rs1) == (bits, value)
    record = loaded.run(hole - 2, privilege=USER)
    assert (record.reason, record.pc) == (E.INSTRUCTION_PAGE_FAULT, hole - 2)
    assert (record.qualification, record.length) == (hole, 0)


CLINT = MEMORY_MAP["clint"].base
MSIP, MTIMECMP = CLINT, CLINT + 0x4000


def raise_interrupt(board, interrupt):
    """Make the interrupt pending, by whatever raises it on this platform."""
    if interrupt is Interrupt.MACHINE_SOFTWARE:
        board.machine.write_memory(MSIP, b"\x01\0\0\0")
    elif interrupt is Interrupt.MACHINE_TIMER:
        board.set_word(MTIMECMP, 0)
    else:
        board.set_csr("mip", 1 << interrupt)


@pytest.mark.parametrize(
    "interrupt",
    [i for i in Interrupt if i is not Interrupt.MACHINE_EXTERNAL],
    ids=lambda i: i.name,
)
@pytest.mark.parametrize("privilege", [USER, SUPERVISOR, MACHINE], ids=lambda p: p.name)
def test_record_of_an_interrupt(loaded, image, interrupt, privilege):
    loaded.park_on(interrupts=[interrupt])
    loaded.set_csr("mie", 1 << interrupt)
    loaded.set_csr("mstatus", MSTATUS.encode(mie=1))
    raise_interrupt(loaded, interrupt)
    pc = image.symbols["store_narrow"]
    record = loaded.run(pc, privilege=privilege, registers={A0: BUFFER, A1: VALUE})
    reason = 1 << INTERRUPT_BIT | interrupt
    assert (record.kind, record.reason, record.qualification) == (ParkKind.ROOT_TRAP, reason, 0)
    assert (record.pc, record.privilege) == (pc, privilege)
    assert (record.instruction, record.length) == instruction_at(image, pc)
    assert (record.rs1, record.rs2) == (BUFFER, VALUE)
    assert (loaded.csr("mcause"), loaded.csr("mepc"), loaded.csr("mtval")) == (reason, pc, 0)
    assert loaded.word(BUFFER) == 0, "the interrupted instruction has not run"


def test_an_interrupt_that_is_masked_in_machine_mode_does_not_park(loaded, image):
    loaded.park_on(E.BREAKPOINT, interrupts=[Interrupt.MACHINE_SOFTWARE])
    loaded.set_csr("mie", 1 << Interrupt.MACHINE_SOFTWARE)
    raise_interrupt(loaded, Interrupt.MACHINE_SOFTWARE)
    assert loaded.run(image.symbols["ebreak_narrow"]).reason == E.BREAKPOINT


def test_a_trap_that_is_not_selected_goes_to_its_vector(loaded, image):
    loaded.park_on(E.BREAKPOINT)
    loaded.set_csr("mtvec", image.symbols["ebreak_wide"])
    record = loaded.run(image.symbols["ecall"])
    assert (record.reason, record.pc) == (E.BREAKPOINT, image.symbols["ebreak_wide"])
    assert record.privilege == MACHINE


def test_a_delegated_trap_does_not_park(loaded, image):
    loaded.set_csr("medeleg", 1 << E.ECALL_FROM_USER)
    loaded.set_csr("stvec", image.symbols["ebreak_wide"])
    record = loaded.run(image.symbols["ecall"], privilege=USER)
    assert (record.reason, record.privilege) == (E.BREAKPOINT, SUPERVISOR)
    assert (loaded.csr("scause"), loaded.csr("sepc")) == (
        E.ECALL_FROM_USER,
        image.symbols["ecall"],
    )


@pytest.mark.parametrize("privilege", [USER, SUPERVISOR, MACHINE], ids=lambda p: p.name)
@pytest.mark.parametrize("mie", [0, 1])
def test_resume_returns_from_the_trap(loaded, image, privilege, mie):
    """mstatus as by mret, the privilege of the record, pc and register of the request."""
    loaded.set_csr("mstatus", MSTATUS.encode(mie=mie, mprv=0, sum=1))
    loaded.run(image.symbols["ecall"], privilege=privilege)
    loaded.set_csr("mstatus", loaded.csr("mstatus") | MSTATUS.encode(mprv=1))
    loaded.machine.resume(image.symbols["ebreak_narrow"], rd=17, value=VALUE)
    assert loaded.machine.run(10_000) == Event.PARKED
    record = loaded.machine.park
    assert (record.reason, record.privilege) == (E.BREAKPOINT, privilege)
    assert loaded.machine.read_gpr(17) == VALUE
    status = MSTATUS.decode(loaded.csr("mstatus"))
    # The ebreak has pushed what the return had made.
    assert (status["mpie"], status["mpp"], status["sum"]) == (mie, privilege, 1)
    assert status["mprv"] == (1 if privilege == MACHINE else 0)


def test_resume_without_a_register_writes_none(loaded, image):
    registers = {number: number << 32 | 5 for number in range(1, 32)}
    loaded.run(image.symbols["ebreak_narrow"], registers=registers, value=VALUE, rd=0)
    assert [loaded.machine.read_gpr(n) for n in range(32)] == [0, *registers.values()]


def test_the_host_chooses_the_privilege(loaded, image):
    loaded.run(image.symbols["ecall"], privilege=USER)
    for privilege in (SUPERVISOR, USER, MACHINE, USER):
        record = loaded.run(image.symbols["ecall"], privilege=privilege)
        assert record.privilege == privilege
        assert record.reason == E.ECALL_FROM_USER + privilege


def test_a_running_loop_is_stopped(loaded, image):
    start = image.symbols["spin"]
    for privilege in (USER, SUPERVISOR, MACHINE):
        loaded.machine.write_privilege(privilege)
        loaded.machine.write_gpr(1, 0)
        loaded.machine.resume(start)
        assert loaded.machine.run(777) == Event.BUDGET
        before = loaded.machine.counters()["instructions"]
        record = loaded.halt()
        assert (record.kind, record.reason, record.qualification) == (ParkKind.STOP, 0, 0)
        assert record.privilege == privilege
        assert record.pc in (start, start + 4)
        assert (record.instruction, record.length) == instruction_at(image, record.pc)
        count = loaded.machine.read_gpr(1)
        assert count > 100
        assert loaded.machine.counters()["instructions"] - before < 20
        # It goes on where it was, with nothing lost and nothing done twice.
        loaded.machine.trace(10_000)
        loaded.machine.resume(record.pc)
        assert loaded.machine.run(500) == Event.BUDGET
        loaded.halt()
        rows = loaded.retired()
        assert rows[0]["pc"] == record.pc
        assert {b["pc"] - a["pc"] for a, b in itertools.pairwise(rows)} == {4, -4}
        assert loaded.machine.read_gpr(1) == count + sum(r["pc"] == start for r in rows)


def test_a_waiting_hart_is_stopped(loaded, image):
    pc = image.symbols["waits"]
    loaded.set_csr("mie", 1 << Interrupt.MACHINE_SOFTWARE)
    loaded.machine.write_gpr(1, 7)
    loaded.machine.write_privilege(MACHINE)
    for _ in range(2):
        loaded.machine.resume(pc)
        assert loaded.machine.run(5000) == Event.BUDGET
        record = loaded.halt()
        assert (record.kind, record.pc, record.length) == (ParkKind.STOP, pc, 4)
        assert loaded.machine.read_gpr(1) == 7
    raise_interrupt(loaded, Interrupt.MACHINE_SOFTWARE)
    record = loaded.run(pc)
    assert (record.reason, loaded.machine.read_gpr(1)) == (E.BREAKPOINT, 8)


def test_a_step_retires_exactly_one_instruction(loaded, image):
    loaded.park_on(E.BREAKPOINT)
    loaded.set_csr("mtvec", image.symbols["vector"])
    loaded.machine.trace(1000)
    loaded.run(image.symbols["steps"])
    whole = loaded.retired()
    end = loaded.machine.read_gpr(17)
    loaded.reset()
    loaded.load(image)
    loaded.set_csr("mtvec", image.symbols["vector"])
    loaded.machine.trace(1000)
    pc, steps, instret = image.symbols["steps"], 0, 0
    while True:
        record = loaded.step(pc=pc)
        if record.kind == ParkKind.ROOT_TRAP:
            break
        (row,) = loaded.retired()
        assert row == whole[steps]
        # A step over a trap takes it: no instruction has retired, the hart is at the vector.
        instret += 1 - row["trap"]
        assert record.instret == instret
        if row["trap"]:
            assert record.pc == image.symbols["vector"]
        pc, steps = record.pc, steps + 1
    assert whole[steps:] == loaded.retired()
    assert sum(row["trap"] for row in whole) == 3, "ecall, an illegal instruction, the last ebreak"
    assert loaded.machine.read_gpr(17) == end != 0


def test_every_register_is_read_right_after_any_instruction(loaded, image):
    """Parking leaves no result behind in the pipeline."""
    loaded.set_csr("mtvec", image.symbols["vector"])
    loaded.park_on(E.BREAKPOINT)
    loaded.machine.trace(10)
    registers = [loaded.machine.read_gpr(n) for n in range(32)]
    pc = image.symbols["steps"]
    while True:
        record = loaded.step(pc=pc)
        for row in loaded.retired():
            if row["rd"]:
                registers[row["rd"]] = row["value"]
        assert [loaded.machine.read_gpr(n) for n in range(32)] == registers
        if record.kind == ParkKind.ROOT_TRAP:
            break
        pc = record.pc


def test_counts_of_the_record_are_those_of_the_counters(loaded, image):
    loaded.machine.write_gpr(A2, 5)
    loaded.machine.write_privilege(USER)
    pc, before = image.symbols["calls"], []
    for _ in range(5):
        loaded.machine.resume(pc)
        assert loaded.machine.run(10_000) == Event.PARKED
        record, counters = loaded.machine.park, loaded.machine.counters()
        assert (record.cycle, record.instret) == (counters["cycles"], counters["instructions"])
        assert (loaded.csr("mcycle"), loaded.csr("minstret")) == (record.cycle, record.instret)
        assert record.time == loaded.csr("time") == record.cycle // 10
        before.append(loaded.machine.transition)
        pc = record.pc + 4
    exits = loaded.machine.host_port.exits
    assert exits.count[E.ECALL_FROM_USER].value == 5
    # What lies before the first exit is the start of the hart.
    assert exits.cycles[E.ECALL_FROM_USER].value == counters["transition"] - before[0]


@pytest.mark.parametrize("inhibit", [0, 1, 4])
def test_a_resume_counts_what_the_host_has_carried_out(loaded, image, inhibit):
    """In minstret alone: what the hart has retired itself is told apart."""
    loaded.machine.write_gpr(A2, 5)
    loaded.machine.write_privilege(USER)
    loaded.machine.write_csr(CSRS["mcountinhibit"].number, inhibit)
    pc, carried_out = image.symbols["calls"], 0
    for retires in (False, True, True, False, True):
        loaded.machine.resume(pc, retires=retires)
        assert loaded.machine.run(10_000) == Event.PARKED
        carried_out += retires
        record = loaded.machine.park
        counted = 0 if inhibit & 4 else record.instret + carried_out
        assert loaded.csr("minstret") == counted
        assert loaded.machine.counters()["instructions"] == record.instret
        pc = record.pc + 4

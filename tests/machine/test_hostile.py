"""Programs that behave as badly as they can: nothing hangs, and the host always gets the hart."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtl.arch.csrs import CSRS, DELEGABLE_EXCEPTIONS, DELEGABLE_INTERRUPTS, INTERRUPTS, MSTATUS
from rtl.arch.instructions import COMPRESSED, INSTRUCTIONS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE, SATP, SatpMode
from rtl.arch.records import ParkKind
from rtl.arch.traps import Exception_, Privilege
from sw_vmm.machine import Event
from tests.machine.board import ALL, PAGE, RAM, RAM_SIZE, Tables
from tests.machine.words import encode

CODE = RAM
TABLES = RAM + RAM_SIZE // 4
DATA = RAM + RAM_SIZE // 2
RAM_FRAME = RAM // PAGE
WINDOW = MEMORY_MAP["window"]
BUDGET = 4000

examples = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
privileges = st.sampled_from(list(Privilege))
seeds = st.integers(0, 2**32 - 1)


def outlives(board, pc, privilege):
    """Run for the budget whatever happens, answering devices; then the host takes over."""
    machine = board.machine
    machine.write_privilege(privilege)
    machine.resume(pc)
    start, left = machine.cycles, BUDGET
    while left > 0:
        event = machine.run(left)
        if event & Event.WINDOW:
            address, _, _, _ = machine.window_request()
            assert address in WINDOW
            machine.answer_window(0x0BAD_0BAD_0BAD_0BAD)
        if event & Event.PARKED:
            return machine.park
        left = BUDGET - (machine.cycles - start)
        if event & Event.BUDGET:
            break
    machine.stop()
    for _ in range(100):
        event = machine.run(1000)
        if event & Event.WINDOW:
            machine.answer_window(0)
        if event & Event.PARKED:
            break
    assert machine.parked, "the host cannot stop the hart"
    return machine.park


def belongs_to_the_host(board):
    """The parked hart does as it is told, whatever was done to it before."""
    machine = board.machine
    board.park_on(Exception_.BREAKPOINT)
    for csr in ("mie", "medeleg", "satp", "mstatus", "mcountinhibit"):
        board.set_csr(csr, 0)
    machine.sfence_vma()
    board.put(CODE, encode("addi", rd=10, rs1=10, imm=1), encode("ebreak"))
    record = board.run(CODE, registers={10: 41})
    assert (record.reason, record.pc) == (Exception_.BREAKPOINT, CODE + 4)
    assert machine.read_gpr(10) == 42
    counters = machine.counters()
    assert counters["cycles"] == machine.cycles
    assert counters["cycles"] == counters["guest"] + counters["transition"] + counters["charged"]


NOWHERE = [0, 2, 0x0100_0000, 0x5000_0000, RAM + RAM_SIZE, (1 << 32) - 2, 1 << 32, 1 << 63, ALL - 1]


@pytest.mark.parametrize("vector", [0, RAM + RAM_SIZE, 1 << 45], ids=hex)
@pytest.mark.parametrize("privilege", Privilege, ids=lambda p: p.name)
@pytest.mark.parametrize("place", NOWHERE, ids=hex)
def test_a_jump_into_nothing(board, place, privilege, vector):
    """The trap vector leads nowhere either: trap after trap, until the host stops it."""
    board.park_on()
    board.set_csr("mtvec", vector)
    record = outlives(board, place, privilege)
    assert (record.kind, record.pc, record.length) == (ParkKind.STOP, vector, 0)
    assert board.csr("mcause") == Exception_.INSTRUCTION_ACCESS_FAULT
    assert board.machine.counters()["instructions"] == 0
    belongs_to_the_host(board)


@pytest.mark.parametrize("place", [RAM, WINDOW.base, MEMORY_MAP["uart"].base, WINDOW.end - 2])
def test_devices_and_empty_memory_are_no_code(board, place):
    board.park_on()
    record = outlives(board, place, Privilege.MACHINE)
    assert record.kind == ParkKind.STOP
    belongs_to_the_host(board)


def test_a_supervisor_vector_that_faults(board):
    """Delegated faults of the handler itself, in S-mode, with nothing mapped."""
    board.park_on()
    board.set_csr("medeleg", DELEGABLE_EXCEPTIONS)
    board.set_csr("stvec", 0x40_0000)
    board.set_csr("satp", Tables(board, TABLES).satp)
    board.put(CODE, encode("ecall"))
    record = outlives(board, CODE, Privilege.USER)
    assert (record.kind, record.privilege) == (ParkKind.STOP, Privilege.SUPERVISOR)
    assert board.csr("scause") == Exception_.INSTRUCTION_PAGE_FAULT
    assert board.csr("sepc") == board.csr("stval") == 0x40_0000
    belongs_to_the_host(board)


def test_a_wait_for_nothing(board):
    """wfi with every interrupt disabled, in a loop."""
    board.put(CODE, encode("wfi"), encode("jal", imm=-4))
    record = outlives(board, CODE, Privilege.MACHINE)
    assert (record.kind, record.pc) == (ParkKind.STOP, CODE)
    belongs_to_the_host(board)


def test_an_interrupt_nobody_clears(board):
    """It is taken again as soon as the handler returns."""
    board.set_csr("mie", INTERRUPTS.mask())
    board.set_csr("mip", INTERRUPTS.encode(ssi=1))
    board.set_csr("mtvec", CODE + 64)
    board.put(CODE, encode("jal", imm=0))
    board.put(CODE + 64, encode("mret"))
    record = outlives(board, CODE, Privilege.USER)
    assert record.kind == ParkKind.STOP
    assert board.csr("mepc") == CODE
    belongs_to_the_host(board)


def random_state(board, source):
    """Registers, delegation and status as a program might have left them."""
    interesting = [0, 1, ALL, RAM, CODE + 0x40, DATA, DATA + 61, RAM + RAM_SIZE - 4, 1 << 38]
    interesting += [region.base for region in MEMORY_MAP.values()]
    for number in range(1, 32):
        board.machine.write_gpr(number, source.choice([*interesting, source.getrandbits(64)]))
    for name in ("mtvec", "stvec"):
        board.set_csr(name, source.choice([CODE, DATA, source.getrandbits(64)]))
    board.set_csr("medeleg", source.getrandbits(16))
    board.set_csr("mideleg", source.getrandbits(12) & DELEGABLE_INTERRUPTS)
    board.set_csr("mie", source.getrandbits(12))
    board.set_csr("mstatus", source.getrandbits(64))
    board.set_csr("mcounteren", source.getrandbits(32))


def random_words(source, count):
    """Instructions with random operands, and some words of noise."""
    rows = [*INSTRUCTIONS.values(), *COMPRESSED.values()]
    numbers = list(CSRS.values())
    data = b""
    for _ in range(count):
        row = source.choice(rows)
        word = source.getrandbits(32) & ~row.mask | row.match
        if row.extension == "zicsr":
            word = word & (1 << 20) - 1 | source.choice(numbers).number << 20
        if source.random() < 0.05:
            word = source.getrandbits(32)
        data += word.to_bytes(4, "little")[: 2 if word & 3 != 3 else 4]
    return data


@examples
@given(seed=seeds, privilege=privileges, raw=st.booleans())
def test_random_bytes_as_code(board, seed, privilege, raw):
    source = random.Random(seed)
    board.reset()
    board.park_on()
    random_state(board, source)
    bytes_ = source.randbytes(4096) if raw else random_words(source, 1000)
    board.machine.write_memory(CODE, bytes_)
    board.machine.write_memory(DATA, random_words(source, 200))
    outlives(board, CODE, privilege)
    belongs_to_the_host(board)


def random_tables(board, source, mostly_valid):
    """Tables full of leaves, pointers, loops and nonsense."""
    for table in range(4):
        entries = []
        for _ in range(512):
            frame = source.choice(
                [
                    TABLES // PAGE + source.randrange(4),
                    RAM_FRAME + source.randrange(RAM_SIZE // PAGE),
                    RAM_FRAME & ~0x3FFFF,
                    RAM_FRAME,
                    source.getrandbits(44),
                    0x10000,
                ]
            )
            flags = source.getrandbits(10)
            if source.random() < mostly_valid:
                flags |= PTE.encode(v=1, a=1, d=1)
            if source.random() < 0.4:
                flags &= ~PTE.mask("r", "w", "x", "u", "a", "d")
            high = source.getrandbits(10) << 54 if source.random() < 0.05 else 0
            entries.append(flags | frame << PTE["ppn"].lsb | high)
        data = b"".join(entry.to_bytes(8, "little") for entry in entries)
        board.machine.write_memory(TABLES + table * PAGE, data)


@examples
@given(seed=seeds, privilege=st.sampled_from([Privilege.USER, Privilege.SUPERVISOR]))
def test_random_page_tables(board, seed, privilege):
    source = random.Random(seed)
    board.reset()
    board.park_on()
    random_tables(board, source, source.choice([0.2, 0.95]))
    board.machine.write_memory(DATA, random_words(source, 1000))
    random_state(board, source)
    board.set_csr("satp", SATP.encode(mode=SatpMode.SV39, ppn=TABLES // PAGE))
    # A handler in M-mode that goes elsewhere at each trap, by a register that grows.
    board.put(
        CODE,
        encode("csrrw", rs1=9, csr=CSRS["mepc"].number),
        encode("add", rd=9, rs1=9, rs2=8),
        encode("mret"),
    )
    board.set_csr("mtvec", CODE)
    board.machine.write_gpr(8, source.getrandbits(34) * 2)
    # Some instruction pages exist.
    for _ in range(4):
        entry = PTE.encode(
            v=1, r=1, w=1, x=1, a=1, d=1, u=privilege == Privilege.USER, ppn=RAM_FRAME & ~0x3FFFF
        )
        board.set_word(TABLES + 8 * source.randrange(512), entry)
    outlives(board, source.getrandbits(38) & ~1, privilege)
    belongs_to_the_host(board)


@pytest.mark.parametrize("gva", [0x3000, 0x40_0000, 1 << 37], ids=hex)
def test_tables_that_point_to_themselves(board, gva):
    """A walk has three levels and no more; all of them end in the same table."""
    board.park_on(*Exception_)
    root = TABLES
    pointer = PTE.encode(v=1, ppn=root // PAGE)
    board.machine.write_memory(root, pointer.to_bytes(8, "little") * 512)
    board.set_csr("satp", SATP.encode(mode=SatpMode.SV39, ppn=root // PAGE))
    for place in (0, CODE & (1 << 38) - 1, (1 << 38) - PAGE, ALL - PAGE + 1):
        record = outlives(board, place, Privilege.SUPERVISOR)
        assert (record.reason, record.qualification) == (Exception_.INSTRUCTION_PAGE_FAULT, place)
    # A table that maps itself as data, too: stores to it change the walk under way.
    tables = Tables(board, TABLES)
    board.machine.write_memory(root, bytes(PAGE))
    tables.map(0x1000, CODE)
    for alias in range(3):
        tables.map(gva + alias * PAGE, root)
    board.set_csr("mstatus", MSTATUS.encode(sum=1))
    board.put(CODE, encode("sd", rs1=11, rs2=12), encode("jal", imm=-4))
    board.machine.write_gpr(11, gva)
    board.machine.write_gpr(12, 0)
    # The store has wiped out what maps the code; the TLB may go on for a while, as it may.
    board.park_on()
    outlives(board, 0x1000, Privilege.SUPERVISOR)
    assert board.word(root) == 0
    belongs_to_the_host(board)


@examples
@given(seed=seeds, cycles=st.lists(st.integers(1, 60), min_size=20, max_size=60))
def test_stopping_anywhere_loses_nothing(board, seed, cycles):
    """A program that is stopped again and again retires what it retires undisturbed."""
    source = random.Random(seed)
    told = []
    body = random_program(source)
    for stops in (cycles, []):
        board.reset()
        board.machine.trace(4096)
        board.machine.write_memory(CODE, body)
        for number in range(1, 32):
            board.machine.write_gpr(number, DATA + 8 * number)
        board.machine.write_privilege(Privilege.MACHINE)
        board.machine.resume(CODE)
        for budget in stops:
            if board.machine.run(budget) == Event.BUDGET and not board.machine.parked:
                board.halt()
            if board.machine.park.kind == ParkKind.ROOT_TRAP:
                break
            board.machine.resume(board.machine.park.pc)
        else:
            assert board.machine.run(100_000) == Event.PARKED
        assert board.machine.park.kind == ParkKind.ROOT_TRAP
        told.append((board.machine.traced(4096), board.machine.read_memory(DATA, 4096)))
    assert told[0] == told[1]


def random_program(source):
    """Straight code of loads, stores, atomics, arithmetic and short forward branches."""
    words = []
    names = ["add", "sub", "mul", "div", "remu", "sltu", "xor", "mulh", "sraw", "divw"]
    for _ in range(120):
        rd = source.randrange(12, 32)
        kind = source.randrange(6)
        base, offset = source.randrange(1, 12), source.randrange(256)
        if kind == 0:
            words.append(
                encode(source.choice(["ld", "lhu", "lb", "lw"]), rd=rd, rs1=base, imm=offset)
            )
        elif kind == 1:
            words.append(encode(source.choice(["sd", "sh", "sb"]), rs1=base, rs2=rd, imm=offset))
        elif kind == 2:
            words.append(encode("amoadd.d", rd=rd, rs1=base, rs2=source.randrange(12, 32)))
        elif kind == 3:
            words.append(encode("bne", rs1=rd, rs2=source.randrange(12, 32), imm=8))
        else:
            words.append(
                encode(
                    source.choice(names), rd=rd, rs1=source.randrange(32), rs2=source.randrange(32)
                )
            )
    words += [encode("addi"), encode("addi"), encode("ebreak")]
    return b"".join(word.to_bytes(4, "little") for word in words)

"""Performance counters: every cycle has one cause, and events are what the programs do."""

import itertools
import random

import pytest

from rtl.arch.csrs import CSRS, INTERRUPTS, MSTATUS, MSTATUS_CONSTANT
from rtl.arch.instructions import INSTRUCTIONS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.performance import HPM_COUNTERS, PERFORMANCE_EVENTS, STALLS, Stall
from rtl.arch.traps import Exception_, Privilege
from rtl.soc.config import SocConfig
from sim.elf import load_elf
from sim.guests import hello_elf
from sim.library import LibraryMachine
from sw_vmm.machine import Event
from tests.machine.board import PAGE, RAM, RAM_SIZE, Board, Tables
from tests.machine.words import encode, li

CODE, DATA, TABLES = RAM + 0x1000, RAM + 0x4_0000, RAM + 0x8_0000
T0, S0, S1, A0, A1, A2, A3 = 5, 8, 9, 10, 11, 12, 13
EBREAK = encode("ebreak")
#: How often each snippet stands in its program.
TIMES = 32


@pytest.fixture(scope="module")
def machine():
    return LibraryMachine(SocConfig(), ram_size=RAM_SIZE)


@pytest.fixture
def board(machine):
    return Board(machine)


def count(board, prepare, run):
    """All events of a run, by name, with ``cycle`` and ``instret``; one run for each eight."""
    counts, totals = {}, set()
    for first in range(0, len(PERFORMANCE_EVENTS), len(HPM_COUNTERS)):
        events = PERFORMANCE_EVENTS[first : first + len(HPM_COUNTERS)]
        board.reset()
        prepare()
        for counter, event in zip(HPM_COUNTERS, events, strict=False):
            board.set_csr(f"mhpmevent{counter}", event.number)
            board.set_csr(f"mhpmcounter{counter}", 0)
        board.set_csr("mcycle", 0)
        board.set_csr("minstret", 0)
        run()
        totals.add((board.csr("mcycle"), board.csr("minstret")))
        for counter, event in zip(HPM_COUNTERS, events, strict=False):
            counts[event.name] = board.csr(f"mhpmcounter{counter}")
    ((cycles, instructions),) = totals  # counting changes nothing
    assert cycles == instructions + sum(counts[event.name] for event in STALLS)
    return counts | {"cycle": cycles, "instret": instructions}


def count_code(board, words, *, prepare=lambda: None, privilege=Privilege.MACHINE, pc=CODE):
    def put():
        board.put(CODE, *words, EBREAK)
        for register, value in ((S0, DATA), (S1, DATA + 0x1000), (A1, 0x1234567), (A3, 7)):
            board.machine.write_gpr(register, value)
        prepare()

    return count(board, put, lambda: board.run(pc, privilege=privilege))


def lines_of_code():
    """Jumps from each line of code to the next."""
    step = [encode("jal", imm=64)] + [encode("addi")] * 15
    return step * TIMES


#: What brings about a stall: the words, and how often it happens in them at least.
NOP = encode("addi")
SNIPPETS = {
    Stall.LOAD_USE: [encode("ld", rd=A0, rs1=S0), encode("add", rd=A2, rs1=A0, rs2=A0)] * TIMES,
    Stall.MULTIPLY: [encode("mul", rd=A0, rs1=A1, rs2=A3), encode("add", rd=A2, rs1=A0)] * TIMES,
    Stall.DIVIDE: [encode("divu", rd=A0, rs1=A1, rs2=A3)] * TIMES,
    Stall.DATA_CACHE: [
        word
        for _ in range(TIMES)
        for word in (encode("addi", rd=S0, rs1=S0, imm=64), encode("ld", rd=A0, rs1=S0))
    ],
    Stall.MEMORY: [encode("amoadd.d", rd=A0, rs1=S0, rs2=A1)] * TIMES,
    Stall.DEVICE: [*li(A0, MEMORY_MAP["clint"].base), *[encode("lw", rd=A2, rs1=A0)] * TIMES],
    Stall.SYSTEM: [encode("csrrw", rd=A0, rs1=A1, csr=CSRS["mscratch"].number)] * TIMES,
    Stall.INSTRUCTION_CACHE: lines_of_code(),
}
#: What comes with it.
BESIDES = dict.fromkeys(SNIPPETS, frozenset()) | {
    Stall.LOAD_USE: {"stall_data_cache"},
    Stall.MEMORY: {"stall_data_cache"},
    Stall.INSTRUCTION_CACHE: {"stall_unpredicted"},
    Stall.DEVICE: {"stall_memory"},
    Stall.SYSTEM: {"stall_instruction_cache"},
}


@pytest.mark.parametrize("cause", SNIPPETS, ids=lambda cause: cause.name.lower())
def test_stalls_are_put_down_to_their_cause(board, cause):
    """The rest of the program stalls as it does when nops stand for the snippet."""
    words = SNIPPETS[cause]
    counts = count_code(board, words)
    plain = count_code(board, [NOP] * len(words))
    more = {event.name: counts[event.name] - plain[event.name] for event in STALLS}
    own = more.pop(f"stall_{cause.name.lower()}")
    assert own >= TIMES
    # Redirects and filled queues move a few cycles about; nothing else may come near, but for
    # the first access to a line.
    assert {name for name, value in more.items() if value > TIMES // 2} <= BESIDES[cause], more


def test_load_use_costs_one_cycle(board):
    assert count_code(board, SNIPPETS[Stall.LOAD_USE])["stall_load_use"] == TIMES


def test_cache_misses_are_lines(board):
    assert count_code(board, SNIPPETS[Stall.DATA_CACHE])["data_cache_miss"] == TIMES
    counts = count_code(board, lines_of_code())
    assert TIMES <= counts["instruction_cache_miss"] <= TIMES + 2
    assert counts["jump"] == TIMES


def test_traps_and_returns(board):
    """Each ecall is a trap; its handler steps over it and returns."""
    handler = CODE + 0x800
    mepc = CSRS["mepc"].number

    def prepare():
        board.set_csr("mtvec", handler)
        board.put(
            handler,
            encode("csrrs", rd=A0, csr=mepc),
            encode("addi", rd=A0, rs1=A0, imm=4),
            encode("csrrw", rs1=A0, csr=mepc),
            encode("mret"),
        )

    counts = count_code(board, [encode("ecall")] * TIMES, prepare=prepare)
    assert counts["instret"] == 4 * TIMES
    assert counts["stall_trap"] >= 3 * TIMES
    assert counts["stall_system"] >= 3 * TIMES


def test_wfi_waits(board):
    """From the deadline as it is set to the interrupt: at most 100 ticks of ten cycles."""

    def prepare():
        board.set_csr("mie", INTERRUPTS.mask("sti"))
        board.set_csr("menvcfg", 1 << 63)
        board.set_csr("stimecmp", board.csr("time") + 100)

    counts = count_code(board, [encode("wfi")], prepare=prepare)
    assert 900 < counts["stall_wfi"] <= 1000


def test_page_walks(board):
    """A load from each of 16 pages, in S-mode: more pages than the TLB holds, read twice."""
    pages = 16

    def prepare():
        tables = Tables(board, TABLES)
        tables.map(CODE, CODE)
        for page in range(pages):
            tables.map(DATA + page * PAGE, DATA + page * PAGE)
        board.set_csr("satp", tables.satp)

    step = [encode("ld", rd=A0, rs1=S0), encode("add", rd=S0, rs1=S0, rs2=T0)]
    words = [encode("lui", rd=T0, imm=PAGE), *step * pages]
    counts = count_code(board, words, prepare=prepare, privilege=Privilege.SUPERVISOR)
    assert counts["instruction_tlb_miss"] == 1
    assert counts["data_tlb_miss"] == pages
    assert counts["walk"] == pages + 1
    assert pages + 1 < counts["walk_read"] <= 3 * (pages + 1)
    assert counts["walk_cycle"] >= 2 * counts["walk_read"]
    assert counts["stall_data_tlb"] >= 2 * pages
    assert counts["stall_instruction_tlb"] >= 6
    assert counts["load"] == pages


def branches(seed, rounds=150):
    """A loop whose branches follow the bits of a register nobody can predict."""
    draw = random.Random(seed)
    words = [*li(A2, rounds), *li(A0, draw.getrandbits(31) | 1)]
    body = [
        encode("slli", rd=A1, rs1=A0, imm=13), encode("xor", rd=A0, rs1=A0, rs2=A1),
        encode("srli", rd=A1, rs1=A0, imm=7), encode("xor", rd=A0, rs1=A0, rs2=A1),
        encode("slli", rd=A1, rs1=A0, imm=17), encode("xor", rd=A0, rs1=A0, rs2=A1),
        encode("andi", rd=A1, rs1=A0, imm=4),
        encode("beq", rs1=A1, imm=8),
        encode("sd", rs1=S0, rs2=A0),
        encode("andi", rd=A1, rs1=A0, imm=1),
        encode("bne", rs1=A1, imm=12),
        encode("ld", rd=A3, rs1=S1),
        encode("jal", imm=8),
        encode("amoxor.d", rd=A3, rs1=S0, rs2=A0),
        encode("addi", rd=A2, rs1=A2, imm=-1),
    ]  # fmt: skip
    return [*words, *body, encode("bne", rs1=A2, imm=-4 * len(body))]


def kind_of(word):
    """Name of a 32-bit instruction."""
    return next(name for name, row in INSTRUCTIONS.items() if word & row.mask == row.match)


def test_instructions_are_counted_as_they_retire(board):
    """Against the retirement trace."""
    words = branches(1)
    counts = count_code(board, words)
    board.reset()
    board.machine.trace(10_000)
    board.put(CODE, *words, EBREAK)
    board.machine.write_gpr(S0, DATA)
    board.machine.write_gpr(S1, DATA + 0x1000)
    board.run(CODE)
    records = [record for record in board.retired() if not record["trap"]]
    kinds = [kind_of(record["instruction"]) for record in records]
    turns = [after["pc"] != before["pc"] + 4 for before, after in itertools.pairwise(records)]
    branch = [kind in ("beq", "bne") for kind in kinds]
    assert counts["instret"] == len(records)
    assert counts["branch"] == sum(branch)
    assert counts["branch_taken"] == sum(map(lambda *pair: all(pair), branch, turns))
    assert counts["jump"] == kinds.count("jal")
    assert counts["load"] == kinds.count("ld") + kinds.count("amoxor.d")
    assert counts["store"] == kinds.count("sd") + kinds.count("amoxor.d")
    # Two branches of each round are coins, the jump is learnt, and so is the loop.
    assert 100 < counts["mispredict"] < 200
    assert counts["stall_mispredict"] >= counts["mispredict"]


def test_all_cycles_of_a_guest_have_a_cause(board):
    """hello: traps, interrupts, wfi, devices, all three privileges."""
    image = load_elf(hello_elf(), ram_size=RAM_SIZE)

    def run():
        board.machine.write_privilege(Privilege.MACHINE)
        board.machine.resume(image.entry)
        assert board.machine.run(1_000_000) == Event.FINISHED
        board.machine.stop()
        while not board.machine.parked:
            board.machine.run(1)

    def prepare():
        board.load(image)
        board.park_on()

    counts = count(board, prepare, run)
    assert all(counts[f"stall_{name}"] for name in ("trap", "wfi", "device", "system", "host"))


def test_charges_are_the_hosts(board):
    """Skipped or worked off: the event counters agree with mcycle."""
    for skip in (True, False):
        board.reset()
        board.machine.skip_charges(skip)
        board.set_csr("mhpmevent3", Stall.HOST)
        board.set_csr("mhpmevent4", Stall.TRAP)
        board.set_csr("mcycle", 0)
        board.machine.charge(12_345)
        values = [board.csr(name) for name in ("mcycle", "mhpmcounter3", "mhpmcounter4")]
        assert values == [12_345, 12_345, 0]


def test_inhibited_counters_stand_and_user_mode_needs_leave(board):
    """hpmcounter3 in U-mode traps unless both enable bits are set; the value is mhpmcounter3's."""
    for inhibit, allowed in ((0, False), (0, True), (1 << 3, True)):
        board.reset()
        board.park_on(Exception_.BREAKPOINT, Exception_.ILLEGAL_INSTRUCTION)
        board.set_csr("mstatus", MSTATUS_CONSTANT | MSTATUS.encode(mpp=Privilege.MACHINE))
        for name in ("mcounteren", "scounteren"):
            board.set_csr(name, 1 << 3 if allowed else 0)
        load = next(event.number for event in PERFORMANCE_EVENTS if event.name == "load")
        board.set_csr("mhpmevent3", load)
        board.set_csr("mcountinhibit", inhibit)
        board.machine.write_gpr(S0, DATA)
        read = encode("csrrs", rd=A2, csr=CSRS["hpmcounter3"].number)
        board.put(CODE, *[encode("ld", rd=A0, rs1=S0)] * 5, NOP, NOP, read, EBREAK)
        park = board.run(CODE, privilege=Privilege.USER)
        if not allowed:
            assert park.reason == Exception_.ILLEGAL_INSTRUCTION
            continue
        assert park.reason == Exception_.BREAKPOINT
        assert board.machine.read_gpr(A2) == (0 if inhibit else 5)

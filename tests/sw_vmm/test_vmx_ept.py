"""vmx-ept: what it does besides looking as every technique does (``test_techniques``)."""

import random

import pytest

from rtl.arch.csrs import CSRS, INTERRUPTS
from rtl.arch.memory_map import MEMORY_MAP, UART_INTERRUPT
from rtl.arch.paging import PAGE_BITS
from rtl.arch.traps import Exception_
from sw_vmm.assembler import Assembler
from sw_vmm.charge import ChargeModel
from sw_vmm.devices import DeviceWindow, VirtioConsole
from sw_vmm.ept import MemorySlot
from sw_vmm.techniques import make_technique
from sw_vmm.techniques.vmx_ept import VmxEpt
from sw_vmm.vm import MONITOR_SIZE, Vm
from tests.sw_vmm.golden_machine import GoldenMachine
from tests.sw_vmm.machines import CHARGES, GUEST_RAM, make_vm, rom_jump
from tests.sw_vmm.programs import (
    CLINT,
    CSR,
    DATA,
    UART,
    enter_supervisor,
    finish,
    program,
    sv39_register,
    words,
)
from tests.sw_vmm.soft_machine import RAM

PLIC = MEMORY_MAP["plic"].base
ALL = (1 << 64) - 1


def vm_of(build, handler=None, **options):
    return make_vm(program(build, handler), technique="vmx-ept", **options)


def run_vm(vm, cycles=1_000_000, **options):
    technique = VmxEpt(vm, ChargeModel(CHARGES), **options)
    return technique, technique.run(cycles)


def run_program(build, handler=None, cycles=1_000_000, **options):
    return run_vm(vm_of(build, handler), cycles, **options)


def spin(code):
    code.label("spin")
    code.add("jal", to="spin")


# -- what costs no exit ----------------------------------------------------------------------------


@pytest.mark.parametrize("timer", ["supervisor", "machine"])
def test_a_timer_tick_costs_no_exit(timer):
    """Ten ticks, each armed by the handler of the one before; the guest waits in wfi."""
    mtimecmp = CLINT + 0x4000
    bit = 32 if timer == "supervisor" else 128

    def build(code):
        code.load_address(6, mtimecmp)
        code.add("addi", rd=20, rs1=0, imm=10)
        code.add("addi", rd=7, rs1=0, imm=bit)
        code.add("csrrs", rd=9, rs1=0, csr=CSR["time"])
        code.add("addi", rd=9, rs1=9, imm=50)
        if timer == "supervisor":
            code.add("addi", rd=10, rs1=0, imm=1)
            code.add("slli", rd=10, rs1=10, imm=63)
            code.add("csrrw", rd=0, rs1=10, csr=CSR["menvcfg"])
            code.add("csrrw", rd=0, rs1=9, csr=CSR["stimecmp"])
        else:
            code.add("sd", rs1=6, rs2=9)
        code.add("csrrw", rd=0, rs1=7, csr=CSR["mie"])
        code.add("csrrsi", rd=0, rs1=8, csr=CSR["mstatus"])
        code.label("wait")
        code.add("wfi")
        code.add("jal", to="wait")

    def handler(code):
        code.add("addi", rd=20, rs1=20, imm=-1)
        code.add("beq", rs1=20, rs2=0, to="end")
        if timer == "supervisor":
            code.add("addi", rd=9, rs1=9, imm=50)
            code.add("csrrw", rd=0, rs1=9, csr=CSR["stimecmp"])
        else:
            # Without a store to the CLINT the line stays: mask it, and take the tick by polling.
            code.add("csrrw", rd=0, rs1=0, csr=CSR["mie"])
            code.add("addi", rd=20, rs1=0, imm=1)
            code.add("csrrw", rd=0, rs1=7, csr=CSR["mie"])
        code.add("mret")
        code.label("end")
        code.add("csrrs", rd=11, rs1=0, csr=CSR["time"])
        code.add("sd", rs1=8, rs2=11)
        finish(code, 0)

    technique, result = run_program(build, handler)
    assert result.outcome.exit_code == 0
    assert words(technique, 1)[0] >= (500 if timer == "supervisor" else 50)
    stores = 1 if timer == "supervisor" else 2
    assert {name: row.count for name, row in result.exits.items()} == {
        "ept_violation": 1,
        "mmio_write": stores,
    }


def test_a_guest_that_pages_runs_without_exits():
    def build(code):
        sv39_register(code, 6, DATA + 0x1000)
        code.load_address(9, DATA + 0x1000)
        code.load_address(7, (RAM >> 2) | 0xCF)
        code.add("sd", rs1=9, rs2=7, imm=8 * 2)
        code.add("sd", rs1=9, rs2=7, imm=8 * 1)
        enter_supervisor(code, 6)
        code.load_address(10, 0x4000_0000 + DATA - RAM)
        code.add("addi", rd=11, rs1=0, imm=99)
        code.add("sd", rs1=10, rs2=11)
        code.add("ld", rd=12, rs1=8)
        code.add("sd", rs1=8, rs2=12, imm=24)
        code.add("ecall")

    technique, result = run_program(build)
    assert result.outcome.exit_code == Exception_.ECALL_FROM_SUPERVISOR
    assert words(technique, 1, DATA + 24) == [99]
    assert {name: row.count for name, row in result.exits.items()} == {
        "ept_violation": 1,
        "mmio_write": 1,
    }


# -- what the VMM does for the guest's hart --------------------------------------------------------


def test_an_exit_makes_few_accesses_of_the_machine():
    """A thousand reads of a device; the host port sees a resume and the count of instructions."""

    def build(code):
        code.load_address(6, UART)
        code.add("addi", rd=9, rs1=0, imm=1000)
        code.label("again")
        code.add("lbu", rd=10, rs1=6, imm=5)
        code.add("addi", rd=9, rs1=9, imm=-1)
        code.add("bne", rs1=9, rs2=0, to="again")
        finish(code, 9)

    vm = vm_of(build)
    technique = make_technique("vmx-ept", vm, ChargeModel(CHARGES, 1))
    before = vm.machine.accesses
    result = technique.run(10_000_000)
    assert result.outcome.exit_code == 0
    assert result.exits["mmio_read"].count == 1000
    assert vm.machine.accesses - before < 2 * 1000 + 150


@pytest.mark.parametrize("inhibited", [0, 4])
def test_the_guest_counts_what_the_vmm_carries_out(inhibited):
    def build(code):
        code.load_address(6, UART)
        code.add("csrrwi", rd=0, rs1=inhibited, csr=CSR["mcountinhibit"])
        code.add("csrrs", rd=10, rs1=0, csr=CSR["minstret"])
        for _ in range(5):
            code.add("lbu", rd=9, rs1=6, imm=5)
            code.add("sb", rs1=6, rs2=0, imm=7)
        code.add("csrrs", rd=11, rs1=0, csr=CSR["minstret"])
        code.add("sub", rd=11, rs1=11, rs2=10)
        code.add("sd", rs1=8, rs2=11)
        finish(code, 0)

    technique, result = run_program(build)
    assert result.outcome.exit_code == 0
    assert words(technique, 1) == [0 if inhibited else 11]


@pytest.mark.parametrize("function", ["csrrw", "csrrs", "csrrc"])
def test_event_counters_hold_what_is_written(function):
    """The event selector's writable bits, and no more; the machine's own do not change."""

    def build(code):
        code.add("addi", rd=10, rs1=0, imm=0x15)
        code.add("csrrw", rd=0, rs1=10, csr=CSR["mhpmevent4"])
        code.add("csrrw", rd=0, rs1=10, csr=CSR["mhpmcounter4"])
        code.add("addi", rd=11, rs1=0, imm=-0x7F5)
        for place, name in enumerate(("mhpmevent4", "mhpmcounter4")):
            code.add(function, rd=12, rs1=11, csr=CSR[name])
            code.add("csrrs", rd=13, rs1=0, csr=CSR[name])
            code.add("sd", rs1=8, rs2=12, imm=16 * place)
            code.add("sd", rs1=8, rs2=13, imm=16 * place + 8)
        finish(code, 0)

    technique, result = run_program(build)
    operand = -0x7F5 & (1 << 64) - 1
    new = {"csrrw": operand, "csrrs": 0x15 | operand, "csrrc": 0x15 & ~operand}[function]
    selector = new & CSRS["mhpmevent4"].writable
    assert words(technique, 4) == [0x15, selector, 0x15, new]
    assert result.exits["csr_write"].count == 4 and result.exits["csr_read"].count == 2


COUNTED = [
    ("csrrwi", "mcountinhibit", 4),
    ("csrrwi", "mcountinhibit", 0),
    ("csrrwi", "mcountinhibit", 1),
    ("csrrsi", "mcountinhibit", 4),
    ("csrrci", "mcountinhibit", 4),
    ("csrrci", "mcountinhibit", 0),
    ("csrrwi", "minstret", 17),
    ("csrrsi", "minstret", 31),
    ("csrrci", "minstret", 31),
    ("csrrsi", "minstret", 0),
    ("csrrs", "minstret", 0),
    ("csrrs", "instret", 0),
    ("csrrs", "mcountinhibit", 0),
    ("lbu", "", 0),
    ("addi", "", 0),
]


@pytest.mark.parametrize("seed", range(12))
def test_instructions_are_counted_as_on_the_bare_machine(seed):
    """Random sequences that start, stop, set and read the counter, and access a device between."""
    draw = random.Random(seed)
    steps = [draw.choice(COUNTED) for _ in range(60)]

    def build(code):
        code.load_address(6, UART)
        code.add("csrrwi", rd=0, rs1=0, csr=CSR["minstret"])
        for slot, (name, csr, value) in enumerate(steps):
            match name:
                case "lbu":
                    code.add("lbu", rd=9, rs1=6, imm=5)
                case "addi":
                    code.add("addi", rd=9, rs1=9, imm=1)
                case _:
                    code.add(name, rd=10, rs1=value, csr=CSR[csr])
                    code.add("sd", rs1=8, rs2=10, imm=8 * slot)
        finish(code, 0)

    technique, result = run_program(build)
    assert result.outcome.exit_code == 0
    assert words(technique, len(steps)) == counted(steps)


def counted(steps):
    """What the steps read, by the manual: who writes minstret does not count itself, and who starts
    or stops it counts as before.
    """
    count = inhibit = 0
    read = []
    for name, csr, value in steps:
        runs, written = not inhibit & 4, False
        result = 0
        if csr:
            old = inhibit if csr == "mcountinhibit" else count
            new = {"csrrw": value, "csrrs": old | value, "csrrc": old & ~value}[name[:5]]
            result, written = old, csr == "minstret" and (value or name == "csrrwi")
            if csr == "mcountinhibit":
                inhibit = new & 5
            elif written:
                count = new
        read.append(result)
        count += runs and not written
        # The store of the result.
        count += bool(csr) and not inhibit & 4
    return read


def test_a_software_interrupt_by_the_clint():
    def build(code):
        code.load_address(6, CLINT)
        code.add("csrrwi", rd=0, rs1=8, csr=CSR["mie"])
        code.add("csrrsi", rd=0, rs1=8, csr=CSR["mstatus"])
        code.add("addi", rd=7, rs1=0, imm=1)
        code.add("sw", rs1=6, rs2=7)
        code.add("csrrw", rd=0, rs1=0, csr=0xFFF)

    def handler(code):
        code.add("csrrs", rd=27, rs1=0, csr=CSR["mcause"])
        code.add("csrrs", rd=26, rs1=0, csr=CSR["mip"])
        code.add("sw", rs1=6, rs2=0)
        code.add("csrrs", rd=25, rs1=0, csr=CSR["mip"])
        for slot, register in enumerate((27, 26, 25)):
            code.add("sd", rs1=8, rs2=register, imm=8 * slot)
        finish(code, 0)

    technique, result = run_program(build, handler)
    assert result.outcome.exit_code == 0
    assert words(technique, 3) == [1 << 63 | 3, 8, 0]


def test_the_time_the_guest_sets_is_the_time_it_reads_and_waits_for():
    """mtime is moved far ahead: time follows, and a deadline behind it fires at once."""
    mtime = CLINT + 0xBFF8

    def build(code):
        code.load_address(6, CLINT + 0x4000)
        code.load_address(7, 5_000_000)
        code.add("sd", rs1=6, rs2=7)
        code.load_address(9, mtime)
        code.add("sd", rs1=9, rs2=7)
        code.add("csrrs", rd=10, rs1=0, csr=CSR["time"])
        code.add("ld", rd=11, rs1=9)
        code.add("csrrs", rd=12, rs1=0, csr=CSR["mip"])
        for slot, register in enumerate((10, 11, 12)):
            code.add("sd", rs1=8, rs2=register, imm=8 * slot)
        finish(code, 0)

    technique, result = run_program(build)
    assert result.outcome.exit_code == 0
    time, read, pending = words(technique, 3)
    assert 5_000_000 <= time <= read < 5_000_200
    assert pending == INTERRUPTS.mask("mti")


def enable_uart_interrupt(code, level):
    """Source 10 at priority 1 in the context of M (0) or S (1); the transmitter interrupts."""
    code.load_address(6, PLIC + 4 * UART_INTERRUPT)
    code.add("addi", rd=7, rs1=0, imm=1)
    code.add("sw", rs1=6, rs2=7)
    code.load_address(6, PLIC + 0x2000 + 0x80 * level)
    code.add("addi", rd=7, rs1=0, imm=1 << UART_INTERRUPT)
    code.add("sw", rs1=6, rs2=7)
    code.load_address(6, UART)
    code.add("addi", rd=7, rs1=0, imm=2)


@pytest.mark.parametrize("waits", [True, False])
def test_a_device_interrupt_comes_by_the_preemption_timer(waits):
    """Seventeen bytes go out; the transmitter is empty some 250 cycles after the last exit."""

    def build(code):
        enable_uart_interrupt(code, 0)
        code.add("addi", rd=10, rs1=0, imm=1)
        code.add("sb", rs1=6, rs2=10, imm=2)
        for _ in range(16):
            code.add("sb", rs1=6, rs2=7)
        code.add("addi", rd=7, rs1=0, imm=2)
        code.add("sb", rs1=6, rs2=7)
        code.add("sb", rs1=6, rs2=7, imm=1)
        code.load_address(12, 1 << 11)
        code.add("csrrw", rd=0, rs1=12, csr=CSR["mie"])
        code.add("csrrsi", rd=0, rs1=8, csr=CSR["mstatus"])
        code.label("wait")
        code.add("wfi") if waits else code.add("addi", rd=13, rs1=13, imm=1)
        code.add("jal", to="wait")

    def handler(code):
        code.load_address(6, PLIC + 0x20_0004)
        code.add("lw", rd=9, rs1=6)
        code.add("csrrs", rd=10, rs1=0, csr=CSR["mcause"])
        code.add("sd", rs1=8, rs2=9)
        code.add("sd", rs1=8, rs2=10, imm=8)
        finish(code, 0)

    vm = make_vm(program(build, handler), technique="vmx-ept", uart_cycles_per_byte=400)
    technique, result = run_vm(vm)
    assert result.outcome.exit_code == 0
    assert words(technique, 2) == [UART_INTERRUPT, 1 << 63 | 11]
    assert 1 <= result.exits["preemption_timer"].count <= 20


def test_a_queue_of_a_device_is_served_while_the_guest_polls_memory():
    """The used ring is watched without any exit: work that is due must find its own way."""
    window = MEMORY_MAP["window"].base
    queue, text = DATA + 0x1000, b"from the queue"
    descriptors, available, used = queue, queue + 0x100, queue + 0x200

    def register(code, offset, value):
        code.load_address(6, window + offset)
        code.load_address(7, value)
        code.add("sw", rs1=6, rs2=7)

    def build(code):
        for status in (1, 3):
            register(code, 0x70, status)
        register(code, 0x24, 1)
        register(code, 0x20, 1)
        register(code, 0x24, 0)
        register(code, 0x20, 0)
        register(code, 0x70, 11)
        register(code, 0x30, 1)
        register(code, 0x38, 4)
        for offset, address in ((0x80, descriptors), (0x90, available), (0xA0, used)):
            register(code, offset, address)
        register(code, 0x44, 1)
        register(code, 0x70, 15)
        register(code, 0x50, 1)
        code.load_address(6, used)
        code.label("poll")
        code.add("lhu", rd=9, rs1=6, imm=2)
        code.add("beq", rs1=9, rs2=0, to="poll")
        finish(code, 0)

    machine = GoldenMachine(GUEST_RAM + MONITOR_SIZE)
    vm = Vm(machine, rom=rom_jump(), window=DeviceWindow([VirtioConsole()]))
    # The program needs the room of the handler.
    code = Assembler(RAM)
    build(code)
    vm.load(RAM, code.assemble())
    vm.load(DATA, text)
    descriptor = DATA.to_bytes(8, "little") + len(text).to_bytes(8, "little")
    vm.load(descriptors, descriptor)
    vm.load(available, bytes((0, 0, 1, 0, 0, 0)))
    _, result = run_vm(vm)
    assert result.outcome.exit_code == 0
    assert result.outcome.virtio_console == text
    assert result.exits["preemption_timer"].count >= 1


def test_the_text_that_stops_the_run_does_so_though_no_exit_comes_behind_it():
    text = b"done"

    def build(code):
        code.load_address(6, UART)
        code.add("addi", rd=7, rs1=0, imm=1)
        code.add("sb", rs1=6, rs2=7, imm=2)
        for letter in b"is " + text:
            code.add("addi", rd=7, rs1=0, imm=letter)
            code.add("sb", rs1=6, rs2=7)
        spin(code)

    vm = make_vm(program(build), technique="vmx-ept", uart_cycles_per_byte=1000)
    vm.stop_at_text(text)
    _, result = run_vm(vm, 100_000)
    assert result.outcome.text_seen
    assert result.outcome.console == b"is done"
    assert result.cycles.total < 12_000
    assert result.exits["preemption_timer"].count == 1


# -- where the guest's memory lies -----------------------------------------------------------------


def scrambled(seed=1):
    """Every page of guest RAM somewhere else in it."""
    pages = list(range(GUEST_RAM >> PAGE_BITS))
    random.Random(seed).shuffle(pages)
    return [
        MemorySlot(RAM + (gpa << PAGE_BITS), RAM + (hpa << PAGE_BITS), 1 << PAGE_BITS)
        for gpa, hpa in enumerate(pages)
    ]


def stores(code):
    """A pattern over many pages, one access across two, tohost at the end."""
    code.load_address(6, RAM + 0x2_0000)
    code.load_address(9, RAM + 0x3_0000)
    code.add("addi", rd=10, rs1=0, imm=3)
    code.label("again")
    code.add("sd", rs1=6, rs2=10, imm=-4)
    code.add("ld", rd=11, rs1=6, imm=-4)
    code.add("add", rd=10, rs1=10, rs2=11)
    code.add("lui", rd=12, imm=0x1000)
    code.add("add", rd=6, rs1=6, rs2=12)
    code.add("bltu", rs1=6, rs2=9, to="again")
    code.add("sd", rs1=8, rs2=10)
    code.add("addi", rd=6, rs1=0, imm=1)
    code.add("sd", rs1=8, rs2=6, imm=64)
    code.label("spin")
    code.add("jal", to="spin")


@pytest.mark.parametrize(
    ("options", "violations"),
    [
        ({}, 1),
        ({"ahead": True}, 0),
        ({"largest": 0}, 19),
        ({"largest": 0, "ahead": True}, 0),
        ({"slots": scrambled()}, 19),
        ({"slots": scrambled(), "ahead": True}, 0),
    ],
)
def test_where_memory_lies_changes_no_outcome(options, violations):
    plain = vm_of(stores)
    plain.stop_at_tohost(DATA + 64)
    expected, before = run_vm(plain)
    vm = vm_of(stores)
    vm.stop_at_tohost(DATA + 64)
    technique, result = run_vm(vm, **options)
    assert result.outcome == before.outcome and result.outcome.exit_code == 0
    everything = RAM, GUEST_RAM
    assert technique.read_memory(*everything) == expected.read_memory(*everything)
    count = result.exits["ept_violation"].count if violations else 0
    assert ("ept_violation" in result.exits) == bool(violations)
    assert count == violations
    assert result.instructions == before.instructions


def test_devices_find_scrambled_memory():
    text = b"somewhere else, across the pages of the machine"
    at = DATA + 0x1000 - 20
    vm = vm_of(stores)
    technique = VmxEpt(vm, ChargeModel(CHARGES), slots=scrambled(2))
    vm.memory.write_bytes(at, text)
    vm.memory.write(at + 2, 4, 0x2020_2020)
    expected = text[:2] + b"    " + text[6:]
    assert vm.memory.read_bytes(at, len(text)) == expected
    assert technique.read_memory(at, len(text)) == expected
    assert vm.memory.read(at + 2, 8) == int.from_bytes(expected[2:10], "little")
    assert vm.machine.read_memory(at, len(text)) != expected
    first = technique.guest.ept.hpa_of(at)
    assert vm.machine.read_memory(first, 20) == expected[:20]
    rest = technique.guest.ept.hpa_of(at + 20)
    assert vm.machine.read_memory(rest, len(text) - 20) == expected[20:]

"""Several VMs on one hart: each looks as it does alone, whatever the others do."""

import pytest

from rtl.arch.memory_map import MEMORY_MAP
from rtl.soc.config import SocConfig
from sim.device_tree import boot_rom
from sim.elf import load_elf
from sim.guests import hello_elf
from sw_vmm.assembler import Assembler
from sw_vmm.errors import BadImage
from sw_vmm.supervisor_guest import SupervisorStart
from sw_vmm.vm import MONITOR_SIZE, Vm
from tests.sw_vmm.golden_machine import GoldenMachine
from tests.sw_vmm.host import MODEL, SIZE, Host, counting
from tests.sw_vmm.machines import rom_jump, run_hello
from tests.sw_vmm.programs import CSR, DATA, HANDLER, UART, finish, program
from tests.sw_vmm.soft_machine import RAM

CLINT = MEMORY_MAP["clint"].base


def spin(code):
    code.label("spin")
    code.add("jal", to="spin")


def read(host, index, slot=0):
    return host.guests[index].vm.memory.read(DATA + 8 * slot, 8)


# -- taking turns ----------------------------------------------------------------------------------


def test_two_guests_share_the_hart_and_nothing_else():
    host = Host(2)
    host.add(counting(3, exit_code=4))
    host.add(counting(5, exit_code=6))
    shares = host.run(slice_cycles=1000)
    assert [share.outcome.exit_code for share in shares] == [4, 6]
    assert [read(host, index) for index in (0, 1)] == [3 * 3000, 5 * 3000]
    assert all(share.turns > 10 for share in shares)
    assert all(share.exits["preemption_timer"] >= share.turns - 1 for share in shares)
    # Turn by turn: neither waits long for the other.
    assert abs(shares[0].turns - shares[1].turns) <= 1
    total = sum(share.cycles for share in shares) + host.scheduler.idle
    assert total == host.machine.cycle
    # Every exit is paid for, and every change of guests.
    exits = sum(share.exits.total() for share in shares) * MODEL.price(exit=1, gpr=32, vmcs=5)
    changes = sum(share.turns for share in shares) * MODEL.price(gpr=62, vmptrld=1)
    assert host.machine.charged > exits + changes


def test_each_guest_counts_its_own_instructions():
    def counted(code):
        code.load_address(6, UART)
        code.load_address(9, 600)
        code.label("again")
        code.add("lbu", rd=7, rs1=6, imm=5)
        code.add("addi", rd=9, rs1=9, imm=-1)
        code.add("bne", rs1=9, rs2=0, to="again")
        code.add("csrrs", rd=10, rs1=0, csr=CSR["minstret"])
        code.add("sd", rs1=8, rs2=10)
        finish(code, 0)

    seen = set()
    for count in (1, 2):
        host = Host(count)
        for _ in range(count):
            host.add(program(counted))
        assert [share.outcome.exit_code for share in host.run(slice_cycles=900)] == [0] * count
        seen |= {read(host, index) for index in range(count)}
    assert len(seen) == 1


def test_whole_guests_come_to_what_they_come_to_alone():
    _, signature, alone = run_hello("vmx-ept")
    size = 8 << 20
    host = Host(2, size)
    image = load_elf(hello_elf(), ram_size=size)
    rom = boot_rom(SocConfig(), ram_size=size, entry=image.entry)
    for _ in range(2):
        host.add(image.segments, rom=rom)
    shares = host.run(50_000_000, slice_cycles=3000)
    first, end = image.signature
    for share, guest in zip(shares, host.guests, strict=True):
        assert share.outcome == alone.outcome
        assert guest.vm.memory.read_bytes(first, end - first) == signature
        assert share.turns > 5


def test_each_guest_finds_its_own_boot_rom():
    """Both have the same code; their reset code goes to different places in it."""
    elsewhere = RAM + 0x8000
    code = Assembler(elsewhere)
    finish(code, 0)
    host = Host(2)
    for rom in (rom_jump(), rom_jump(elsewhere)):
        host.add([(RAM, counting(1, exit_code=1)), (elsewhere, code.assemble())], rom=rom)
    assert [share.outcome.exit_code for share in host.run()] == [1, 0]


# -- waiting ---------------------------------------------------------------------------------------


def sleeper(ticks, naps=5):
    """Sleeps by mtimecmp, several times; notes the time at the end."""

    def build(code):
        code.load_address(6, CLINT + 0x4000)
        code.add("addi", rd=7, rs1=0, imm=128)
        code.add("csrrw", rd=0, rs1=7, csr=CSR["mie"])
        code.add("addi", rd=20, rs1=0, imm=naps)
        code.label("nap")
        code.add("csrrs", rd=9, rs1=0, csr=CSR["time"])
        code.add("addi", rd=9, rs1=9, imm=ticks)
        code.add("sd", rs1=6, rs2=9)
        code.add("wfi")
        code.add("csrrs", rd=10, rs1=0, csr=CSR["time"])
        code.add("bltu", rs1=10, rs2=9, to="early")
        code.add("addi", rd=20, rs1=20, imm=-1)
        code.add("bne", rs1=20, rs2=0, to="nap")
        code.add("sd", rs1=8, rs2=10)
        finish(code, 0)
        code.label("early")
        code.add("addi", rd=11, rs1=0, imm=7)
        finish(code, 11)

    return program(build)


def test_a_guest_that_waits_leaves_the_hart_to_the_other():
    host = Host(2)
    host.add(sleeper(1500))
    host.add(counting(1, count=12_000))
    shares = host.run(slice_cycles=4000)
    assert [share.outcome.exit_code for share in shares] == [0, 0]
    # It has had the hart for moments only; five naps of 15000 cycles are over in time.
    assert shares[0].cycles < 12_000
    assert 5 * 1500 <= read(host, 0) < 5 * 1500 + 5 * 600
    assert shares[0].exits["wfi"] == 5


def test_time_passes_in_one_step_when_all_wait():
    host = Host(2)
    host.add(sleeper(1900))
    host.add(sleeper(1300, naps=4))
    shares = host.run()
    assert [share.outcome.exit_code for share in shares] == [0, 0]
    assert host.scheduler.idle > 60_000
    assert sum(share.turns for share in shares) < 30


def test_a_device_wakes_its_guest():
    """The receiver interrupts when a key comes, typed after what the guest has said."""

    def build(code):
        code.load_address(6, MEMORY_MAP["plic"].base + 40)
        code.add("addi", rd=7, rs1=0, imm=1)
        code.add("sw", rs1=6, rs2=7)
        code.load_address(6, MEMORY_MAP["plic"].base + 0x2000)
        code.add("addi", rd=7, rs1=0, imm=1 << 10)
        code.add("sw", rs1=6, rs2=7)
        code.load_address(12, 1 << 11)
        code.add("csrrw", rd=0, rs1=12, csr=CSR["mie"])
        code.load_address(6, UART)
        code.add("addi", rd=7, rs1=0, imm=1)
        code.add("sb", rs1=6, rs2=7, imm=1)
        code.add("addi", rd=7, rs1=0, imm=ord("?"))
        code.add("sb", rs1=6, rs2=7)
        code.label("wait")
        code.add("wfi")
        code.add("lbu", rd=9, rs1=6, imm=5)
        code.add("andi", rd=9, rs1=9, imm=1)
        code.add("beq", rs1=9, rs2=0, to="wait")
        code.add("lbu", rd=9, rs1=6)
        finish(code, 9)

    host = Host(2, uart_cycles_per_byte=3000)
    vm = host.add(program(build))
    vm.type_after(b"?", b"A")
    host.add(counting(1, count=8000))
    shares = host.run(slice_cycles=2000)
    assert [share.outcome.exit_code for share in shares] == [ord("A"), 0]
    assert shares[0].cycles < 6000


def test_a_device_that_wakes_nobody_keeps_nobody_awake():
    """The transmitter has become empty, which the PLIC lets nobody know."""

    def build(code):
        code.load_address(6, UART)
        code.add("addi", rd=7, rs1=0, imm=2)
        code.add("sb", rs1=6, rs2=7, imm=1)
        code.add("sb", rs1=6, rs2=7)
        code.label("wait")
        code.add("wfi")
        code.add("jal", to="wait")

    host = Host(2, uart_cycles_per_byte=3000)
    host.add(program(build))
    host.add(counting(1, count=12_000))
    shares = host.run(100_000, slice_cycles=4000)
    assert shares[1].outcome.exit_code == 0
    assert shares[0].cycles < 3 * 4000


def test_waiting_for_ever_ends_with_the_budget():
    host = Host(2)
    host.add(program(lambda code: code.add("wfi")))
    host.add(counting(1, count=100))
    shares = host.run(300_000)
    assert [share.outcome.finished for share in shares] == [False, True]
    assert 300_000 <= host.machine.cycle < 310_000


# -- guests that come to an end --------------------------------------------------------------------


def test_a_guest_that_cannot_go_on_leaves_the_others_alone():
    host = Host(3)
    host.add(program(spin))
    host.add(counting(2, exit_code=3))
    host.add(program(spin))
    root = (host.guests[0].ept.eptp & (1 << 44) - 1) << 12
    host.machine.write_memory(root + 16, (root >> 2 | 1).to_bytes(8, "little"))
    shares = host.run(200_000, slice_cycles=1000)
    assert shares[0].failure.reason == "ept_misconfiguration"
    assert shares[0].outcome is None
    assert shares[1].outcome.exit_code == 3
    assert shares[2].outcome.exit_code is None and shares[2].failure is None
    assert shares[2].cycles > 100_000


@pytest.mark.parametrize("slice_cycles", [1000, 1_000_000])
def test_a_spent_budget_shows_the_registers_of_each(slice_cycles):
    """The second has not been given the hart at all when a slice is longer than the budget."""

    def spinning(value):
        def build(code):
            code.add("addi", rd=20, rs1=0, imm=value)
            code.add("csrrw", rd=0, rs1=20, csr=CSR["mscratch"])
            spin(code)

        return program(build)

    host = Host(3)
    for value in (20, 30):
        host.add(spinning(value))
    host.add(counting(1, count=10, exit_code=4))
    shares = host.run(30_000, slice_cycles=slice_cycles)
    last = "finished" if slice_cycles == 1000 else "budget"
    assert [share.end for share in shares] == ["budget", "budget", last]
    shown = []
    for share in shares[:2]:
        items = share.registers.split()
        shown.append(dict(zip(items[::2], (int(item, 16) for item in items[1::2]), strict=True)))
    assert shown[0]["x20"] == shown[0]["mscratch"] == 20 and shown[0]["mtvec"] == HANDLER
    began = shares[1].turns > 0
    assert began == (slice_cycles == 1000)
    assert shown[1]["x20"] == (30 if began else 0)
    assert shown[1].get("mscratch", 0) == shown[1]["x20"]
    assert 30_000 <= host.machine.cycle < 31_000


def test_tohost_ends_one_guest_and_not_the_other():
    def build(code):
        code.add("addi", rd=6, rs1=0, imm=2 * 5 + 1)
        code.add("sd", rs1=8, rs2=6)
        spin(code)

    host = Host(2)
    for _ in range(2):
        host.add(program(build))
    host.guests[0].vm.stop_at_tohost(DATA)
    shares = host.run(100_000, slice_cycles=3000)
    assert shares[0].outcome.exit_code == 5
    assert not shares[1].outcome.finished
    assert shares[1].cycles > 80_000


def test_a_kernel_that_starts_in_s_mode_keeps_its_registers():
    def build(code):
        code.add("addi", rd=20, rs1=11)
        code.add("addi", rd=21, rs1=10, imm=3)
        code.load_address(8, DATA)
        code.load_address(9, 2000)
        code.label("again")
        code.add("addi", rd=9, rs1=9, imm=-1)
        code.add("bne", rs1=9, rs2=0, to="again")
        code.add("sd", rs1=8, rs2=20)
        finish(code, 21)

    code = Assembler(RAM)
    build(code)
    host = Host(2)
    host.add(code.assemble(), start=SupervisorStart(RAM, 0x1020))
    host.add(program(lambda code: (code.add("sd", rs1=8, rs2=11, imm=8), finish(code, 10))))
    shares = host.run(slice_cycles=700)
    assert [share.outcome.exit_code for share in shares] == [3, 0]
    assert read(host, 0) == 0x1020
    # The other has registers of its own.
    assert read(host, 1, 1) == 0


@pytest.mark.parametrize(
    "place",
    [range(RAM, RAM), range(RAM + 1, RAM + SIZE + 1), range(RAM, RAM + 9 * SIZE)],
)
def test_places_that_are_not_there_are_refused(place):
    machine = GoldenMachine(2 * SIZE + MONITOR_SIZE)
    with pytest.raises(BadImage):
        Vm(machine, place=place)

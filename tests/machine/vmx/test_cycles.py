"""What virtualization costs, to the cycle: exits and entries, VMPTRLD, cold walks."""

import pytest

from rtl.arch.csrs import CSRS
from rtl.arch.performance import PERFORMANCE_EVENTS
from rtl.arch.traps import Privilege
from rtl.arch.vmx.exits import ExitReason
from rtl.arch.vmx.fields import VMCS_FIELDS, VMCS_REVISION
from rtl.soc.config import CONFIGURATIONS
from sim.library import LibraryMachine
from sw_vmm.assembler import encode
from sw_vmm.machine import Event
from tests.golden.vmx.valid_vmcs import RAM_SIZE, valid_fields
from tests.golden.vmx.world import GUEST, HOST, OTHER_VMCS, RAM, VMCS, World, controls, vmx_word
from tests.machine.words import code

#: Where root's own program lies.
PROGRAM = RAM + 0x2000
ALL = (1 << 64) - 1


@pytest.fixture(scope="module")
def machine():
    return LibraryMachine(CONFIGURATIONS["vmx"], ram_size=RAM_SIZE)


def started(machine, world, **fields):
    """The machine with the world's memory, VMX on and a valid VMCS current; every exit parks."""
    machine.reset()
    machine.write_memory(RAM, bytes(world.hart.memory.ram))
    for name, operand in (("vmxon", 0), ("vmclear", VMCS), ("vmptrld", VMCS)):
        assert machine.vmx(name, operand) == 0
    common = {
        "guest_pc": GUEST,
        "host_pc": HOST,
        "eptp": World.eptp(),
        "guest_privilege": Privilege.MACHINE,
        "execution_controls": controls("enable_vpid"),
        "vpid": 5,
    }
    for name, value in (valid_fields() | common | fields).items():
        machine.write_field(VMCS_FIELDS[name].number, int(value))
    machine.park_on_exits(ALL)


def until_parked(machine):
    assert machine.run(10_000) == Event.PARKED
    return machine.park


def test_an_exit_and_the_entry_behind_it(machine):
    """What a VMCALL that parks costs besides the cycle of each guest instruction, five in all."""
    world = World()
    word = encode("addi", rd=7, rs1=7, imm=1)
    world.guest_code(word, word, vmx_word("vmcall"), word, word, encode("jal", imm=-20))
    started(machine, world)
    assert machine.vmx("vmlaunch") == 0
    until_parked(machine)
    costs = []
    for _ in range(4):
        before = machine.counters()
        machine.resume(machine.park.pc + 4)
        assert until_parked(machine).reason == ExitReason.VMCALL
        after = machine.counters()
        costs.append(after["cycles"] - before["cycles"] - 5)
        assert after["instructions"] - before["instructions"] == 5
        assert after["walk"] == before["walk"] or len(costs) == 1
    assert costs[1:] == [costs[-1]] * 3
    assert costs[-1] == 14


def test_how_long_the_hart_stays_parked_makes_no_difference(machine):
    """The fields of an exit are written meanwhile, or behind the next entry."""
    world = World()
    world.guest_code(*[vmx_word("vmcall")] * 16)
    started(machine, world)
    assert machine.vmx("vmlaunch") == 0
    until_parked(machine)
    # The first time the code comes into the cache.
    for _ in range(2):
        costs, pc = [], GUEST
        for accesses in (0, 0, 1, 2, 3, 5, 9, 0, 0, 4, 0):
            for _ in range(accesses):
                assert machine.host_port.status.parked
            before = machine.park.cycle
            pc += 4
            machine.resume(pc)
            costs.append(until_parked(machine).cycle - before)
    assert costs == [14] * len(costs)
    names = ("exit_pc", "exit_reason", "exit_instruction", "exit_instruction_length", "guest_pc")
    assert [machine.read_field(VMCS_FIELDS[name].number) for name in names] == [
        pc,
        ExitReason.VMCALL,
        vmx_word("vmcall"),
        4,
        pc,
    ]


def test_loading_another_vmcs(machine):
    """Both regions in the cache, a few fields of the one before changed: only they are written."""
    world = World()
    world.put(OTHER_VMCS, VMCS_REVISION)
    started(machine, world)
    assert machine.vmx("vmclear", OTHER_VMCS) == 0
    mcycle, words = CSRS["mcycle"].number, []
    # Both regions come into the cache.
    for region in (10, 11):
        for line in range(0, 0x800, 64):
            words.append(encode("ld", rd=5, rs1=region, imm=line))
        words += [encode("addi", rd=region, rs1=region, imm=0x400)] * 2
        for line in range(0, 0x800, 64):
            words.append(encode("ld", rd=5, rs1=region, imm=line))
        words += [encode("addi", rd=region, rs1=region, imm=-0x400)] * 2
    for first, second in ((20, 21), (22, 23), (24, 25), (26, 27)):
        region = 10 if first % 4 else 11
        words += [
            encode("addi", rd=12, imm=VMCS_FIELDS["guest_pc"].number),
            vmx_word("vmwrite", 5, 12, 13),
            encode("csrrs", rd=first, csr=mcycle),
            vmx_word("vmptrld", 6, region),
            encode("csrrs", rd=second, csr=mcycle),
        ]
    words.append(encode("ebreak"))
    machine.write_memory(PROGRAM, code(*words))
    machine.fence_i()
    machine.park_on(ALL, 0)
    machine.write_gpr(10, VMCS)
    machine.write_gpr(11, OTHER_VMCS)
    machine.resume(PROGRAM)
    until_parked(machine)
    assert machine.read_gpr(6) == 0
    costs = [machine.read_gpr(second) - machine.read_gpr(second - 1) for second in (21, 23, 25, 27)]
    # The first one writes all fields back. Both CSR reads count.
    assert costs[1:] == [176] * 3


@pytest.mark.parametrize("paged", [False, True])
def test_reads_of_a_cold_walk(machine, paged):
    """4 KiB pages over 4 KiB pages: 15 entries, 3 of the guest's; without paging the EPT's 3."""
    world = World()
    world.guest_code(*[vmx_word("vmcall")] * 4)
    gva = 0x12_3456_7000 if paged else GUEST
    fields = {}
    if paged:
        world.map_guest(gva, GUEST)
        fields = {"guest_satp": World.satp()}
    started(machine, world, guest_pc=gva, guest_privilege=Privilege.SUPERVISOR, **fields)
    number = next(event.number for event in PERFORMANCE_EVENTS if event.name == "walk_read")
    machine.write_csr(CSRS["mhpmevent3"].number, number)
    assert machine.vmx("vmlaunch") == 0
    until_parked(machine)
    for _ in range(2):
        assert machine.vmx("invept", 2) == 0
        before = machine.read_csr(CSRS["mhpmcounter3"].number)
        machine.resume(machine.park.pc + 4)
        assert until_parked(machine).reason == ExitReason.VMCALL
        assert machine.read_csr(CSRS["mhpmcounter3"].number) - before == (15 if paged else 3)

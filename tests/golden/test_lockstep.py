"""The RTL in lockstep with the golden model, and a trace with one wrong bit."""

import itertools
import random
from pathlib import Path

import pytest

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.records import RETIREMENT
from rtl.arch.traps import INTERRUPT_BIT, Exception_
from sim.cli.session import open_machine, run_guest
from sim.elf import Image
from sim.golden.csr_file import COUNTERS
from sim.guests import GUESTS, Guest, GuestOptions, bare_program
from sim.lockstep import Divergence, LockstepMachine
from sim.packages import PackageError
from sim.verilated import RETIREMENT_BYTES
from sw_vmm.assembler import Assembler, encode
from tests.golden.random_privileged import privileged_program
from tests.golden.recorded import GUEST_RAM, record
from tests.programs.directed import PROGRAMS, build_directed
from tests.suites.build_riscv_tests import CLASSES

RAM = MEMORY_MAP["ram"]
CYCLES = 1_000_000
#: Instructions of U-Boot's boot that are checked.
U_BOOT_INSTRUCTIONS = 300_000


@pytest.fixture(scope="module")
def machine():
    return LockstepMachine(open_machine(GUEST_RAM))


def run(machine, guest, technique="native"):
    """The exit code of a guest that never diverged, nor did what it left behind."""
    finished = run_guest(machine, guest, technique, charge=0, quiet=True)
    machine.compare()
    return finished.result.outcome.exit_code


@pytest.mark.parametrize("name", PROGRAMS)
def test_directed_programs(machine, name):
    options = GuestOptions(ram_size=GUEST_RAM, cycles=CYCLES)
    assert run(machine, bare_program(build_directed(name), options)) == 0
    assert machine.lockstep.checked > 100


@pytest.mark.parametrize("technique", ["native", "trap-emulate"])
def test_hello(technique):
    ram_size = 16 << 20
    machine = LockstepMachine(open_machine(ram_size))
    guest = GUESTS["hello"].load(GuestOptions(ram_size=ram_size), print)
    assert run(machine, guest, technique) == 0
    assert machine.lockstep.checked > 20_000


def test_u_boot_begins():
    ram_size = 64 << 20
    cycles = 2 * U_BOOT_INSTRUCTIONS
    try:
        guest = GUESTS["u-boot"].load(GuestOptions(ram_size=ram_size, cycles=cycles), print)
    except PackageError as error:
        pytest.skip(str(error))
    machine = LockstepMachine(open_machine(ram_size))
    run(machine, guest)
    assert machine.lockstep.checked >= U_BOOT_INSTRUCTIONS


@pytest.mark.parametrize(
    ("class_", "environment"),
    [(class_, environment) for class_, envs in CLASSES.items() for environment in envs],
)
def test_riscv_tests(request, class_, environment):
    folder = request.config.getoption("--riscv-tests")
    if folder is None:
        pytest.skip("--riscv-tests FOLDER is not given")
    ram_size = 4 << 20
    machine = LockstepMachine(open_machine(ram_size))
    options = GuestOptions(ram_size=ram_size, cycles=2 * CYCLES)
    found = sorted(Path(folder).glob(f"{class_}-{environment}-*"))
    assert found
    for path in found:
        run(machine, bare_program(path, options))


# A trace with one wrong bit.

#: What the model cannot know of a value: it stems from outside.
OUTSIDE = {CSRS[name].number for name in (*COUNTERS, "mip", "sip")}
WIDTHS = {field.name: field.width for field in RETIREMENT.fields}


def telling_bits(records):
    """(record, bit) of every bit that the architecture fixes."""
    for index in range(len(records) // RETIREMENT_BYTES):
        word = int.from_bytes(records[index * RETIREMENT_BYTES :][:RETIREMENT_BYTES], "little")
        fields = RETIREMENT.decode(word)
        for name, width in _telling_fields(fields).items():
            for bit in range(width):
                yield index, RETIREMENT[name].lsb + bit


def _telling_fields(fields):
    bits = fields["instruction"]
    telling = {name: WIDTHS[name] for name in ("pc", "privilege", "world")}
    if fields["trap"]:
        if not fields["value"] >> INTERRUPT_BIT:
            # With another bit 63 it would be an interrupt that may have arrived.
            return telling | {"value": INTERRUPT_BIT, "data": WIDTHS["data"], "trap": 1}
        return telling | {"data": WIDTHS["data"]}
    telling |= {name: WIDTHS[name] for name in ("instruction", "rd", "load", "store")}
    is_csr = bits & 0x7F == 0x73 and bits >> 12 & 3
    from_outside = (is_csr and bits >> 20 in OUTSIDE) or (
        fields["load"] and fields["address"] < RAM.base
    )
    if fields["rd"] and not from_outside:
        telling["value"] = WIDTHS["value"]
    if fields["load"] or fields["store"]:
        telling |= {name: WIDTHS[name] for name in ("address", "size")}
    if fields["store"]:
        telling["data"] = 8 << fields["size"]
    return telling


@pytest.fixture(scope="module")
def traces(machine):
    names = ("atomics", "interrupts", "machine", "supervisor")
    recorded = [record(machine._machine, name) for name in names]
    return [(one, list(telling_bits(one.records))) for one in recorded]


def test_recorded_traces_are_right(traces):
    for recorded, bits in traces:
        lockstep = recorded.lockstep()
        lockstep.check(recorded.records)
        assert lockstep.checked * RETIREMENT_BYTES == len(recorded.records)
        assert len(bits) > 100 * lockstep.checked


def test_one_wrong_bit_is_found_where_it_is(traces):
    rng = random.Random(1)
    for _ in range(60):
        recorded, bits = rng.choice(traces)
        index, bit = rng.choice(bits)
        wrong = bytearray(recorded.records)
        wrong[index * RETIREMENT_BYTES + bit // 8] ^= 1 << bit % 8
        with pytest.raises(Divergence) as caught:
            recorded.lockstep().check(bytes(wrong))
        assert caught.value.index == index, f"bit {bit} of record {index}"


def test_every_kind_of_field_is_watched(traces):
    """For each field, its lowest telling bit in the first record where it tells something."""
    for recorded, bits in traces:
        first = {}
        for index, bit in bits:
            field = next(f.name for f in RETIREMENT.fields if f.lsb <= bit <= f.msb)
            first.setdefault(field, (index, bit))
        assert set(first) == set(WIDTHS) - ({"trap"} if "trap" not in first else set())
        for index, bit in first.values():
            wrong = bytearray(recorded.records)
            wrong[index * RETIREMENT_BYTES + bit // 8] ^= 1 << bit % 8
            with pytest.raises(Divergence) as caught:
                recorded.lockstep().check(bytes(wrong))
            assert caught.value.index == index


def test_memory_and_registers_are_compared(traces):
    recorded, _ = traces[0]
    lockstep = recorded.lockstep()
    lockstep.check(recorded.records)
    memory = bytearray(lockstep.hart.memory.ram)
    lockstep.compare_memory(bytes(memory))
    memory[0x1234] ^= 1
    with pytest.raises(Divergence, match="memory at 0x80001230"):
        lockstep.compare_memory(bytes(memory))
    with pytest.raises(Divergence, match="sp is"):
        lockstep.compare_registers({2: lockstep.hart.x[2] ^ 1}, {})
    number = CSRS["mscratch"].number
    with pytest.raises(Divergence, match="mscratch is"):
        lockstep.compare_registers({}, {number: lockstep.hart.csr.read(number)[0] ^ 1})


def test_a_report_shows_both_sides_and_the_way_there(traces):
    recorded, _ = traces[0]
    wrong = bytearray(recorded.records)
    index = next(n for n in itertools.count(20) if wrong[n * RETIREMENT_BYTES + 32] & 0x1F)
    wrong[index * RETIREMENT_BYTES + 8] ^= 1
    with pytest.raises(Divergence, match="another value") as caught:
        recorded.lockstep().check(bytes(wrong))
    report = str(caught.value)
    assert "the machine:" in report and "the model, after it:" in report and "mstatus" in report
    shown = [line for line in report.splitlines() if line.startswith(("  00000000", "> "))]
    assert len(shown) == 17 and shown[-1].startswith("> ")


def test_an_interrupt_nothing_asked_for_is_refused(traces):
    """mie is zero at reset: no interrupt can be the first thing that happens."""
    recorded, _ = traces[0]
    first = int.from_bytes(recorded.records[:RETIREMENT_BYTES], "little")
    trap = RETIREMENT.decode(first) | {"trap": 1, "value": 1 << INTERRUPT_BIT | 7, "data": 0}
    word = RETIREMENT.encode(**trap).to_bytes(RETIREMENT_BYTES, "little")
    with pytest.raises(Divergence, match="disabled in mie"):
        recorded.lockstep().check(word)


@pytest.mark.parametrize("seed", range(3))
def test_random_privileged_programs(seed):
    ram_size = 4 << 20
    machine = LockstepMachine(open_machine(ram_size))
    image = Image(RAM.base, ((RAM.base, privileged_program(seed)),))
    assert run(machine, Guest("random", (image,), ram_size, CYCLES)) == 0
    assert machine.lockstep.checked > 2000


def test_devices_are_not_executed():
    """Code put into a register of the CLINT: only ROM and RAM hold code."""
    code = Assembler(RAM.base)
    place = MEMORY_MAP["clint"].base + 0x4000
    code.load_address(5, place)
    code.load_address(6, encode("addi", rd=10, imm=7))
    code.load_address(7, encode("jalr", rs1=1))
    code.add("sw", rs1=5, rs2=6)
    code.add("sw", rs1=5, rs2=7, imm=4)
    code.add("jal", rd=6, to="over")
    code.add("jal", to="end")
    code.label("over")
    code.add("csrrw", rs1=6, csr=CSRS["mtvec"].number)
    code.add("jalr", rd=1, rs1=5)
    code.label("end")
    code.load_address(5, MEMORY_MAP["finisher"].base)
    code.load_address(6, 0x5555)
    code.add("sw", rs1=5, rs2=6)
    code.add("jal", to="end")
    machine = LockstepMachine(open_machine(GUEST_RAM))
    image = Image(RAM.base, ((RAM.base, code.assemble()),))
    assert run(machine, Guest("devices", (image,), GUEST_RAM, CYCLES)) == 0
    values = machine.lockstep.hart.csr.values
    assert (values["mcause"], values["mtval"]) == (Exception_.INSTRUCTION_ACCESS_FAULT, place)

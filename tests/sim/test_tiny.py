"""The guest ``tiny``: what its programs compute, on the RTL, under QEMU and on stock firmware."""

import os
import re
import struct
import subprocess
import zlib

import pytest

from rtl.arch.csrs import CSRS
from rtl.arch.performance import HPM_COUNTERS, PERFORMANCE_EVENTS
from rtl.soc.config import CONFIGURATIONS
from sim.cli.session import open_machine, run_guest
from sim.elf import load_elf
from sim.errors import VmxlabError
from sim.guests import GUESTS, GuestOptions
from sim.packages import OPENSBI, PackageError, package_file
from sim.program_costs import ProgramCost, program_costs
from sim.results import differences, run_document
from sim.tiny import tiny_disk, tiny_elf
from sw_vmm.errors import GuestPages
from tests.golden.qemu import needs_qemu

RAM = 16 << 20
WORD = (1 << 64) - 1
START = 0xCBF29CE484222325
MAPS_START, PAGE = 0x5000_0000, 4096


def fnv(words, digest=START):
    """FNV-1a over whole words."""
    for word in words:
        digest = (digest ^ word & WORD) * 0x100000001B3 & WORD
    return digest


def compute():
    sieve = bytearray(16384)
    primes = []
    for number in range(2, len(sieve)):
        if not sieve[number]:
            primes.append(number)
            for multiple in range(number * number, len(sieve), number):
                sieve[multiple] = 1
    order = range(24)
    left = [[row * 7 - column * 3 for column in order] for row in order]
    right = [[row ^ column for column in order] for row in order]
    products = []
    for _ in range(4):
        rows = [
            [sum(left[row][k] * right[k][column] for k in order) for column in order]
            for row in order
        ]
        flat = [value for row in rows for value in row]
        products += flat
        # C's remainder has the sign of the dividend.
        left = [[(abs(v) % 1009) * (1 if v >= 0 else -1) for v in row] for row in rows]
    return fnv([fnv(products), zlib.crc32(sieve[:4096])], fnv(primes))


def forks():
    words = []
    for place in range(16):
        written = [place + page & 0xFF for page in range(4)]
        words += [sum(written) & 0x7F, *written]
    return fnv(words)


def faults():
    digest = START
    for round_ in range(4):
        for page in range(48):
            if page % 2:
                digest = fnv([0], digest)
            digest = fnv([round_ << 8 | page], digest)
    return digest


def output():
    lines = [bytes(32 + (line + place) % 95 for place in range(64)) for line in range(24)]
    return lines, fnv(byte for line in lines for byte in line)


def disk():
    """The digest, and the disk as the program leaves it."""
    image, digest = bytearray(tiny_disk()), START
    for number in range(12):
        words = []
        for (word,) in struct.iter_unpack("<Q", image[512 * number : 512 * number + 512]):
            digest = fnv([word], digest)
            words.append(word ^ digest)
        struct.pack_into("<64Q", image, 512 * (32 + number), *words)
    return bytes(image), digest


LINES, OUTPUT = output()
DISK, DISK_DIGEST = disk()
DIGESTS = {
    "compute": compute(),
    "calls": fnv([0] * 2000),
    "forks": forks(),
    "ping-pong": fnv(round_ * round_ + 1 for round_ in range(200)),
    "faults": faults(),
    "maps": fnv(MAPS_START ^ MAPS_START + 4 * PAGE ^ place for place in range(120)),
    "turns": fnv([fnv((turn % 3 + turn for turn in range(9)), 0)]),
    "sleep": fnv(range(12)),
    "output": OUTPUT,
    "disk": DISK_DIGEST,
    "terminal": fnv(b"012345"),
}
CONSOLE = b"".join(
    line + b"\r\n"
    for line in (
        b"tiny: here we go",
        *(
            line
            for name, digest in DIGESTS.items()
            for line in (*(LINES if name == "output" else ()), f"{name}: {digest:016x}".encode())
        ),
        b"tiny: all is well",
    )
)
TERMINAL = b"".join(b"terminal line %d\n" % number for number in range(6))


def load(name="tiny", **options):
    return GUESTS[name].load(GuestOptions(ram_size=RAM, **options), lambda text: None)


@pytest.fixture(scope="module")
def machine():
    return open_machine(RAM)


@pytest.fixture(scope="module")
def vmx():
    return open_machine(RAM, CONFIGURATIONS["vmx"])


@pytest.fixture(scope="module")
def native(machine):
    return run_guest(machine, load(), "native", quiet=True)


def check(run):
    assert run.result.outcome.console == CONSOLE
    assert run.result.outcome.exit_code == 0
    assert run.result.outcome.virtio_console == TERMINAL
    assert run.disk == DISK
    reports, *digests = struct.unpack("<17Q", run.signature[: 17 * 8])
    assert reports == len(DIGESTS)
    assert digests == [*DIGESTS.values(), *[0] * (16 - len(DIGESTS))]
    assert set(run.programs) == set(DIGESTS)


def test_native_run_computes_what_it_should(native):
    check(native)
    assert all(cost.instructions < cost.cycles for cost in native.programs.values())
    # The rest is the kernel's start, its end, and a fork before each program.
    assert sum(cost.cycles for cost in native.programs.values()) < native.result.cycles.total


def test_a_run_repeated_is_identical_in_every_cycle(machine, native):
    again = run_guest(machine, load(), "native", quiet=True)
    documents = [run_document(run) | {"wall": None} for run in (native, again)]
    assert documents[0] == documents[1]


def test_timer_by_firmware_changes_nothing_but_time(machine, native):
    run = run_guest(machine, load("tiny-sbi"), "native", quiet=True)
    check(run)
    assert run.signature == native.signature
    # Each slice costs a call, and a trap into M-mode when it ends by the timer.
    assert run.result.cycles.total > native.result.cycles.total


def test_interpreted_run_comes_to_the_same(machine, native):
    run = run_guest(machine, load(), "interpret", charge=0, quiet=True)
    check(run)
    assert differences([native, run]) == []


def counting(monkeypatch, machine, *events):
    """Have the machine's first event counters count these from each reset on; gives what reads them."""
    numbers = {event.name: event.number for event in PERFORMANCE_EVENTS}
    reset, counters = machine.reset, HPM_COUNTERS[: len(events)]

    def reset_and_count():
        reset()
        for index, event in zip(counters, events, strict=True):
            machine.write_csr(CSRS[f"mhpmevent{index}"].number, numbers[event])

    monkeypatch.setattr(machine, "reset", reset_and_count)
    return lambda: [machine.read_csr(CSRS[f"mhpmcounter{index}"].number) for index in counters]


def test_guest_of_its_own_comes_to_the_same(vmx, monkeypatch):
    """In non-root operation, over an EPT: nothing but devices and missing pages exits."""
    native = run_guest(vmx, load(), "native", charge=0, quiet=True)
    count = counting(monkeypatch, vmx, "walk", "walk_read")
    runs = [native, run_guest(vmx, load(), "vmx-ept", charge=0, quiet=True)]
    # A walk of both dimensions from the roots would read 15 entries.
    walks, reads = count()
    assert 0 < walks < reads <= 4 * walks
    for run in runs:
        check(run)
    assert differences(runs) == []
    result = runs[1].result
    assert set(result.exits) == {"ept_violation", "mmio_read", "mmio_write", "preemption_timer"}
    assert result.exits["ept_violation"].count <= RAM >> 21
    assert result.cycles.idle == 0


def test_kernel_alone_runs_with_the_vmm_for_firmware(vmx):
    """Started in S-mode; the calls are its timer's, and the one that ends it."""
    run = run_guest(vmx, load("tiny-kernel"), "vmx-ept", charge=0, quiet=True)
    check(run)
    assert run.result.exits["ecall_from_supervisor"].count > 50


@pytest.mark.parametrize("name", ["tiny", "tiny-sbi"])
def test_techniques_without_shadow_tables_refuse_it_in_one_line(machine, name):
    with pytest.raises(GuestPages) as refused:
        run_guest(machine, load(name), "trap-emulate", quiet=True)
    assert "paging" in str(refused.value) and "\n" not in str(refused.value)


def qemu(*arguments):
    command = ["qemu-system-riscv64", "-M", "virt", "-m", "64M", "-nographic", "-monitor", "none"]
    done = subprocess.run(
        [*command, "-serial", "stdio", *map(str, arguments)],
        capture_output=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout


def opensbi():
    try:
        return package_file(OPENSBI).path
    except PackageError as error:
        if os.environ.get("CI", "").lower() == "true":
            raise
        pytest.skip(str(error))


@needs_qemu
@pytest.mark.parametrize("sbi_timer", [False, True])
def test_qemu_says_the_same_and_its_devices_are_told_the_same(sbi_timer, tmp_path):
    image, terminal = tmp_path / "disk", tmp_path / "terminal"
    image.write_bytes(tiny_disk())
    devices = (
        *("-global", "virtio-mmio.force-legacy=false"),
        *("-drive", f"if=none,id=disk,format=raw,file={image}"),
        *("-device", "virtio-blk-device,drive=disk", "-device", "virtio-serial-device"),
        *("-chardev", f"file,id=terminal,path={terminal}"),
        *("-device", "virtconsole,chardev=terminal"),
    )
    assert qemu("-bios", tiny_elf(sbi_timer=sbi_timer), *devices) == (0, CONSOLE)
    assert image.read_bytes() == DISK
    assert terminal.read_bytes() == TERMINAL


WITHOUT_DEVICES = re.sub(rb"(disk|terminal): [0-9a-f]{16}", rb"\1: no device", CONSOLE)


@needs_qemu
@pytest.mark.parametrize("sbi_timer", [False, True])
def test_kernel_runs_on_stock_firmware_in_qemu(sbi_timer):
    kernel = tiny_elf(sbi_timer=sbi_timer, firmware=False)
    code, console = qemu("-bios", opensbi(), "-kernel", kernel)
    assert code == 0
    assert b"OpenSBI" in console and console.endswith(WITHOUT_DEVICES)


def test_kernel_alone_begins_where_firmware_jumps():
    image = load_elf(tiny_elf(firmware=False), ram_size=RAM)
    assert image.entry == image.segments[0][0] == 0x8020_0000


def test_firmware_that_reaches_into_the_kernel_is_refused(tmp_path):
    firmware = tmp_path / "firmware"
    firmware.write_bytes(bytes(0x20_0001))
    with pytest.raises(VmxlabError, match="into the kernel"):
        load(firmware=firmware)


def test_too_little_memory_is_told_at_once():
    with pytest.raises(VmxlabError, match=re.escape("does not lie within RAM")):
        GUESTS["tiny"].load(GuestOptions(ram_size=4 << 20), lambda text: None)


def test_table_of_programs_is_read_by_name():
    rows = [(b"one", 10, 5), (b"", 1, 1), (b"sixteen-letters-", 3, 2)]
    table = b"".join(struct.pack("<16sQQ", *row) for row in rows)
    expected = {"one": ProgramCost(10, 5), "sixteen-letters-": ProgramCost(3, 2)}
    assert program_costs(table) == expected
    assert program_costs(table + b"rest") == expected
    assert program_costs(b"") == {}

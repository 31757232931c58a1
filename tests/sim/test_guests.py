"""The guests on the RTL: equal outcome under every technique, and no cycle different next time."""

import os
from pathlib import Path

import pytest

import sw_vmm.guests
from rtl.soc.config import CONFIGURATIONS
from sim.cli.session import open_machine, run_guest
from sim.errors import VmxlabError
from sim.guests import GUESTS, GuestOptions, bare_program, platform_defines
from sim.packages import PackageError
from sim.results import differences, run_document
from sim.toolchain import build_program
from sw_vmm.techniques import TECHNIQUES

RAM = 64 << 20


@pytest.fixture(scope="module")
def machine():
    return open_machine(RAM, CONFIGURATIONS["vmx"])


def run(machine, guest, technique):
    return run_guest(machine, guest, technique, charge=0, quiet=True)


def repeatable(finished):
    document = run_document(finished)
    del document["wall"]
    return document


def load(name, **options):
    return GUESTS[name].load(GuestOptions(ram_size=RAM, **options), lambda text: None)


@pytest.fixture(scope="module")
def small():
    return open_machine(RAM, CONFIGURATIONS["small"])


@pytest.mark.parametrize("size", ["machine", "small"])
def test_hello_is_the_same_under_every_technique(request, size):
    machine = request.getfixturevalue(size)
    runs = [
        run(machine, load("hello"), name)
        for name, technique in TECHNIQUES.items()
        if machine.config.vmx or not technique.needs_vmx
    ]
    assert differences(runs) == []
    outcome = runs[0].result.outcome
    assert outcome.exit_code == 0
    assert outcome.console.startswith(b"hello, world\r\n")
    assert outcome.console.endswith(b"goodbye\r\n")
    assert runs[0].signature


def test_hello_takes_exits_of_many_kinds(machine):
    exits = run(machine, load("hello"), "trap-emulate").result.exits
    assert {"mmio_read", "mmio_write", "csr_read", "csr_write", "ecall", "mret", "sret"} <= set(
        exits
    )


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_hello_is_identical_in_every_cycle_when_repeated(machine, technique):
    runs = [run(machine, load("hello"), technique) for _ in range(2)]
    assert repeatable(runs[0]) == repeatable(runs[1])


def test_u_boot_boots_alike_natively_and_virtualized(machine):
    try:
        guest = load("u-boot")
    except PackageError as error:
        if os.environ.get("CI", "").lower() == "true":
            raise
        pytest.skip(str(error))
    runs = [run(machine, guest, technique) for technique in GUESTS["u-boot"].techniques]
    assert differences(runs) == []
    outcome = runs[0].result.outcome
    assert outcome.text_seen
    assert len(outcome.console) >= 2000
    assert b"OpenSBI" in outcome.console
    assert b"Hit any key to stop autoboot" in outcome.console
    assert outcome.console.endswith(b"=> ")


def test_firmware_that_reaches_into_the_kernel_is_refused(tmp_path):
    firmware, kernel = tmp_path / "fw", tmp_path / "kernel"
    firmware.write_bytes(bytes(0x20_0001))
    kernel.write_bytes(bytes(16))
    with pytest.raises(VmxlabError, match="into the kernel"):
        load("u-boot", firmware=firmware, kernel=kernel)


LOST = """
    .section .text.start, "ax"
    .globl _start
_start:
    {code}
1:  j 1b
"""
PROGRAMS = {
    "never-ends": "",
    "jumps-into-nothing": "jr zero",
    "jumps-beyond-every-bus": "li t0, -4096; jr t0",
    "runs-its-own-rubbish": "la t0, _start + 64; jr t0; .balign 64; .fill 64, 4, 0x3000ffff",
    "random-page-tables": """
        la t0, 3f; csrw mtvec, t0       # rubbish for tables, which are read as they are
        li t1, 0x9e3779b97f4a7c15
        la t0, table
        li t2, 512
    2:  sd t1, 0(t0); mul t1, t1, t1; addi t1, t1, 19; addi t0, t0, 8; addi t2, t2, -1; bnez t2, 2b
        la t0, table; srli t0, t0, 12; li t1, 8 << 60; or t0, t0, t1; csrw satp, t0
        li t0, 1 << 11; csrs mstatus, t0; li t0, 1 << 17; csrs mstatus, t0
        li t3, 0
        .balign 4
    3:  li t1, 0x40000000; add t3, t3, t1; addi t3, t3, 1001; csrs mstatus, t0
        ld t2, 0(t3); sd t2, 0(t3); j 3b
        .data
        .balign 4096
    table: .skip 4096
        .text""",
}


def lost_program(name, folder):
    source = folder / f"{name}.S"
    source.write_text(LOST.format(code=PROGRAMS[name]))
    script = Path(sw_vmm.guests.__file__).parent / "bare.ld"
    elf = build_program(name, [source], script=script, defines=platform_defines())
    return bare_program(elf, GuestOptions(ram_size=RAM, cycles=100_000))


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_lost_guest_ends_with_its_budget(machine, tmp_path, name, technique):
    guest = lost_program(name, tmp_path)
    finished = run(machine, guest, technique)
    outcome = finished.result.outcome
    assert (outcome.finished, outcome.exit_code, outcome.text_seen) == (False, None, False)
    assert 100_000 <= finished.result.cycles.total < 110_000

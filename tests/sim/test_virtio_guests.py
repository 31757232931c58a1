"""The virtio devices under every technique: same bytes, same interrupts, same disk in the end."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

import sw_vmm.guests
from rtl.soc.config import CONFIGURATIONS
from sim.cli.session import open_machine, run_guest
from sim.guests import GuestOptions, bare_program, platform_defines
from sim.results import differences, run_document
from sim.toolchain import build_program
from sw_vmm.techniques import TECHNIQUES

RAM = 16 << 20
IMAGE = bytes((place * 11 + place // 512) & 0xFF for place in range(8 * 512))


def digest(sector):
    value = 0
    for byte in sector:
        value = value * 31 + byte & (1 << 64) - 1
    return value


@pytest.fixture(scope="module")
def machine():
    return open_machine(RAM, CONFIGURATIONS["vmx"])


@pytest.fixture(scope="module")
def guest():
    elf = build_program(
        "virtio",
        [Path(__file__).with_name(name) for name in ("virtio.S", "virtio.c")],
        script=Path(sw_vmm.guests.__file__).parent / "bare.ld",
        defines=platform_defines(),
        flags=("-Wall", "-Wextra", "-Werror"),
    )
    bare = bare_program(elf, GuestOptions(ram_size=RAM), cycles=2_000_000)
    return replace(bare, disk=IMAGE, virtio_console=True)


def test_devices_are_the_same_under_every_technique(machine, guest):
    runs = [run_guest(machine, guest, name, charge=0, quiet=True) for name in TECHNIQUES]
    assert differences(runs) == []
    outcome = runs[0].result.outcome
    assert (outcome.exit_code, outcome.virtio_console) == (0, b"round 0\nround 1\n")
    sector = IMAGE[3 * 512 : 4 * 512]
    once = bytes(byte ^ 1 for byte in sector)
    twice = bytes(byte ^ 2 for byte in once)
    assert runs[0].disk == IMAGE[: 3 * 512] + twice + IMAGE[4 * 512 :]
    assert struct.unpack("<4Q", runs[0].signature) == (digest(sector), digest(once), 0, 0)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_run_repeated_is_identical_in_every_cycle(machine, guest, technique):
    documents = [
        run_document(run_guest(machine, guest, technique, charge=0, quiet=True)) | {"wall": None}
        for _ in range(2)
    ]
    assert documents[0] == documents[1]

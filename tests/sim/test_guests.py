"""The guests on the RTL: equal outcome under every technique, and no cycle different next time."""

import os

import pytest

from sim.cli.session import open_machine, run_guest
from sim.errors import VmxlabError
from sim.guests import GUESTS, GuestOptions
from sim.packages import PackageError
from sim.results import differences, run_document
from sw_vmm.techniques import TECHNIQUES

RAM = 64 << 20


@pytest.fixture(scope="module")
def machine():
    return open_machine(RAM)


def run(machine, guest, technique):
    return run_guest(machine, guest, technique, charge=0, quiet=True)


def repeatable(finished):
    document = run_document(finished)
    del document["wall"]
    return document


def load(name, **options):
    return GUESTS[name].load(GuestOptions(ram_size=RAM, **options), lambda text: None)


def test_hello_is_the_same_under_every_technique(machine):
    runs = [run(machine, load("hello"), technique) for technique in TECHNIQUES]
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


def test_u_boot_boots_alike_natively_and_emulated(machine):
    try:
        guest = load("u-boot")
    except PackageError as error:
        if os.environ.get("CI", "").lower() == "true":
            raise
        pytest.skip(str(error))
    runs = [run(machine, guest, technique) for technique in ("native", "trap-emulate")]
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

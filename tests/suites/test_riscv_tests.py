"""The public riscv-tests suite: every ELF file of the folder given by --riscv-tests.

``tests/suites/build_riscv_tests.py`` builds such a folder; docs/testing.md says how.
"""

import random
import struct
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from rtl.arch.instructions import INSTRUCTIONS, RD, RS1, RS2, decode
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS
from rtl.soc.config import CONFIGURATIONS
from sim.cli.session import open_machine, run_guest
from sim.guests import GuestOptions, bare_program
from sw_vmm.ept import MemorySlot
from tests.sim.fake_machine import FakeMachine
from tests.suites.build_riscv_tests import CLASSES

GUEST_RAM = 4 << 20
#: The longest test needs about a quarter of it.
CYCLES = 2_000_000
#: Fail by construction: PMP CSRs read zero.
EXPECTED_FAILURES = {"rv64mi-p-pmpaddr"}


@pytest.fixture(scope="module")
def folder(request):
    given = request.config.getoption("--riscv-tests")
    if given is None:
        pytest.skip("--riscv-tests FOLDER is not given")
    folder = Path(given)
    if not folder.is_dir():
        pytest.fail(f"--riscv-tests {folder}: no such folder")
    return folder


def scrambled():
    """Every page of guest RAM somewhere else in it."""
    pages = list(range(GUEST_RAM >> PAGE_BITS))
    random.Random(1).shuffle(pages)
    base, size = MEMORY_MAP["ram"].base, 1 << PAGE_BITS
    return [MemorySlot(base + n * size, base + at * size, size) for n, at in enumerate(pages)]


#: Technique, configuration, options.
WAYS = {
    "native": ("native", "full", {}),
    "native, with the extension": ("native", "vmx", {}),
    "interpret": ("interpret", "full", {}),
    "vmx-ept": ("vmx-ept", "vmx", {}),
    "vmx-ept, pages scrambled": ("vmx-ept", "vmx", {"slots": scrambled()}),
}


@pytest.fixture(scope="module", params=WAYS)
def run(folder, request):
    """Runs a guest; the value is its exit code, or None when it did not end in its budget."""
    technique, configuration, options = WAYS[request.param]
    if technique == "interpret":
        machine = FakeMachine(GUEST_RAM)
    else:
        machine = open_machine(GUEST_RAM, CONFIGURATIONS[configuration])

    def run(guest):
        finished = run_guest(machine, guest, technique, charge=0, quiet=True, **options)
        return finished.result.outcome.exit_code

    run.technique = request.param
    return run


def elf_files(folder, class_, environment):
    return sorted(
        path
        for path in folder.glob(f"{class_}-{environment}-*")
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"
    )


def load(path):
    return bare_program(path, GuestOptions(ram_size=GUEST_RAM, cycles=CYCLES))


@pytest.mark.parametrize(
    ("class_", "environment"),
    [(class_, environment) for class_, envs in CLASSES.items() for environment in envs],
)
def test_class_passes(folder, run, class_, environment, capsys):
    found = elf_files(folder, class_, environment)
    verdicts = {path.name: run(load(path)) for path in found}
    counts = Counter(
        "timed out" if code is None else "failed" if code else "passed"
        for code in verdicts.values()
    )
    with capsys.disabled():
        print(
            f"\n{class_}-{environment} {run.technique}: {len(found)} found, {counts['passed']} passed, "
            f"{counts['failed']} failed, {counts['timed out']} timed out"
        )
    assert found, f"{folder} holds no tests of {class_}-{environment}"
    wrong = {name: code for name, code in verdicts.items() if code != 0}
    assert set(wrong) == EXPECTED_FAILURES & set(verdicts), wrong


def with_wrong_value(guest):
    """The test with another constant in its first comparison (li t2, value; bne result, t2)."""
    (image,) = guest.images
    for place, data in image.segments:
        words = struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
        for index, (first, second) in enumerate(pairwise(words)):
            li, bne = decode(first), decode(second)
            if (
                li is INSTRUCTIONS["addi"]
                and bne is INSTRUCTIONS["bne"]
                and field(first, RD) == field(second, RS2) == 7
                and field(first, RS1) == 0
            ):
                wrong = (first ^ 1 << 20).to_bytes(4, "little")
                changed = data[: 4 * index] + wrong + data[4 * index + 4 :]
                segments = tuple(
                    (base, changed if base == place else old) for base, old in image.segments
                )
                return replace(guest, images=(replace(image, segments=segments),))
    pytest.fail("no comparison was found in the test")


def field(word, place):
    lsb, width = place
    return word >> lsb & (1 << width) - 1


def test_wrong_expected_value_fails(folder, run):
    guest = load(folder / "rv64ui-p-add")
    assert run(guest) == 0
    assert run(with_wrong_value(guest)) == 2  # the number of its first check

"""The directed programs hold on the interpreting VMM and on the RTL; wrong expectations fail."""

import shutil
import subprocess

import pytest

from rtl.soc.config import CONFIGURATIONS
from sim.cli.session import open_machine, run_guest
from sim.guests import GuestOptions, bare_program
from sw_vmm.errors import GuestPages
from tests.programs.directed import PROGRAMS, build_directed, checks_of, expect_wrongly
from tests.sim.fake_machine import FakeMachine

GUEST_RAM = 1 << 20
#: The longest program needs about 100 000 cycles.
CYCLES = 1_000_000
#: Programs that turn paging on.
PAGING = ("fences", "supervisor")


#: Programs of instructions a configuration may lack, and its switch, which its first check uses.
OPTIONAL = {"bit_manipulation": "bit_manipulation"}
#: The verdict of a program with an unexpected trap before its first check.
TRAPPED = 128


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def rtl(request):
    return open_machine(GUEST_RAM, CONFIGURATIONS[request.param])


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def interpreter(request):
    return FakeMachine(GUEST_RAM, CONFIGURATIONS[request.param])


def lacks(machine, name):
    return name in OPTIONAL and not getattr(machine.config, OPTIONAL[name])


def expected(machine, name, verdict=0):
    return TRAPPED if lacks(machine, name) else verdict


def verdict(machine, technique, name, wrong=0):
    """The exit code of the program, which ends long before its budget does."""
    options = GuestOptions(ram_size=GUEST_RAM, cycles=CYCLES)
    guest = expect_wrongly(bare_program(build_directed(name), options), wrong)
    run = run_guest(machine, guest, technique, charge=0, quiet=True)
    assert run.result.cycles.total < CYCLES
    return run.result.outcome.exit_code


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_holds_natively(rtl, name):
    assert verdict(rtl, "native", name) == expected(rtl, name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_wrong_expectation_fails_natively(rtl, name):
    number = checks_of(name)[-1]
    assert verdict(rtl, "native", name, wrong=number) == expected(rtl, name, number)


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in PAGING])
def test_program_holds_trapped_and_emulated(rtl, name):
    assert verdict(rtl, "trap-emulate", name) == expected(rtl, name)


@pytest.mark.parametrize("name", PAGING)
def test_program_that_pages_is_refused(rtl, name):
    with pytest.raises(GuestPages):
        verdict(rtl, "trap-emulate", name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_holds_interpreted(interpreter, name):
    assert verdict(interpreter, "interpret", name) == expected(interpreter, name)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_check_is_reached(interpreter, name):
    for number in checks_of(name):
        wanted = expected(interpreter, name, number)
        assert verdict(interpreter, "interpret", name, wrong=number) == wanted


@pytest.mark.skipif(not shutil.which("qemu-system-riscv64"), reason="QEMU is not installed")
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_holds_on_qemu(name):
    program = build_directed(name, flags=("-DQEMU",))
    command = (
        "qemu-system-riscv64 -M virt -cpu rv64,f=off,d=off -bios none -nographic -icount shift=0"
    )
    result = subprocess.run(
        [*command.split(), "-monitor", "none", "-serial", "none", "-kernel", str(program)],
        stdin=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0

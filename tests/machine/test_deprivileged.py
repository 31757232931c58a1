"""Under trap-emulate the hart itself runs nothing but U-mode code."""

from rtl.arch.records import RETIREMENT
from rtl.arch.traps import Privilege
from rtl.soc.config import SocConfig
from sim.cli.session import run_guest
from sim.guests import GUESTS, GuestOptions
from sim.library import LibraryMachine
from sim.verilated import RETIREMENT_BYTES
from sw_vmm.vm import MONITOR_SIZE

RAM = 16 << 20


def test_what_retires_between_resume_and_park_retires_in_user_mode():
    """The guest's M, S and U alike: hello uses all three."""
    guest = GUESTS["hello"].load(GuestOptions(ram_size=RAM), lambda text: None)
    machine = LibraryMachine(SocConfig(), ram_size=RAM + MONITOR_SIZE)
    machine.trace(60_000)
    run = run_guest(machine, guest, "trap-emulate", charge=0.0, quiet=True)
    assert run.result.outcome.exit_code == 0
    records = machine.traced(60_000)
    retired = 0
    for place in range(0, len(records), RETIREMENT_BYTES):
        word = int.from_bytes(records[place : place + RETIREMENT_BYTES], "little")
        record = RETIREMENT.decode(word)
        assert record["privilege"] == Privilege.USER, hex(record["pc"])
        retired += not record["trap"]
    assert retired > 10_000

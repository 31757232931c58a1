"""The guest ``hello`` on any machine, and everything a run tells that is not wall time."""

from sim.cli.session import run_guest
from sim.guests import GUESTS, GuestOptions
from sim.results import run_document
from sw_vmm.vm import MONITOR_SIZE

_GUEST_RAM = 16 << 20
RAM_SIZE = _GUEST_RAM + MONITOR_SIZE


def outcome(machine, technique: str) -> dict:
    """The run's document and each of its exits."""
    guest = GUESTS["hello"].load(GuestOptions(ram_size=_GUEST_RAM), lambda text: None)
    exits = []
    run = run_guest(machine, guest, technique, on_exit=exits.append, quiet=True)
    document = run_document(run)
    del document["wall"], document["machine"]["revision"]
    return {"document": document, "exits": exits}

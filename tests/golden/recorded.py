"""Programs run once on the RTL, with the trace they left."""

from dataclasses import dataclass

from sim.cli.session import run_guest
from sim.guests import GuestOptions, bare_program
from sim.lockstep import Lockstep, LockstepMachine
from tests.programs.directed import build_directed

__all__ = ["GUEST_RAM", "Recorded", "record"]

GUEST_RAM = 1 << 20
_CYCLES = 1_000_000


@dataclass(frozen=True)
class Recorded:
    """Memory at the start of a run, and the records it left."""

    ram: bytes
    rom: bytes
    records: bytes

    def lockstep(self) -> Lockstep:
        """The model before the first record."""
        return Lockstep(ram_size=len(self.ram), ram=self.ram, rom=self.rom)


class _Recorder(LockstepMachine):
    """Keeps the records instead of checking them."""

    def __init__(self, machine):
        super().__init__(machine)
        self.start, self.records = None, b""

    def resume(self, pc, **more):
        super().resume(pc, **more)
        memory = self.lockstep.hart.memory
        self.start = self.start or (bytes(memory.ram), bytes(memory.rom))

    def run(self, cycles):
        event = self._machine.run(cycles)
        self.records += self._machine.traced()
        return event


def record(machine, name: str) -> Recorded:
    """Run the directed program on the machine."""
    recorder = _Recorder(machine)
    options = GuestOptions(ram_size=GUEST_RAM, cycles=_CYCLES)
    guest = bare_program(build_directed(name), options)
    run = run_guest(recorder, guest, "native", charge=0, quiet=True)
    assert run.result.outcome.exit_code == 0
    return Recorded(*recorder.start, recorder.records)

"""The golden model in lockstep with a hart that a bus master races."""

import struct
from pathlib import Path
from typing import NamedTuple

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS
from rtl.arch.records import RETIREMENT
from rtl.soc.config import SocConfig
from sim.errors import VmxlabError
from sim.golden import Unknowable
from sim.host_machine import HostPortMachine, MachineConfig
from sim.lockstep import LockstepMachine
from sim.model import library_file
from sim.random_programs.differential import Differential
from sim.random_programs.program import RAM_SIZE
from sim.verilated import RETIREMENT_BYTES, Verilated
from sw_vmm.machine import Event
from tests.racing.bus_master import ACCESSES, RacingSoc
from tests.racing.commands import COMMAND, COMMANDS, CONTROL, REPORT

__all__ = ["Race", "RacingLockstep", "racing_machine"]

_HERE = Path(__file__).parent
_RAM = MEMORY_MAP["ram"].base
_WORD = (1 << 64) - 1
_COUNT = struct.Struct(f"<{ACCESSES.lsb // 8}xI")
#: Reads of the report, each of some cycles, after which the master must have come to rest.
_PATIENCE = 1000


def racing_machine(config: SocConfig) -> HostPortMachine:
    """The Verilated machine with the bus master, for random programs."""
    library = library_file(
        config, RacingSoc, sources=(_HERE / "bus_master.py", _HERE / "commands.py")
    )
    simulation = Verilated(library, ram_size=RAM_SIZE, cycles_per_tick=config.cycles_per_tick)
    return HostPortMachine(simulation, MachineConfig(**config.as_dict(), ram_size=RAM_SIZE))


class _Change(NamedTuple):
    """A write of the master: the word at ``address`` before and after."""

    address: int
    before: int
    after: int


class _Master:
    """What the commands in ``memory`` (a MemoryUnit) do, access by access."""

    def __init__(self, memory):
        self._memory = memory
        self._place = COMMANDS
        self._repeated = 0
        self._fold = 0
        self.accesses = 0

    def advance(self, accesses):
        """Do what is left of the first ``accesses``; the changes."""
        changes = []
        while self.accesses < accesses:
            command = COMMAND.decode(self._word(self._place))
            if not command["valid"]:
                self._place += 16
                continue
            seen = old = self._word(command["address"])
            if command["write"]:
                seen = self._word(self._place + 8) ^ (self._fold if command["mixed"] else 0)
                bits = sum(0xFF << 8 * lane for lane in range(8) if command["mask"] >> lane & 1)
                new = old & ~bits | seen & bits
                self._memory.write_physical(command["address"], new.to_bytes(8, "little"))
                changes.append(_Change(command["address"], old, new))
            self._fold = (self._fold << 1 | self._fold >> 63) & _WORD ^ seen
            self.accesses += 1
            self._repeated += 1
            if self._repeated > command["repeat"]:
                self._repeated = 0
                self._place += 16
        return changes

    def _word(self, hpa):
        return int.from_bytes(self._memory.ram[hpa - _RAM : hpa - _RAM + 8], "little")


class RacingLockstep(LockstepMachine):
    """A LockstepMachine of ``racing_machine``.

    Every record says how many accesses the master had done before, so that the model does them, too,
    at the same point. An access that crosses eight bytes is two, and the record tells of the
    second one only: what the first word of a load held is taken from what it can have held
    since the last record; a store whose first word was changed meanwhile raises Unknowable.

    Members
    -------
    raced : int
        Accesses of the master followed so far.
    broken : int
        Reservations of the hart that writes of the master have ended.
    """

    def __init__(self, machine):
        super().__init__(machine)
        self._master: _Master | None = None
        self.raced = self.broken = 0

    def reset(self) -> None:
        super().reset()
        self._master = None

    def resume(self, pc: int, **more) -> None:
        if self._master is not None:
            self.write_memory(CONTROL, bytes(8))
        super().resume(pc, **more)
        if self._master is None:
            self._master = _Master(self.lockstep.hart.memory)

    def run(self, cycles: int) -> Event:
        event = super().run(cycles)
        if event & Event.PARKED:
            self._settle()
        return event

    def follow(self, records: bytes) -> None:
        start, master = 0, self._master
        for place in range(0, len(records), RETIREMENT_BYTES):
            (accesses,) = _COUNT.unpack_from(records, place)
            if accesses == master.accesses:
                continue
            self.lockstep.check(records[start:place])
            start = place + RETIREMENT_BYTES
            self._check_after(self._advance(accesses), records[place:start])
        self.lockstep.check(records[start:])

    def _advance(self, accesses):
        memory, before = self.lockstep.hart.memory, self._master.accesses
        reserved = memory.reserved
        changes = self._master.advance(accesses)
        self.raced += accesses - before
        self.broken += reserved is not None and memory.reserved is None
        return changes

    def _check_after(self, changes, record):
        """Check a record before which, maybe amid which, the master has made the changes."""
        fields = RETIREMENT.decode(int.from_bytes(record, "little"))
        address, low = fields["address"], fields["address"] & ~7
        crosses = not fields["trap"] and (address & 7) + (1 << fields["size"]) > 8
        if crosses and fields["store"]:
            high = low + 8
            page = (1 << PAGE_BITS) - 1
            for change in changes:
                # In the next page it may be anywhere.
                if change.address == high or high & page == change.address & page == 0:
                    raise Unknowable("a store in two halves, and a write between them")
        held = [change for change in changes if change.address == low]
        if not (crosses and fields["load"] and fields["rd"] and held):
            self.lockstep.check(record)
            return
        shift = 8 * (address & 7)
        for word in (held[0].before, *(change.after for change in held)):
            if (word >> shift ^ fields["value"]) & _WORD >> shift == 0:
                self._put(low, word)
                break
        self.lockstep.check(record)
        self._put(low, held[-1].after)

    def _put(self, hpa, word):
        self.lockstep.hart.memory.ram[hpa - _RAM : hpa - _RAM + 8] = word.to_bytes(8, "little")

    def _settle(self):
        """Wait until the master stands still, and do in the model what it has done last."""
        for _ in range(_PATIENCE):
            report = self._machine.read_memory(CONTROL, 8)
            accesses = REPORT["accesses"].extract(int.from_bytes(report, "little"))
            if REPORT["valid"].extract(int.from_bytes(report, "little")):
                break
        else:
            raise VmxlabError("the bus master does not come to rest")
        self._advance(accesses)
        self.lockstep.hart.memory.write_physical(CONTROL, report)


class Race(Differential):
    """Runs racing programs on a ``racing_machine``, one after the other."""

    def __init__(self, machine: HostPortMachine):
        super().__init__(machine, RacingLockstep)

    @property
    def raced(self) -> int:
        return self._machine.raced

    @property
    def broken(self) -> int:
        return self._machine.broken

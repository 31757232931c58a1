"""Running one guest on two builds of the machine, and finding the cycle in which they part."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rtl.arch.memory_map import MEMORY_MAP
from sim.cli.session import run_guest
from sim.guests import Guest
from sw_vmm.machine import Event

__all__ = ["SLICE", "Comparison", "Slice", "compare"]

#: Cycles of one comparison; a difference is then looked for cycle by cycle.
SLICE = 2000


@dataclass(frozen=True)
class Slice:
    """What a machine has shown in some cycles: where they ended, and a digest of all of it."""

    begin: int
    end: int
    digest: str


class _Watched:
    """A machine that is run in slices, each of which leaves a digest.

    It covers every retirement record, the event that ended the slice, the console, the park record
    and the transition cycles. From cycle ``fine`` on a slice is one cycle.
    """

    def __init__(self, machine, fine: int | None):
        self._machine, self._fine = machine, fine
        self.slices: list[Slice] = []
        self.records = 0
        # At most one instruction retires per cycle, and a call may take cycles of its own.
        machine.trace(2 * SLICE)

    def __getattr__(self, name: str):
        return getattr(self._machine, name)

    def run(self, cycles: int) -> Event:
        machine = self._machine
        while True:
            begin = machine.cycles
            step = min(cycles, SLICE)
            if self._fine is not None:
                step = min(cycles, max(1, min(step, self._fine - begin)))
            event = machine.run(step)
            self._note(begin, event)
            cycles -= step
            if event != Event.BUDGET or cycles <= 0:
                return event

    def _note(self, begin: int, event: Event) -> None:
        machine = self._machine
        records = machine.traced(2 * SLICE)
        self.records += len(records)
        shown = hashlib.sha256(records)
        shown.update(machine.console())
        shown.update(
            repr((machine.cycles, machine.transition, int(event), machine.finisher)).encode()
        )
        if machine.parked:
            shown.update(repr(machine.park).encode())
        self.slices.append(Slice(begin, machine.cycles, shown.hexdigest()))


@dataclass(frozen=True)
class Comparison:
    """How two runs of a guest compare; ``first`` is the cycle in which they part, if they do.

    ``digest`` is of all that the first machine has shown, its RAM and counters at the end included.
    """

    guest: str
    technique: str
    cycles: int
    slices: int
    digest: str
    identical: bool
    first: int | None


def compare(machines: Sequence, guest: Guest, technique: str) -> Comparison:
    """Run the guest on both machines and compare all that they show."""
    runs = [_run(machine, guest, technique, None) for machine in machines]
    (slices, end), (_, other_end) = runs
    parted = _parted(*(slices for slices, _ in runs))
    first = None
    if parted is not None:
        # Once more, cycle by cycle from there.
        again = [_run(machine, guest, technique, parted)[0] for machine in machines]
        first = _parted(*again)
    whole = hashlib.sha256("".join(each.digest for each in slices).encode() + end)
    return Comparison(
        guest.name,
        technique,
        slices[-1].end,
        len(slices),
        whole.hexdigest(),
        parted is None and end == other_end,
        first,
    )


def _run(machine, guest: Guest, technique: str, fine: int | None) -> tuple[list[Slice], bytes]:
    watched = _Watched(machine, fine)
    try:
        run_guest(watched, guest, technique, charge=0, quiet=True)
        end = hashlib.sha256(machine.read_memory(MEMORY_MAP["ram"].base, guest.ram_size))
        end.update(repr(machine.counters()).encode())
    finally:
        machine.trace(0)
    return watched.slices, end.digest()


def _parted(ours: list[Slice], theirs: list[Slice]) -> int | None:
    """The cycle where the first slice that differs begins."""
    for mine, other in zip_longest(ours, theirs):
        if mine != other:
            return min(each.begin for each in (mine, other) if each is not None)
    return None

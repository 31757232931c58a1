"""Random programs on the RTL and on the golden model in lockstep; what differs is shrunk."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from rtl.arch.memory_map import MEMORY_MAP
from sim.disassembler import disassemble
from sim.errors import VmxlabError
from sim.golden import Unknowable
from sim.lockstep import Divergence, LockstepMachine
from sim.random_programs.program import RandomProgram, Span
from sw_vmm.machine import Event

__all__ = ["Differential", "listing", "reduced", "report", "shrink"]

_RAM, _ROM = MEMORY_MAP["ram"], MEMORY_MAP["rom"]
#: Cycles after which a program that went astray is left alone.
BUDGET = 40_000
#: Cycles in which a stopped hart parks, whatever it waits for.
_PARKING = 100_000


class _EmptyRom:
    """A machine with nothing in its ROM, which need not be read then: that would take longest."""

    def __init__(self, machine):
        self._machine = machine

    def __getattr__(self, name):
        return getattr(self._machine, name)

    def read_memory(self, hpa, length):
        return bytes(length) if hpa in _ROM else self._machine.read_memory(hpa, length)


class Differential:
    """One machine, used for one program after the other.

    Parameters
    ----------
    machine : Machine
        With a retirement trace, RAM for the programs, and a ROM nobody has written to.
    lockstep : type
        LockstepMachine, or a class made from it.

    Members
    -------
    checked : int
        Records compared so far.
    finished : int
        Programs that came to their end within the budget.
    unknowable : int
        Programs left at a store that may have gone to two places: the one an old translation
        names, and the one the tables name.
    """

    def __init__(self, machine, lockstep: type[LockstepMachine] = LockstepMachine):
        self._machine = lockstep(_EmptyRom(machine))
        self.checked = 0
        self.finished = 0
        self.unknowable = 0

    def run(self, program: RandomProgram) -> None:
        """Run a program in lockstep and compare what it leaves. Raises Divergence."""
        machine = self._machine
        machine.reset()
        machine.write_memory(_RAM.base, program.image)
        machine.stop_at_tohost(program.tohost)
        machine.resume(program.entry)
        try:
            self._run(program)
        except Unknowable:
            self.unknowable += 1
            return
        finally:
            if machine.lockstep is not None:
                self.checked += machine.lockstep.checked
        machine.compare()

    def _run(self, program):
        machine, cycles = self._machine, BUDGET
        for interference in program.host_writes:
            event = self._on(interference.cycles)
            cycles -= interference.cycles
            if not event & Event.BUDGET:
                break
            self._stop()
            for hpa, data in interference.writes:
                machine.write_memory(hpa, data)
            machine.resume(machine.park.pc)
        else:
            event = self._on(cycles)
        self.finished += bool(event & Event.TOHOST)
        self._stop()

    def _on(self, cycles):
        """Run on; the device window is answered with zeros."""
        machine = self._machine
        while True:
            before = machine.cycles
            event = machine.run(cycles)
            if event & Event.WINDOW:
                machine.answer_window(0)
            cycles -= machine.cycles - before
            if event & ~Event.WINDOW:
                return event
            if cycles <= 0:
                return Event.BUDGET

    def _stop(self):
        machine = self._machine
        machine.stop()
        for _ in range(100):
            event = machine.run(_PARKING)
            if event & Event.WINDOW:
                machine.answer_window(0)
            if event & Event.PARKED:
                return
            if event & Event.BUDGET:
                break
        raise VmxlabError("the hart does not park")


def shrink(
    program: RandomProgram, diverges: Callable[[RandomProgram], bool], *, most: int = 400
) -> RandomProgram:
    """A program with as much taken out as can be while ``diverges`` still says so.

    At most ``most`` programs are tried. Blocks go first, then items and what sets them up, then
    entries of tables, data, and host writes.
    """
    tries = 0
    small = program

    def still(candidate):
        nonlocal tries, small
        tries += 1
        if tries <= most and diverges(candidate):
            small = candidate
            return True
        return False

    for kind in ("block", "item", "setup", "entry", "data"):
        left = [
            span
            for span in program.spans
            if span.kind == kind and small.without([span]).image != small.image
        ]
        _without_most(left, lambda spans: still(small.without(spans)))
    writes = list(small.host_writes)
    for n in reversed(range(len(writes))):
        # The cycles stay: what is left happens when it did.
        without = [*writes]
        without[n] = replace(writes[n], writes=())
        if writes[n].writes and still(replace(small, host_writes=tuple(without))):
            writes = without
    return small


def _without_most(spans: Sequence[Span], goes: Callable[[Sequence[Span]], bool]) -> None:
    """Take out ``spans`` in halves, quarters and so on."""
    if not spans or goes(spans) or len(spans) == 1:
        return
    middle = len(spans) // 2
    _without_most(spans[:middle], goes)
    _without_most(spans[middle:], goes)


def _divergence(differential, program):
    try:
        differential.run(program)
    except Divergence as found:
        return found
    return None


def reduced(differential: Differential, program: RandomProgram) -> RandomProgram | None:
    """What a program that diverges shrinks to, None if it does not diverge any more."""
    first = _divergence(differential, program)
    if first is None:
        return None

    def alike(candidate):
        # Another divergence would be another story.
        found = _divergence(differential, candidate)
        return found is not None and found.reason.split()[:2] == first.reason.split()[:2]

    return shrink(program, alike)


def report(differential: Differential, program: RandomProgram, small: RandomProgram | None) -> str:
    """What is wrong with a program that diverges and that has been ``reduced``."""
    if small is None:
        return f"seed {program.seed} does not diverge any more"
    found = _divergence(differential, small)
    reason = None if found is None else found.reason
    return "\n".join(
        (
            f"seed {program.seed}, profile {program.profile}: {reason}",
            "shrunk to:",
            listing(small),
            str(found),
        )
    )


def listing(program: RandomProgram) -> str:
    """What is left of the code of a shrunken program, disassembled."""
    lines = []
    for span in program.spans:
        if span.kind not in ("item", "setup"):
            continue
        code = program.image[span.start : span.end]
        if program.without([span]).image[span.start : span.end] == code:
            continue
        place = 0
        while place < len(code):
            length = 4 if code[place] & 3 == 3 else 2
            bits = int.from_bytes(code[place : place + length], "little")
            at = _RAM.base + span.start + place
            lines.append(f"  {at:#010x}  {bits:0{2 * length}x}  {disassemble(bits, at)}")
            place += length
    return "\n".join(lines)

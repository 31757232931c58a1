"""What every technique offers, and the bookkeeping they share."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from enum import Enum
from typing import Protocol

from sw_vmm.exits import Exit
from sw_vmm.machine import ParkRecord
from sw_vmm.result import Cycles, ExitStatistics, Outcome, Result, Spread
from sw_vmm.vm import Vm

__all__ = ["ExitLog", "ExitRow", "Technique", "counted_cycles", "exit_row", "result_of"]

#: One exit, for a log: plain values under the names of the ``--exits`` schema.
ExitRow = dict[str, object]


class Technique(Protocol):
    """A way to run a guest. Made for one Vm, which it runs once.

    ``needs_vmx``: only a machine with the virtualization extension will do.
    """

    name: str
    needs_vmx: bool

    def run(self, cycles: int) -> Result:
        """Run until the guest ends, the text to stop at appears, or ``cycles`` are used up."""

    def read_memory(self, gpa: int, length: int) -> bytes:
        """Guest RAM as the guest sees it, after the run."""


class ExitLog:
    """Exits by reason, each with its cycles: what the transition took, and what was charged.

    The transition of an exit is over only when the guest runs again, so an exit is entered when
    the next one (or the end) tells how many transition cycles there have been before it.
    """

    def __init__(self, on_exit: Callable[[ExitRow], None] | None = None):
        self._on_exit = on_exit
        self._charged: Counter[str] = Counter()
        self._cycles: dict[str, Counter[int]] = {}
        self._open: tuple[str, int, int, ExitRow | None] | None = None

    @property
    def wants_rows(self) -> bool:
        return self._on_exit is not None

    def close(self, transition: int) -> None:
        """The exit under way is over, with ``transition`` transition cycles in all before now."""
        if self._open is None:
            return
        reason, charged, before, row = self._open
        self._open = None
        cycles = transition - before + charged
        self._charged[reason] += charged
        samples = self._cycles.get(reason)
        if samples is None:
            samples = self._cycles[reason] = Counter()
        samples[cycles] += 1
        if row is not None:
            row["cycles"] = cycles
            self._on_exit(row)

    def open(self, reason: str, charged: int, transition: int, row: ExitRow | None = None) -> None:
        """An exit was handled; ``transition`` counts the cycles of all exits before it."""
        self._open = (reason, charged, transition, row)

    def statistics(self) -> dict[str, ExitStatistics]:
        return {
            reason: ExitStatistics(sum(samples.values()), Spread.of(samples), self._charged[reason])
            for reason, samples in sorted(self._cycles.items())
        }


def exit_row(
    exit_: Exit, record: ParkRecord, *, instret: int, privilege: int, charged: int
) -> ExitRow:
    """The row of an exit whose cycles are not known yet."""
    return {
        "reason": exit_.reason,
        "cycle": record.cycle,
        "instret": instret,
        "pc": record.pc,
        "privilege": privilege,
        "instruction": record.instruction,
        "charged": charged,
        **{
            name: value.value if isinstance(value, Enum) else value
            for name, value in asdict(exit_).items()
        },
    }


def counted_cycles(counters: dict[str, int], idle: int = 0) -> Cycles:
    """The machine's own count of where the cycles went."""
    return Cycles(
        total=counters["cycles"],
        guest=counters["guest"],
        transition=counters["transition"],
        walk=counters["walk"],
        charged=counters["charged"],
        idle=idle,
    )


def result_of(
    vm: Vm,
    technique: str,
    *,
    exit_code: int | None,
    text_seen: bool,
    console: bytes,
    cycles: Cycles,
    instructions: int,
    exits: dict[str, ExitStatistics],
    counters: dict[str, int],
    registers: str = "",
) -> Result:
    """The result of a run; console output behind the text to stop at does not count."""
    outcome = Outcome(
        finished=exit_code is not None,
        exit_code=exit_code,
        console=vm.cut_console(console) if text_seen else console,
        text_seen=text_seen,
        virtio_console=vm.window.console,
    )
    return Result(technique, outcome, cycles, instructions, exits, counters, registers)

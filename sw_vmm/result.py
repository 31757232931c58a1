"""What a run came to: plain data, ready for JSON (field names of the run schema)."""

from dataclasses import asdict, dataclass, field
from hashlib import sha256
from math import ceil

__all__ = ["Cycles", "ExitStatistics", "Outcome", "Result", "Spread"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the guest ended.

    ``finished`` is False when the budget ended the run; ``text_seen`` tells that the text to stop
    at has appeared. ``exit_code`` is None unless the guest gave one. ``console`` is what the UART
    sent, ``virtio_console`` what the virtio consoles were told.
    """

    finished: bool
    exit_code: int | None
    console: bytes
    text_seen: bool = False
    virtio_console: bytes = b""

    @property
    def console_sha256(self) -> str:
        return sha256(self.console).hexdigest()

    @property
    def virtio_console_sha256(self) -> str:
        return sha256(self.virtio_console).hexdigest()


@dataclass(frozen=True, slots=True)
class Cycles:
    """Where the machine's cycles went: total = guest + transition + charged.

    ``walk`` counts page walks inside guest cycles; ``idle`` is the part of ``charged`` in which a
    deprivileged guest waited in wfi.
    """

    total: int
    guest: int
    transition: int
    walk: int
    charged: int
    idle: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    """Distribution of the cycles of one kind of exit; percentiles by nearest rank."""

    min: int
    mean: float
    p50: int
    p99: int
    max: int

    @classmethod
    def of(cls, samples: dict[int, int]) -> "Spread":
        """From a histogram: how often each number of cycles was seen (not empty)."""
        count = sum(samples.values())
        ordered = sorted(samples)

        def rank(share: float) -> int:
            left = max(1, ceil(share * count))
            for value in ordered:
                left -= samples[value]
                if left <= 0:
                    return value
            raise AssertionError("the ranks of a histogram reach its count")

        mean = sum(value * times for value, times in samples.items()) / count
        return cls(ordered[0], mean, rank(0.50), rank(0.99), ordered[-1])


@dataclass(frozen=True, slots=True)
class ExitStatistics:
    """All exits of one reason: how many, their cycles (transition and charge), their charge."""

    count: int
    cycles: Spread
    charged: int


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one guest under one technique.

    ``registers`` shows those of a guest whose budget has ended, several lines for people, where the
    technique can tell.
    """

    technique: str
    outcome: Outcome
    cycles: Cycles
    instructions: int
    exits: dict[str, ExitStatistics] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    registers: str = ""

    def as_dict(self) -> dict:
        """JSON-ready; console bytes appear as their hash."""
        outcome = {
            "finished": self.outcome.finished,
            "exit_code": self.outcome.exit_code,
            "console_sha256": self.outcome.console_sha256,
        }
        return {
            "technique": self.technique,
            "outcome": outcome,
            "cycles": asdict(self.cycles),
            "instructions": self.instructions,
            "exits": {reason: asdict(row) for reason, row in self.exits.items()},
            "counters": dict(self.counters),
        }

"""What a guest's user programs took, as the guest itself has measured it."""

import struct
from dataclasses import dataclass

__all__ = ["ProgramCost", "program_costs"]

#: A row of the table: name, cycles, instructions.
_ROW = struct.Struct("<16sQQ")


@dataclass(frozen=True)
class ProgramCost:
    """Cycles and instructions by the hart's own counters, the kernel's work included."""

    cycles: int
    instructions: int


def program_costs(table: bytes) -> dict[str, ProgramCost]:
    """The table a guest leaves between ``begin_programs`` and ``end_programs``, by name."""
    rows = _ROW.iter_unpack(table[: len(table) - len(table) % _ROW.size])
    return {
        name.rstrip(b"\0").decode("ascii", "replace"): ProgramCost(cycles, instructions)
        for name, cycles, instructions in rows
        if name.rstrip(b"\0")
    }

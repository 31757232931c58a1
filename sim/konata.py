"""A trace of the pipeline for the viewer Konata, in its format Kanata 0004.

Stages: ``Is`` decode, operands, waiting for them; ``Ex`` execute; ``Cm`` commit (memory, CSRs,
traps). An instruction that was on a wrong path, or met a trap, is flushed.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rtl.arch.records import STAGES
from sim.disassembler import disassemble

__all__ = ["STAGE_RECORD_BYTES", "StageRecord", "kanata", "stage_records"]

_WORDS = 1 + -(-STAGES.width // 64)
#: Bytes of one record of ``LibraryMachine.dump_stages``: the cycle, then ``STAGES``.
STAGE_RECORD_BYTES = 8 * _WORDS
_ISSUE, _EXECUTE, _COMMIT = "Is", "Ex", "Cm"


class StageRecord(NamedTuple):
    """One cycle of the pipeline: the machine cycle, and the fields of ``STAGES``."""

    cycle: int
    pc: int
    bits: int
    issuing: int
    issued: int
    executing: int
    executed: int
    committing: int
    retired: int


def stage_records(data: bytes) -> Iterator[StageRecord]:
    """The records in ``data``; what is left of one cut short at its end is dropped."""
    whole = len(data) // STAGE_RECORD_BYTES * STAGE_RECORD_BYTES
    for cycle, *words in struct.iter_unpack(f"<{_WORDS}Q", data[:whole]):
        value = sum(word << 64 * place for place, word in enumerate(words))
        yield StageRecord(cycle, *(field.extract(value) for field in STAGES.fields))


def kanata(records: Iterable[StageRecord]) -> Iterator[str]:
    """The lines of the trace.

    Instructions that are past the issue stage when the trace begins are left out.
    """
    yield "Kanata\t0004"
    now = None
    made = retired = 0
    issue = execute = commit = None  # numbers of the instructions in the three stages
    waiting = None  # behind the one in the commit stage
    previous = None

    def enter(number: int, stage: str) -> str:
        return f"S\t{number}\t0\t{stage}"

    def leave(number: int, *, flushed: bool) -> str:
        return f"R\t{number}\t{retired}\t{int(flushed)}"

    for record in records:
        if now is None:
            yield f"C=\t{record.cycle}"
        elif record.cycle > now:
            yield f"C\t{record.cycle - now}"
        now = record.cycle
        if previous is not None:
            # What the cycle before has moved or dropped.
            if previous.retired and commit is not None:
                yield leave(commit, flushed=False)
                commit, retired = None, retired + 1
            if previous.executed and execute is not None:
                waiting, execute = execute, None
            if not record.committing:
                for number in (commit, waiting):
                    if number is not None:
                        yield leave(number, flushed=True)
                commit = waiting = None
            elif commit is None and waiting is not None:
                commit, waiting = waiting, None
                yield enter(commit, _COMMIT)
            if execute is not None and (previous.issued or not record.executing):
                yield leave(execute, flushed=True)
                execute = None
            if previous.issued and issue is not None:
                if record.executing:
                    execute = issue
                    yield enter(execute, _EXECUTE)
                else:
                    yield leave(issue, flushed=True)
                issue = None
            same = record.issuing and (record.pc, record.bits) == (previous.pc, previous.bits)
            if issue is not None and not same:
                yield leave(issue, flushed=True)
                issue = None
        if record.issuing and issue is None:
            issue, made = made, made + 1
            yield f"I\t{issue}\t{issue}\t0"
            yield f"L\t{issue}\t0\t{_label(record)}"
            yield enter(issue, _ISSUE)
        previous = record


def _label(record: StageRecord) -> str:
    digits = 8 if record.bits & 3 == 3 else 4
    return f"{record.pc:016x}: {record.bits:0{digits}x} {disassemble(record.bits, record.pc)}"

"""A run that is watched: snapshots at a cycle, the commit log, waves, the pipeline trace."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sim.errors import VmxlabError
from sim.konata import STAGE_RECORD_BYTES, kanata, stage_records
from sim.library import LibraryMachine
from sim.snapshot import SnapshotError
from sw_vmm.machine import Event

__all__ = ["CycleWindow", "Observers", "WatchedMachine"]


@dataclass(frozen=True)
class CycleWindow:
    """Machine cycles from ``first``, ``count`` of them, and the file they go to."""

    path: Path
    first: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Observers:
    """What is to be written down about a run, and where it begins.

    ``snapshot`` is taken when ``snapshot_cycle`` is reached. ``restore`` takes the place of the
    guest's start: everything before was done by the run that saved it, which must have been one
    of the same guest (``note``).
    """

    commit_log: Path | None = None
    waves: CycleWindow | None = None
    konata: CycleWindow | None = None
    snapshot: Path | None = None
    snapshot_cycle: int = 0
    restore: Path | None = None
    note: object = None

    @property
    def needs_debug(self) -> bool:
        """The library for debugging is needed."""
        return any((self.waves, self.konata, self.snapshot, self.restore))

    @property
    def any(self) -> bool:
        return self.needs_debug or self.commit_log is not None


class WatchedMachine:
    """``machine`` under observation; a run on it goes as without. Use it in a ``with``.

    At the end of the ``with`` the files are complete. Raises VmxlabError where something cannot
    be written or restored, or the run has ended before what was asked for.
    """

    def __init__(self, machine: LibraryMachine, observers: Observers):
        self._machine = machine
        self._observers = observers
        self._files = ExitStack()
        self._stages: Path | None = None
        self._restored = self._saved = False
        self._stop_text, self._tohost = b"", None

    def __getattr__(self, name: str):
        return getattr(self._machine, name)

    def __enter__(self) -> "WatchedMachine":
        return self

    def __exit__(self, kind, error, trace) -> None:
        with self._files:
            if kind is None:
                self._finish()

    def reset(self) -> None:
        self._machine.reset()
        self._restored = self._saved = False
        if self._observers.restore is None:
            self._observe()

    def stop_at_text(self, text: bytes) -> None:
        self._stop_text = text
        self._machine.stop_at_text(text)

    def stop_at_tohost(self, hpa: int | None) -> None:
        self._tohost = hpa
        self._machine.stop_at_tohost(hpa)

    def run(self, cycles: int) -> Event:
        observers, machine = self._observers, self._machine
        if observers.restore is not None and not self._restored:
            self._restore()
        if observers.snapshot is not None and not self._saved:
            while (left := observers.snapshot_cycle - machine.cycles) > 0:
                if cycles <= 0:
                    return Event.BUDGET
                part = min(left, cycles)
                event = machine.run(part)
                if event != Event.BUDGET:
                    return event
                cycles -= part
            machine.save_snapshot(observers.snapshot, observers.note)
            self._saved = True
        return machine.run(cycles) if cycles > 0 else Event.BUDGET

    def _restore(self) -> None:
        """Put the saved machine in the place of the one that was about to start."""
        observers, machine = self._observers, self._machine
        note = machine.restore_snapshot(observers.restore)
        if note != observers.note:
            raise SnapshotError(f"{observers.restore} was taken of another guest")
        self._restored = True
        # How a run ends is asked for anew each time.
        machine.stop_at_text(self._stop_text)
        machine.stop_at_tohost(self._tohost)
        for what, window in (("waves", observers.waves), ("pipeline trace", observers.konata)):
            if window is not None and window.first + window.count <= machine.cycles:
                raise VmxlabError(
                    f"the {what} would end at cycle {window.first + window.count}, before the "
                    f"snapshot at cycle {machine.cycles}"
                )
        self._observe()

    def _observe(self) -> None:
        observers, machine = self._observers, self._machine
        if observers.commit_log is not None:
            machine.log_commits(observers.commit_log)
        if (window := observers.waves) is not None:
            machine.dump_waves(window.path, window.first, window.first + window.count)
        if (window := observers.konata) is not None:
            if self._stages is None:
                self._stages = self._files.enter_context(_temporary_beside(window.path))
            machine.dump_stages(self._stages, window.first, window.first + window.count)

    def _finish(self) -> None:
        observers, machine = self._observers, self._machine
        if observers.commit_log is not None:
            machine.log_commits(None)
        if observers.waves is not None:
            machine.dump_waves(None)
        if observers.konata is not None:
            machine.dump_stages(None)
            _write_konata(self._stages, observers.konata.path)
        for what, window in (("waves", observers.waves), ("pipeline trace", observers.konata)):
            if window is not None and window.first >= machine.cycles:
                raise VmxlabError(
                    f"the run ended at cycle {machine.cycles}; the {what} were to begin at "
                    f"{window.first}"
                )
        if observers.snapshot is not None and not self._saved:
            raise VmxlabError(
                f"the run ended at cycle {machine.cycles}; the snapshot was to be taken at "
                f"{observers.snapshot_cycle}"
            )


@contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """A file of its own in the folder of ``path``, for the time of the ``with``."""
    try:
        handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    except OSError as error:
        raise VmxlabError(f"cannot write {path}: {error.strerror}") from error
    os.close(handle)
    try:
        yield Path(name)
    finally:
        with suppress(OSError):
            os.unlink(name)


def _write_konata(stages: Path, path: Path) -> None:
    chunk = STAGE_RECORD_BYTES << 12
    try:
        with stages.open("rb") as raw, path.open("w") as file:
            records = (
                record
                for data in iter(lambda: raw.read(chunk), b"")
                for record in stage_records(data)
            )
            file.writelines(f"{line}\n" for line in kanata(records))
    except OSError as error:
        raise VmxlabError(f"cannot write {path}: {error.strerror}") from error

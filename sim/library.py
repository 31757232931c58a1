"""The machine of choice: the Verilated SoC, called as a library."""

from pathlib import Path

from rtl.soc.config import SocConfig
from sim.commit_log import commit_log_facts
from sim.host_machine import HostPortMachine, MachineConfig
from sim.model import debug_library_file, library_file
from sim.snapshot import SnapshotError, read_snapshot, write_snapshot
from sim.verilated import Verilated

__all__ = ["LibraryMachine"]


class LibraryMachine(HostPortMachine):
    """The Verilated SoC with its RAM; several may live side by side.

    The library is built first when it is not in the cache. Raises VmxlabError when it cannot be.

    Parameters
    ----------
    config : SocConfig
    ram_size : int
        Bytes of RAM.
    debug : bool
        Take the library for debugging, which the snapshots, ``dump_waves`` and ``dump_stages``
        need. It behaves alike to the cycle, and is a little slower.
    """

    def __init__(self, config: SocConfig, *, ram_size: int = 64 << 20, debug: bool = False):
        whole = MachineConfig(**config.as_dict(), ram_size=ram_size)
        library = debug_library_file(config) if debug else library_file(config)
        self._build = library.parent.name
        super().__init__(
            Verilated(library, ram_size=ram_size, cycles_per_tick=config.cycles_per_tick), whole
        )

    def log_commits(self, path: Path | None) -> None:
        """Write a line per retired instruction and per trap to ``path`` until told None.

        The lines are those of Spike (docs/debugging.md). When the hart runs already, addresses
        of memory are bus addresses until their base register has been written. Raises VmxlabError
        when something cannot be written.
        """
        if path is None:
            self._simulation.log_commits(None)
            return
        gprs = [self.read_gpr(number) for number in range(32)] if self.parked else None
        self._simulation.log_commits(path, commit_log_facts(self._gpr[0]), gprs)

    # With the library for debugging.

    def save_snapshot(self, path: Path, note: object = None) -> None:
        """Write the whole machine to a file, at any time; ``note`` (JSON) goes with it.

        Observers are no part of it, nor is what the Python side of a VMM knows. Raises
        SnapshotError when the file cannot be written.
        """
        header = {
            "build": self._build,
            "config": vars(self.config),
            "cycle": self.cycles,
            "armed": self._armed,
            "caches_empty": self._caches_empty,
            "ram_current": self._ram_current,
            "note": note,
        }
        write_snapshot(path, header, self._simulation.save(), self._simulation.ram)

    def restore_snapshot(self, path: Path) -> object:
        """Become what was saved, and give the note; observers of before have ended.

        Raises SnapshotError, with the machine unchanged, when the file is not whole or comes
        from another build or configuration of the machine.
        """
        header, state, ram = read_snapshot(path)
        for name, here in vars(self.config).items():
            there = header["config"].get(name)
            if there != here:
                raise SnapshotError(
                    f"{path} was taken with {name} = {there}, this machine has {here}"
                )
        if header["build"] != self._build:
            raise SnapshotError(
                f"{path} was taken on another build of the machine: RTL, harness or tools differ"
            )
        self._simulation.restore(state)
        self._simulation.ram[:] = ram
        self._armed = header["armed"] and tuple(header["armed"])
        self._caches_empty = header["caches_empty"]
        self._ram_current = header["ram_current"]
        return header["note"]

    def dump_waves(self, path: Path | None, first: int = 0, end: int = 0) -> None:
        """Write an FST of the machine cycles from ``first`` until before ``end``; None closes it.

        Time in the file is the machine cycle. A reset ends it. Raises VmxlabError when it cannot
        be written.
        """
        self._simulation.dump_waves(path, first, end)

    def dump_stages(self, path: Path | None, first: int = 0, end: int = 0) -> None:
        """Write the raw records of ``sim.konata`` of those cycles; None closes the file.

        A reset ends it. Raises VmxlabError when it cannot be written.
        """
        self._simulation.dump_stages(path, first, end)

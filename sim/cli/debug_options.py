"""Options of ``vmxlab run`` for those who look inside: docs/debugging.md."""

import argparse
from pathlib import Path

from sim.cli.options import UsageError, check_writable, cycle_budget, cycle_number
from sim.debugging import CycleWindow, Observers
from sim.guests import Guest

__all__ = ["add_debug_options", "chosen_observers"]

_WINDOW = 10_000


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 16:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no TCP port (0 to 65535; 0 takes a free one)"
        )
    return int(text)


def add_debug_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("debugging (docs/debugging.md)")
    group.add_argument(
        "--gdb", metavar="PORT", type=_port, help="wait for GDB on the port (0: a free one)"
    )
    group.add_argument(
        "--commit-log", metavar="FILE", type=Path, help="write what retires, as Spike does"
    )
    for option, what in (("waves", "the waves as FST"), ("konata", "the pipeline for Konata")):
        group.add_argument(f"--{option}", metavar="FILE", type=Path, help=f"write {what}")
        group.add_argument(
            f"--{option}-from",
            metavar="N",
            type=cycle_number,
            help="from machine cycle N on (default 0)",
        )
        group.add_argument(
            f"--{option}-for",
            metavar="N",
            type=cycle_budget,
            help=f"for N cycles (default {_WINDOW})",
        )
    group.add_argument(
        "--save-snapshot", metavar="FILE", type=Path, help="save the machine, and run on"
    )
    group.add_argument("--snapshot-at", metavar="N", type=cycle_number, help="at machine cycle N")
    group.add_argument(
        "--restore-snapshot", metavar="FILE", type=Path, help="go on where it was saved"
    )


def chosen_observers(arguments: argparse.Namespace, guest: Guest) -> Observers:
    """What the command line wants of a run of the guest. Raises UsageError, VmxlabError."""
    saves, restores = arguments.save_snapshot, arguments.restore_snapshot
    if (saves is None) != (arguments.snapshot_at is None):
        raise UsageError("--save-snapshot and --snapshot-at go together")
    if arguments.technique != "native":
        for option in ("gdb", "save_snapshot", "restore_snapshot"):
            if getattr(arguments, option) is not None:
                raise UsageError(
                    f"--{option.replace('_', '-')} needs --technique native: the VMM of "
                    f"{arguments.technique} is no part of the machine"
                )
    if arguments.gdb is not None and (saves or restores):
        raise UsageError("--gdb cannot be combined with snapshots")
    if restores and (arguments.input or arguments.input_after):
        raise UsageError("--restore-snapshot goes on with the --input of the run that saved it")
    for path in (arguments.commit_log, arguments.waves, arguments.konata, saves):
        if path is not None:
            check_writable(path)
    return Observers(
        commit_log=arguments.commit_log,
        waves=_window(arguments, "waves"),
        konata=_window(arguments, "konata"),
        snapshot=saves,
        snapshot_cycle=arguments.snapshot_at or 0,
        restore=restores,
        note={
            "guest": guest.name,
            "images": [list(file) for file in guest.files],
            "bootargs": guest.bootargs,
        },
    )


def _window(arguments: argparse.Namespace, name: str) -> CycleWindow | None:
    path = getattr(arguments, name)
    first, count = getattr(arguments, f"{name}_from"), getattr(arguments, f"{name}_for")
    if path is None:
        if first is not None or count is not None:
            raise UsageError(f"--{name}-from and --{name}-for need --{name} FILE")
        return None
    return CycleWindow(path, first or 0, _WINDOW if count is None else count)

"""vmxlab run: one guest under one technique."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sim.cli.debug_options import add_debug_options, chosen_observers
from sim.cli.options import (
    UsageError,
    add_guest_options,
    check_writable,
    guest_name,
    technique_name,
)
from sim.cli.session import configuration_for, open_machine, run_guest
from sim.debugging import WatchedMachine
from sim.elf import format_signature
from sim.errors import VmxlabError
from sim.gdb import GdbMachine, GdbServer
from sim.guests import DEFAULT_RAM_SIZE, GUESTS, Guest, GuestOptions, bare_program
from sim.profile import print_table, profile_table, programs_table
from sim.results import RUN_SCHEMA, Run, exit_document, run_document, write_json
from sw_vmm.machine import Machine

__all__ = ["add_parser", "exit_code", "load_guest"]


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "run",
        help="run a guest under a technique",
        description="Run a guest. Its console goes to standard output, all else to standard error.",
    )
    parser.add_argument(
        "guest", metavar="GUEST", nargs="?", type=guest_name, help="see 'vmxlab guests'"
    )
    parser.add_argument("--elf", metavar="FILE", type=Path, help="run a bare RISC-V program")
    parser.add_argument(
        "--technique",
        metavar="T",
        type=technique_name,
        default="native",
        help="how the guest is virtualized (default native)",
    )
    add_guest_options(parser)
    parser.add_argument(
        "--signature", metavar="FILE", type=Path, help="write the range the guest declares"
    )
    parser.add_argument(
        "--disk-write", action="store_true", help="write the disk back to its FILE after the run"
    )
    parser.add_argument(
        "--virtio-console",
        metavar="FILE",
        type=Path,
        help="add a virtio console and write what it is told to FILE",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result")
    parser.add_argument("--exits", metavar="FILE", type=Path, help="write one line per exit")
    add_debug_options(parser)
    parser.set_defaults(command=_run)


def load_guest(arguments: argparse.Namespace, elf: Path | None = None) -> Guest:
    """The guest the command line asks for. Raises VmxlabError when it cannot be had."""
    kind = None if elf is not None else GUESTS[arguments.guest]
    options = GuestOptions(
        ram_size=arguments.mem or (kind.ram_size if kind else DEFAULT_RAM_SIZE),
        firmware=arguments.firmware,
        kernel=arguments.kernel,
        until=arguments.until,
        input=arguments.input,
        input_after=arguments.input_after,
        cycles=arguments.cycles,
        disk=arguments.disk,
        # vmxlab compare has no such option.
        virtio_console=getattr(arguments, "virtio_console", None) is not None,
    )
    takes = kind.takes if kind else ()
    for name in ("firmware", "kernel"):
        if getattr(arguments, name) and name not in takes:
            raise UsageError(f"guest {kind.name if kind else elf.name} takes no --{name}")
    guest = kind.load(options, _say) if kind else bare_program(elf, options)
    if guest.input and not guest.input_after:
        raise UsageError("--input needs --input-after: the text to type it after")
    return guest


def exit_code(run: Run) -> int:
    """The exit code of the process: the guest's own, 0 when the awaited text came, else 1.

    A guest that ends with 0 but has not printed what it prints when all is well has failed.
    """
    outcome = run.result.outcome
    if outcome.finished:
        return min(outcome.exit_code or (0 if run.succeeded else 1), 255)
    return 0 if outcome.text_seen else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(arguments: argparse.Namespace) -> int:
    if (arguments.guest is None) == (arguments.elf is None):
        raise UsageError("give either a GUEST or --elf FILE")
    if arguments.disk_write and arguments.disk is None:
        raise UsageError("--disk-write needs --disk FILE")
    written = [arguments.json, arguments.exits, arguments.signature, arguments.virtio_console]
    for path in (*written, arguments.disk if arguments.disk_write else None):
        if path is not None:
            check_writable(path)
    guest = load_guest(arguments, arguments.elf)
    _check_snapshots(arguments, guest)
    if arguments.signature and guest.signature is None:
        raise VmxlabError(
            f"{guest.name} declares no signature (symbols begin_signature and end_signature)"
        )
    with _exit_lines(arguments.exits) as on_exit, _machine(arguments, guest) as machine:
        run = run_guest(
            machine,
            guest,
            arguments.technique,
            charge=arguments.charge,
            on_exit=on_exit,
            console=sys.stdout.buffer,
            quiet=arguments.gdb is not None,
        )
        if isinstance(machine, GdbMachine):
            machine.tell_exit(exit_code(run))
    if arguments.signature:
        _write(arguments.signature, format_signature(run.signature).encode())
    if arguments.virtio_console:
        _write(arguments.virtio_console, run.result.outcome.virtio_console)
    if arguments.disk_write:
        _write(arguments.disk, run.disk)
    if arguments.json:
        write_json(arguments.json, run_document(run), [RUN_SCHEMA])
    _report(guest, run)
    return exit_code(run)


@contextmanager
def _machine(arguments: argparse.Namespace, guest: Guest) -> Iterator[Machine]:
    """The machine, observed and under a debugger as the command line wants it."""
    observers = chosen_observers(arguments, guest)
    with ExitStack() as stack:
        server = None
        if arguments.gdb is not None:
            server = stack.enter_context(GdbServer(arguments.gdb))
        debug = {"debug": True} if observers.needs_debug else {}
        config = configuration_for(arguments.config, [arguments.technique])
        machine = open_machine(guest.ram_size, config, **debug)
        if observers.any:
            machine = stack.enter_context(WatchedMachine(machine, observers))
        yield machine if server is None else GdbMachine(machine, server, _say)


def _check_snapshots(arguments: argparse.Namespace, guest: Guest) -> None:
    if guest.disk is None and not guest.virtio_console:
        return
    if arguments.save_snapshot or arguments.restore_snapshot:
        raise UsageError(f"a snapshot does not hold the virtio devices that {guest.name} has")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise VmxlabError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def _exit_lines(path: Path | None) -> Iterator[Callable[[dict], None] | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("w")
    except OSError as error:
        raise VmxlabError(f"cannot write {path}: {error.strerror}") from error
    with file:
        yield lambda row: print(json.dumps(exit_document(row)), file=file)


def _report(guest: Guest, run: Run) -> None:
    """What the user wants to know besides the console, on standard error."""
    result, outcome = run.result, run.result.outcome
    if sys.stdout.isatty() and outcome.console and not outcome.console.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
    if result.exits:
        print_table(profile_table(guest.name, result), sys.stderr)
    programs = programs_table(guest.name, {result.technique: run.programs})
    if programs:
        print_table(programs, sys.stderr)
    if outcome.finished and not run.succeeded:
        end = f"ended without {guest.success.decode('ascii').strip()!r}"
    elif outcome.finished:
        end = f"ended with exit code {outcome.exit_code}"
    elif outcome.text_seen:
        end = "printed the text it was to run to"
    else:
        end = f"did not end within its budget of {guest.cycles} cycles (see --cycles)"
    rate = result.cycles.total / run.seconds / 1e6 if run.seconds else 0.0
    _say(
        f"{guest.name} under {result.technique} {end}: {result.cycles.total} cycles, "
        f"{result.instructions} instructions, {run.seconds:.1f} s ({rate:.2f} MHz)"
    )
    if result.registers:
        _say(result.registers)

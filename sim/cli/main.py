"""The command ``vmxlab``."""

import argparse
import os
import sys
from collections.abc import Sequence

from sim.cli.options import UsageError
from sim.errors import VmxlabError
from sw_vmm.errors import GuestStopped, VmmError
from sw_vmm.machine import MachineError

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and exits with 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the value is the exit code: 0, 1 for a failure, 2 for wrong usage.

    ``run`` gives the guest's own exit code. Ctrl-C ends with 130.
    """
    parser = _make_parser()
    chosen = parser.parse_args(arguments)
    try:
        return chosen.command(chosen)
    except UsageError as error:
        print(f"vmxlab: {error}", file=sys.stderr)
        return 2
    except (VmxlabError, VmmError, MachineError) as error:
        print(f"vmxlab: {error}", file=sys.stderr)
        if isinstance(error, GuestStopped):
            print(error.registers, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nvmxlab: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; Python must not try to flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _make_parser() -> argparse.ArgumentParser:
    from sim.cli import bench, compare, diff, doctor, guests, maps_command, run, verilog

    parser = _Parser(
        prog="vmxlab",
        description="A RISC-V computer in Amaranth HDL, and its guests under several "
        "virtualization techniques.",
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser
    )
    for module in (run, compare, diff, bench, guests, maps_command, verilog, doctor):
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())

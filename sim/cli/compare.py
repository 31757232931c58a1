"""vmxlab compare: one guest under several techniques, side by side."""

import argparse
import sys
from pathlib import Path

from rtl.soc.config import CONFIGURATIONS, SocConfig
from sim.cli.options import add_guest_options, guest_name, technique_list
from sim.cli.run import exit_code, load_guest
from sim.cli.session import charge_model, configuration_for, open_machine, run_guest
from sim.errors import VmxlabError
from sim.guests import GUESTS, Guest
from sim.profile import (
    comparison_table,
    exits_table,
    print_table,
    profile_table,
    programs_table,
)
from sim.results import COMPARE_SCHEMA, Run, compare_document, differences, write_json

__all__ = ["add_parser", "compare_guest"]


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="run a guest under several techniques and compare",
        description="Run a guest under each technique and compare cycles, exits and outcome.",
    )
    parser.add_argument("guest", metavar="GUEST", type=guest_name, help="see 'vmxlab guests'")
    parser.add_argument(
        "--techniques",
        metavar="A,B,...",
        type=technique_list,
        help="techniques to compare (default native, trap-emulate where it does not page, vmx-ept)",
    )
    add_guest_options(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the comparison")
    parser.set_defaults(command=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        raise VmxlabError(f"cannot write {arguments.json}: no such folder")
    guest = load_guest(arguments)
    return compare_guest(
        guest,
        arguments.techniques or list(GUESTS[arguments.guest].techniques),
        config=arguments.config,
        charge=arguments.charge,
        json=arguments.json,
    )


def compare_guest(
    guest: Guest,
    techniques: list[str],
    *,
    config: SocConfig = CONFIGURATIONS["full"],
    charge: float = 1.0,
    json: Path | None = None,
) -> int:
    """Run and print the comparison; 0 when every run came to its end with an equal outcome.

    All techniques run on one machine, with the virtualization extension if one of them needs it.
    """
    machine = open_machine(guest.ram_size, configuration_for(config, techniques))
    for technique in techniques:
        # Said before the first run, not after it.
        charge_model(machine, technique, charge)
    runs = []
    for technique in techniques:
        run = run_guest(machine, guest, technique, charge=charge)
        print(f"{guest.name} under {technique}: {run.seconds:.1f} s", file=sys.stderr, flush=True)
        runs.append(run)
    if json:
        write_json(json, compare_document(guest.name, runs), [COMPARE_SCHEMA])
    return _report(guest, runs)


def _report(guest: Guest, runs: list[Run]) -> int:
    out = sys.stdout
    for name, digest in guest.files:
        print(f"image {name}: SHA-256 {digest}", file=out)
    settings = ", ".join(f"{name} {value}" for name, value in runs[0].configuration.items())
    name = f"configuration {runs[0].configuration_name}, " if runs[0].configuration_name else ""
    print(f"machine: {name}{settings}, guest RAM {guest.ram_size >> 10} KiB\n", file=out)
    for run in runs:
        if run.result.exits:
            print_table(profile_table(guest.name, run.result), out)
            print(file=out)
    results = [run.result for run in runs]
    for table in (exits_table(guest.name, results), comparison_table(guest.name, results)):
        if table:
            print_table(table, out)
            print(file=out)
    programs = programs_table(guest.name, {run.result.technique: run.programs for run in runs})
    if programs:
        print_table(programs, out)
        print(file=out)
    found = differences(runs)
    for sentence in found:
        print(f"DIFFERENT: {sentence}", file=out)
    if not found:
        outcome = runs[0].result.outcome
        print(
            f"equal outcome: {len(outcome.console)} console bytes, "
            f"SHA-256 {outcome.console_sha256}",
            file=out,
        )
        print(f"exit code: {'none' if outcome.exit_code is None else outcome.exit_code}", file=out)
        if runs[0].signature_sha256:
            print(f"signature: SHA-256 {runs[0].signature_sha256}", file=out)
    failed = [run.result.technique for run in runs if exit_code(run)]
    for technique in failed:
        print(f"FAILED: {guest.name} under {technique} did not end as it should", file=out)
    return 1 if found or failed else 0

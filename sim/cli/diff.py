"""vmxlab diff: what changed from one result to another."""

import argparse
import math
import sys
from pathlib import Path

from sim.cli.options import check_writable
from sim.profile import print_table
from sim.result_diff import (
    DIFF_SCHEMA,
    diff_document,
    diff_results,
    diff_table,
    failed,
    load_result,
)
from sim.results import write_json

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "diff",
        help="compare two results of run, compare or bench",
        description="Compare two JSON documents of run, compare or bench, number by number.",
    )
    parser.add_argument("before", metavar="A.json", type=Path, help="the first result")
    parser.add_argument("after", metavar="B.json", type=Path, help="the second result")
    parser.add_argument(
        "--fail-above",
        metavar="PERCENT",
        type=_percent,
        help="exit with 1 when a number grew by more than that",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the comparison")
    parser.set_defaults(command=_diff)


def _percent(text: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage such as 2 or 0.5") from None
    if not 0 <= percent < math.inf:
        raise argparse.ArgumentTypeError(f"a threshold of {text}: it must not be negative")
    return percent


def _diff(arguments: argparse.Namespace) -> int:
    if arguments.json:
        check_writable(arguments.json)
    diff = diff_results(load_result(arguments.before), load_result(arguments.after))
    limit = arguments.fail_above
    if arguments.json:
        write_json(arguments.json, diff_document(diff, limit), [DIFF_SCHEMA])
    for note in diff.notes:
        print(f"note: {note}")
    print_table(diff_table(arguments.before.name, arguments.after.name, diff), sys.stdout)
    for sentence in diff.differences:
        print(f"DIFFERENT outcome: {sentence}")
    if limit is not None:
        for change in diff.failures(limit):
            print(f"FAILED: {change.measure} grew by more than {limit:g}%")
    return 1 if failed(diff, limit) else 0

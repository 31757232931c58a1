"""Run random programs by seed: ``python -m sim.random_programs --help``."""

import argparse
import json
import sys
import time
from pathlib import Path

from rtl.soc.config import CONFIGURATIONS
from sim.library import LibraryMachine
from sim.lockstep import Divergence
from sim.random_programs import PROFILES, generate
from sim.random_programs.differential import Differential, reduced, report
from sim.random_programs.program import RAM_SIZE

#: Seconds between two lines about a long run.
_INTERVAL = 30.0


def main() -> int:
    """Exit code 1 when a program diverged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--profile", choices=sorted(PROFILES))
    parser.add_argument("--config", choices=CONFIGURATIONS, default="full")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="shrunken programs, as in regressions.json"
    )
    arguments = parser.parse_args()
    differential = Differential(LibraryMachine(CONFIGURATIONS[arguments.config], ram_size=RAM_SIZE))
    started = said = time.monotonic()
    diverged, saved = [], []
    for done in range(arguments.count):
        program = generate(arguments.first + done, arguments.profile)
        try:
            differential.run(program)
        except Divergence:
            diverged.append(program.seed)
            small = reduced(differential, program)
            print(report(differential, program, small), flush=True)
            if arguments.save and small:
                saved.append({"reason": "?", **small.as_json()})
                arguments.save.write_text(json.dumps(saved, indent=1))
        if time.monotonic() - said > _INTERVAL:
            said = time.monotonic()
            print(_summary(done + 1, differential, diverged, said - started), flush=True)
    print(_summary(arguments.count, differential, diverged, time.monotonic() - started))
    return bool(diverged)


def _summary(count, differential, diverged, seconds):
    return (
        f"{count} programs, {differential.checked} instructions and traps, {seconds:.0f} s: "
        f"{len(diverged)} diverged{' ' if diverged else ''}{', '.join(map(str, diverged))}; "
        f"{differential.finished} ended by themselves, {differential.unknowable} left undecided"
    )


if __name__ == "__main__":
    sys.exit(main())

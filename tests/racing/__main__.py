"""Run racing programs by seed: ``python -m tests.racing --help``."""

import argparse
import sys

from rtl.soc.config import CONFIGURATIONS
from sim.lockstep import Divergence
from sim.random_programs.differential import reduced, report
from tests.racing.commands import contended_program, racing_program
from tests.racing.lockstep import Race, racing_machine


def main() -> int:
    """Exit code 1 when a program diverged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--config", choices=CONFIGURATIONS, default="full")
    arguments = parser.parse_args()
    race = Race(racing_machine(CONFIGURATIONS[arguments.config]))
    diverged = []
    for seed in range(arguments.first, arguments.first + arguments.count):
        for program in (racing_program(seed), contended_program(seed)):
            try:
                race.run(program)
            except Divergence:
                diverged.append(program.seed)
                print(report(race, program, reduced(race, program)), flush=True)
    print(
        f"{2 * arguments.count} programs, {race.checked} instructions and traps, "
        f"{race.raced} accesses of the bus master, {race.broken} reservations broken by it: "
        f"{len(diverged)} diverged {diverged or ''}; {race.unknowable} left undecided"
    )
    return bool(diverged)


if __name__ == "__main__":
    sys.exit(main())

"""Run random guests by seed: ``python -m tests.machine.vmx --help``."""

import argparse
import sys
import time
from collections import Counter

from rtl.arch.vmx.exits import EXIT_REASONS
from rtl.soc.config import SocConfig
from sim.library import LibraryMachine
from sim.lockstep import Divergence
from tests.golden.vmx.world import RAM_SIZE
from tests.machine.vmx.differential import GuestDifferential
from tests.machine.vmx.random_guests import generate


def main() -> int:
    """Exit code 1 when a guest diverged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--hostile", action="store_true", help="guests of random bytes")
    arguments = parser.parse_args()
    differential = GuestDifferential(LibraryMachine(SocConfig(vmx=True), ram_size=RAM_SIZE))
    started, diverged = time.monotonic(), []
    for seed in range(arguments.first, arguments.first + arguments.count):
        try:
            differential.run(generate(seed, hostile=arguments.hostile))
        except (Divergence, AssertionError) as found:
            diverged.append(seed)
            print(f"seed {seed}: {found}\n", flush=True)
    exits = Counter({EXIT_REASONS[r].name: n for r, n in differential.exits.items() if n})
    print(
        f"{arguments.count} guests, {differential.checked} records, "
        f"{time.monotonic() - started:.0f} s: {len(diverged)} diverged {diverged}; "
        f"{differential.unknowable} left undecided; {exits.total()} exits: "
        + ", ".join(f"{name} {count}" for name, count in exits.most_common())
    )
    return bool(diverged)


if __name__ == "__main__":
    sys.exit(main())

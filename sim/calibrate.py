"""make calibrate: measure what the VMM's operations cost as code on the hart, and record it.

Every named configuration is measured.
"""

import sys
from dataclasses import asdict

from rtl.soc.config import CONFIGURATIONS
from sim.errors import VmxlabError
from sim.library import LibraryMachine
from sw_vmm.calibrate import calibrate
from sw_vmm.charge import CHARGES_FILE, save_charges
from sw_vmm.machine import MachineError

__all__ = ["main"]

_RAM_SIZE = 16 << 20


def main() -> int:
    try:
        measured = {
            name: (config.as_dict(), calibrate(LibraryMachine(config, ram_size=_RAM_SIZE)))
            for name, config in CONFIGURATIONS.items()
        }
        save_charges(measured.values())
    except (VmxlabError, MachineError, OSError) as error:
        print(f"vmxlab: {error}", file=sys.stderr)
        return 1
    for name, (_, charges) in measured.items():
        measured_ones = {key: n for key, n in asdict(charges).items() if n is not None}
        prices = ", ".join(f"{key} {cycles}" for key, cycles in measured_ones.items())
        print(f"{name}, in cycles: {prices}")
    print(f"recorded in {CHARGES_FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""make calibrate: measure what the VMM's operations cost as code on the hart, and record it."""

import sys
from dataclasses import asdict

from rtl.soc.config import SocConfig
from sim.errors import VmxlabError
from sim.library import LibraryMachine
from sw_vmm.calibrate import calibrate
from sw_vmm.charge import CHARGES_FILE, save_charges
from sw_vmm.machine import MachineError

__all__ = ["main"]

_RAM_SIZE = 16 << 20


def main() -> int:
    config = SocConfig()
    try:
        charges = calibrate(LibraryMachine(config, ram_size=_RAM_SIZE))
        save_charges(charges, config.as_dict())
    except (VmxlabError, MachineError, OSError) as error:
        print(f"vmxlab: {error}", file=sys.stderr)
        return 1
    width = max(map(len, asdict(charges)))
    for name, cycles in asdict(charges).items():
        print(f"{name:{width}}  {cycles:4} cycles")
    print(f"recorded in {CHARGES_FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

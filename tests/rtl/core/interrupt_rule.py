"""Which interrupt a hart takes: the rule of the Privileged Architecture, restated."""

from rtl.mmu.context import Privilege

__all__ = ["CODES", "LEVEL", "wanted"]

#: "Simultaneous interrupts destined for M-mode are handled in the following decreasing priority
#: order: MEI, MSI, MTI, SEI, SSI, STI", and those for S-mode: SEI, SSI, STI.
ORDER = ["ME", "MS", "MT", "SE", "SS", "ST"]
CODES = {"ME": 11, "MS": 3, "MT": 7, "SE": 9, "SS": 1, "ST": 5}
LEVEL = {Privilege.USER: 0, Privilege.SUPERVISOR: 1, Privilege.MACHINE: 3}


def wanted(pending, enabled, delegated, privilege, mie, sie):
    """(valid, code, wake); the code is None when none is taken."""
    level = LEVEL[privilege]
    ready = pending & enabled
    for destination, enable in ((3, mie), (1, sie)):
        for name in ORDER:
            code = CODES[name]
            if not ready >> code & 1:
                continue
            if (1 if delegated >> code & 1 else 3) != destination:
                continue
            # Taken below the level it is for, and at that level when it is enabled there.
            if level < destination or (level == destination and enable):
                return 1, code, 1
    return 0, None, int(any(ready >> code & 1 for code in CODES.values()))

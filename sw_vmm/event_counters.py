"""The event counters of a guest in non-root operation, which the extension does not give it."""

from rtl.arch.csrs import CSR_BY_NUMBER, CSRS
from rtl.arch.performance import HPM_COUNTERS
from rtl.arch.vmx.fields import CSR_BITMAP
from sw_vmm.exits import CsrAccess
from sw_vmm.hart import CsrFunction

__all__ = ["EventCounters"]

_NAMES = [f"mhpm{kind}{index}" for kind in ("counter", "event") for index in HPM_COUNTERS]


class EventCounters:
    """mhpmcounter3 to 10 and their selectors: they hold what is written, and count nothing.

    Members
    -------
    bitmaps : dict
        Fields of the VMCS that make every access to them exit.
    """

    def __init__(self):
        self._values = {CSRS[name].number: 0 for name in _NAMES}
        self.bitmaps: dict[str, int] = {}
        for name in _NAMES:
            word, bit = divmod(CSR_BITMAP.index(name), 64)
            for kind in ("read", "write"):
                field = f"csr_{kind}_bitmap_{word}"
                self.bitmaps[field] = self.bitmaps.get(field, 0) | 1 << bit

    def __contains__(self, number: int) -> bool:
        return number in self._values

    def access(self, access: CsrAccess) -> int:
        """Do what the CSR instruction does; what rd gets."""
        number, operand = access.csr, access.operand
        old = self._values[number]
        if access.writes:
            match access.function:
                case CsrFunction.WRITE:
                    new = operand
                case CsrFunction.SET:
                    new = old | operand
                case _:
                    new = old & ~operand
            self._values[number] = new & CSR_BY_NUMBER[number].writable
        return old

"""Core-local interruptor: software interrupt, mtime and mtimecmp of one hart."""

from enum import IntEnum

from rtl.arch.csrs import INTERRUPTS
from sw_vmm.devices.device import in_place, merge

__all__ = ["Clint"]

_ALL = (1 << 64) - 1
_MSI = INTERRUPTS.mask("msi")
_MTI = INTERRUPTS.mask("mti")


class Register(IntEnum):
    """Offsets of the registers."""

    MSIP = 0x0000
    MTIMECMP = 0x4000
    MTIME = 0xBFF8


class Clint:
    """Software interrupt and timer; mtime is the machine cycle in ticks, plus an offset.

    Parameters
    ----------
    cycles_per_tick : int
    offset : int
        mtime minus whole ticks of the machine cycle; a write of mtime moves it.
    """

    def __init__(self, *, cycles_per_tick: int, offset: int = 0):
        self._cycles_per_tick = cycles_per_tick
        self._offset = offset
        self.msip = 0
        self.mtimecmp = _ALL

    def mtime(self, now: int) -> int:
        return now // self._cycles_per_tick + self._offset & _ALL

    def cycle_of(self, tick: int, now: int) -> int | None:
        """First cycle from which mtime is at least ``tick``; None when it is never reached.

        ``now`` when it is already.
        """
        if self.mtime(now) >= tick:
            return now
        if tick == _ALL:
            return None
        return (tick - self._offset) * self._cycles_per_tick

    def tick_of(self, cycle: int) -> int:
        """The first tick that begins at ``cycle`` or later."""
        return -(-cycle // self._cycles_per_tick) + self._offset

    def lines(self, now: int) -> int:
        """Its bits of mip."""
        return (_MSI if self.msip else 0) | (_MTI if self.mtime(now) >= self.mtimecmp else 0)

    def next_event(self, now: int) -> int | None:
        """The next cycle at which ``lines`` changes by itself, if it does."""
        at = self.cycle_of(self.mtimecmp, now)
        return None if at is None or at <= now else at

    def read(self, offset: int, size: int, now: int) -> int:
        values = {
            Register.MSIP: self.msip,
            Register.MTIMECMP: self.mtimecmp,
            Register.MTIME: self.mtime(now),
        }
        return in_place(values.get(offset & ~7, 0), offset & 7, size)

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        match offset & ~7:
            case Register.MSIP:
                self.msip = merge(self.msip, offset & 7, size, data) & 1
            case Register.MTIMECMP:
                self.mtimecmp = merge(self.mtimecmp, offset & 7, size, data)
            case Register.MTIME:
                wanted = merge(self.mtime(now), offset & 7, size, data)
                self._offset += wanted - self.mtime(now)

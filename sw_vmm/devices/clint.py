"""Core-local interruptor: software interrupt, mtime and mtimecmp of one hart."""

from rtl.arch.csrs import INTERRUPTS
from sw_vmm import bindings
from sw_vmm.devices.register_file import RegisterFile, mask_of, place_of

__all__ = ["Clint"]

_ALL = (1 << 64) - 1
_MSI = INTERRUPTS.mask("msi")
_MTI = INTERRUPTS.mask("mti")

_map = bindings.load("clint")
_clint = _map.Clint(None, None)
_PLACES = tuple(place_of(_map, item) for item in (_clint.msip, _clint.mtimecmp, _clint.mtime))
_MSIP, _MTIMECMP, _MTIME = (place.offset for place in _PLACES)
_PENDING = mask_of(_clint.msip, "pending")


class Clint:
    """Software interrupt and timer; mtime is the machine cycle in ticks, plus an offset.

    Parameters
    ----------
    cycles_per_tick : int
    offset : int
        mtime minus whole ticks of the machine cycle; a write of mtime moves it, modulo 2**64.
    """

    _registers = RegisterFile(_PLACES)

    def __init__(self, *, cycles_per_tick: int, offset: int = 0):
        self._cycles_per_tick = cycles_per_tick
        self.offset = offset
        self.msip = 0
        self.mtimecmp = _ALL

    def mtime(self, now: int) -> int:
        return now // self._cycles_per_tick + self.offset & _ALL

    def cycle_of(self, tick: int, now: int) -> int | None:
        """First cycle from which mtime is at least ``tick``; None when it is never reached.

        ``now`` when it is already.
        """
        if self.mtime(now) >= tick:
            return now
        if tick == _ALL:
            return None
        return (tick - self.offset) * self._cycles_per_tick

    def tick_of(self, cycle: int) -> int:
        """The first tick that begins at ``cycle`` or later."""
        return -(-cycle // self._cycles_per_tick) + self.offset

    def lines(self, now: int) -> int:
        """Its bits of mip."""
        return (_MSI if self.msip else 0) | (_MTI if self.mtime(now) >= self.mtimecmp else 0)

    def next_event(self, now: int) -> int | None:
        """The next cycle at which ``lines`` changes by itself, if it does."""
        at = self.cycle_of(self.mtimecmp, now)
        return None if at is None or at <= now else at

    def read(self, offset: int, size: int, now: int) -> int:
        values = {_MSIP: self.msip, _MTIMECMP: self.mtimecmp, _MTIME: self.mtime(now)}
        return sum(part.read(values[part.register]) for part in self._registers.parts(offset, size))

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        for part in self._registers.parts(offset, size):
            if part.register == _MSIP:
                self.msip = part.write(self.msip, data) & _PENDING
            elif part.register == _MTIMECMP:
                self.mtimecmp = part.write(self.mtimecmp, data)
            else:
                mtime = self.mtime(now)
                self.offset += part.write(mtime, data) - mtime

"""Platform-level interrupt controller: level-triggered sources, contexts M and S of one hart."""

from collections.abc import Callable

from rtl.arch.csrs import INTERRUPTS
from sw_vmm import bindings
from sw_vmm.devices.register_file import Part, RegisterFile, mask_of, place_of

__all__ = ["Plic"]

_map = bindings.load("plic")
_plic = _map.Plic(None, None)
#: Registers by their offsets. Sources count from 1.
_PRIORITY = {place_of(_map, item).offset: n for n, item in enumerate(_plic.priority, start=1)}
_ENABLE = {place_of(_map, item.word).offset: n for n, item in enumerate(_plic.enable)}
_THRESHOLD = {place_of(_map, item.threshold).offset: n for n, item in enumerate(_plic.context)}
_CLAIM = {place_of(_map, item.claim).offset: n for n, item in enumerate(_plic.context)}
_PENDING = place_of(_map, _plic.pending).offset
_PLACES = (
    *(place_of(_map, item) for item in _plic.priority),
    *(place_of(_map, item.word) for item in _plic.enable),
    *(place_of(_map, item.threshold) for item in _plic.context),
    *(place_of(_map, item.claim, alone=True) for item in _plic.context),
    place_of(_map, _plic.pending),
)
_PRIORITY_MASK = mask_of(_plic.priority[0])
_THRESHOLD_MASK = mask_of(_plic.context[0].threshold)
_SOURCES_MASK = mask_of(_plic.enable[0].word)
#: Lines of mip that the contexts drive, in their order.
_LINES = (INTERRUPTS.mask("mei"), INTERRUPTS.mask("sei"))


class Plic:
    """Priorities, enables, thresholds, claim and complete.

    A gateway forwards a request while its source's level is high, and forwards no other until that
    one is completed; a request that has been forwarded stays pending when the level falls.

    Parameters
    ----------
    refresh : callable
        Brings the levels of all sources up to a cycle; called before registers are accessed.
    """

    _registers = RegisterFile(_PLACES)

    def __init__(self, refresh: Callable[[int], None] = lambda now: None):
        self._refresh = refresh
        self._priority = dict.fromkeys(_PRIORITY.values(), 0)
        self._enable = [0] * len(_LINES)
        self._threshold = [0] * len(_LINES)
        self._levels = 0
        self._pending = 0
        self._in_service = 0

    def drive(self, source: int, level: bool) -> None:
        """Set the level of a source."""
        bit = 1 << source
        self._levels = self._levels | bit if level else self._levels & ~bit
        self._forward(bit)

    def _forward(self, sources: int) -> None:
        forwarded = self._levels & ~self._in_service & sources
        self._pending |= forwarded
        self._in_service |= forwarded

    def lines(self) -> int:
        """Its bits of mip."""
        lines = 0
        if self._pending:
            for context, line in enumerate(_LINES):
                source = self._best(context)
                if source and self._priority[source] > self._threshold[context]:
                    lines |= line
        return lines

    def _best(self, context: int) -> int:
        """The pending source that the context would claim, or 0; the threshold plays no part."""
        ready = self._pending & self._enable[context]
        best = best_priority = 0
        source = 1
        while ready >> source:
            if ready >> source & 1 and self._priority[source] > best_priority:
                best, best_priority = source, self._priority[source]
            source += 1
        return best

    def read(self, offset: int, size: int, now: int) -> int:
        parts = self._registers.parts(offset, size)
        self._refresh(now)
        return sum(part.read(self._read_register(part)) for part in parts)

    def _read_register(self, part: Part) -> int:
        register = part.register
        if register in _PRIORITY:
            return self._priority[_PRIORITY[register]]
        if register in _ENABLE:
            return self._enable[_ENABLE[register]]
        if register in _THRESHOLD:
            return self._threshold[_THRESHOLD[register]]
        if register == _PENDING:
            return self._pending
        source = self._best(_CLAIM[register])
        if part.byte == 0:
            # The lowest byte claims.
            self._pending &= ~(1 << source)
        return source

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        parts = self._registers.parts(offset, size)
        self._refresh(now)
        for part in parts:
            self._write_register(part, data)

    def _write_register(self, part: Part, data: int) -> None:
        register = part.register
        if register in _PRIORITY:
            source = _PRIORITY[register]
            self._priority[source] = part.write(self._priority[source], data) & _PRIORITY_MASK
        elif register in _ENABLE:
            context = _ENABLE[register]
            self._enable[context] = part.write(self._enable[context], data) & _SOURCES_MASK
        elif register in _THRESHOLD:
            context = _THRESHOLD[register]
            whole = part.write(self._threshold[context], data)
            self._threshold[context] = whole & _THRESHOLD_MASK
        elif register in _CLAIM and part.byte == 0:
            source = part.write(0, data)
            # Only what has been claimed can be completed.
            completed = 1 << source if source in self._priority else 0
            completed &= self._enable[_CLAIM[register]] & ~self._pending
            self._in_service &= ~completed
            self._forward(completed)

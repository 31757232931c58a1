"""Platform-level interrupt controller: level-triggered sources, contexts M and S of one hart."""

from collections.abc import Callable

from rtl.arch.csrs import INTERRUPTS
from rtl.arch.memory_map import UART_INTERRUPT, WINDOW_INTERRUPTS
from sw_vmm.devices.device import in_place, merge

__all__ = ["Plic"]

_PRIORITY, _PENDING, _ENABLE, _CONTEXT = 0x0, 0x1000, 0x2000, 0x20_0000
_ENABLE_STRIDE, _CONTEXT_STRIDE = 0x80, 0x1000
_THRESHOLD, _CLAIM = 0, 4
_PRIORITY_MASK = 7
_SOURCES = (*WINDOW_INTERRUPTS, UART_INTERRUPT)
#: Lines of mip that the contexts drive, in their order.
_LINES = (INTERRUPTS.mask("mei"), INTERRUPTS.mask("sei"))


class Plic:
    """Priorities, enables, thresholds, claim and complete.

    A gateway forwards its source's level, and holds it back from the claim to the completion.

    Parameters
    ----------
    refresh : callable
        Brings the levels of all sources up to a cycle; called before registers are accessed.
    """

    def __init__(self, refresh: Callable[[int], None] = lambda now: None):
        self._refresh = refresh
        self._priority = dict.fromkeys(_SOURCES, 0)
        self._enable = [0] * len(_LINES)
        self._threshold = [0] * len(_LINES)
        self._levels = 0
        self._pending = 0
        self._claimed = 0

    def drive(self, source: int, level: bool) -> None:
        """Set the level of a source."""
        bit = 1 << source
        if level:
            self._levels |= bit
            self._pending |= bit & ~self._claimed
        else:
            self._levels &= ~bit

    def lines(self) -> int:
        """Its bits of mip."""
        return sum(line for context, line in enumerate(_LINES) if self._best(context))

    def _best(self, context: int) -> int:
        """The pending source that the context would claim, or 0."""
        best, best_priority = 0, self._threshold[context]
        ready = self._pending & self._enable[context]
        for source in _SOURCES:
            if ready >> source & 1 and self._priority[source] > best_priority:
                best, best_priority = source, self._priority[source]
        return best

    def _claim(self, context: int) -> int:
        # A claim disregards the threshold (PLIC specification, "Interrupt Claim Process").
        threshold, self._threshold[context] = self._threshold[context], 0
        source = self._best(context)
        self._threshold[context] = threshold
        if source:
            self._pending &= ~(1 << source)
            self._claimed |= 1 << source
        return source

    def _complete(self, context: int, source: int) -> None:
        if source in self._priority and self._enable[context] >> source & 1:
            self._claimed &= ~(1 << source)
            self._pending |= self._levels & 1 << source

    def _read_register(self, offset: int) -> int:
        if offset < _PENDING:
            return self._priority.get(offset // 4, 0)
        if offset == _PENDING:
            return self._pending
        for context in range(len(_LINES)):
            if offset == _ENABLE + context * _ENABLE_STRIDE:
                return self._enable[context]
            base = _CONTEXT + context * _CONTEXT_STRIDE
            if offset == base + _THRESHOLD:
                return self._threshold[context]
            if offset == base + _CLAIM:
                return self._claim(context)
        return 0

    def _peek(self, offset: int) -> int:
        """The register's value for a partial write, without claiming."""
        return 0 if offset >= _CONTEXT and offset & 7 == _CLAIM else self._read_register(offset)

    def _write_register(self, offset: int, value: int) -> None:
        if offset < _PENDING:
            if offset // 4 in self._priority:
                self._priority[offset // 4] = value & _PRIORITY_MASK
            return
        for context in range(len(_LINES)):
            if offset == _ENABLE + context * _ENABLE_STRIDE:
                self._enable[context] = value & sum(1 << source for source in _SOURCES)
            base = _CONTEXT + context * _CONTEXT_STRIDE
            if offset == base + _THRESHOLD:
                self._threshold[context] = value & _PRIORITY_MASK
            if offset == base + _CLAIM:
                self._complete(context, value)

    def read(self, offset: int, size: int, now: int) -> int:
        self._refresh(now)
        if size == 8:
            return self._read_register(offset) | self._read_register(offset + 4) << 32
        return in_place(self._read_register(offset & ~3), offset & 3, size)

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        self._refresh(now)
        if size == 8:
            self._write_register(offset, data & 0xFFFF_FFFF)
            self._write_register(offset + 4, data >> 32)
        else:
            whole = merge(self._peek(offset & ~3), offset & 3, size, data)
            self._write_register(offset & ~3, whole)

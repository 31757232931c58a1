"""What a coherent memory may answer: the rule the caches are held to, byte by byte."""

from typing import NamedTuple

__all__ = ["History", "Span"]


class Span(NamedTuple):
    """The cycles of one access, from the first in which it may act to that of its answer."""

    start: int
    end: int


class History:
    """All accesses to a memory that starts as ``initial`` (address to word, zero elsewhere).

    A load returns, in each byte, a write that overlaps it, or one that no other write lies
    between: wholly after the one and wholly before the load.
    """

    def __init__(self, initial):
        self._initial = dict(initial)
        self._writes = {}
        self._loads = []

    def write(self, span, address, data, mask):
        for byte in range(8):
            if mask >> byte & 1:
                value = data >> 8 * byte & 0xFF
                self._writes.setdefault(address + byte, []).append((span, value))

    def load(self, span, address, data):
        self._loads.append((span, address, data))

    def allowed(self, span, address):
        """The values a load of the byte at ``address`` may return."""
        initial = self._initial.get(address & ~7, 0) >> 8 * (address & 7) & 0xFF
        writes = [(Span(-1, -1), initial), *self._writes.get(address, ())]
        over = [write for write, _ in writes if write.end < span.start]
        return {
            value
            for write, value in writes
            if write.start <= span.end and not any(write.end < later.start for later in over)
        }

    def check(self):
        """Raise AssertionError on the first load that no coherent memory answers so."""
        for span, address, data in self._loads:
            for byte in range(8):
                value = data >> 8 * byte & 0xFF
                allowed = self.allowed(span, address + byte)
                assert value in allowed, (
                    f"load of {address + byte:#x} in cycles {span.start} to {span.end} gave "
                    f"{value:#x}, not one of {sorted(map(hex, allowed))}"
                )

"""What memory held before: the values that caches without coherence may still show.

An instruction cache may show code as it was at any time since the last FENCE.I, a TLB or a walk cache
table entries as they were at any time since the last SFENCE.VMA that names them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from rtl.arch.paging import PAGE_BITS, VPN_BITS
from sim.golden.translation import Entry

__all__ = ["History"]

#: Values kept per word of memory, and words kept.
_DEPTH = 64
_WORDS = 1 << 18


class _Fence(NamedTuple):
    time: int
    gva: int | None
    asid: int | None


class History:
    """Earlier values of 64-bit words, earlier roots, and the fences that rule them out.

    Time is counted in events noted here.
    """

    def __init__(self):
        self._time = 0
        self._words: dict[int, list[tuple[int, int]]] = {}
        self._fence_i = 0
        self._base = 0  # the last fence of everything
        self._fences: list[_Fence] = []
        self._roots: list[tuple[int, int, int]] = []

    def store(self, address: int, old: int) -> None:
        """The word at ``address`` is about to change from ``old``."""
        self._time += 1
        values = self._words.get(address)
        if values is None:
            if len(self._words) >= _WORDS:
                for stale in list(self._words)[: _WORDS // 2]:
                    del self._words[stale]
            self._words[address] = [(self._time, old)]
        else:
            values.append((self._time, old))
            if len(values) > _DEPTH:
                del values[0]

    def leave_root(self, root: int, asid: int) -> None:
        """satp no longer names ``root`` for ``asid``."""
        self._time += 1
        self._roots.append((self._time, root, asid))

    def fence_i(self) -> None:
        self._time += 1
        self._fence_i = self._time

    def sfence_vma(self, gva: int | None, asid: int | None) -> None:
        self._time += 1
        if gva is None and asid is None:
            self._base = self._time
            self._fences.clear()
            self._roots.clear()
        else:
            self._fences.append(_Fence(self._time, gva, asid))

    def code(self, address: int) -> Iterator[int]:
        """Earlier values of the word at ``address`` that may still be fetched."""
        for time, value in self._words.get(address, ()):
            if time > self._fence_i:
                yield value

    def entries(self, address: int, level: int, gva: int, asid: int) -> Iterator[int]:
        """Earlier values of a table entry that a translation of ``gva`` may still use."""
        for time, value in self._words.get(address, ()):
            if time > self._fenced(Entry(value, level), gva, asid):
                yield value

    def roots(self, asid: int) -> Iterator[tuple[int, bool]]:
        """Earlier roots a translation may stem from, and whether only by a global leaf."""
        for time, root, of in self._roots:
            # Fences that name an ASID leave global entries alone; those that do not, no root.
            yield root, of != asid or time <= self._fenced_pointers(of)

    def _fenced(self, entry, gva, asid):
        """When the last fence ruled such an entry out."""
        if not entry.leaf:
            return self._fenced_pointers(asid)
        shift = PAGE_BITS + VPN_BITS * entry.level
        for fence in reversed(self._fences):
            if fence.gva is not None and fence.gva >> shift != gva >> shift:
                continue
            if fence.asid is None or (fence.asid == asid and not entry.global_):
                return fence.time
        return self._base

    def _fenced_pointers(self, asid):
        # A fence with an address orders reads of leaves alone.
        for fence in reversed(self._fences):
            if fence.gva is None and fence.asid in (None, asid):
                return fence.time
        return self._base

"""What memory held before: the values that caches without coherence may still show.

An instruction cache may show code as it was at any time since the last FENCE.I, a TLB or a walk cache
table entries as they were at any time since the last SFENCE.VMA that names them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from rtl.arch.paging import PAGE_BITS, PTE, VPN_BITS

__all__ = ["History"]

#: Values kept per word of memory, and words kept.
_DEPTH = 64
_WORDS = 1 << 18
_LEAF, _GLOBAL = PTE.mask("r", "x"), PTE["g"].mask


class _Fence(NamedTuple):
    time: int
    gva: int | None
    asid: int | None


class History:
    """Earlier values of 64-bit words, earlier roots, and the fences that rule them out.

    Members
    -------
    now : int
        The time, counted in events noted here.
    """

    def __init__(self):
        self.now = 0
        self._words: dict[int, list[tuple[int, int]]] = {}
        self._fence_i = 0
        self._base = 0  # the last fence of everything
        self._fences: list[_Fence] = []
        self._roots: list[tuple[int, int, int]] = []

    def store(self, address: int, old: int) -> None:
        """The word at ``address`` is about to change from ``old``."""
        self.now += 1
        values = self._words.get(address)
        if values is None:
            if len(self._words) >= _WORDS:
                for stale in list(self._words)[: _WORDS // 2]:
                    del self._words[stale]
            self._words[address] = [(self.now, old)]
        else:
            values.append((self.now, old))
            if len(values) > _DEPTH:
                del values[0]

    def leave_root(self, root: int, asid: int) -> None:
        """satp no longer names ``root`` for ``asid``."""
        self.now += 1
        self._roots.append((self.now, root, asid))

    def fence_i(self) -> None:
        self.now += 1
        self._fence_i = self.now

    def sfence_vma(self, gva: int | None, asid: int | None) -> None:
        self.now += 1
        if gva is None and asid is None:
            self._base = self.now
            self._fences.clear()
            self._roots.clear()
        else:
            self._fences.append(_Fence(self.now, gva, asid))

    def code(self, address: int) -> Iterator[int]:
        """Earlier values of the word at ``address`` that may still be fetched."""
        for time, value in self._words.get(address, ()):
            if time > self._fence_i:
                yield value

    def changed(self, address: int) -> int:
        """When the word at ``address`` took the value it has."""
        values = self._words.get(address)
        return values[-1][0] if values else 0

    def entries(
        self, address: int, level: int, gva: int, asid: int, below_global: bool
    ) -> Iterator[int]:
        """Earlier values of a table entry that a translation of ``gva`` may still use.

        ``below_global``: a pointer on the way there has G set.
        """
        for time, value in self._words.get(address, ()):
            global_ = below_global or bool(value & _GLOBAL)
            if time > self._fenced(value, level, gva, asid, global_):
                yield value

    def pointers(self, address: int, fenced: int) -> Iterator[int]:
        """Earlier values of a table entry, but those replaced up to the time ``fenced``."""
        for time, value in self._words.get(address, ()):
            if time > fenced:
                yield value

    def roots(self, asid: int) -> Iterator[tuple[int, bool]]:
        """Earlier roots a translation may stem from, and whether only by a global leaf."""
        for time, root, of in self._roots:
            # Fences that name an ASID leave global entries alone; those that do not, no root.
            yield root, of != asid or time <= self.fenced_pointers(of, False)

    def _fenced(self, value, level, gva, asid, global_):
        """When the last fence ruled such an entry out."""
        if not value & _LEAF:
            return self.fenced_pointers(asid, global_)
        shift = PAGE_BITS + VPN_BITS * level
        for fence in reversed(self._fences):
            if fence.gva is not None and fence.gva >> shift != gva >> shift:
                continue
            if fence.asid is None or (fence.asid == asid and not global_):
                return fence.time
        return self._base

    def fenced_pointers(self, asid: int, global_: bool) -> int:
        """When the last fence ruled pointers out, global ones or those of one ASID."""
        # A fence with an address orders reads of leaves alone.
        for fence in reversed(self._fences):
            if fence.gva is None and (fence.asid is None or (fence.asid == asid and not global_)):
                return fence.time
        return self._base

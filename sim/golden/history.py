"""What memory held before: the values that caches without coherence may still show.

An instruction cache may show code as it was at any time since the last FENCE.I, a TLB or a walk cache
table entries as they were at any time since the last SFENCE.VMA that names them. Under VMX
translations belong to *spaces*: root's, and one for each VPID and EPT.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from rtl.arch.paging import PAGE_BITS, PTE, VPN_BITS

__all__ = ["History", "Space"]

#: Different values kept per word of memory, and words kept.
_DEPTH = 64
_WORDS = 1 << 18
_NOTHING: dict[int, int] = {}
_LEAF, _GLOBAL = PTE.mask("r", "x"), PTE["g"].mask


class Space(NamedTuple):
    """What a guest's translations are tagged with: VPID, and the frame of the EPT's root."""

    vpid: int
    ept: int


class _Fence(NamedTuple):
    """``tables``: it rules out pointers on the way to ``gva`` too; ``piece``: leaves for the page
    of ``gva`` alone, whatever their size.
    """

    time: int
    gva: int | None
    asid: int | None
    keeps_global: bool = False
    tables: bool = False
    piece: bool = False


class _Fences:
    """The fences of one space, and the roots it has left."""

    def __init__(self, now: int):
        self.base = now  # the last fence of everything
        self.unmarked = 0  # when translations were made last that left tables unmarked
        self.fences: list[_Fence] = []
        self.roots: list[tuple[int, int, int]] = []

    def all(self, now):
        self.base = now
        self.fences.clear()
        self.roots.clear()


class History:
    """Earlier values of 64-bit words, earlier roots, and the fences that rule them out.

    Roots and fences are those of the present space, which is root's at first.

    Members
    -------
    now : int
        The time, counted in events noted here.
    space : Space or None
        The present one; None is root's.
    """

    def __init__(self):
        self.now = 0
        # By word its values, each with the last time it was replaced, the latest one last.
        self._words: dict[int, dict[int, int]] = {}
        self._fence_i = 0
        self._spaces: dict[Space | None, _Fences] = {None: _Fences(0)}
        self.space: Space | None = None
        self._fences = self._spaces[None]
        # By EPT: when everything of it was dropped, and translations of single pages.
        self._ept_base: dict[int, int] = {}
        self._ept_fences: dict[int, list[tuple[int, int]]] = {}

    def use(self, key: Space | None) -> None:
        """From now on the space is another; one that is new holds nothing yet."""
        if key == self.space:
            return
        if key not in self._spaces:
            self.now += 1
            self._spaces[key] = _Fences(self.now)
            self._ept_base.setdefault(key.ept, self.now)
        self.space, self._fences = key, self._spaces[key]

    def store(self, address: int, old: int) -> None:
        """The word at ``address`` is about to change from ``old``."""
        self.now += 1
        values = self._words.get(address)
        if values is None:
            if len(self._words) >= _WORDS:
                for stale in list(self._words)[: _WORDS // 2]:
                    del self._words[stale]
            self._words[address] = {old: self.now}
        else:
            values.pop(old, None)
            values[old] = self.now
            if len(values) > _DEPTH:
                del values[next(iter(values))]

    def leave_root(self, root: int, asid: int) -> None:
        """satp no longer names ``root`` for ``asid``."""
        self.now += 1
        self._fences.roots.append((self.now, root, asid))

    def fence_i(self) -> None:
        self.now += 1
        self._fence_i = self.now

    def sfence_vma(self, gva: int | None, asid: int | None) -> None:
        """In the present space, and in a guest in those of the same VPID."""
        self.now += 1
        for key, space in self._spaces.items():
            if space is self._fences or (key and self.space and key.vpid == self.space.vpid):
                if gva is None and asid is None:
                    space.all(self.now)
                else:
                    space.fences.append(_Fence(self.now, gva, asid))

    # Invalidations of guests' translations.

    def drop(self, chosen: Callable[[Space], bool]) -> None:
        """Nothing is left of the spaces chosen."""
        self.now += 1
        for key, space in self._spaces.items():
            if key is not None and chosen(key):
                space.all(self.now)

    def drop_ept(self, root: int | None) -> None:
        """Nothing is left of what came from the EPT, or of any (INVEPT)."""
        self.drop(lambda space: root in (None, space.ept))
        for ept in self._ept_base:
            if root in (None, ept):
                self._ept_base[ept] = self.now
                self._ept_fences.pop(ept, None)

    def drop_address(self, vpid: int, gva: int) -> None:
        """What translates ``gva`` under the VPID, and the tables on the way (INVVPID)."""
        self._fence_vpid(vpid, gva=gva, tables=True)

    def drop_local(self, vpid: int) -> None:
        """All of a VPID but what is global (INVVPID)."""
        self._fence_vpid(vpid, gva=None, keeps_global=True)

    def leave_unmarked(self) -> None:
        """Reads of a guest's tables do not count as writes now."""
        self._fences.unmarked = self.now + 1

    @property
    def unmarked(self) -> bool:
        """Whether a translation may be left from when they did not."""
        return self._fences.unmarked > self._fences.base

    def _fence_vpid(self, vpid, **more):
        self.now += 1
        for key, space in self._spaces.items():
            if key is not None and key.vpid == vpid:
                space.fences.append(_Fence(self.now, asid=None, **more))

    def violated(self, gva: int, gpa: int) -> None:
        """The EPT has refused: what was cached for that access is dropped."""
        self.now += 1
        self._fences.fences.append(_Fence(self.now, gva, None, piece=True))
        fences = self._ept_fences.setdefault(self.space.ept, [])
        fences.append((self.now, gpa >> PAGE_BITS))

    # What may still be seen.

    def code(self, address: int) -> Iterator[int]:
        """Earlier values of the word at ``address`` that may still be fetched."""
        for value, time in self._words.get(address, _NOTHING).items():
            if time > self._fence_i:
                yield value

    def changed(self, address: int) -> int:
        """When the word at ``address`` took the value it has."""
        return max(self._words.get(address, _NOTHING).values(), default=0)

    def entries(
        self, address: int, level: int, gva: int, asid: int, below_global: bool
    ) -> Iterator[int]:
        """Earlier values of a table entry that a translation of ``gva`` may still use.

        ``below_global``: a pointer on the way there has G set.
        """
        for value, time in self._words.get(address, _NOTHING).items():
            global_ = below_global or bool(value & _GLOBAL)
            if time > self._fenced(value, level, gva, asid, global_):
                yield value

    def ept_entries(self, address: int, ept: int, gpa: int) -> Iterator[int]:
        """Earlier values of an entry of an EPT that a translation of ``gpa`` may still use."""
        values = self._words.get(address)
        if values:
            fenced = self._ept_base.get(ept, self.now)
            for time, page in self._ept_fences.get(ept, ()):
                if page == gpa >> PAGE_BITS:
                    fenced = max(fenced, time)
            for value, time in values.items():
                if time > fenced:
                    yield value

    def pointers(self, address: int, fenced: int) -> Iterator[int]:
        """Earlier values of a table entry, but those replaced up to the time ``fenced``."""
        for value, time in self._words.get(address, _NOTHING).items():
            if time > fenced:
                yield value

    def roots(self, asid: int) -> Iterator[tuple[int, bool]]:
        """Earlier roots a translation may stem from, and whether only by a global leaf."""
        for time, root, of in self._fences.roots:
            # Fences that name an ASID leave global entries alone; those that do not, no root.
            yield root, of != asid or time <= self.fenced_pointers(of, False)

    def _fenced(self, value, level, gva, asid, global_):
        """When the last fence ruled such an entry out."""
        leaf, shift = value & _LEAF, PAGE_BITS + VPN_BITS * level
        for fence in reversed(self._fences.fences):
            if fence.gva is not None:
                # A fence with an address orders reads of leaves alone, but for INVVPID.
                if not leaf and not fence.tables:
                    continue
                size = PAGE_BITS if fence.piece else shift
                if fence.gva >> size != gva >> size:
                    continue
            if _rules_out(fence, asid, global_):
                return fence.time
        return self._fences.base

    def fenced_pointers(self, asid: int, global_: bool) -> int:
        """When the last fence ruled pointers out, global ones or those of one ASID."""
        for fence in reversed(self._fences.fences):
            if fence.gva is None and _rules_out(fence, asid, global_):
                return fence.time
        return self._fences.base


def _rules_out(fence, asid, global_):
    if fence.asid is None:
        return not (global_ and fence.keeps_global)
    return fence.asid == asid and not global_

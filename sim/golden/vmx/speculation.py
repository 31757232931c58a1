"""A and D that fetches of the guest may have set by speculation (docs/isa/vmx.md#ept)."""

from typing import Protocol

from rtl.arch.paging import LEVELS, PAGE_BITS, PTE, VPN_BITS
from rtl.arch.traps import Privilege
from rtl.arch.vmx.ept import EPT_GPA_BITS, EPT_ROOT_BITS
from sim.golden.history import History
from sim.golden.translation import Context, valid_leaf, valid_pointer

__all__ = ["GuestWalks", "Memory"]

_A, _D, _W, _X, _U = (PTE[name].mask for name in ("a", "d", "w", "x", "u"))
_PPN = PTE["ppn"]
_INDEX = (1 << VPN_BITS) - 1
_ROOT_TABLES = 1 << EPT_ROOT_BITS - PAGE_BITS


class Memory(Protocol):
    """Tables in RAM, as ``PageTables`` has them."""

    history: History

    def readable(self, address: int) -> bool: ...
    def word(self, address: int) -> int:
        """It is a table's: whoever changes it is noticed."""
        ...


class GuestWalks:
    """When, and through which tables, fetches under a context with a stage may walk.

    Members
    -------
    asid : int
    end : int or None
        The time of the exit, or of the fence, after them.
    """

    def __init__(self, memory: Memory, context: Context):
        self._memory, self._context, self._stage = memory, context, context.stage
        self._fenced = memory.history.fenced_pointers(context.asid, True)
        self._keeps_both = context.update and context.stage.update
        self.asid = context.asid
        self.end: int | None = None
        self.forget()

    def forget(self) -> None:
        """An entry may have changed."""
        #: Frames of the guest's tables (hpa) by level, and the EPT leaves that show them.
        self._guest: list[set[int]] | None = None
        self._shown: set[int] = set()
        #: Frames of the EPT's tables by level.
        self._ept: list[set[int]] | None = None

    def marks(self, address: int, leaf: int) -> int:
        """The bits of a leaf that a walk may have set."""
        marks, frame = 0, address >> PAGE_BITS
        context = self._context
        if context.paged and context.update and leaf & _X and not leaf & _A:
            user = context.privilege == Privilege.USER
            for level, frames in enumerate(self._guest_tables()):
                if frame in frames and valid_leaf(leaf, level) and bool(leaf & _U) == user:
                    marks |= _A
        if self._stage.update and leaf & _U and leaf & (_A | _D) != _A | _D:
            for level, frames in enumerate(self._ept_tables()):
                if frame in frames and valid_leaf(leaf, level):
                    marks |= self._ept_marks(address, leaf)
        return marks & ~leaf

    def _ept_marks(self, address, leaf):
        shown = False
        if self._context.paged:
            self._guest_tables()
            shown = address in self._shown
        if shown and self._keeps_both and leaf & _W:
            return _A | _D
        return _A if leaf & _X or shown else 0

    # Finding the tables.

    def _ept_words(self, address):
        if self._memory.readable(address):
            yield self._memory.word(address)
            yield from self._memory.history.ept_entries(address, self._stage.root, -1)

    def _ept_tables(self):
        if self._ept is None:
            first = self._stage.root & ~(_ROOT_TABLES - 1)
            levels = self._ept = [set() for _ in range(LEVELS)]
            levels[-1].update(range(first, first + _ROOT_TABLES))
            for level in range(LEVELS - 1, 0, -1):
                for frame in levels[level]:
                    self._add_pointers(levels[level - 1], frame, level, self._ept_words)
        return self._ept

    @staticmethod
    def _add_pointers(frames, frame, level, words):
        for place in range(frame << PAGE_BITS, frame + 1 << PAGE_BITS, 8):
            for word in words(place):
                if valid_pointer(word, level):
                    frames.add(_PPN.extract(word))

    def _guest_words(self, address):
        if self._memory.readable(address):
            yield self._memory.word(address)
            yield from self._memory.history.pointers(address, self._fenced)

    def _guest_tables(self):
        if self._guest is None:
            levels = self._guest = [set() for _ in range(LEVELS)]
            self._shown = set()
            gpas = {self._context.root}
            for level in range(LEVELS - 1, -1, -1):
                below: set[int] = set()
                for gpa in gpas:
                    for frame in self._show(gpa):
                        if frame not in levels[level]:
                            levels[level].add(frame)
                            if level:
                                self._add_pointers(below, frame, level, self._guest_words)
                gpas = below
        return self._guest

    def _show(self, gpa_frame):
        """Frames (hpa) that may stand at a gpa; the EPT leaves are noted."""
        if gpa_frame >> EPT_GPA_BITS - PAGE_BITS:
            return
        tables = [((self._stage.root & ~(_ROOT_TABLES - 1)), LEVELS - 1)]
        while tables:
            table, level = tables.pop()
            index = gpa_frame >> VPN_BITS * level
            place = (table << PAGE_BITS) + 8 * (index if level == LEVELS - 1 else index & _INDEX)
            for word in self._ept_words(place):
                if valid_pointer(word, level):
                    tables.append((_PPN.extract(word), level - 1))
                elif valid_leaf(word, level):
                    self._shown.add(place)
                    inside = (1 << VPN_BITS * level) - 1
                    yield _PPN.extract(word) | gpa_frame & inside

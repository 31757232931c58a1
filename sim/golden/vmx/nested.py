"""Walks in two dimensions: Sv39 over an EPT (docs/isa/vmx.md#ept)."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rtl.arch.paging import LEVELS, PAGE_BITS, PTE, VPN_BITS, Access
from rtl.arch.vmx.ept import EPT_GPA_BITS, EPT_ROOT_BITS
from sim.golden.translation import (
    Context,
    Entries,
    EptFault,
    Fault,
    Mark,
    Outcome,
    Stage,
    guest_leaf,
    valid_leaf,
    valid_pointer,
    well_formed,
)

__all__ = ["EptEntries", "nested_outcomes"]

# fmt: off
_V, _R, _W, _X, _U, _G, _A, _D = (PTE[name].mask for name in ("v", "r", "w", "x", "u", "g", "a", "d"))
# fmt: on
_PPN = PTE["ppn"]
_INDEX = (1 << VPN_BITS) - 1
_RIGHTS = {Access.READ: _R, Access.WRITE: _W, Access.FETCH: _X}
_ROOT_TABLES = (1 << EPT_ROOT_BITS - PAGE_BITS) - 1

#: From the address of an entry and the gpa it is for: the values a walk may find, each with whether
#: memory holds it now; None when it cannot be read.
EptEntries = Callable[[int, int], Iterable[tuple[int, bool]] | None]


class _Path(NamedTuple):
    """How a walk came here: the leaves it used in memory, and whether all it read stands there."""

    marks: dict[int, Mark]
    current: bool

    def values(self, place, found):
        """``found``, or what this walk itself has made of the entry."""
        mark = self.marks.get(place)
        return found if mark is None else ((mark.value, True),)

    def on(self, current):
        return self if current else self._replace(current=False)

    def marked(self, place, held, value):
        first = self.marks.get(place)
        mark = Mark(place, held if first is None else first.held, value)
        return self._replace(marks={**self.marks, place: mark})

    def outcome(self, **more):
        return Outcome(marks=tuple(self.marks.values()), **more)


class _Second(NamedTuple):
    """What the EPT says to one gpa: ``hpa`` and the ``leaf`` with its level, or a ``refusal``."""

    path: _Path
    hpa: int = -1
    leaf: int = 0
    level: int = LEVELS - 1
    refusal: EptFault | None = None


class _Walk:
    """One walk in all its variants."""

    def __init__(self, gva, access, context, guest, ept, only_global, unmarked):
        self.gva, self.access, self.context = gva, access, context
        self.guest, self.ept = guest, ept
        self.only_global, self.unmarked = only_global, unmarked
        stage: Stage = context.stage
        self.stage = stage
        self.root = (stage.root & ~_ROOT_TABLES) << PAGE_BITS
        # A read of a guest's table counts as a write when hardware keeps A and D in both.
        self.implicit = Access.WRITE if context.update and stage.update else Access.READ

    # The second stage.

    def second(self, gpa, access, final, path):
        """Every answer of the EPT; refusals only by entries of it that stand in memory now.

        What led to the gpa may come from a cache.
        """
        if gpa >> EPT_GPA_BITS:
            fault = EptFault(True, gpa, access, final, 0, LEVELS - 1)
            answers = iter([_Second(path, refusal=fault)])
        else:
            now = path._replace(current=True)
            answers = self._table(self.root, LEVELS - 1, gpa, access, final, now)
        for answer in answers:
            if answer.refusal is None or answer.path.current:
                yield answer._replace(path=answer.path.on(path.current))

    def _table(self, table, level, gpa, access, final, path):
        index = gpa >> PAGE_BITS + VPN_BITS * level
        place = table + 8 * (index if level == LEVELS - 1 else index & _INDEX)

        def refuse(path, *, violation, leaf=0):
            fault = EptFault(violation, gpa, access, final, leaf, level)
            return _Second(path, refusal=fault)

        found = self.ept(place, gpa)
        if found is None:
            yield refuse(path, violation=False)
            return
        for entry, current in path.values(place, found):
            here = path.on(current)
            if not entry & _V:
                yield refuse(here, violation=True)
            elif valid_pointer(entry, level):
                below = _PPN.extract(entry) << PAGE_BITS
                yield from self._table(below, level - 1, gpa, access, final, here)
            elif not well_formed(entry) or not valid_leaf(entry, level):
                yield refuse(here, violation=False)
            else:
                needed = entry | _A | (_D if access == Access.WRITE else 0)
                allowed = entry & _U and entry & _RIGHTS[access]
                if not allowed or (entry != needed and not self.stage.update):
                    yield refuse(here, violation=True, leaf=entry)
                elif current or entry == needed:
                    # What a cache holds is not updated.
                    inside = (1 << PAGE_BITS + VPN_BITS * level) - 1
                    hpa = _PPN.extract(entry) << PAGE_BITS | gpa & inside
                    marked = here.marked(place, entry, needed) if current else here
                    yield _Second(marked, hpa, needed, level)
                    if self.unmarked and not final and needed != entry and entry & _A:
                        yield _Second(here, hpa, entry, level)

    # The first stage.

    def walk(self, root):
        path = _Path({}, True)
        if self.context.paged:
            yield from self._guest_table(root, LEVELS - 1, False, path)
            return
        for answer in self.second(self.gva, self.access, True, path):
            yield _outcome(answer)

    def _guest_table(self, table, level, below_global, path):
        shift = PAGE_BITS + VPN_BITS * level
        gpa = (table << PAGE_BITS) + 8 * (self.gva >> shift & _INDEX)
        for answer in self.second(gpa, self.implicit, False, path):
            if answer.refusal:
                yield _outcome(answer)
            else:
                yield from self._guest_entry(gpa, answer, level, below_global)

    def _guest_entry(self, gpa, table, level, below_global):
        place, path = table.hpa, table.path
        found = self.guest(place, level, below_global)
        if found is None:
            yield path.outcome(fault=Fault.ACCESS)
            return
        for pte, current in path.values(place, found):
            global_, here = below_global or bool(pte & _G), path.on(current)
            if valid_pointer(pte, level):
                yield from self._guest_table(_PPN.extract(pte), level - 1, global_, here)
            elif not pte & (_R | _X) or not well_formed(pte):
                yield here.outcome(fault=Fault.PAGE)
            elif global_ or not self.only_global:
                first = guest_leaf(pte, current, place, level, self.gva, self.access, self.context)
                if first.fault:
                    if current:
                        here = here.marked(place, pte, pte)
                    yield here.outcome(fault=first.fault)
                elif current or first.value == pte:
                    yield from self._final(gpa, table, first, here)

    def _final(self, gpa, table, first, path):
        """The leaf allows the access, to the gpa ``first.physical``."""
        for answer in self.second(first.physical, self.access, True, path):
            here = answer.path
            if answer.refusal:
                yield _outcome(answer)
                continue
            # The leaf is marked last, which is a write to the page it lies in.
            if first.value != first.held and table.leaf & (_W | _D) != _W | _D:
                fault = EptFault(True, gpa, Access.WRITE, False, table.leaf, table.level)
                if here.current:
                    yield here.outcome(fault=Fault.EPT, refusal=fault)
                continue
            if first.current:
                here = here.marked(first.entry, first.held, first.value)
            yield here.outcome(physical=answer.hpa)


def _outcome(answer):
    if answer.refusal:
        return answer.path.outcome(fault=Fault.EPT, refusal=answer.refusal)
    return answer.path.outcome(physical=answer.hpa)


def nested_outcomes(
    gva: int,
    access: Access,
    context: Context,
    guest: Entries,
    ept: EptEntries,
    root: int | None = None,
    only_global: bool = False,
    *,
    unmarked: bool = False,
) -> Iterator[Outcome]:
    """Every outcome of a walk under a context with a stage (see ``translation.outcomes``).

    A ``gva`` that is paged is canonical. ``unmarked``: it may be no walk, but a translation that is
    left from when reads of tables did not count as writes.
    """
    walk = _Walk(gva, access, context, guest, ept, only_global, unmarked)
    return walk.walk(context.root if root is None else root)

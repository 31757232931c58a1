"""Sv39 (Privileged Architecture, "Virtual Address Translation Process")."""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from rtl.arch.paging import (
    LEVELS,
    PAGE_BITS,
    PTE,
    PTE_RESERVED,
    VIRTUAL_BITS,
    VPN_BITS,
    Access,
)
from rtl.arch.traps import Privilege

__all__ = ["Context", "Entry", "Fault", "Outcome", "canonical", "outcomes"]

# fmt: off
_V, _R, _W, _X, _U, _G, _A, _D = (PTE[name].mask for name in ("v", "r", "w", "x", "u", "g", "a", "d"))
# fmt: on
_PPN = PTE["ppn"]
_INDEX = (1 << VPN_BITS) - 1


class Fault(Enum):
    """Why there is no translation: the tables say no, or cannot be read."""

    PAGE = 0
    ACCESS = 1


class Context(NamedTuple):
    """What an access is translated under; ``update``: hardware sets A and D (menvcfg.ADUE)."""

    paged: bool
    privilege: int
    root: int
    asid: int
    sum: bool
    mxr: bool
    update: bool


class Entry(NamedTuple):
    """A value that a walk may find: an entry's, at ``level`` of the walk."""

    value: int
    level: int

    @property
    def leaf(self) -> bool:
        return bool(self.value & (_R | _X))

    @property
    def global_(self) -> bool:
        return bool(self.value & _G)


class Outcome(NamedTuple):
    """What a walk comes to: ``physical``, or a ``fault``.

    Where hardware has to set bits in the leaf first, ``entry`` and ``value`` say where and to what.
    """

    physical: int = -1
    fault: Fault | None = None
    entry: int = -1
    value: int = 0


#: From the address of an entry and its level: the values it may have, None when it cannot be read.
Entries = Callable[[int, int], Iterable[int] | None]

_PAGE_FAULT, _ACCESS_FAULT = Outcome(fault=Fault.PAGE), Outcome(fault=Fault.ACCESS)


def canonical(gva: int) -> bool:
    """Bits 63 to 39 are all equal to bit 38."""
    return gva >> VIRTUAL_BITS - 1 in (0, (1 << 65 - VIRTUAL_BITS) - 1)


def outcomes(
    gva: int,
    access: Access,
    context: Context,
    entries: Entries,
    root: int | None = None,
    only_global: bool = False,
) -> Iterator[Outcome]:
    """Every outcome of a walk for a canonical ``gva``: one if every entry has one value.

    ``root`` replaces that of the context; with ``only_global`` only leaves that are global, or lie
    below a global pointer, count.
    """
    root = context.root if root is None else root
    return _table(root, LEVELS - 1, not only_global, gva, access, context, entries)


def _table(table, level, counts, gva, access, context, entries):
    shift = PAGE_BITS + VPN_BITS * level
    place = (table << PAGE_BITS) + 8 * (gva >> shift & _INDEX)
    values = entries(place, level)
    if values is None:
        yield _ACCESS_FAULT
        return
    for pte in values:
        # Steps 3 and 4: invalid, reserved, pointer or leaf.
        if not pte & _V or pte & PTE_RESERVED or (pte & _W and not pte & _R):
            yield _PAGE_FAULT
        elif not pte & (_R | _X):
            if level == 0 or pte & (_D | _A | _U):
                yield _PAGE_FAULT
            else:
                below = counts or pte & _G
                yield from _table(
                    _PPN.extract(pte), level - 1, below, gva, access, context, entries
                )
        elif counts or pte & _G:
            yield _leaf(pte, place, shift, gva, access, context)


def _leaf(pte, place, shift, gva, access, context):
    base = _PPN.extract(pte) << PAGE_BITS
    inside = (1 << shift) - 1
    # Step 5: permission. S-mode uses user pages for data, with SUM, and never fetches from them.
    if pte & _U:
        allowed = context.privilege == Privilege.USER or (context.sum and access != Access.FETCH)
    else:
        allowed = context.privilege != Privilege.USER
    if access == Access.FETCH:
        allowed = allowed and pte & _X
    elif access == Access.WRITE:
        allowed = allowed and pte & _W
    else:
        allowed = allowed and (pte & _R or (context.mxr and pte & _X))
    # Step 6: superpages are aligned.
    if not allowed or base & inside:
        return _PAGE_FAULT
    # Step 7: accessed and dirty.
    needed = _A | (_D if access == Access.WRITE else 0)
    physical = base | gva & inside
    if pte & needed == needed:
        return Outcome(physical)
    if context.update:
        return Outcome(physical, entry=place, value=pte | needed)
    return _PAGE_FAULT

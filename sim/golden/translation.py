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

__all__ = [
    "Context",
    "Entries",
    "EptFault",
    "Fault",
    "Mark",
    "Outcome",
    "Stage",
    "canonical",
    "guest_leaf",
    "outcomes",
    "valid_leaf",
    "valid_pointer",
    "well_formed",
]

# fmt: off
_V, _R, _W, _X, _U, _G, _A, _D = (PTE[name].mask for name in ("v", "r", "w", "x", "u", "g", "a", "d"))
# fmt: on
_PPN = PTE["ppn"]
_INDEX = (1 << VPN_BITS) - 1


class Fault(Enum):
    """Why there is no translation: the tables say no, or cannot be read; or the EPT refuses."""

    PAGE = 0
    ACCESS = 1
    EPT = 2


class Stage(NamedTuple):
    """The second stage of a guest's translations: an EPT, and the tag beside it.

    ``root`` is the frame of its root table; ``update``: hardware sets A and D in it.
    """

    root: int
    update: bool
    vpid: int


class Context(NamedTuple):
    """What an access is translated under; ``update``: hardware sets A and D (menvcfg.ADUE).

    With a ``stage`` what this comes to is a gpa, paged or not.
    """

    paged: bool
    privilege: int
    root: int
    asid: int
    sum: bool
    mxr: bool
    update: bool
    stage: Stage | None = None


class Mark(NamedTuple):
    """A leaf in memory that a walk has used, and what hardware makes of it."""

    entry: int
    held: int
    value: int


class EptFault(NamedTuple):
    """Where an EPT refused: ``leaf`` is the entry that did not allow the access, 0 without one.

    ``final``: the access itself was refused, not one to a guest's page table. ``level`` is that of
    the last entry read.
    """

    violation: bool
    gpa: int
    access: Access
    final: bool
    leaf: int
    level: int


class Outcome(NamedTuple):
    """What a walk comes to: ``physical``, or a ``fault``.

    Members
    -------
    entry : int
        Where the leaf stands that decided, -1 without one.
    held, value : int
        That leaf, and what hardware makes of it: A and D may have to be set.
    current : bool
        The leaf was read now; else it comes from a cache, and hardware leaves memory alone.
    marks : tuple of Mark
        Instead of all that, where there is an EPT: the leaves of both stages.
    refusal : EptFault or None
        What the EPT says, if that is the fault.
    """

    physical: int = -1
    fault: Fault | None = None
    entry: int = -1
    held: int = 0
    value: int = 0
    current: bool = True
    marks: tuple[Mark, ...] = ()
    refusal: EptFault | None = None

    def leaves(self) -> tuple[Mark, ...]:
        """Those in memory that were used, each once."""
        if self.entry == -1 or not self.current:
            return self.marks
        return (Mark(self.entry, self.held, self.value),)

    def writes(self) -> bool:
        """Whether hardware changes memory."""
        return self.value != self.held or any(mark.value != mark.held for mark in self.marks)


#: From the address of an entry, its level, and whether what is mapped there is global: the values a
#: walk may find, each with whether memory holds it now; None when it cannot be read.
Entries = Callable[[int, int, bool], Iterable[tuple[int, bool]] | None]

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

    G counts for all that lies below it. ``root`` replaces that of the context; with ``only_global`` only global leaves
    count.
    """
    root = context.root if root is None else root
    return _table(root, LEVELS - 1, False, only_global, gva, access, context, entries)


def valid_leaf(pte: int, level: int) -> bool:
    """Whether a walk takes the entry for a leaf, whatever that allows."""
    return bool(well_formed(pte) and pte & (_R | _X) and not _PPN.extract(pte) & _below(level))


def valid_pointer(pte: int, level: int) -> bool:
    """Whether a walk goes on with the table that the entry names."""
    return bool(level and well_formed(pte) and not pte & (_R | _X | _D | _A | _U))


def well_formed(pte: int) -> bool:
    """Whether an entry is valid, and not reserved (step 3)."""
    return bool(pte & _V and not pte & PTE_RESERVED and (pte & _R or not pte & _W))


def _below(level):
    return (1 << VPN_BITS * level) - 1


def _table(table, level, below_global, only_global, gva, access, context, entries):
    shift = PAGE_BITS + VPN_BITS * level
    place = (table << PAGE_BITS) + 8 * (gva >> shift & _INDEX)
    values = entries(place, level, below_global)
    if values is None:
        yield _ACCESS_FAULT
        return
    for pte, current in values:
        global_ = below_global or bool(pte & _G)
        # Step 4: pointer or leaf.
        if valid_pointer(pte, level):
            yield from _table(
                _PPN.extract(pte), level - 1, global_, only_global, gva, access, context, entries
            )
        elif not pte & (_R | _X) or not well_formed(pte):
            yield _PAGE_FAULT
        elif global_ or not only_global:
            outcome = guest_leaf(pte, current, place, level, gva, access, context)
            # What a cache holds is not updated: memory is, where it still says the same.
            if current or outcome.fault or outcome.value == pte:
                yield outcome


def guest_leaf(
    pte: int, current: bool, place: int, level: int, gva: int, access: Access, context: Context
) -> Outcome:
    """The outcome at a leaf."""
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
    needed = pte | _A | (_D if access == Access.WRITE else 0)
    # Steps 6 and 7: superpages are aligned; accessed and dirty.
    if not allowed or not valid_leaf(pte, level) or (pte != needed and not context.update):
        return Outcome(-1, Fault.PAGE, place, pte, pte, current)
    inside = (1 << PAGE_BITS + VPN_BITS * level) - 1
    physical = _PPN.extract(pte) << PAGE_BITS | gva & inside
    return Outcome(physical, None, place, pte, needed, current)

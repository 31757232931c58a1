"""Sv39 in software: one walk through the guest's tables."""

from collections.abc import Callable
from typing import NamedTuple

from rtl.arch.paging import (
    LEVELS,
    PAGE_BITS,
    PTE,
    PTE_RESERVED,
    SATP,
    VIRTUAL_BITS,
    VPN_BITS,
    Access,
)
from rtl.arch.traps import Exception_, Privilege
from sw_vmm.hart import Trap

__all__ = ["ACCESS_FAULT", "PAGE_FAULT", "Context", "is_canonical", "walk"]

PAGE_FAULT = {
    Access.READ: Exception_.LOAD_PAGE_FAULT,
    Access.WRITE: Exception_.STORE_PAGE_FAULT,
    Access.FETCH: Exception_.INSTRUCTION_PAGE_FAULT,
}
ACCESS_FAULT = {
    Access.READ: Exception_.LOAD_ACCESS_FAULT,
    Access.WRITE: Exception_.STORE_ACCESS_FAULT,
    Access.FETCH: Exception_.INSTRUCTION_ACCESS_FAULT,
}

_V, _R, _W, _X, _U, _A, _D = (PTE.mask(name) for name in ("v", "r", "w", "x", "u", "a", "d"))
_NEEDS = {Access.READ: _R, Access.WRITE: _W, Access.FETCH: _X}
_PPN = PTE["ppn"]
_ROOT = SATP["ppn"]
_INDEX = (1 << VPN_BITS) - 1


class Context(NamedTuple):
    """What a translation depends on besides the address."""

    satp: int
    privilege: int
    sum: bool
    mxr: bool
    #: Walks set A and D (menvcfg.ADUE); else it is a page fault that they are clear.
    update: bool = False


def is_canonical(gva: int) -> bool:
    """Whether the address is the sign extension of its low 39 bits."""
    top = gva >> VIRTUAL_BITS - 1
    return top in (0, (1 << 65 - VIRTUAL_BITS) - 1)


def walk(
    read_entry: Callable[[int], int | None],
    gva: int,
    access: Access,
    context: Context,
    write_entry: Callable[[int, int], None] | None = None,
) -> int:
    """The gpa that ``gva`` translates to (Privileged Architecture, "Virtual Address Translation").

    ``read_entry`` gives the eight bytes at a gpa, or None where there is no RAM. Raises Trap with
    the page fault or access fault of the access. ``write_entry`` takes the address and the new value
    of an entry whose A or D is set; it is needed only where the context has updates.
    """
    fault = Trap(PAGE_FAULT[access], gva)
    if not is_canonical(gva):
        raise fault
    table = _ROOT.extract(context.satp) << PAGE_BITS
    for level in reversed(range(LEVELS)):
        shift = PAGE_BITS + VPN_BITS * level
        place = table + 8 * (gva >> shift & _INDEX)
        entry = read_entry(place)
        if entry is None:
            raise Trap(ACCESS_FAULT[access], gva)
        if not entry & _V or entry & (_R | _W) == _W or entry & PTE_RESERVED:
            raise fault
        frame = _PPN.extract(entry) << PAGE_BITS
        if entry & (_R | _X):
            break
        if entry & (_U | _A | _D):
            raise fault
        table = frame
    else:
        raise fault
    if entry & _U:
        supervisor = context.privilege == Privilege.SUPERVISOR
        if supervisor and (access is Access.FETCH or not context.sum):
            raise fault
    elif context.privilege == Privilege.USER:
        raise fault
    readable = entry & _R or (context.mxr and entry & _X)
    allowed = readable if access is Access.READ else entry & _NEEDS[access]
    marks = _A | _D if access is Access.WRITE else _A
    offset = (1 << shift) - 1
    if not allowed or frame & offset:
        raise fault
    if entry & marks != marks:
        if not context.update:
            raise fault
        write_entry(place, entry | marks)
    return frame | gva & offset

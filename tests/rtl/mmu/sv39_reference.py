"""Sv39 address translation as the Privileged Architecture states it, in plain Python.

The steps and their numbers are those of "Virtual Address Translation Process". What happens when A
or D would have to be set is up to who asks. Nothing here comes from the gateware.
"""

from dataclasses import dataclass

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE, PTE_RESERVED, Access
from rtl.arch.traps import Privilege

PAGESIZE, PTESIZE, LEVELS = 4096, 8, 3


class PageFault(Exception):
    """A page-fault exception of the original access type."""


class AccessFault(Exception):
    """An access-fault exception of the original access type."""


@dataclass(frozen=True)
class Leaf:
    """The mapping a walk has found: base addresses, size and rights."""

    virtual: int
    physical: int
    size: int
    readable: bool
    writable: bool
    executable: bool
    user: bool
    accessed: bool
    dirty: bool
    is_global: bool

    def covers(self, gva):
        return self.virtual <= gva % 2**39 < self.virtual + self.size

    def physical_page(self, gva):
        return (self.physical + (gva % 2**39 - self.virtual)) // PAGESIZE


def find_leaf(read, root, gva):
    """Steps 1 to 4 and 6: the leaf for ``gva`` in the table at frame ``root``.

    ``read`` gives the eight bytes at a physical address in RAM, or raises AccessFault.
    """
    if gva >> 38 not in (0, 2**26 - 1):
        raise PageFault("gva is not the sign extension of its low 39 bits")
    vpn = [gva >> 12 & 511, gva >> 21 & 511, gva >> 30 & 511]
    a, i, is_global = root * PAGESIZE, LEVELS - 1, False
    while True:
        address = a + vpn[i] * PTESIZE
        if address not in MEMORY_MAP["ram"]:
            raise AccessFault("step 2: the entry is not in memory that holds tables")
        word = read(address)
        pte = PTE.decode(word)
        if not pte["v"] or (not pte["r"] and pte["w"]) or word & PTE_RESERVED:
            raise PageFault("step 3: invalid or reserved")
        is_global = is_global or bool(pte["g"])
        if pte["r"] or pte["x"]:
            break
        if pte["d"] or pte["a"] or pte["u"]:
            raise PageFault("step 3: D, A and U are reserved in pointers")
        i -= 1
        if i < 0:
            raise PageFault("step 4: no level left")
        a = pte["ppn"] * PAGESIZE
    size = PAGESIZE << 9 * i
    if pte["ppn"] * PAGESIZE % size:
        raise PageFault("step 5: misaligned superpage")
    return Leaf(
        gva % 2**39 // size * size,
        pte["ppn"] * PAGESIZE,
        size,
        bool(pte["r"]),
        bool(pte["w"]),
        bool(pte["x"]),
        bool(pte["u"]),
        bool(pte["a"]),
        bool(pte["d"]),
        is_global,
    )


def grants(leaf, access, privilege, sum_, mxr):
    """Steps 5 and 6: whether the leaf allows the access, leaving A and D aside."""
    if privilege == Privilege.USER:
        if not leaf.user:
            return False
    elif leaf.user and (access == Access.FETCH or not sum_):
        return False
    if access == Access.FETCH:
        return leaf.executable
    if access == Access.READ:
        return leaf.readable or (bool(mxr) and leaf.executable)
    return leaf.writable


def must_update(leaf, access):
    """Step 9: whether A or D would have to be set."""
    return not leaf.accessed or (access == Access.WRITE and not leaf.dirty)


def permits(leaf, access, privilege, sum_, mxr):
    """Whether the leaf allows the access as it stands (Svade)."""
    return grants(leaf, access, privilege, sum_, mxr) and not must_update(leaf, access)


def translate(read, root, gva, access, privilege, sum_, mxr):
    """The physical page number for ``gva``. Raises PageFault or AccessFault."""
    leaf = find_leaf(read, root, gva)
    if not permits(leaf, access, privilege, sum_, mxr):
        raise PageFault("the leaf does not allow the access")
    return leaf.physical_page(gva)

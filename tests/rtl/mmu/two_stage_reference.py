"""Two-stage address translation as the Privileged Architecture states it, in plain Python.

"Two-Stage Address Translation" and "Guest Physical Address Translation" give the steps; Svade and
Svadu decide about A and D at each stage. Our own: what the G-stage's guest-page faults are split
into (violation and misconfiguration), and that reads of guest page tables are writes to the second
stage when both stages keep A and D. One stage is the special case without an EPT.
"""

from dataclasses import dataclass

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE, PTE_RESERVED, Access
from tests.rtl.mmu import sv39_reference as sv39
from tests.rtl.mmu.sv39_reference import AccessFault, PageFault

PAGESIZE, LEVELS = 4096, 3
A, D = 1 << 6, 1 << 7


class EptFault(Exception):
    """The second stage refused: at ``gpa``, this access, to a guest's page table or not, by the rights
    of its leaf or for the lack of one, at this level.
    """

    def __init__(self, why, gpa, access, page_table, rights=(0, 0, 0), level=LEVELS - 1):
        super().__init__(why)
        self.about = (gpa, access, page_table, rights, level)


class EptViolation(EptFault):
    """Not present, or not permitted."""


class EptMisconfiguration(EptFault):
    """An entry that cannot be, or is not in RAM (docs/isa/vmx.md#ept)."""


@dataclass(frozen=True)
class Mapping:
    """What a walk came to, for the page that was asked for."""

    frame: int
    size: int
    guest_size: int
    is_global: bool
    rights: dict


def _entry(memory, address):
    if address not in MEMORY_MAP["ram"]:
        raise AccessFault("page tables live in RAM")
    return memory.read(address)


def second_stage(memory, context, gpa, access, page_table):
    """The hpa, the size and the leaf (with A and D as they are now) for a gpa.

    "address translation is the same as Sv39 except" for the root's size, for U, and for A and D.
    """

    def fault(kind, why, pte=None):
        rights = (pte["r"], pte["w"], pte["x"]) if pte else (0, 0, 0)
        return kind(why, gpa, access, page_table, rights, i)

    i = LEVELS - 1
    if gpa >> 41:
        raise fault(EptViolation, "address bits above 41 must be zero")
    a = (context["ept_root"] & ~3) * PAGESIZE
    for i in (2, 1, 0):
        index = gpa >> 30 if i == 2 else gpa >> 12 + 9 * i & 511
        address = a + 8 * index
        try:
            word = _entry(memory, address)
        except AccessFault:
            raise fault(EptMisconfiguration, "not in RAM") from None
        pte = PTE.decode(word)
        if not pte["v"]:
            raise fault(EptViolation, "not present")
        if word & PTE_RESERVED or (pte["w"] and not pte["r"]):
            raise fault(EptMisconfiguration, "reserved")
        if pte["r"] or pte["x"]:
            break
        if pte["a"] or pte["d"] or pte["u"] or i == 0:
            raise fault(EptMisconfiguration, "A, D and U in a pointer, or no level left")
        a = pte["ppn"] * PAGESIZE
    size = PAGESIZE << 9 * i
    if pte["ppn"] * PAGESIZE % size:
        raise fault(EptMisconfiguration, "misaligned superpage")
    # "all memory accesses are considered to be user-level accesses"
    leaf = sv39.Leaf(0, 0, 0, *(bool(pte[k]) for k in "rwxuad"), False)
    if not leaf.user or not sv39.grants(leaf, access, 0, 0, 0):
        raise fault(EptViolation, "not permitted", pte)
    if sv39.must_update(leaf, access):
        if not context["ept_ad"]:
            raise fault(EptViolation, "A or D is clear", pte)
        bits = A | D * (access == Access.WRITE)
        memory.update(address, word, bits)
        pte = PTE.decode(word | bits)
    return pte["ppn"] * PAGESIZE + gpa % size, size, pte


def translate(memory, query):
    """The mapping for a query. Raises PageFault, AccessFault or an EptFault."""
    context, gva, access = query["context"], query["gva"], query["access"]
    all_rights = dict.fromkeys("rwxd", 1)
    if not context["paged"]:
        hpa, size, pte = second_stage(memory, context, gva, access, False)
        rights = {**{k: pte[k] for k in "rwxd"}, "mxr": pte["r"], "a": 1, "u": 0}
        return Mapping(hpa // PAGESIZE, size, size, True, rights)
    if gva >> 38 not in (0, 2**26 - 1):
        raise PageFault("not canonical")
    a, i, is_global = context["root"] * PAGESIZE, LEVELS - 1, False
    while True:
        address = gpa = a + 8 * (gva >> 12 + 9 * i & 511)
        table = all_rights
        if context["ept"]:
            written = context["adue"] and context["ept_ad"]
            implicit = Access.WRITE if written else Access.READ
            address, table_size, table = second_stage(memory, context, gpa, implicit, True)
        word = _entry(memory, address)
        pte = PTE.decode(word)
        if not pte["v"] or (not pte["r"] and pte["w"]) or word & PTE_RESERVED:
            raise PageFault("invalid or reserved")
        is_global = is_global or bool(pte["g"])
        if pte["r"] or pte["x"]:
            break
        if pte["d"] or pte["a"] or pte["u"] or i == 0:
            raise PageFault("D, A and U in a pointer, or no level left")
        a, i = pte["ppn"] * PAGESIZE, i - 1
    size = guest_size = PAGESIZE << 9 * i
    if pte["ppn"] * PAGESIZE % size:
        raise PageFault("misaligned superpage")
    leaf = sv39.Leaf(0, 0, 0, *(bool(pte[k]) for k in "rwxuad"), False)
    if not sv39.grants(leaf, access, *(context[k] for k in ("privilege", "sum", "mxr"))):
        raise PageFault("not permitted")
    update = sv39.must_update(leaf, access)
    if update and not context["adue"]:
        raise PageFault("A or D is clear")
    hpa, second = pte["ppn"] * PAGESIZE + gva % size, all_rights
    if context["ept"]:
        hpa, ept_size, second = second_stage(memory, context, hpa, access, False)
        size = min(size, ept_size)
    if update:
        if not (table["w"] and table["d"]):
            rights = tuple(table[k] for k in "rwx")
            level = (table_size // PAGESIZE).bit_length() // 9
            why = "the table cannot be written"
            raise EptViolation(why, gpa, Access.WRITE, True, rights, level)
        bits = A | D * (access == Access.WRITE)
        memory.update(address, word, bits)
        pte = PTE.decode(word | bits)
    rights = {k: pte[k] & second[k] for k in "rwxd"}
    rights |= {"mxr": (pte["r"] | pte["x"]) & second["r"], "a": pte["a"], "u": pte["u"]}
    return Mapping(hpa // PAGESIZE, size, guest_size, is_global, rights)

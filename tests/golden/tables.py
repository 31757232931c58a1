"""A hart of the golden model's with page tables, for the tests of what it believes about them."""

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE, SATP, SatpMode
from rtl.arch.traps import Privilege
from sim.golden import Hart

RAM = MEMORY_MAP["ram"].base
SIZE = 4 << 20
ROOT, MIDDLE, LEAF, OTHER_ROOT, OTHER_LEAF = (RAM + 0x1000 * n for n in range(16, 21))
OLD, NEW, NEVER = RAM + 0x3_0000, RAM + 0x3_1000, RAM + 0x3_2000
GVA = 0x1234_5678
ASID, OTHER_ASID = 5, 6
FULL = {"v": 1, "r": 1, "w": 1, "x": 1, "a": 1, "d": 1}


class Nothing:
    def read(self, hpa, size):
        return None

    def write(self, hpa, size, value):
        return False


class Tables:
    """A hart in S-mode, and its page tables, which are written as by the host.

    ``flags`` are those of the leaf, ``pointer_flags`` those of the entry above it.
    """

    def __init__(self, *, pointer_flags=None, **flags):
        self.hart = Hart(SIZE, Nothing())
        self.memory = self.hart.memory
        self.flags = FULL | flags
        self.write(ROOT, 2, PTE.encode(v=1, ppn=MIDDLE >> 12))
        self.write(MIDDLE, 1, PTE.encode(v=1, ppn=LEAF >> 12, **(pointer_flags or {})))
        self.write(LEAF, 0, PTE.encode(ppn=OLD >> 12, **self.flags))
        self.satp()
        self.hart.privilege = Privilege.SUPERVISOR
        self.hart.switched()
        for page in (OLD, NEW, NEVER):
            self.memory.write_physical(page + (GVA & 0xFFF) // 8 * 8, page.to_bytes(8, "little"))
        assert self.read() == OLD

    def satp(self, root=ROOT, asid=ASID):
        value = SATP.encode(mode=SatpMode.SV39, asid=asid, ppn=root >> 12)
        self.hart.write_csr(CSRS["satp"].number, value)

    def write(self, table, level, pte):
        index = GVA >> 12 + 9 * level & 511
        self.memory.write_physical(table + 8 * index, pte.to_bytes(8, "little"))

    def map(self, page, **flags):
        self.write(LEAF, 0, PTE.encode(ppn=page >> 12, **(self.flags | flags)))

    def read(self, claimed=None):
        """What a load reads when an implementation says it went to that page."""
        gva = GVA & ~7
        self.memory.claimed = claimed and claimed + (gva & 0xFFF)
        return self.memory.load(gva, 8)

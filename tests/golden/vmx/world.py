"""A golden hart with VMX, driven instruction by instruction: a VMCS, an EPT, code on both sides."""

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, PTE, SATP, SatpMode
from rtl.arch.traps import Privilege
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPTP
from rtl.arch.vmx.fields import VMCS_FIELDS, VMCS_REVISION
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from sim.golden import Hart
from tests.golden.vmx.valid_vmcs import RAM_SIZE, valid_fields

__all__ = ["Outside", "World", "controls", "number", "vmx_word"]

RAM = MEMORY_MAP["ram"].base
#: Where things lie (hpa).
HOST, HOST_CODE = RAM + 0x100, RAM + 0x1000
VMCS, OTHER_VMCS = RAM + 0x10000, RAM + 0x20000
EPT_ROOT, OTHER_EPT_ROOT = RAM + (1 << 20), RAM + (2 << 20)
TABLES = RAM + (3 << 20)
MEMORY = RAM + (8 << 20)
#: Where the guest sees its memory (gpa), which the EPT maps page by page onto MEMORY.
GUEST = 0x4000_0000
PAGES = 16
#: Guest pages for tables of its own.
GUEST_TABLES = GUEST + 8 * 0x1000
FULL = {"v": 1, "r": 1, "w": 1, "x": 1, "u": 1, "a": 1, "d": 1}
LEAF = {"v": 1, "r": 1, "w": 1, "x": 1, "a": 1, "d": 1}
#: Registers of the host's VMX instructions.
RESULT, FIRST, SECOND = 12, 10, 11
_UNWRITTEN = 0x5A5A


def vmx_word(name, rd=0, rs1=0, rs2=0):
    """The word of a VMX instruction."""
    row = VMX_INSTRUCTIONS[name]
    word = row.encoding.match
    for operand, value, lsb in ((row.rd, rd, 7), (row.rs1, rs1, 15), (row.rs2, rs2, 20)):
        word |= value << lsb if operand else 0
    return word


def number(csr):
    return CSRS[csr].number


def controls(*names, word="execution_controls"):
    """A control word with these bits and the required ones."""
    layout = CONTROL_WORDS[word].layout
    return CONTROL_WORDS[word].required | layout.encode(**dict.fromkeys(names, 1))


class Outside:
    """Everything outside the hart; ``lines`` are those of mip in the present world."""

    def __init__(self):
        self.ticks = self.mip = 0
        self.counters = {}

    def read(self, hpa, size):
        return None

    def write(self, hpa, size, value):
        return False

    def counter(self, name):
        return self.ticks if name == "time" else self.counters.get(name, 0)

    def lines(self):
        return self.mip


class World:
    """In root M-mode with VMX on and a valid VMCS current, unless told otherwise.

    The EPT maps ``PAGES`` pages at ``GUEST``; the guest starts there.
    """

    def __init__(self, *, on=True, loaded=True):
        self.outside = Outside()
        self.hart = Hart(RAM_SIZE, self.outside, vmx=True)
        self.hart.pc = HOST_CODE
        self._free = TABLES
        if on:
            assert self.vmx("vmxon") == 0
        if loaded:
            self.map_all()
            self.load(VMCS)
            self.write(**valid_fields())
            self.write(guest_pc=GUEST, host_pc=HOST, eptp=self.eptp())

    @staticmethod
    def eptp(root=EPT_ROOT, ad=0):
        return EPTP.encode(mode=8, ad=ad, ppn=root >> PAGE_BITS)

    # Memory.

    def put(self, hpa, value):
        self.hart.memory.write_physical(hpa, (value & (1 << 64) - 1).to_bytes(8, "little"))

    def get(self, hpa):
        place = hpa - RAM
        return int.from_bytes(self.hart.memory.ram[place : place + 8], "little")

    def code(self, hpa, *words):
        data = b"".join(word.to_bytes(4 if word & 3 == 3 else 2, "little") for word in words)
        self.hart.memory.write_physical(hpa, data)

    def guest_code(self, *words, page=0):
        """Put at the start of a page of the guest's."""
        self.code(self.hpa(GUEST + page * 0x1000), *words)
        self.hart.memory.fence_i()

    @staticmethod
    def hpa(gpa):
        """Where the EPT puts the guest's memory: its pages in reverse order."""
        page = (gpa - GUEST) >> PAGE_BITS
        assert 0 <= page < PAGES
        return MEMORY + (PAGES - 1 - page) * 0x1000 + gpa % 0x1000

    def map_all(self, root=EPT_ROOT):
        for page in range(PAGES):
            gpa = GUEST + page * 0x1000
            self.map(gpa, self.hpa(gpa), root=root)

    def _table(self):
        self._free += 0x1000
        return self._free - 0x1000

    def map(self, gpa, hpa, level=0, root=EPT_ROOT, **flags):
        """One entry of the EPT; its address."""
        table = root
        for step in (2, 1, 0):
            index = gpa >> PAGE_BITS + 9 * step & (0x7FF if step == 2 else 0x1FF)
            place = table + 8 * index
            if step == level:
                self.put(place, PTE.encode(**{**FULL, **flags}, ppn=hpa >> PAGE_BITS))
                return place
            if not self.get(place) & 1:
                self.put(place, PTE.encode(v=1, ppn=self._table() >> PAGE_BITS))
            table = PTE["ppn"].extract(self.get(place)) << PAGE_BITS

    def map_guest(self, gva, gpa, level=0, **flags):
        """One entry of the guest's tables, which take pages from GUEST_TABLES on; its gpa."""
        table = GUEST_TABLES
        for step in (2, 1, 0):
            place = table + 8 * (gva >> PAGE_BITS + 9 * step & 511)
            if step == level:
                self.put(self.hpa(place), PTE.encode(**{**LEAF, **flags}, ppn=gpa >> PAGE_BITS))
                return place
            if not self.get(self.hpa(place)) & 1:
                below = GUEST_TABLES + 0x1000 * (3 - step)
                self.put(self.hpa(place), PTE.encode(v=1, ppn=below >> PAGE_BITS))
            table = PTE["ppn"].extract(self.get(self.hpa(place))) << PAGE_BITS

    @staticmethod
    def satp(asid=0, root=GUEST_TABLES):
        return SATP.encode(mode=SatpMode.SV39, asid=asid, ppn=root >> PAGE_BITS)

    # Root.

    def step(self, word=None):
        """One instruction, in root put where pc is."""
        hart = self.hart
        if word is not None:
            assert not hart.world
            hart.pc = HOST_CODE
            self.code(hart.pc, word)
            hart.memory.fence_i()
        hart.step()
        return hart.trapped

    def vmx(self, name, first=0, second=0):
        """What rd gets of a VMX instruction in root M-mode, None when it is not written."""
        x = self.hart.x
        x[FIRST], x[SECOND], x[RESULT] = first, second, _UNWRITTEN
        assert self.step(vmx_word(name, RESULT, FIRST, SECOND)) is None
        return None if x[RESULT] == _UNWRITTEN else x[RESULT]

    def load(self, region):
        self.put(region, VMCS_REVISION)
        assert self.vmx("vmclear", region) == self.vmx("vmptrld", region) == 0

    def write(self, **fields):
        for name, value in fields.items():
            assert self.vmx("vmwrite", VMCS_FIELDS[name].number, int(value)) == 0

    def read(self, name):
        value = self.vmx("vmread", VMCS_FIELDS[name].number)
        assert self.hart.csr.values["vmxstatus"] == 0
        return value

    def fields(self, *names):
        """The fields named, or all, by VMREAD."""
        return {name: self.read(name) for name in names or VMCS_FIELDS}

    # The guest.

    def launch(self, *, privilege=Privilege.MACHINE, code=(), **fields):
        """VMLAUNCH, which succeeds; before it guest code and fields are written."""
        if code:
            self.guest_code(*code)
        self.write(guest_privilege=privilege, **fields)
        assert self.vmx("vmlaunch") is None
        assert self.hart.world == 1

    def resume(self, **fields):
        self.write(**fields)
        assert self.vmx("vmresume") is None
        assert self.hart.world == 1

    def run(self, steps=1):
        """Instructions of the guest, until one traps or exits."""
        for _ in range(steps):
            if self.step() is not None:
                break
        return self.hart.trapped

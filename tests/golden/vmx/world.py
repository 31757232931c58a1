"""A hart with VMX, driven instruction by instruction: a VMCS, an EPT, code on both sides."""

from pytest import raises

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, PTE, SATP, SatpMode
from rtl.arch.records import EXIT_BIT
from rtl.arch.traps import INTERRUPT_BIT, Interrupt, Privilege
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPTP
from rtl.arch.vmx.exits import INTERRUPTION, ExitReason
from rtl.arch.vmx.fields import VMCS_FIELDS, VMCS_REGION_BITS, VMCS_REVISION
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from sim.golden import Hart, InterruptRefused
from sim.golden.events import INJECTION_DUE
from tests.golden.vmx.valid_vmcs import valid_fields

__all__ = ["ModelBench", "Outside", "World", "controls", "number", "vmx_word"]

RAM, RAM_SIZE = MEMORY_MAP["ram"].base, 4 << 20
#: Where things lie (hpa).
HOST, HOST_CODE = RAM + 0x100, RAM + 0x1000
VMCS, OTHER_VMCS = RAM + 0x10000, RAM + 0x20000
EPT_ROOT, OTHER_EPT_ROOT = RAM + 0x10_0000, RAM + 0x14_0000
TABLES = RAM + 0x18_0000
#: Also a page of 2 MiB.
MEMORY = RAM + 0x20_0000
#: Where the guest sees its memory (gpa), which the EPT maps page by page onto MEMORY.
GUEST = 0x4000_0000
PAGES = 16
MTIME = MEMORY_MAP["clint"].base + 0xBFF8
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


class ModelBench:
    """Makes the harts of worlds: golden ones."""

    def hart(self, outside) -> Hart:
        return Hart(RAM_SIZE, outside, vmx=True)


class World:
    """In root M-mode with VMX on and a valid VMCS current, unless told otherwise.

    The EPT maps ``PAGES`` pages at ``GUEST``; the guest starts there. At a time there is one world
    only.
    """

    #: Where the hart comes from: the golden model, or the RTL beside it (tests/machine/vmx).
    bench = ModelBench()

    def __init__(self, *, on=True, loaded=True):
        self.outside = Outside()
        self.hart = self.bench.hart(self.outside)
        self.hart.pc = HOST_CODE
        self._free = TABLES
        self._host_word = 0
        if loaded:
            self.map_all()
            self._prepare(VMCS)
        if on:
            assert self.vmx("vmxon") == 0
        if loaded:
            self.load(VMCS)

    @property
    def on_machine(self):
        """The RTL is compared: what comes by itself need not be told."""
        return not isinstance(self.hart, Hart)

    @staticmethod
    def eptp(root=EPT_ROOT, ad=0):
        return EPTP.encode(mode=8, ad=ad, ppn=root >> PAGE_BITS)

    # Memory.

    def put(self, hpa, value):
        self.hart.memory.write_physical(hpa, (value & (1 << 64) - 1).to_bytes(8, "little"))

    def get(self, hpa):
        if self.on_machine:
            return self.hart.get(hpa)
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
            if word != self._host_word:
                self.code(hart.pc, word)
                hart.memory.fence_i()
                self._host_word = word
        hart.step()
        return hart.trapped

    def root_code(self, *words):
        """Root goes on with these instructions."""
        self.code(HOST_CODE, *words)
        self._host_word = 0
        self.hart.memory.fence_i()
        self.hart.pc = HOST_CODE

    def free_run(self, count):
        """So many instructions without a stop; on the machine, where they end in a loop, more."""
        if self.on_machine:
            self.hart.free_run()
            return
        for _ in range(count):
            self.hart.step()

    def vmx(self, name, first=0, second=0):
        """What rd gets of a VMX instruction in root M-mode, None when it is not written."""
        if self.on_machine and self.hart.vmx.parked:
            return self.hart.host_vmx(name, first, second)
        x = self.hart.x
        x[FIRST], x[SECOND], x[RESULT] = first, second, _UNWRITTEN
        trapped = self.step(vmx_word(name, RESULT, FIRST, SECOND))
        # What an entry injects may have been taken by now.
        assert trapped is None or self.hart.world
        return None if x[RESULT] == _UNWRITTEN else x[RESULT]

    def _prepare(self, region):
        """The VMCS stands in memory."""
        fields = {"guest_pc": GUEST, "host_pc": HOST, "eptp": self.eptp()}
        image = bytearray(1 << VMCS_REGION_BITS)
        for name, value in (valid_fields() | fields).items():
            place = VMCS_FIELDS[name].offset
            image[place : place + 8] = int(value).to_bytes(8, "little")
        self.hart.memory.write_physical(region, bytes(image))

    def load(self, region):
        self.put(region, VMCS_REVISION)
        assert self.vmx("vmclear", region) == self.vmx("vmptrld", region) == 0

    def preset(self, **fields):
        """Fields of the current VMCS change in memory, where those of information can."""
        region = self.vmx("vmptrst")
        assert self.vmx("vmclear", region) == 0
        for name, value in fields.items():
            self.put(region + VMCS_FIELDS[name].offset, value)
        assert self.vmx("vmptrld", region) == 0

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

    def again(self, *words, **fields):
        """Enter once more, at GUEST, where these words stand; what is so already is not written."""
        if words:
            self.guest_code(*words)
        now = self.hart.vmx.vmcs.fields
        fields = {"guest_pc": GUEST} | fields
        self.resume(**{name: value for name, value in fields.items() if now[name] != value})

    def run(self, steps=1):
        """Instructions of the guest, until one traps or exits."""
        for _ in range(steps):
            if self.step() is not None:
                break
        return self.hart.trapped

    def injected(self):
        """What the entry injects is taken; the machine has done so before its step of the entry ended."""
        hart = self.hart
        if not self.on_machine:
            assert hart.due == INJECTION_DUE
            hart.vmx.inject()

    def lines(self, *causes):
        """Root's interrupt lines of M; nobody need tell the model."""
        if self.on_machine:
            self.hart.lines(*causes)

    def time(self, ticks):
        """The machine's time is this now."""
        self.outside.ticks = ticks
        if self.on_machine:
            self.hart.memory.write_physical(MTIME, ticks.to_bytes(8, "little"))

    def event(self, reason, cause=-1, *, waits=False):
        """An exit between instructions comes; on the machine by itself, which it has to be ready for."""
        hart = self.hart
        if not self.on_machine:
            hart.vmx.event_exit(reason, cause=cause, waits=waits)
            return
        hart.step()
        assert hart.trapped == (reason | 1 << EXIT_BIT, 0), hart.trapped
        fields = hart.vmx.vmcs.fields
        if reason == ExitReason.EXTERNAL_INTERRUPT:
            assert INTERRUPTION["cause"].extract(fields["exit_interruption"]) == cause
        assert fields["guest_activity"] == waits

    def refused(self, reason, cause=-1, *, waits=False, match=None):
        """No such exit can come now. The machine need not be asked: what it does is compared."""
        if not self.on_machine:
            with raises(InterruptRefused, match=match):
                self.hart.vmx.event_exit(reason, cause=cause, waits=waits)

    def interrupt(self, code):
        """The guest takes an interrupt."""
        hart = self.hart
        if not self.on_machine:
            hart.interrupt(code)
            return
        hart.step()
        assert hart.trapped == (code | 1 << INTERRUPT_BIT, 0), hart.trapped

    def leave(self):
        """An exit at once, by an interrupt of root that ``external_interrupt_exiting`` lets exit."""
        line = Interrupt.SUPERVISOR_SOFTWARE
        self.root_csr(mie=1 << line, mip=1 << line)
        self.event(ExitReason.EXTERNAL_INTERRUPT, line)
        self.root_csr(mie=0, mip=0)

    def root_csr(self, **values):
        """The host writes CSRs of root, also while the guest is at work."""
        hart = self.hart
        for name, value in values.items():
            if self.on_machine:
                hart.write_csr(number(name), value)
            elif hart.world:
                hart.vmx.root_csr.write(number(name), value, retires=False)
                hart.switched()
            else:
                hart.write_csr(number(name), value, retires=False)

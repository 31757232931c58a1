"""Extended page tables: where a guest's memory lies in the machine's."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from rtl.arch.paging import LEVELS, PAGE_BITS, PTE, VPN_BITS, Access
from rtl.arch.vmx.ept import EPT_GPA_BITS, EPT_ROOT_BITS, EPTP, EptMode
from rtl.arch.vmx.instructions import InveptType
from sw_vmm.errors import BadImage
from sw_vmm.machine import Machine
from sw_vmm.vmcs import execute

__all__ = ["Ept", "MemorySlot", "PageAllocator"]

_PAGE = 1 << PAGE_BITS
_ENTRIES = 1 << VPN_BITS
_POINTER = PTE.mask("v")
#: A and D are set from the start: nobody asks, and without eptp.ad a leaf needs them.
_LEAF = PTE.mask("v", "u", "a", "d")
_PPN = PTE["ppn"]
_RIGHTS = {
    Access.READ: PTE.mask("r"),
    Access.WRITE: PTE.mask("w"),
    Access.FETCH: PTE.mask("x"),
}
_ALL_RIGHTS = tuple(Access)


class PageAllocator:
    """Pages of the monitor's RAM, given out in order and never taken back.

    Raises BadImage from ``take`` when none is left.
    """

    def __init__(self, area: range):
        self._next, self._end = area.start, area.stop

    def take(self, size: int = _PAGE) -> int:
        """hpa of ``size`` bytes, a power of two, aligned to that."""
        hpa = -(-self._next // size) * size
        if hpa + size > self._end:
            raise BadImage("the monitor's memory is too small for the VM's tables")
        self._next = hpa + size
        return hpa


@dataclass(frozen=True)
class MemorySlot:
    """``size`` bytes of the guest's at ``gpa`` that are the machine's at ``hpa``: whole pages.

    Raises ValueError when they are not, or when what may be written may not be read.
    """

    gpa: int
    hpa: int
    size: int
    rights: tuple[Access, ...] = _ALL_RIGHTS

    def __post_init__(self):
        if (self.gpa | self.hpa | self.size) % _PAGE or self.size <= 0:
            raise ValueError(f"{self} is not made of whole pages")
        if Access.WRITE in self.rights and Access.READ not in self.rights:
            raise ValueError(f"{self} can be written and not read")

    @property
    def end(self) -> int:
        return self.gpa + self.size


class Ept:
    """Tables for memory slots, filled when a page is first missed, or ahead.

    A leaf is as large as slot, alignment and ``largest`` allow. Entries that are added need no
    invalidation; what takes rights away ends with INVEPT.

    Parameters
    ----------
    machine : Machine
        In VMX operation.
    allocator : PageAllocator
        Gives the tables' pages.
    slots : iterable of MemorySlot
        They do not overlap.
    largest : int
        Level of the largest leaf: 0 is 4 KiB, 1 is 2 MiB, 2 is 1 GiB.

    Raises BadImage when there is no room for the tables, ValueError when slots overlap or lie
    outside guest-physical space.
    """

    def __init__(
        self,
        machine: Machine,
        allocator: PageAllocator,
        slots: Iterable[MemorySlot],
        *,
        largest: int = LEVELS - 1,
    ):
        self._machine = machine
        self._allocator = allocator
        self._largest = largest
        self._slots = sorted(slots, key=lambda slot: slot.gpa)
        self._starts = [slot.gpa for slot in self._slots]
        for slot, after in zip(self._slots, self._slots[1:], strict=False):
            if slot.end > after.gpa:
                raise ValueError(f"{slot} and {after} overlap")
        if self._slots and self._slots[-1].end > 1 << EPT_GPA_BITS:
            raise ValueError(f"{self._slots[-1]} lies outside guest-physical space")
        self._tables: set[int] = set()
        self._root = self._new_table(1 << EPT_ROOT_BITS)

    @property
    def eptp(self) -> int:
        """What the VMCS field of that name holds."""
        return EPTP.encode(ppn=self._root >> PAGE_BITS, mode=EptMode.SV39X4)

    def slot_of(self, gpa: int) -> MemorySlot | None:
        """The slot that holds ``gpa``."""
        at = bisect_right(self._starts, gpa) - 1
        if at < 0 or gpa >= self._slots[at].end:
            return None
        return self._slots[at]

    def hpa_of(self, gpa: int) -> int | None:
        """Where ``gpa`` lies, whether or not it has been entered yet."""
        slot = self.slot_of(gpa)
        return None if slot is None else slot.hpa + gpa - slot.gpa

    def fill(self, gpa: int, access: Access) -> bool:
        """Enter the page of a ``gpa`` that was missed; False when no slot allows the access."""
        slot = self.slot_of(gpa)
        if slot is None or access not in slot.rights:
            return False
        self._enter(slot, gpa)
        return True

    def fill_all(self) -> None:
        """Enter every page of every slot."""
        for slot in self._slots:
            gpa = slot.gpa
            while gpa < slot.end:
                gpa += self._enter(slot, gpa)

    def protect(self, gpa: int, *rights: Access) -> None:
        """Give the page of ``gpa``, as large as it was entered, these rights; none drops it."""
        place = self._leaf(gpa)
        if place is None:
            return
        entry = self._read(place)
        if rights:
            entry = _PPN.mask & entry | _LEAF | sum(_RIGHTS[access] for access in rights)
        self._write(place, entry if rights else 0)
        execute(self._machine, "invept", InveptType.SINGLE_CONTEXT, self.eptp)

    def pages(self) -> dict[int, int]:
        """How many leaves there are, by level."""
        found = dict.fromkeys(range(LEVELS), 0)
        self._count(self._root, LEVELS - 1, found)
        return found

    # -- tables ------------------------------------------------------------------------------------

    def _count(self, table, level, found):
        entries = 1 << EPT_ROOT_BITS - 3 if level == LEVELS - 1 else _ENTRIES
        content = self._machine.read_memory(table, 8 * entries)
        for at in range(0, len(content), 8):
            entry = int.from_bytes(content[at : at + 8], "little")
            if entry & _LEAF == _LEAF:
                found[level] += 1
            elif self._is_pointer(entry, level):
                self._count(_PPN.extract(entry) << PAGE_BITS, level - 1, found)

    def _new_table(self, size: int = _PAGE) -> int:
        table = self._allocator.take(size)
        self._machine.write_memory(table, bytes(size))
        self._tables.add(table)
        return table

    def _read(self, hpa: int) -> int:
        return int.from_bytes(self._machine.read_memory(hpa, 8), "little")

    def _write(self, hpa: int, entry: int) -> None:
        self._machine.write_memory(hpa, entry.to_bytes(8, "little"))

    @staticmethod
    def _place(table: int, level: int, gpa: int) -> int:
        index = gpa >> PAGE_BITS + VPN_BITS * level
        return table + 8 * (index if level == LEVELS - 1 else index % _ENTRIES)

    def _enter(self, slot: MemorySlot, gpa: int) -> int:
        """Enter the largest page around ``gpa`` that the slot allows; its bytes behind ``gpa``."""
        table, level = self._root, LEVELS - 1
        while True:
            size = _PAGE << VPN_BITS * level
            first = gpa - gpa % size
            place = self._place(table, level, gpa)
            hpa = slot.hpa + first - slot.gpa
            fits = slot.gpa <= first and first + size <= slot.end and hpa % size == 0
            entry = self._read(place)
            points = self._is_pointer(entry, level)
            if fits and level <= self._largest and not points:
                break
            if not points:
                entry = _POINTER | PTE.encode(ppn=self._new_table() >> PAGE_BITS)
                self._write(place, entry)
            table = _PPN.extract(entry) << PAGE_BITS
            level -= 1
        rights = sum(_RIGHTS[access] for access in slot.rights)
        self._write(place, _LEAF | rights | PTE.encode(ppn=hpa >> PAGE_BITS))
        return first + size - gpa

    def _is_pointer(self, entry: int, level: int) -> bool:
        """It leads to another of these tables: a guest that reaches them may write anything there."""
        hpa = _PPN.extract(entry) << PAGE_BITS
        return level > 0 and hpa in self._tables and entry == _POINTER | entry & _PPN.mask

    def _leaf(self, gpa: int) -> int | None:
        """hpa of the entry of the page that holds ``gpa``; None when it is not entered."""
        table, level = self._root, LEVELS - 1
        while True:
            place = self._place(table, level, gpa)
            entry = self._read(place)
            if not self._is_pointer(entry, level):
                return place if entry else None
            table, level = _PPN.extract(entry) << PAGE_BITS, level - 1

"""Shadow roots: the page tables under which a deprivileged guest runs."""

from enum import IntEnum

from rtl.arch.paging import PAGE_BITS, PTE, SATP, VPN_BITS, SatpMode
from sw_vmm.errors import BadImage
from sw_vmm.machine import Machine

__all__ = ["Root", "ShadowRoots"]

_PAGE = 1 << PAGE_BITS
_LARGE = 1 << PAGE_BITS + VPN_BITS
_HUGE = 1 << PAGE_BITS + 2 * VPN_BITS
_RAM = PTE.mask("v", "r", "w", "x", "u", "a", "d")
_ROM = PTE.mask("v", "r", "x", "u", "a")
_POINTER = PTE.mask("v")


class Root(IntEnum):
    """Shadow roots by what the guest's virtual mode may reach; the value is the root's ASID.

    A mode change is a satp write and never a flush, since every root has an ASID of its own.
    """

    BARE = 1
    USER = 2
    KERNEL = 3
    KERNEL_SUM = 4


class ShadowRoots:
    """Tables in the monitor area.

    BARE maps guest RAM at its own addresses for every access and the boot ROM for reads and
    fetches, with the largest pages that fit, and nothing else. The other roots map nothing yet:
    they are for guests that page.

    Raises BadImage when the tables do not fit the area.
    """

    def __init__(self, machine: Machine, *, area: range, ram: range, rom: range):
        self._machine = machine
        self._area = area
        self._next = area.start
        self._tables: dict[int, list[int]] = {}
        self._roots = {root: self._allocate() for root in Root}
        self._map(self._roots[Root.BARE], ram, _RAM)
        self._map(self._roots[Root.BARE], rom, _ROM)
        for address, entries in self._tables.items():
            content = b"".join(entry.to_bytes(8, "little") for entry in entries)
            machine.write_memory(address, content)
        machine.sfence_vma()

    def satp(self, root: Root) -> int:
        """What the hart's satp holds while the guest runs under that root."""
        frame = self._roots[root] >> PAGE_BITS
        return SATP.encode(ppn=frame, asid=root, mode=SatpMode.SV39)

    def _allocate(self) -> int:
        if self._next + _PAGE > self._area.stop:
            raise BadImage("the monitor area is too small for the shadow tables")
        table = self._next
        self._tables[table] = [0] * (1 << VPN_BITS)
        self._next += _PAGE
        return table

    def _table_in(self, table: int, index: int) -> int:
        """The table that an entry points to, made if there is none."""
        entry = self._tables[table][index]
        if not entry:
            entry = _POINTER | PTE.encode(ppn=self._allocate() >> PAGE_BITS)
            self._tables[table][index] = entry
        return PTE["ppn"].extract(entry) << PAGE_BITS

    def _map(self, root: int, memory: range, rights: int) -> None:
        gpa = memory.start
        while gpa < memory.stop:
            table, size = root, _HUGE
            while gpa % size or gpa + size > memory.stop:
                table = self._table_in(table, gpa // size % (1 << VPN_BITS))
                size >>= VPN_BITS
            leaf = rights | PTE.encode(ppn=gpa >> PAGE_BITS)
            self._tables[table][gpa // size % (1 << VPN_BITS)] = leaf
            gpa += size

"""Loads, stores and atomics of the interpreter: translation, guest RAM, devices, reservations."""

from collections.abc import Callable

from rtl.arch.csrs import MENVCFG, MSTATUS
from rtl.arch.memory_map import PHYSICAL_BITS
from rtl.arch.paging import PAGE_BITS, Access
from rtl.arch.traps import Exception_
from sw_vmm.bus import Bus
from sw_vmm.errors import BusError
from sw_vmm.hart import Hart, Trap
from sw_vmm.interpreter.operations import ATOMIC
from sw_vmm.interpreter.sv39 import ACCESS_FAULT, Context, walk
from sw_vmm.memory import GuestMemory

__all__ = ["MemoryUnit"]

_PAGE = 1 << PAGE_BITS
_OFFSET = _PAGE - 1
_SUM, _MXR = MSTATUS.mask("sum"), MSTATUS.mask("mxr")
_ADUE = MENVCFG.mask("adue")
#: A reservation covers a cache line, as the hart's does.
_LINE_BITS = 6
#: Translation contexts remembered before all are dropped.
_CONTEXTS = 64


def _sign(value: int, size: int) -> int:
    bit = 1 << 8 * size - 1
    return (value ^ bit) - bit


class MemoryUnit:
    """The data side of a hart in software.

    ``read_pages`` and ``write_pages`` map virtual page numbers of the current context to what must
    be added to a virtual address to get its offset in guest RAM; they hold only pages that need no
    attention. What is not in them comes to ``load`` and ``store``, which raise Trap.

    Parameters
    ----------
    hart, memory, bus
        Whose privilege, whose RAM, whose devices.
    before_device : callable
        Brings ``hart.now`` to the instruction at ``at``; called before a device is accessed.
    on_watched : callable
        Called after a store that gives ``watched_value`` something other than zero.
    """

    def __init__(
        self,
        hart: Hart,
        memory: GuestMemory,
        bus: Bus,
        before_device: Callable[[], None],
        on_watched: Callable[[], None] = lambda: None,
    ):
        self._before_device = before_device
        self._on_watched = on_watched
        self._hart = hart
        self._memory = memory
        self._bus = bus
        self._reservation: int | None = None
        self._contexts: dict[Context | None, tuple[dict[int, int], dict[int, int]]] = {}
        #: Only a copy in this process can be accessed without asking.
        self._direct = hasattr(memory, "view")
        #: Stores to the double word at this gpa are reported by ``watched_value``.
        self.watched: int | None = None
        self.watched_value = 0
        #: pc of the instruction that was last seen to need attention, or that raised Trap.
        self.at = 0
        self.select_context()

    def view(self, size: int, signed: bool):
        """Guest RAM by elements; None where every access has to be asked for."""
        return self._memory.view(size, signed) if self._direct else None

    # -- contexts ----------------------------------------------------------------------------------

    def select_context(self) -> None:
        """Follow a change of privilege, mstatus, menvcfg or satp."""
        hart = self._hart
        privilege = hart.data_privilege()
        context = None
        if hart.translates(privilege):
            mstatus = hart.mstatus
            context = Context(
                hart.satp,
                privilege,
                bool(mstatus & _SUM),
                bool(mstatus & _MXR),
                bool(hart.menvcfg & _ADUE),
            )
        self._context = context
        pages = self._contexts.get(context)
        if pages is None:
            if len(self._contexts) >= _CONTEXTS:
                self._contexts.clear()
            pages = self._contexts[context] = ({}, {})
        self.read_pages, self.write_pages = pages

    def drop_translations(self) -> None:
        """Forget every translation (an sfence.vma of any kind)."""
        bare = self._contexts.get(None)
        self._contexts.clear()
        if bare is not None:
            self._contexts[None] = bare
        self.select_context()

    def clear_reservation(self) -> None:
        self._reservation = None

    # -- physical memory ---------------------------------------------------------------------------

    def _in_ram(self, gpa: int, size: int) -> bool:
        return self._memory.base <= gpa <= self._memory.end - size

    def read_entry(self, gpa: int) -> int | None:
        """A page-table entry, or None outside guest RAM."""
        return self._memory.read(gpa, 8) if self._in_ram(gpa, 8) else None

    def write_entry(self, gpa: int, entry: int) -> None:
        """A page-table entry whose A or D is set, on behalf of a walk."""
        if self._reservation == gpa >> _LINE_BITS:
            self._reservation = None
        self._memory.write(gpa, 8, entry)

    def _translate(self, gva: int, access: Access) -> int:
        if self._context is not None:
            return walk(self.read_entry, gva, access, self._context, self.write_entry)
        if gva >> PHYSICAL_BITS:
            raise Trap(ACCESS_FAULT[access], gva)
        return gva

    def _remember(self, pages: dict[int, int], gva: int, gpa: int) -> None:
        if not self._direct:
            return
        frame = gpa & ~_OFFSET
        watched = None if self.watched is None else self.watched & ~_OFFSET
        if pages is self.write_pages and frame == watched:
            return
        if self._in_ram(frame, _PAGE):
            pages[gva >> PAGE_BITS] = frame - self._memory.base - (gva & ~_OFFSET)

    # -- loads and stores --------------------------------------------------------------------------

    def load(self, pc: int, gva: int, size: int, signed: bool) -> int:
        """A load of any kind; the value is sign-extended when ``signed``. Raises Trap."""
        self.at = pc
        gpa = self._translate(gva, Access.READ)
        if gva & size - 1:
            value = self._read_misaligned(gva, gpa, size)
        elif self._in_ram(gpa, size):
            self._remember(self.read_pages, gva, gpa)
            value = self._memory.read(gpa, size)
        else:
            self._before_device()
            try:
                value = self._bus.read(gpa, size, self._hart.now)
            except BusError:
                raise Trap(Exception_.LOAD_ACCESS_FAULT, gva) from None
        return _sign(value, size) if signed else value

    def store(self, pc: int, gva: int, size: int, value: int) -> None:
        """A store of any kind. Raises Trap."""
        self.at = pc
        gpa = self._translate(gva, Access.WRITE)
        if gva & size - 1:
            self._write_misaligned(gva, gpa, size, value)
        elif self._in_ram(gpa, size):
            self._remember(self.write_pages, gva, gpa)
            self._write_ram(gpa, size, value)
        else:
            self._before_device()
            try:
                self._bus.write(gpa, size, value, self._hart.now)
            except BusError:
                raise Trap(Exception_.STORE_ACCESS_FAULT, gva) from None

    def _write_ram(self, gpa: int, size: int, value: int) -> None:
        self._memory.write(gpa, size, value)
        if self.watched is not None and gpa < self.watched + 8 and gpa + size > self.watched:
            self.watched_value = self._memory.read(self.watched, 8)
            if self.watched_value:
                self._on_watched()

    def _halves(self, gva: int, gpa: int, size: int, access: Access) -> list[tuple[int, int]]:
        """The parts (gpa, bytes) of a misaligned access, in RAM, both translated before any use."""
        first = min(size, _PAGE - (gva & _OFFSET))
        parts = [(gva, gpa, first)]
        if first < size:
            second = gva + first & (1 << 64) - 1
            parts.append((second, self._translate(second, access), size - first))
        for at, part, length in parts:
            # Misaligned accesses work in RAM alone.
            if not self._in_ram(part, length):
                raise Trap(ACCESS_FAULT[access], at)
        return [(part, length) for _, part, length in parts]

    def _read_misaligned(self, gva: int, gpa: int, size: int) -> int:
        value = shift = 0
        for part, length in self._halves(gva, gpa, size, Access.READ):
            value |= self._memory.read(part, length) << shift
            shift += 8 * length
        return value

    def _write_misaligned(self, gva: int, gpa: int, size: int, value: int) -> None:
        for part, length in self._halves(gva, gpa, size, Access.WRITE):
            self._write_ram(part, length, value & (1 << 8 * length) - 1)
            value >>= 8 * length

    # -- atomics -----------------------------------------------------------------------------------

    def _atomic_address(self, pc: int, gva: int, size: int, access: Access) -> int:
        self.at = pc
        if gva & size - 1:
            misaligned = (
                Exception_.LOAD_ADDRESS_MISALIGNED
                if access is Access.READ
                else Exception_.STORE_ADDRESS_MISALIGNED
            )
            raise Trap(misaligned, gva)
        gpa = self._translate(gva, access)
        if not self._in_ram(gpa, size):
            raise Trap(ACCESS_FAULT[access], gva)
        return gpa

    def load_reserved(self, pc: int, gva: int, size: int) -> int:
        """lr: the value, sign-extended to 64 bits as an int."""
        gpa = self._atomic_address(pc, gva, size, Access.READ)
        self._reservation = gpa >> _LINE_BITS
        return _sign(self._memory.read(gpa, size), size)

    def store_conditional(self, pc: int, gva: int, size: int, value: int) -> int:
        """sc: 0 when it stored, 1 when the reservation was gone."""
        gpa = self._atomic_address(pc, gva, size, Access.WRITE)
        held = self._reservation == gpa >> _LINE_BITS
        self._reservation = None
        if held:
            self._write_ram(gpa, size, value & (1 << 8 * size) - 1)
        return 0 if held else 1

    def atomic(self, pc: int, operation: str, gva: int, size: int, value: int) -> int:
        """amo: the old value, sign-extended."""
        gpa = self._atomic_address(pc, gva, size, Access.WRITE)
        mask = (1 << 8 * size) - 1
        old = self._memory.read(gpa, size)
        self._write_ram(gpa, size, ATOMIC[operation](old, value & mask, size) & mask)
        return _sign(old, size)

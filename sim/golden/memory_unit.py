"""Fetches, loads, stores and atomics: translation, physical memory, reservation."""

from rtl.arch.memory_map import BUS_ADDRESS_BITS, MEMORY_MAP, region_of
from rtl.arch.paging import PAGE_BITS, Access
from rtl.arch.traps import Exception_
from sim.golden.page_tables import PageTables
from sim.golden.translation import Context, Fault, canonical
from sim.golden.vmx.exits import ept_exit

__all__ = ["MemoryUnit", "Trap", "Unknowable"]

_WORD = (1 << 64) - 1
_PAGE = 1 << PAGE_BITS
_OFFSET = _PAGE - 1
_RAM, _ROM = MEMORY_MAP["ram"], MEMORY_MAP["rom"]
_BASE = _RAM.base
#: Reservations cover a cache line; a line that is not fitted as a whole answers with an error.
_LINE_BITS = 6
#: Unpaged addresses have this many bits.
_BARE_BITS = 56

_FAULTS = {
    (Fault.PAGE, Access.READ): Exception_.LOAD_PAGE_FAULT,
    (Fault.PAGE, Access.WRITE): Exception_.STORE_PAGE_FAULT,
    (Fault.PAGE, Access.FETCH): Exception_.INSTRUCTION_PAGE_FAULT,
    (Fault.ACCESS, Access.READ): Exception_.LOAD_ACCESS_FAULT,
    (Fault.ACCESS, Access.WRITE): Exception_.STORE_ACCESS_FAULT,
    (Fault.ACCESS, Access.FETCH): Exception_.INSTRUCTION_ACCESS_FAULT,
}
_FETCH_FAULTS = (Exception_.INSTRUCTION_ACCESS_FAULT, Exception_.INSTRUCTION_PAGE_FAULT)


class Trap(Exception):
    """The instruction does not retire: ``cause`` of the exception, and its trap value."""

    def __init__(self, cause: int, value: int):
        super().__init__(cause, value)
        self.cause = int(cause)
        self.value = value


class Unknowable(Exception):
    """What an implementation did cannot be told from what it says; the message says why."""


class MemoryUnit:
    """Memory as the hart sees it, at the addresses ``context`` translates.

    Parameters
    ----------
    ram_size : int
        Bytes of RAM fitted.
    platform : Platform
        Answers reads and writes outside RAM and ROM.

    Members
    -------
    ram, rom : bytearray
    claimed : int or None
        Physical address an implementation says the load, store or atomic went to: believed where a
        translation that is older than the tables, but not yet fenced, leads there.
    claimed_fault : tuple of (cause, value) or None
        The fault an implementation says a load, store or atomic met: believed likewise.
    claimed_value : int or None
        What an implementation says a load or atomic read: believed about A and D, where hardware may
        have set them unseen.
    claimed_store : bool
        Whether an implementation says a store-conditional stored: believed where hardware may
        have ended the reservation, by setting A or D in its line.
    physical : int
        Where the last load, store or atomic went.
    stored : bool
        Whether the last store-conditional did.
    reserved : int or None
        Line of the reservation.
    tables : PageTables
    """

    def __init__(self, ram_size: int, platform):
        self.platform = platform
        self.ram = bytearray(ram_size)
        self.rom = bytearray(_ROM.size)
        self.claimed: int | None = None
        self.claimed_fault: tuple[int, int] | None = None
        self.claimed_value: int | None = None
        self.claimed_store = True
        self.physical = 0
        self.stored = False
        self.reserved: int | None = None
        self._doubtful = False  # whether hardware may have ended it
        self._fitted = ram_size >> _LINE_BITS << _LINE_BITS
        self._tabled = bytearray(-(-ram_size // _PAGE))  # by page: entries were read there
        self._read: set[int] = set()  # pages with table entries that views were made from
        self.tables = PageTables(self.ram, self._fitted, self._use)
        self.tables.updated = self._updated
        # Pages translated since the tables last changed, as offsets into RAM.
        self._views: dict[object, dict[int, int]] = {}
        self._fetch_context = self._data_context = None
        bare = Context(False, 3, 0, 0, False, False, False)
        self.switch(bare, bare)

    def switch(self, fetch: Context, data: Context) -> None:
        """From now on fetches, and loads and stores, are translated under these contexts."""
        self._fetch_context, self._data_context = fetch, data
        self.tables.switch(fetch)
        self._readable = self._view(Access.READ, data)
        self._writable = self._view(Access.WRITE, data)
        self._executable = self._view(Access.FETCH, fetch)

    def _view(self, access, context):
        key = (access, context if context.paged or context.stage else None)
        return self._views.setdefault(key, {})

    def _forget_views(self):
        # In place: the hart's present views are among them.
        for view in self._views.values():
            view.clear()
        for page in self._read:
            self._tabled[page] = 0
        self._read.clear()
        self.tables.changed()

    def _use(self, page):
        self._tabled[page] = 1
        self._read.add(page)

    # Fences.

    def fence_i(self) -> None:
        self.tables.history.fence_i()

    def sfence_vma(self, gva: int | None, asid: int | None) -> None:
        self.tables.sfence_vma(gva, asid)

    # Fetching.

    def fetch(self, pc: int, claim=None) -> int:
        """The instruction at ``pc``; a compressed one in bits 15:0. Raises Trap.

        What ``claim`` says was fetched, or which fault was met, is believed where caches may still
        show it.
        """
        base = self._executable.get(pc >> PAGE_BITS)
        offset = pc & _OFFSET
        if base is not None and offset <= _PAGE - 4:
            place = base + offset
            bits = int.from_bytes(self.ram[place : place + 4], "little")
            bits = bits if bits & 3 == 3 else bits & 0xFFFF
            if claim is None or bits == claim.bits:
                return bits
        fault = claimed = None
        if claim is not None:
            if claim.cause in _FETCH_FAULTS:
                fault = claim.cause, claim.value
            else:
                claimed = claim.bits
        bits = self._fetch_half(pc, None if claimed is None else claimed & 0xFFFF, fault)
        if bits & 3 == 3:
            half = None if claimed is None else claimed >> 16
            bits |= self._fetch_half(pc + 2 & _WORD, half, fault) << 16
        return bits

    def _fetch_half(self, pc, claimed, fault):
        def accept(outcome):
            refusal = outcome.fault
            if refusal is None and self._code_half(outcome.physical) is None:
                refusal = Fault.ACCESS
            if refusal == Fault.EPT:
                return ept_exit(pc, outcome.refusal).trap == fault
            if fault is not None and fault[1] == pc:
                return _FAULTS.get((refusal, Access.FETCH)) == fault[0]
            if refusal is not None:
                return False
            return claimed is None or claimed in self._code_halves(outcome.physical)

        claims = claimed is not None or fault is not None
        physical = self._translate(
            pc, Access.FETCH, self._fetch_context, accept if claims else None
        )
        half = self._code_half(physical)
        if half is None:
            raise Trap(Exception_.INSTRUCTION_ACCESS_FAULT, pc)
        place = physical - _BASE
        if place >= 0:
            self._remember(Access.FETCH, pc, place)
        return claimed if claims and claimed in self._code_halves(physical) else half

    def _code_halves(self, physical):
        """What two bytes of code are, and what an instruction cache may show instead."""
        half = self._code_half(physical)
        if half is not None:
            yield half
            shift = 8 * (physical & 6)
            for word in self.tables.history.code(physical & ~7):
                yield word >> shift & 0xFFFF

    def _code_half(self, physical):
        """Two bytes of code as they stand in memory; None where none can be fetched."""
        place = physical - _BASE
        if 0 <= place < self._fitted:
            return int.from_bytes(self.ram[place : place + 2], "little")
        if physical in _ROM:
            place = physical - _ROM.base
            return int.from_bytes(self.rom[place : place + 2], "little")
        return None

    # Loads and stores.

    def load(self, gva: int, size: int) -> int:
        """The value of ``size`` bytes. Raises Trap."""
        base = self._readable.get(gva >> PAGE_BITS)
        if base is not None:
            offset = gva & _OFFSET
            place = base + offset
            if place + _BASE == self.claimed and offset <= _PAGE - size:
                value = int.from_bytes(self.ram[place : place + size], "little")
                if not self._in_doubt(value, size):
                    self.physical = self.claimed
                    return value
        return self._load(gva, size)

    def store(self, gva: int, size: int, value: int) -> None:
        """Store the low ``size`` bytes. Raises Trap."""
        base = self._writable.get(gva >> PAGE_BITS)
        if base is not None:
            offset = gva & _OFFSET
            place = base + offset
            if place + _BASE == self.claimed and offset <= _PAGE - size:
                data = value.to_bytes(size, "little")
                self._keep(place, data)
                self.physical = self.claimed
                self.ram[place : place + size] = data
                return
        self._store(gva, size, value)

    def _load(self, gva, size):
        low, rest = self._parts(gva, size)
        place = self._place(gva, Access.READ, self.claimed, size)
        first = self.physical
        if place is None:
            return self._device_read(gva, size)
        data = self._bytes(place, low, gva, Access.READ)
        second = 0
        if rest:
            high = gva + low & _WORD
            second = self._second_place(gva, high, Access.READ, size, first)
            data += self._bytes(second, rest, high, Access.READ)
            self.physical = first
        value = int.from_bytes(data, "little")
        if self._in_doubt(value, size):
            value = self._observed(((place, low), (second, rest)), value)
        return value

    def _in_doubt(self, value, size):
        """Whether what was read may be otherwise in A and D, or tells more than was known."""
        claimed = self.claimed_value
        if claimed is None:
            return False
        return bool(self.tables.unsure) or bool((value ^ claimed) & (1 << 8 * size) - 1)

    def _observed(self, parts, value):
        """What was read from the places of ``parts``, A and D being as claimed if they may be."""
        shift = 0
        for place, size in parts:
            if size:
                mask = (1 << 8 * size) - 1
                bits, inside = self.claimed_value >> shift & mask, 8 * (place & 7)
                if self.tables.observe((place & ~7) + _BASE, mask << inside, bits << inside):
                    value = value & ~(mask << shift) | bits << shift
                shift += 8 * size
        return value

    def _store(self, gva, size, value):
        low, rest = self._parts(gva, size)
        place = self._place(gva, Access.WRITE, self.claimed, size)
        first = self.physical
        if place is None:
            self._device_write(gva, size, value)
            return
        data = value.to_bytes(size, "little")
        if rest:
            # Both parts are translated before either is stored, the second one first.
            high = gva + low & _WORD
            second = self._second_place(gva, high, Access.WRITE, size, first)
            self._write(second, data[low:], high)
            self.physical = first
        self._write(place, data[:low], gva)

    @staticmethod
    def _parts(gva, size):
        """Bytes of an access within the first eight-byte word it touches, and in the next."""
        rest = max(0, (gva & 7) + size - 8)
        return size - rest, rest

    def _place(self, gva, access, claimed, size, must_be_ram=False):
        """Offset into RAM of an access, None for a device. Raises Trap."""
        accept = self._accept(gva, access, claimed)
        physical = self._translate(gva, access, self._data_context, accept)
        self.physical = physical
        if physical >> BUS_ADDRESS_BITS:
            raise self._fault(Fault.ACCESS, access, gva)
        if physical in _RAM:
            place = physical - _BASE
            self._remember(access, gva, place)
            return place
        if must_be_ram or gva & size - 1:
            raise self._fault(Fault.ACCESS, access, gva)
        return None

    def _second_place(self, gva, high, access, size, first):
        """Where the part behind a word's end goes; ``first`` is where the other one went."""
        if high >> PAGE_BITS == gva >> PAGE_BITS:
            # One page, one translation, however old.
            return self._place(high, access, first & ~_OFFSET | high & _OFFSET, size, True)
        context = self._data_context
        translated = context.stage or context.paged
        if translated and (canonical(high) or not context.paged) and self.claimed is not None:
            # It retired: some translation let it, and nothing tells which.
            places = {
                outcome.physical
                for outcome in self.tables.possible(high, access, context)
                if not outcome.fault
            }
            if len(places) > 1:
                raise Unknowable(f"{high:#x} may be translated in {len(places)} ways")
            if places:
                return self._place(high, access, places.pop(), size, True)
        return self._place(high, access, None, size, must_be_ram=True)

    def _bytes(self, place, size, gva, access):
        if place + size > self._fitted:
            raise self._fault(Fault.ACCESS, access, gva)
        return self.ram[place : place + size]

    def _write(self, place, data, gva):
        if place + len(data) > self._fitted:
            raise self._fault(Fault.ACCESS, Access.WRITE, gva)
        self._keep(place, data)
        self.ram[place : place + len(data)] = data

    def _device_read(self, gva, size):
        value = None
        physical = self.physical
        if physical in _ROM:
            place = physical - _ROM.base
            return int.from_bytes(self.rom[place : place + size], "little")
        if region_of(physical) is not None:
            value = self.platform.read(physical, size)
        if value is None:
            raise self._fault(Fault.ACCESS, Access.READ, gva)
        return value

    def _device_write(self, gva, size, value):
        physical = self.physical
        region = region_of(physical)
        if region in (None, _ROM) or not self.platform.write(physical, size, value):
            raise self._fault(Fault.ACCESS, Access.WRITE, gva)

    @staticmethod
    def _fault(fault, access, gva):
        return Trap(_FAULTS[fault, access], gva)

    # Atomics: aligned, and in RAM.

    def load_reserved(self, gva: int, size: int) -> int:
        place = self._atomic_place(gva, size, Access.READ, Exception_.LOAD_ADDRESS_MISALIGNED)
        value = int.from_bytes(self._bytes(place, size, gva, Access.READ), "little")
        if self._in_doubt(value, size):
            value = self._observed(((place, size),), value)
        self.reserved = self.physical >> _LINE_BITS
        self._doubtful = False
        return value

    def store_conditional(self, gva: int, size: int, value: int) -> bool:
        """Whether it stored: when the reservation covers the address, and never otherwise."""
        place = self._atomic_place(gva, size, Access.WRITE, Exception_.STORE_ADDRESS_MISALIGNED)
        held = self.reserved == self.physical >> _LINE_BITS
        if held and not self.claimed_store:
            held = not (self._doubtful or self._line_in_doubt())
        if held:
            self._write(place, value.to_bytes(size, "little"), gva)
        self.reserved = None
        self.stored = held
        return held

    def _line_in_doubt(self):
        line = self.reserved << _LINE_BITS
        return any(
            len(self.tables.values(line + offset)) > 1 for offset in range(0, 1 << _LINE_BITS, 8)
        )

    def _updated(self, address, certain):
        """Hardware has set bits in a leaf, or may have."""
        if address >> _LINE_BITS == self.reserved:
            if certain:
                self.reserved = None
            self._doubtful = True

    def modify(self, gva: int, size: int, compute) -> int:
        """Store ``compute`` of the value loaded; the value loaded."""
        place = self._atomic_place(gva, size, Access.WRITE, Exception_.STORE_ADDRESS_MISALIGNED)
        old = int.from_bytes(self._bytes(place, size, gva, Access.WRITE), "little")
        if self._in_doubt(old, size):
            old = self._observed(((place, size),), old)
        elif (
            self.claimed is not None
            and self.claimed_value is None
            and len(self.tables.values((place & ~7) + _BASE)) > 1
            and not place & 7
        ):
            raise Unknowable(f"the entry at {gva:#x} may have had several values")
        self._write(place, compute(old).to_bytes(size, "little"), gva)
        return old

    def _atomic_place(self, gva, size, access, misaligned):
        if gva & size - 1:
            raise Trap(misaligned, gva)
        return self._place(gva, access, self.claimed, size, must_be_ram=True)

    # Physical memory, from outside.

    def write_physical(self, hpa: int, data: bytes) -> None:
        """Another bus master, or the host, writes RAM or ROM."""
        if _ROM.base <= hpa and hpa + len(data) <= _ROM.end:
            place = hpa - _ROM.base
            self.rom[place : place + len(data)] = data
            return
        place = hpa - _BASE
        if not 0 <= place <= place + len(data) <= len(self.ram):
            raise ValueError(f"{len(data)} bytes at {hpa:#x} are neither in RAM nor in ROM")
        for first in range(place - place % _PAGE, place + len(data), _PAGE):
            start = max(first, place)
            end = min(first + _PAGE, place + len(data))
            if start < end:
                self._keep(start, data[start - place : end - place])
        self.ram[place : place + len(data)] = data
        if self.reserved is not None and data:
            first, last = hpa >> _LINE_BITS, hpa + len(data) - 1 >> _LINE_BITS
            if first <= self.reserved <= last:
                self.reserved = None

    def _keep(self, place, data):
        """Note what is about to be overwritten."""
        self.tables.store(place, data)
        if self._tabled[place >> PAGE_BITS]:
            self._forget_views()

    # Translation.

    def _translate(self, gva, access, context, accept=None):
        if not context.paged:
            if not context.stage:
                if gva >> _BARE_BITS:
                    raise self._fault(Fault.ACCESS, access, gva)
                return gva
        elif not canonical(gva):
            raise self._fault(Fault.PAGE, access, gva)
        outcome = self.tables.translate(gva, access, context, accept)
        if outcome.fault == Fault.EPT:
            self.tables.history.violated(gva, outcome.refusal.gpa)
            raise ept_exit(gva, outcome.refusal)
        if outcome.fault:
            raise self._fault(outcome.fault, access, gva)
        return outcome.physical

    def _accept(self, gva, access, claimed):
        """Which outcomes of a load's or store's translation agree with the claims."""
        if claimed is not None:
            return lambda outcome: outcome.fault is None and outcome.physical == claimed
        if self.claimed_fault is None:
            return None
        cause, value = self.claimed_fault

        def accept(outcome):
            refusal, physical = outcome.fault, outcome.physical
            if refusal == Fault.EPT:
                return ept_exit(gva, outcome.refusal).trap == self.claimed_fault
            if refusal is None and not self.tables.readable(physical):
                refusal = Fault.ACCESS
            if value == gva:
                return _FAULTS.get((refusal, access)) == cause
            # A fault at another address is met behind this part, which then was allowed; of a store
            # nothing is written before both parts are translated, and the second part first.
            return refusal is None or (access == Access.WRITE and physical in _RAM)

        return accept

    def _remember(self, access, gva, place):
        """Keep a translation while it holds; stale ones are never kept: they are asked for again."""
        context = self._fetch_context if access == Access.FETCH else self._data_context
        view, first = self._view(access, context), place & ~_OFFSET
        if view.get(gva >> PAGE_BITS) is not None or first + _PAGE > self._fitted:
            return
        if context.paged or context.stage:
            outcome = self.tables.present(gva, access, context)
            if outcome.physical != place + _BASE or outcome.writes():
                return
        view[gva >> PAGE_BITS] = first

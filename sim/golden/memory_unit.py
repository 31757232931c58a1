"""Fetches, loads, stores and atomics: translation, physical memory, reservation."""

from collections.abc import Iterator
from itertools import chain

from rtl.arch.memory_map import BUS_ADDRESS_BITS, MEMORY_MAP, region_of
from rtl.arch.paging import PAGE_BITS, Access
from rtl.arch.traps import Exception_
from sim.golden.history import History
from sim.golden.translation import Context, Fault, Outcome, canonical, outcomes

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
#: What stores must know about a page: code or tables were read there; earlier values are kept.
_TABLE, _KEPT = 1, 2


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
    physical : int
        Where the last load, store or atomic went.
    stored : bool
        Whether the last store-conditional did.
    reserved : int or None
        Line of the reservation.
    """

    def __init__(self, ram_size: int, platform):
        self.platform = platform
        self.ram = bytearray(ram_size)
        self.rom = bytearray(_ROM.size)
        self.claimed: int | None = None
        self.claimed_fault: tuple[int, int] | None = None
        self.physical = 0
        self.stored = False
        self.reserved: int | None = None
        self.history = History()
        self._fitted = ram_size >> _LINE_BITS << _LINE_BITS
        self._watched = bytearray(-(-ram_size // _PAGE))
        self._tables: set[int] = set()  # pages with table entries that views were made from
        # Pages translated since the tables last changed, as offsets into RAM.
        self._views: dict[object, dict[int, int]] = {}
        self._fetch_context = self._data_context = None
        self._paging = False
        bare = Context(False, 3, 0, 0, False, False, False)
        self.switch(bare, bare)

    def switch(self, fetch: Context, data: Context) -> None:
        """From now on fetches, and loads and stores, are translated under these contexts."""
        self._fetch_context, self._data_context = fetch, data
        self._readable = self._view(Access.READ, data)
        self._writable = self._view(Access.WRITE, data)
        self._executable = self._view(Access.FETCH, fetch)
        if (fetch.paged or data.paged) and not self._paging:
            self._paging = True
            for page in range(len(self._watched)):
                self._watched[page] |= _KEPT

    def _view(self, access, context):
        key = (access, context if context.paged else None)
        return self._views.setdefault(key, {})

    def _forget_views(self):
        # In place: the hart's present views are among them.
        for view in self._views.values():
            view.clear()
        for page in self._tables:
            self._watched[page] &= ~_TABLE
        self._tables.clear()

    # Fences.

    def fence_i(self) -> None:
        self.history.fence_i()

    def sfence_vma(self, gva: int | None, asid: int | None) -> None:
        self.history.sfence_vma(gva, asid)

    # Fetching.

    def fetch(self, pc: int) -> int:
        """The instruction at ``pc``; a compressed one in bits 15:0. Raises Trap."""
        base = self._executable.get(pc >> PAGE_BITS)
        offset = pc & _OFFSET
        if base is not None and offset <= _PAGE - 4:
            place = base + offset
            bits = int.from_bytes(self.ram[place : place + 4], "little")
            return bits if bits & 3 == 3 else bits & 0xFFFF
        bits = self._fetch_half(pc)
        if bits & 3 == 3:
            bits |= self._fetch_half(pc + 2 & _WORD) << 16
        return bits

    def _fetch_half(self, pc):
        physical = self._translate(pc, Access.FETCH, self._fetch_context)
        half = self._code_half(physical)
        if half is None:
            raise Trap(Exception_.INSTRUCTION_ACCESS_FAULT, pc)
        place = physical - _BASE
        if place >= 0:
            self._remember(Access.FETCH, pc, place)
            self._watched[place >> PAGE_BITS] |= _KEPT
        return half

    def _code_half(self, physical):
        """Two bytes of code as they stand in memory; None where none can be fetched."""
        place = physical - _BASE
        if 0 <= place < self._fitted:
            return int.from_bytes(self.ram[place : place + 2], "little")
        if physical in _ROM:
            place = physical - _ROM.base
            return int.from_bytes(self.rom[place : place + 2], "little")
        return None

    def may_fetch(self, pc: int, bits: int) -> bool:
        """Whether caches may still show ``bits`` at ``pc``, though tables and memory say otherwise."""
        if not self._may_fetch_half(pc, bits & 0xFFFF):
            return False
        return bits & 3 != 3 or self._may_fetch_half(pc + 2 & _WORD, bits >> 16)

    def _may_fetch_half(self, pc, half):
        for outcome in self._possible(pc, Access.FETCH, self._fetch_context):
            if outcome.fault:
                continue
            if self._code_half(outcome.physical) == half:
                return True
            shift = 8 * (outcome.physical & 6)
            for word in self.history.code(outcome.physical & ~7):
                if word >> shift & 0xFFFF == half:
                    return True
        return False

    def may_fault(self, pc: int, cause: int, value: int) -> bool:
        """Whether a fetch at ``pc`` may still meet that fault, though the tables are mended."""
        if value not in (pc, pc + 2 & _WORD):
            return False
        for outcome in self._possible(value, Access.FETCH, self._fetch_context):
            refusal = outcome.fault
            if refusal is None and self._code_half(outcome.physical) is None:
                refusal = Fault.ACCESS
            if _FAULTS.get((refusal, Access.FETCH)) == cause:
                return True
        return False

    # Loads and stores.

    def load(self, gva: int, size: int) -> int:
        """The value of ``size`` bytes. Raises Trap."""
        base = self._readable.get(gva >> PAGE_BITS)
        if base is not None:
            offset = gva & _OFFSET
            place = base + offset
            if place + _BASE == self.claimed and offset <= _PAGE - size:
                self.physical = self.claimed
                return int.from_bytes(self.ram[place : place + size], "little")
        return self._load(gva, size)

    def store(self, gva: int, size: int, value: int) -> None:
        """Store the low ``size`` bytes. Raises Trap."""
        base = self._writable.get(gva >> PAGE_BITS)
        if base is not None:
            offset = gva & _OFFSET
            place = base + offset
            if place + _BASE == self.claimed and offset <= _PAGE - size:
                if self._watched[place >> PAGE_BITS]:
                    self._keep(place, size)
                self.physical = self.claimed
                self.ram[place : place + size] = value.to_bytes(size, "little")
                return
        self._store(gva, size, value)

    def _load(self, gva, size):
        low, rest = self._parts(gva, size)
        place = self._place(gva, Access.READ, self.claimed, size)
        first = self.physical
        if place is None:
            return self._device_read(gva, size)
        data = self._read(place, low, gva, Access.READ)
        if rest:
            high = gva + low & _WORD
            place = self._second_place(gva, high, Access.READ, size, first)
            data += self._read(place, rest, high, Access.READ)
            self.physical = first
        return int.from_bytes(data, "little")

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
        physical = self._translate(gva, access, self._data_context, claimed)
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
        if context.paged and canonical(high) and self.claimed is not None:
            # It retired: some translation let it, and nothing tells which.
            places = {
                outcome.physical
                for outcome in self._possible(high, access, context)
                if not outcome.fault
            }
            if len(places) > 1:
                raise Unknowable(f"{high:#x} may be translated in {len(places)} ways")
            if places:
                return self._place(high, access, places.pop(), size, True)
        return self._place(high, access, None, size, must_be_ram=True)

    def _read(self, place, size, gva, access):
        if place + size > self._fitted:
            raise self._fault(Fault.ACCESS, access, gva)
        return self.ram[place : place + size]

    def _write(self, place, data, gva):
        if place + len(data) > self._fitted:
            raise self._fault(Fault.ACCESS, Access.WRITE, gva)
        if self._watched[place >> PAGE_BITS]:
            self._keep(place, len(data))
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
        data = self._read(place, size, gva, Access.READ)
        self.reserved = self.physical >> _LINE_BITS
        return int.from_bytes(data, "little")

    def store_conditional(self, gva: int, size: int, value: int) -> bool:
        """Whether it stored: when the reservation covers the address, and never otherwise."""
        place = self._atomic_place(gva, size, Access.WRITE, Exception_.STORE_ADDRESS_MISALIGNED)
        held = self.reserved == self.physical >> _LINE_BITS
        if held:
            self._write(place, value.to_bytes(size, "little"), gva)
        self.reserved = None
        self.stored = held
        return held

    def modify(self, gva: int, size: int, compute) -> int:
        """Store ``compute`` of the value loaded; the value loaded."""
        place = self._atomic_place(gva, size, Access.WRITE, Exception_.STORE_ADDRESS_MISALIGNED)
        old = int.from_bytes(self._read(place, size, gva, Access.WRITE), "little")
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
            if start < end and self._watched[first >> PAGE_BITS]:
                self._keep(start, end - start)
        self.ram[place : place + len(data)] = data
        if self.reserved is not None and data:
            first, last = hpa >> _LINE_BITS, hpa + len(data) - 1 >> _LINE_BITS
            if first <= self.reserved <= last:
                self.reserved = None

    def _keep(self, place, size):
        """Note what is about to be overwritten."""
        page = place >> PAGE_BITS
        for word in range(place & ~7, place + size, 8):
            old = int.from_bytes(self.ram[word : word + 8], "little")
            self.history.store(word + _BASE, old)
        if self._watched[page] & _TABLE:
            self._forget_views()

    # Translation.

    def _translate(self, gva, access, context, claimed=None):
        if not context.paged:
            if gva >> _BARE_BITS:
                raise self._fault(Fault.ACCESS, access, gva)
            return gva
        if not canonical(gva):
            raise self._fault(Fault.PAGE, access, gva)
        outcome = next(outcomes(gva, access, context, self._present))
        if self.claimed_fault is not None and access != Access.FETCH:
            outcome = self._claimed_outcome(outcome, gva, access, context)
        if claimed is not None and outcome.physical != claimed:
            for other in self._earlier(gva, access, context):
                if other.physical == claimed:
                    return claimed
        if outcome.fault:
            raise self._fault(outcome.fault, access, gva)
        if outcome.entry >= 0:
            self._write(outcome.entry - _BASE, outcome.value.to_bytes(8, "little"), gva)
        return outcome.physical

    def _remember(self, access, gva, place):
        """Keep a translation while it holds; stale ones are never kept: they are asked for again."""
        context = self._fetch_context if access == Access.FETCH else self._data_context
        view, first = self._view(access, context), place & ~_OFFSET
        if view.get(gva >> PAGE_BITS) is not None or first + _PAGE > self._fitted:
            return
        if context.paged:
            outcome = next(outcomes(gva, access, context, self._present))
            if outcome.physical != place + _BASE or outcome.entry >= 0:
                return
        view[gva >> PAGE_BITS] = first

    def _claimed_outcome(self, outcome, gva, access, context):
        """An outcome, maybe an older one, that leads to the fault an implementation claims."""
        cause, value = self.claimed_fault
        for other in chain((outcome,), self._earlier(gva, access, context)):
            refusal = self._refusal(other)
            # A fault at another address is met behind this part, which then was allowed.
            if (refusal is None) if value != gva else (_FAULTS.get((refusal, access)) == cause):
                return other
        return outcome

    def _refusal(self, outcome):
        """Why an outcome of a walk gives no access, or None."""
        if outcome.fault:
            return outcome.fault
        return None if self._readable_entry(outcome.physical) else Fault.ACCESS

    def _readable_entry(self, address):
        return 0 <= address - _BASE < self._fitted

    def _present(self, address, level):
        if not self._readable_entry(address):
            return None
        place = address - _BASE
        self._watched[place >> PAGE_BITS] |= _TABLE
        self._tables.add(place >> PAGE_BITS)
        return (int.from_bytes(self.ram[place : place + 8], "little"),)

    def _possible(self, gva, access, context) -> Iterator[Outcome]:
        """The outcome by the tables as they are, then those by what caches may still hold."""
        if not context.paged:
            yield Outcome(fault=Fault.ACCESS) if gva >> _BARE_BITS else Outcome(gva)
        elif not canonical(gva):
            yield Outcome(fault=Fault.PAGE)
        else:
            yield next(outcomes(gva, access, context, self._present))
            yield from self._earlier(gva, access, context)

    def _earlier(self, gva, access, context):
        def entries(address, level):
            present = self._present(address, level)
            if present is None:
                return None
            return chain(present, self.history.entries(address, level, gva, context.asid))

        yield from outcomes(gva, access, context, entries)
        for root, only_global in self.history.roots(context.asid):
            yield from outcomes(gva, access, context, entries, root, only_global)

"""Translation through tables in RAM, with all that caches and speculation may make of it.

Where the architecture leaves a choice, each translation has several outcomes. Those that the
implementation's claims rule out are dropped, and what the rest leaves in memory is kept as a set:
a leaf may then have several values, which differ in A and D.

- A translation may be older than the tables, until SFENCE.VMA (``History``); then hardware has
  not set A and D in the leaf that now stands there.
- Hardware may set A in leaves that nothing that retires has used, by speculation (Privileged
  Architecture, "Virtual Address Translation Process"), which here means fetches. D it may not.
"""

import sys
from collections.abc import Callable, Iterator
from itertools import chain

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import LEVELS, PAGE_BITS, PTE, Access
from rtl.arch.traps import Privilege
from sim.golden.history import History, Space
from sim.golden.translation import Context, Outcome, outcomes, valid_leaf, valid_pointer
from sim.golden.vmx.nested import nested_outcomes
from sim.golden.vmx.speculation import GuestWalks

__all__ = ["PageTables"]

_BASE = MEMORY_MAP["ram"].base
_PAGE = 1 << PAGE_BITS
_A, _U, _PPN = PTE["a"].mask, PTE["u"].mask, PTE["ppn"]
#: A leaf that a speculative fetch may mark has the first two of these, and not the third.
_VX, _VXA = PTE.mask("v", "x"), PTE.mask("v", "x", "a")


class _Walks:
    """When fetches may walk the tables below one root, A being set by hardware.

    ``end`` is the time of the fence after them, None before that; ``fenced`` is when pointers were
    last ruled out before them.
    """

    def __init__(self, context: Context, fenced: int):
        self.root, self.asid = context.root, context.asid
        self.user = context.privilege == Privilege.USER
        self.fenced = fenced
        self.end: int | None = None
        #: Frames of tables, by level.
        self.tables: list[set[int]] | None = None


class PageTables:
    """Translate through the tables in ``ram``; hold what A and D may be.

    Parameters
    ----------
    ram : bytearray
        Where several values are possible it holds the one with the fewest bits set.
    fitted : int
        Bytes of it that answer.
    used : Callable
        Called with the number of each page of RAM that an entry is read from.

    Members
    -------
    history : History
    unsure : dict
        By address: the values of leaves that may have several, fewest bits first. Speculation may
        add A to more.
    updated : Callable
        Called with the address of a leaf whose bits hardware has, or may have, set, and which.
    """

    def __init__(self, ram: bytearray, fitted: int, used: Callable[[int], None]):
        self.history = History()
        self.unsure: dict[int, tuple[int, ...]] = {}
        self.updated: Callable[[int, bool], None] = lambda address, certain: None
        self._ram, self._fitted, self._used = ram, fitted, used
        self._walks: dict[tuple[int, int, bool], _Walks] = {}
        self._walking: _Walks | None = None
        self._guest_walks: dict[Context, GuestWalks] = {}
        self._guest_walking: GuestWalks | None = None
        self._since: dict[int, int] = {}

    # What happens.

    def switch(self, fetch: Context) -> None:
        """From now on fetches are translated under this context."""
        self._walking = None
        stage = fetch.stage
        self.history.use(Space(stage.vpid, stage.root) if stage else None)
        if stage:
            self._switch_guest(fetch)
            return
        for walks in self._guest_walks.values():
            # With an exit they end.
            if walks.end is None:
                walks.end = self.history.now
        if fetch.paged and fetch.update:
            key = fetch.root, fetch.asid, fetch.privilege == Privilege.USER
            walks = self._walks.get(key)
            if walks is None:
                fenced = self.history.fenced_pointers(fetch.asid, True)
                walks = self._walks[key] = _Walks(fetch, fenced)
            walks.end = None
            self._walking = walks

    def _switch_guest(self, fetch):
        self._guest_walking = None
        if not (fetch.update and fetch.stage.update):
            self.history.leave_unmarked()
        if fetch.stage.update or (fetch.paged and fetch.update):
            walks = self._guest_walks.get(fetch)
            if walks is None:
                walks = self._guest_walks[fetch] = GuestWalks(self, fetch)
            walks.end = None
            self._guest_walking = walks

    def sfence_vma(self, gva: int | None, asid: int | None) -> None:
        self.history.sfence_vma(gva, asid)
        if gva is None:
            # A walk that began before the fence ends before it.
            guest = self.history.space is not None
            present = self._guest_walking if guest else self._walking
            for walks in (self._guest_walks if guest else self._walks).values():
                if walks.end is None and walks is not present and asid in (None, walks.asid):
                    walks.end = self.history.now

    def changed(self) -> None:
        """An entry that was read may have changed."""
        for walks in self._walks.values():
            walks.tables = None
        for walks in self._guest_walks.values():
            walks.forget()

    def store(self, place: int, data: bytes) -> None:
        """``data`` is about to be written at ``place`` in RAM."""
        for offset in range(place & ~7, place + len(data), 8):
            address = offset + _BASE
            values = self.values(address)
            for value in values:
                self.history.store(address, value)
            self.unsure.pop(address, None)
            if len(values) > 1 and place > offset:
                # The byte with A and D stays.
                kept = place - offset
                new = data[: 8 - kept]
                self.unsure[address] = tuple(
                    int.from_bytes(_patched(value.to_bytes(8, "little"), kept, new), "little")
                    for value in values
                )

    # What memory may hold.

    def readable(self, address: int) -> bool:
        return 0 <= address - _BASE < self._fitted

    def word(self, address: int) -> int:
        """What RAM has for an entry; from now on a change of its page is a change of tables."""
        self._used(address - _BASE >> PAGE_BITS)
        return self._word(address)

    def _word(self, address):
        place = address - _BASE
        return int.from_bytes(self._ram[place : place + 8], "little")

    def values(self, address: int) -> tuple[int, ...]:
        """What the word at ``address`` may hold, fewest bits first."""
        held = self.unsure.get(address) or (self._word(address),)
        marked = [
            value | _A for value in held if value & _VXA == _VX and self._marked(address, value)
        ]
        if self._guest_walks:
            marked += self._marked_by_guests(address, held)
        return tuple(sorted({*held, *marked})) if marked else held

    def _marked_by_guests(self, address, held):
        """What walks of guests may have made of a leaf, each mark set or not."""
        since = max(self.history.changed(address), self._since.get(address, 0))
        found = []
        for walks in self._guest_walks.values():
            if walks.end is None or walks.end >= since:
                for value in held:
                    marks = walks.marks(address, value)
                    found += [value | marks] if marks else []
                    if marks & _A:
                        found.append(value | _A)
        return found

    def _marked(self, address, leaf):
        """Whether speculation may have set A in a leaf since it stands there."""
        since = max(self.history.changed(address), self._since.get(address, 0))
        frame = address >> PAGE_BITS
        for walks in self._walks.values():
            if walks.user == bool(leaf & _U) and (walks.end is None or walks.end >= since):
                for level, tables in enumerate(self._tables(walks)):
                    if frame in tables and valid_leaf(leaf, level):
                        return True
        return False

    def _tables(self, walks):
        if walks.tables is None:
            walks.tables = [set() for _ in range(LEVELS)]
            walks.tables[-1].add(walks.root)
            for level in range(LEVELS - 1, 0, -1):
                for frame in walks.tables[level]:
                    if self.readable(frame << PAGE_BITS):
                        self._add_below(walks, level, frame << PAGE_BITS)
        return walks.tables

    def _add_below(self, walks, level, table):
        place = table - _BASE
        self._used(place >> PAGE_BITS)
        words = memoryview(self._ram[place : place + _PAGE]).cast("Q")
        for n, word in enumerate(words):
            if sys.byteorder == "big":
                word = int.from_bytes(word.to_bytes(8, "big"), "little")
            for value in chain((word,), self.history.pointers(table + 8 * n, walks.fenced)):
                if valid_pointer(value, level):
                    walks.tables[level - 1].add(_PPN.extract(value))

    def observe(self, address: int, mask: int, bits: int) -> bool:
        """Whether the word at ``address`` may hold ``bits`` under ``mask``; if so, it does."""
        values = self.values(address)
        left = tuple(value for value in values if value & mask == bits)
        if left:
            self._hold(address, values, left)
        return bool(left)

    def _hold(self, address, before, values):
        """Of what a leaf may have been it is one of ``values`` now."""
        if values == before:
            return
        place = address - _BASE
        self._ram[place : place + 8] = values[0].to_bytes(8, "little")
        if len(values) > 1:
            self.unsure[address] = values
        else:
            self.unsure.pop(address, None)
        self._since[address] = self.history.now = self.history.now + 1

    # Translating.

    def translate(
        self,
        gva: int,
        access: Access,
        context: Context,
        accept: Callable[[Outcome], bool] | None = None,
    ) -> Outcome:
        """The outcome for a canonical ``gva``, and what it does to memory.

        ``accept`` says which outcomes agree with the implementation's claims. If none does, or
        without it, the outcome is that of the tables as they are.
        """
        plain = self.present(gva, access, context)
        chosen = [plain]
        if accept is not None:
            if plain.fault is None and not plain.writes() and accept(plain):
                return plain
            chosen = [o for o in self.possible(gva, access, context) if accept(o)] or chosen
        self._settle(chosen)
        return chosen[0]

    def possible(self, gva: int, access: Access, context: Context) -> Iterator[Outcome]:
        """The outcomes by the tables as they may be, then those by what caches may still hold."""

        def entries(address, level, below_global):
            if not self.readable(address):
                return None
            self._used(address - _BASE >> PAGE_BITS)
            older = self.history.entries(address, level, gva, context.asid, below_global)
            return chain(
                ((value, True) for value in self.values(address)),
                ((value, False) for value in older),
            )

        def ept_entries(address, gpa):
            if not self.readable(address):
                return None
            self._used(address - _BASE >> PAGE_BITS)
            older = self.history.ept_entries(address, context.stage.root, gpa)
            return chain(
                ((value, True) for value in self.values(address)),
                ((value, False) for value in older),
            )

        def walks(*root):
            if context.stage:
                unmarked = self.history.unmarked
                return nested_outcomes(
                    gva, access, context, entries, ept_entries, *root, unmarked=unmarked
                )
            return outcomes(gva, access, context, entries, *root)

        yield from walks()
        if context.paged:
            for root, only_global in self.history.roots(context.asid):
                yield from walks(root, only_global)

    def present(self, gva: int, access: Access, context: Context) -> Outcome:
        """The outcome by the tables as RAM has them; memory is left alone."""
        if context.stage:
            return next(nested_outcomes(gva, access, context, self._present, self._present))
        return next(outcomes(gva, access, context, self._present))

    def _present(self, address, *about):
        if not self.readable(address):
            return None
        self._used(address - _BASE >> PAGE_BITS)
        return ((self._word(address), True),)

    def _settle(self, chosen):
        """One of these outcomes is what happened; what do the leaves they used hold now?"""
        used = [{mark.entry: mark for mark in outcome.leaves()} for outcome in chosen]
        for address in set().union(*used):
            before = self.values(address)
            after = set()
            certain = True
            for marks in used:
                if address in marks:
                    mark = marks[address]
                    after.add(mark.value)
                    certain = certain and mark.value != mark.held
                else:
                    after.update(before)
                    certain = False
            if not after <= set(before) or len(before) > 1:
                self.updated(address, certain)
            self._hold(address, before, tuple(sorted(after)))


def _patched(word, place, new):
    return word[:place] + new + word[place + len(new) :]

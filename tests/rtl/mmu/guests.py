"""Random guests: page tables, the extended page table below them, and queries that meet both."""

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE, Access
from rtl.arch.traps import Privilege

__all__ = ["Guest", "random_guest"]

_RAM = MEMORY_MAP["ram"].base // 4096
_RIGHTS = {"v": 1, "r": 1, "w": 1, "x": 1, "a": 1, "d": 1}


def _is_leaf(word):
    return any(PTE.decode(word)[name] for name in "rx")


class Guest:
    """Page tables in ``words`` (by hpa), grown by mapping pages; what is mapped already stays.

    With ``ept_levels`` the tables lie at gpas, which the EPT maps by pages of those sizes, in the
    ``regions``: gpa bits 40:30.
    """

    def __init__(self, schedule, *, ept_levels=(0, 0, 1, 2), regions=(0, 3, 99, 2045)):
        self.words, self._schedule, self._levels = {}, schedule, ept_levels
        self._regions = regions
        #: Where tables lie: hpa frames by gpa frames.
        self.tables = {}
        self.ept_root = _RAM + 4
        self._next = _RAM + 16
        self.root = self._new_table()

    def context(self, **more):
        """A query's context for this guest; its world says whether there is an EPT."""
        nested = int(bool(self._levels))
        return {
            **{"privilege": Privilege.SUPERVISOR, "paged": 1, "root": self.root},
            **{"ept": nested, "world": nested, "ept_root": self.ept_root},
            **more,
        }

    def _allocate(self):
        self._next += 1
        return self._next - 1

    def place(self, frame, level=None, **rights):
        """A gpa frame at which the EPT shows ``frame``."""
        if not self._levels:
            return frame
        choose = self._schedule.choice
        while True:
            size = choose(self._levels) if level is None else level
            # Each size has regions of its own, so that they never meet.
            gpa_frame = choose(self._regions) + size << 18
            for step in range(2):
                index = choose([0, 1, 510, 511]) if step >= size else frame >> 9 * step & 511
                gpa_frame |= index << 9 * step
            table = self.ept_root + (gpa_frame >> 27)
            for step in (2, 1):
                slot = table * 4096 + 8 * (gpa_frame >> 9 * step & 511)
                if step == size:
                    break
                if slot not in self.words:
                    self.words[slot] = PTE.encode(v=1, ppn=self._allocate())
                table = PTE["ppn"].extract(self.words[slot])
            else:
                slot = table * 4096 + 8 * (gpa_frame & 511)
            base = frame >> 9 * size << 9 * size
            entry = PTE.encode(**{**_RIGHTS, "u": 1, **rights}, ppn=base)
            if PTE["ppn"].extract(self.words.setdefault(slot, entry)) == base:
                return gpa_frame

    def _new_table(self):
        frame = self._allocate()
        gpa_frame = self.place(frame)
        self.tables[gpa_frame] = frame
        return gpa_frame

    def map(self, gva, gpa_frame, level=0, **rights):
        table = self.root
        for step in (2, 1, 0):
            slot = self.tables[table] * 4096 + 8 * (gva >> 12 + 9 * step & 511)
            if step == level:
                base = gpa_frame >> 9 * level << 9 * level
                self.words.setdefault(slot, PTE.encode(**{**_RIGHTS, **rights}, ppn=base))
                return
            if slot not in self.words:
                self.words[slot] = PTE.encode(v=1, ppn=self._new_table())
            if _is_leaf(self.words[slot]):
                return
            table = PTE["ppn"].extract(self.words[slot])


def random_guest(schedule, *, pages=6, flaws=3, nested=True):
    """A guest with some pages, entries of which have a bit wrong, and a maker of queries for it."""
    choose = schedule.choice
    guest = Guest(schedule, ept_levels=(0, 0, 1, 2) if nested else ())
    gvas, gpas = [], []

    def some_rights(**more):
        rights = choose(["rwx", "rwx", "rwx", "r", "x", "rx", "rw"])
        return {
            **{name: int(name in rights) for name in "rwx"},
            **{"a": choose([1, 1, 1, 0]), "d": choose([1, 1, 0]), "g": choose([0, 0, 0, 1])},
            **more,
        }

    for _ in range(pages):
        frame = choose([_RAM, 0, 0x8_0000_0000]) + schedule.getrandbits(20)
        gpa_frame = guest.place(frame, **some_rights(u=choose([1, 1, 1, 1, 0])))
        gvas.append(
            choose([0, 1, 511]) << 30 | choose([0, 1, 511]) << 21 | choose([0, 1, 511]) << 12
        )
        gpas.append(gpa_frame << 12)
        guest.map(gvas[-1], gpa_frame, choose([0, 0, 1, 2]), **some_rights(u=choose([0, 0, 1])))
    for _ in range(choose([0, 0, flaws])):
        slot = choose(sorted(guest.words))
        guest.words[slot] ^= 1 << choose([0, 1, 2, 3, 4, 6, 7, 6, 7, *range(64)])

    def query():
        paged = not nested or schedule.random() < 0.9
        address = choose(gvas if paged else gpas) ^ choose([0, 0, 0, 4096, 1 << 21])
        if paged:
            address %= 1 << 39
            address |= ((1 << 64) - (1 << 39)) * (address >> 38)
        elif schedule.random() < 0.1:
            address |= 1 << choose([40, 41, 45, 56, 63])
        return {
            "gva": address | schedule.getrandbits(12),
            "access": choose(list(Access)),
            "context": guest.context(
                paged=int(paged),
                privilege=choose([Privilege.SUPERVISOR, Privilege.USER]),
                sum=choose([0, 1]),
                mxr=choose([0, 1]),
                adue=choose([0, 1, 1]),
                ept_ad=choose([0, 1, 1]) if nested else 0,
            ),
        }

    return guest, query

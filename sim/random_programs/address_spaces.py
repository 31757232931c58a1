"""Random Sv39 tables over the pages of a program."""

from dataclasses import dataclass, field
from random import Random

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import LEVELS, PAGE_BITS, PTE, SATP, VIRTUAL_BITS, VPN_BITS, SatpMode

__all__ = ["AddressSpace", "Tables"]

_PAGE = 1 << PAGE_BITS
_RAM = MEMORY_MAP["ram"].base
_ENTRIES = 1 << VPN_BITS
_WORD = (1 << 64) - 1
#: Indices into root tables that programs use: both halves, their edges, and where RAM lies.
_IDENTITY = _RAM >> PAGE_BITS + 2 * VPN_BITS
_PLACES = (1, 3, 4, 7, 127, 254, 255, 256, 257, 300, 500, 510, 511)

#: Where nobody answers.
_NOWHERE = (1 << 32, 1 << 55, 0x4000_0000, _RAM + (1 << 30))


def _shift(level):
    return PAGE_BITS + VPN_BITS * level


def _canonical(gva):
    sign = 1 << VIRTUAL_BITS - 1
    return (gva & (1 << VIRTUAL_BITS) - 1 ^ sign) - sign & _WORD


def leaf(hpa: int, flags: str, extra: int = 0) -> int:
    """A leaf for the frame of ``hpa`` with the named flags."""
    ppn = PTE["ppn"].insert(0, hpa >> PAGE_BITS & PTE["ppn"].mask >> PTE["ppn"].lsb)
    return ppn | PTE.mask(*flags) | extra


@dataclass
class AddressSpace:
    """One root table, and what it maps.

    Members
    -------
    satp : int
        Without ASID.
    code : dict
        By page of code (its hpa): the gva that maps it for supervisor (False) or user (True).
    handler : int
        The gva of the S-mode handlers' page.
    data : list of (gva, entry)
        Pages of data, with the hpa of the entry that maps each.
    identity : bool
        RAM lies at its own addresses.
    devices : bool
        Devices lie at their own addresses.
    """

    root: int
    satp: int = 0
    code: dict[tuple[int, bool], int] = field(default_factory=dict)
    handler: int = 0
    data: list[tuple[int, int]] = field(default_factory=list)
    identity: bool = False
    devices: bool = False


class Tables:
    """Tables made page by page from ``base`` (hpa), at most ``pages`` of them.

    ``words`` are the entries made, by hpa.
    """

    def __init__(self, draw: Random, base: int, pages: int):
        self._draw = draw
        self._next, self._end = base, base + pages * _PAGE
        self.words: dict[int, int] = {}
        self._below: dict[int, int] = {}

    def _table(self) -> int:
        if self._next == self._end:
            raise MemoryError("no page is left for tables")
        self._next += _PAGE
        return self._next - _PAGE

    def _map(self, root: int, gva: int, level: int, pte: int) -> int:
        """Enter a leaf; the hpa of its entry."""
        table = root
        for depth in range(LEVELS - 1, level, -1):
            place = table + 8 * (gva >> _shift(depth) & _ENTRIES - 1)
            if place not in self._below:
                self._below[place] = self._table()
                global_ = "g" if self._draw.random() < 0.06 else ""
                self.words[place] = leaf(self._below[place], "v" + global_)
            table = self._below[place]
        place = table + 8 * (gva >> _shift(level) & _ENTRIES - 1)
        self.words[place] = pte
        return place

    def space(self, code: list[int], data: list[int], handler: int) -> AddressSpace:
        """A space over pages of code and data and the page of the handlers (all hpa)."""
        draw = self._draw
        space = AddressSpace(self._table())
        space.satp = SATP.encode(mode=SatpMode.SV39, ppn=space.root >> PAGE_BITS)
        places = draw.sample(_PLACES, len(_PLACES))
        g = "g" if draw.random() < 0.3 else ""

        space.identity = draw.random() < 0.8
        if space.identity:
            level = draw.choice((1, 2, 2))
            self._map(space.root, _RAM, level, leaf(_RAM, "vrwxad" + g))
        space.devices = draw.random() < 0.5
        if space.devices:
            user = "u" if draw.random() < 0.2 else ""
            self._map(space.root, 0, 2, leaf(0, "vrwad" + user))

        space.handler = self._place(places.pop(), 0)
        self._map(space.root, space.handler, 0, leaf(handler, "vrxad" + g))
        for user in (False, True):
            self._code(space, places.pop(), code, user)
        self._data(space, places.pop(), data)
        self._superpages(space, places.pop())
        return space

    def _place(self, index, level):
        """A random gva below entry ``index`` of the root, aligned for ``level``."""
        gva = index << _shift(2) | self._draw.getrandbits(_shift(2))
        if self._draw.random() < 0.4:  # near the end, where carries go far
            gva |= (1 << _shift(2)) - 1 & ~((1 << _shift(1)) - 1)
        return _canonical(gva >> _shift(level) << _shift(level))

    def _code(self, space, index, code, user):
        draw = self._draw
        base = self._place(index, 1) + draw.randrange(0, _ENTRIES - len(code)) * _PAGE
        for n, page in enumerate(code):
            flags = "vrxad" + ("u" if user else "") + ("w" if draw.random() < 0.5 else "")
            if draw.random() < 0.06:
                flags = flags.replace(draw.choice("vrxadu"), "")
            frame = page if draw.random() < 0.98 else draw.choice(_NOWHERE)
            pte = leaf(frame, flags, draw.choice((0, 0, 0, PTE["g"].mask)))
            gva = _canonical(base + n * _PAGE)
            self._map(space.root, gva, 0, pte)
            space.code[page, user] = gva

    def _data(self, space, index, data):
        draw = self._draw
        base = self._place(index, 1) + draw.randrange(0, _ENTRIES - 16) * _PAGE
        for n in range(16):
            gva = _canonical(base + n * _PAGE)
            entry = self._map(space.root, gva, 0, self._odd_leaf(draw.choice(data), 0))
            space.data.append((gva, entry))

    def _superpages(self, space, index):
        draw = self._draw
        for n in draw.sample(range(_ENTRIES), 4):
            gva = _canonical(index << _shift(2) | n << _shift(1))
            hpa = _RAM if draw.random() < 0.8 else _RAM + draw.choice((_PAGE, 1 << 21, 1 << 30))
            entry = self._map(space.root, gva, 1, self._odd_leaf(hpa, 1))
            # Most of a superpage lies behind the end of RAM; data begin here.
            space.data.append((gva + draw.choice((0x10000, 0x11FF8, 0x12000)), entry))

    def _odd_leaf(self, hpa, level):
        """A leaf for data; one in four is not what loads and stores want."""
        draw = self._draw
        flags = "vrwad" + draw.choice(("", "", "u")) + draw.choice(("", "", "x", "g"))
        extra = 0
        if draw.random() < 0.25:
            match draw.randrange(9):
                case 0 | 1:
                    flags = flags.replace("d", "")
                case 2:
                    flags = flags.replace("a", "")
                case 3:
                    flags = flags.replace(draw.choice("vrw"), "")
                case 4:
                    flags = draw.choice(("vxad", "vxaud", "vwad", "vad", "v"))
                case 5:
                    extra = 1 << draw.randrange(54, 64)
                case 6:
                    hpa = draw.choice(_NOWHERE)
                case 7:
                    extra = draw.randrange(4) << PTE["rsw"].lsb
                case 8:
                    flags = "v" + "".join(f for f in "rwxugad" if draw.random() < 0.5)
        return leaf(hpa, flags, extra)

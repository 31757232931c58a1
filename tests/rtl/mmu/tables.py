"""Small random page tables, and queries that meet them."""

from hypothesis import strategies as st

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE, Access
from rtl.arch.traps import Privilege
from rtl.mmu.context import FRAME_BITS

__all__ = ["TABLES", "contexts", "memories", "pte_words", "queries", "translated"]

_RAM = MEMORY_MAP["ram"]
#: Frames of the tables; the last one is the last frame of RAM.
TABLES = (*(_RAM.base // 4096 + k for k in (0, 1, 2, 5, 0x400)), _RAM.end // 4096 - 1)
#: Frames at and beyond the edges of what a walk may read.
_OUTSIDE = (0, 1, _RAM.base // 4096 - 1, _RAM.end // 4096, TABLES[0] | 1 << 43)
_INDICES = (0, 1, 256, 511)
SLOTS = tuple(frame * 4096 + index * 8 for frame in TABLES for index in _INDICES)


def _often(usual, rare, odds=8):
    """``usual``, and once in a while ``rare`` (one_of would count equal strategies once)."""
    return st.integers(0, odds).flatmap(lambda k: rare if k == odds else usual)


def _pointers_to(tables):
    return st.builds(
        lambda frame, g, rsw: PTE.encode(v=1, g=g, rsw=rsw, ppn=frame),
        st.sampled_from(tables),
        _often(st.just(0), st.just(1)),
        _often(st.just(0), st.just(3)),
    )


_leaves = st.builds(
    lambda rwx, u, ad, g, frame, align: (
        PTE.encode(v=1, g=g, ppn=frame >> align << align) | rwx << 1 | u << 4 | ad << 6
    ),
    st.sampled_from([1, 3, 3, 4, 5, 7, 7, 7]),
    st.integers(0, 1),
    _often(st.just(3), st.integers(0, 3), 3),
    _often(st.just(0), st.just(1), 4),
    st.integers(0, 2**44 - 1),
    _often(st.just(18), st.sampled_from([0, 9])),
)
_pointers = _pointers_to(TABLES)
_odd = st.one_of(
    st.just(0),
    st.integers(0, 2**64 - 1),
    st.builds(lambda frame: PTE.encode(v=1, ppn=frame), st.sampled_from(_OUTSIDE)),
    # A good entry with one bit changed.
    st.builds(lambda word, bit: word ^ 1 << bit, _pointers | _leaves, st.integers(0, 63)),
)
_down = _pointers_to(TABLES[2:])
_roots = _often(_down, _leaves | _odd, 5)
_middle = _often(_pointers_to(TABLES[4:]), _leaves | _pointers | _odd, 2)
_last = _often(_leaves, _pointers | _odd)
#: Words of memory by address, what is not in it is 0: roots first, tables of leaves last, and
#: everything that can be wrong among them.
memories = st.fixed_dictionaries(
    {slot: (_roots, _middle, _last)[k // (2 * len(_INDICES))] for k, slot in enumerate(SLOTS)}
)
#: Any entry.
pte_words = st.one_of(_pointers, _leaves, _leaves, _odd)

_gvas = st.builds(
    lambda indices, offset: (
        (sum(i << s for i, s in zip(indices, (12, 21, 30), strict=True))) | offset
    ),
    st.tuples(*3 * [st.sampled_from(_INDICES)]),
    st.integers(0, 4095),
).map(lambda gva: gva | ((1 << 64) - (1 << 39)) * (gva >> 38 & 1))

#: Contexts of paged queries, crowded into few spaces.
contexts = st.fixed_dictionaries(
    {
        "hart": st.integers(0, 15),
        "world": st.sampled_from([0, 0, 0, 1]),
        "vpid": st.sampled_from([0, 0, 0, 1]),
        "ept_tag": st.sampled_from([0, 0, 0, 2]),
        "asid": st.sampled_from([0, 1, 0x8001]),
        "privilege": st.sampled_from([Privilege.SUPERVISOR, Privilege.USER]),
        "sum": st.sampled_from([0, 1, 1]),
        "mxr": st.integers(0, 1),
        "paged": st.just(1),
        "root": st.sampled_from([*6 * TABLES[:2], _OUTSIDE[-2], _OUTSIDE[-1]]),
    }
)
queries = st.fixed_dictionaries(
    {"gva": _gvas, "access": st.sampled_from(list(Access)), "context": contexts}
)


def translated(frame):
    """A frame number as translations give it: beyond the bus all are alike."""
    bus = 1 << FRAME_BITS - 1
    return frame % bus + bus * (frame >= bus)

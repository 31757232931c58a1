"""The walk in software against the algorithm of the manual, written anew on dictionaries."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.paging import Access
from sw_vmm.hart import Trap
from sw_vmm.interpreter.sv39 import Context, is_canonical, walk

READ, WRITE, FETCH = Access.READ, Access.WRITE, Access.FETCH
U, S = 0, 1
PAGE_FAULTS = {READ: 13, WRITE: 15, FETCH: 12}
ACCESS_FAULTS = {READ: 5, WRITE: 7, FETCH: 1}
#: Frames the tables stand in; the walk may also be led out of RAM.
FRAMES = (0x80000, 0x80001, 0x80002, 0x80003, 0x90000)
OUTSIDE = 0x12345


def manual(memory, gva, access, context):
    """Section "Virtual Address Translation Process": the gpa, or (cause,)."""
    fault, bus = (PAGE_FAULTS[access],), (ACCESS_FAULTS[access],)
    if not -(1 << 38) <= (gva - (1 << 64) if gva >> 63 else gva) < 1 << 38:
        return fault
    vpn = [gva >> 12 & 511, gva >> 21 & 511, gva >> 30 & 511]
    a, i = (context.satp % (1 << 44)) * 4096, 2
    while True:
        if a // 4096 == OUTSIDE:
            return bus
        pte = memory.get(a + vpn[i] * 8, 0)
        v, r, w, x, u, _, accessed, dirty = (pte >> bit & 1 for bit in range(8))
        if not v or (w and not r) or pte >> 54:
            return fault
        ppn = pte >> 10 & (1 << 44) - 1
        if r or x:
            break
        i -= 1
        if i < 0 or u or accessed or dirty:
            return fault
        a = ppn * 4096
    if context.privilege == U and not u:
        return fault
    if context.privilege == S and u and (access == FETCH or not context.sum):
        return fault
    if access == READ and not (r or (context.mxr and x)):
        return fault
    if (access == WRITE and not w) or (access == FETCH and not x):
        return fault
    if ppn % (1 << 9 * i) or not accessed or (access == WRITE and not dirty):
        return fault
    return (ppn >> 9 * i << 9 * i) * 4096 + gva % (1 << 12 + 9 * i)


@st.composite
def entries(draw):
    flags = draw(st.integers(0, 255))
    if draw(st.booleans()):
        flags = flags & 0xF0 | 1 if draw(st.booleans()) else flags | 0xC1
    frame = draw(st.sampled_from([*FRAMES, OUTSIDE, 0x80200, 0x80201, 0x40000, 0x40200]))
    reserved = draw(st.sampled_from([0] * 7 + [1])) << draw(st.integers(54, 63))
    return flags | frame << 10 | reserved


@settings(max_examples=600, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(FRAMES), st.sampled_from([0, 1, 511]), entries()), max_size=24
    ),
    st.lists(st.sampled_from([0, 1, 511]), min_size=3, max_size=3),
    st.integers(0, 4095),
    st.sampled_from([READ, WRITE, FETCH]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0] * 9 + [1 << 40, 1 << 63]),
)
def test_walk_follows_the_manual(rows, vpn, offset, access, supervisor, sum_, mxr, spoil):
    memory = {frame * 4096 + index * 8: entry for frame, index, entry in rows}
    gva = vpn[2] << 30 | vpn[1] << 21 | vpn[0] << 12 | offset
    if gva >> 38:
        gva |= (1 << 64) - (1 << 39)
    gva ^= spoil
    context = Context(8 << 60 | FRAMES[0], S if supervisor else U, sum_, mxr)

    def read_entry(gpa):
        return None if gpa // 4096 == OUTSIDE else memory.get(gpa, 0)

    expected = manual(memory, gva, access, context)
    try:
        result = walk(read_entry, gva, access, context)
    except Trap as trap:
        assert trap.tval == gva
        result = (int(trap.cause),)
    assert result == expected


def test_canonical_addresses_repeat_bit_38():
    assert is_canonical(0) and is_canonical((1 << 38) - 1) and is_canonical((1 << 64) - 1)
    assert is_canonical((1 << 64) - (1 << 38))
    assert not is_canonical(1 << 38) and not is_canonical(1 << 63)

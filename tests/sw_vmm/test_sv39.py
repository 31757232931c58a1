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
FRAMES = (0x80000, 0x80001, 0x80002, 0x80003)
OUTSIDE = 0x12345


def manual(memory, gva, access, context):
    """Section "Virtual Address Translation Process": the gpa, or (cause,); marks the entry."""
    fault, bus = (PAGE_FAULTS[access],), (ACCESS_FAULTS[access],)
    if not -(1 << 38) <= (gva - (1 << 64) if gva >> 63 else gva) < 1 << 38:
        return fault
    vpn = [gva >> 12 & 511, gva >> 21 & 511, gva >> 30 & 511]
    a, i = (context.satp % (1 << 44)) * 4096, 2
    while True:
        if a // 4096 == OUTSIDE:
            return bus
        place = a + vpn[i] * 8
        pte = memory.get(place, 0)
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
    if ppn % (1 << 9 * i):
        return fault
    if not accessed or (access == WRITE and not dirty):
        if not context.update:
            return fault
        memory[place] = pte | 1 << 6 | (access == WRITE) << 7
    return (ppn >> 9 * i << 9 * i) * 4096 + gva % (1 << 12 + 9 * i)


#: Flags of a leaf: any, but often one that allows a lot.
LEAF_FLAGS = st.integers(0, 255) | st.sampled_from([0xC7, 0xCF, 0xDF, 0xD7, 0xCB, 0xDB, 0x4B, 0x47])
LEAF_FRAMES = st.sampled_from([0x40000, 0x80200, 0x80201, 0x80000, OUTSIDE])


@st.composite
def tables(draw, vpn):
    """Tables whose entries lead from the root to a leaf, with a few bits flipped."""
    memory, table, leaf_level = {}, FRAMES[0], draw(st.integers(0, 2))
    for level in (2, 1, 0):
        place = table * 4096 + vpn[level] * 8
        if level == leaf_level:
            memory[place] = draw(LEAF_FRAMES) << 10 | draw(LEAF_FLAGS)
            break
        # Mostly a table, sometimes the same one again, or none.
        table = draw(st.sampled_from([FRAMES[3 - level]] * 6 + [FRAMES[0], OUTSIDE]))
        memory[place] = table << 10 | 1
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        memory[draw(st.sampled_from(sorted(memory)))] ^= 1 << draw(
            st.integers(0, 9) | st.integers(0, 63)
        )
    return memory


@settings(max_examples=800, deadline=None)
@given(st.data())
def test_walk_follows_the_manual(data):
    vpn = [data.draw(st.sampled_from([0, 1, 511])) for _ in range(3)]
    memory = data.draw(tables(vpn))
    access = data.draw(st.sampled_from([READ, WRITE, FETCH]))
    spoil = data.draw(st.sampled_from([0] * 9 + [1 << 40, 1 << 63]))
    gva = vpn[2] << 30 | vpn[1] << 21 | vpn[0] << 12 | data.draw(st.integers(0, 4095))
    if gva >> 38:
        gva |= (1 << 64) - (1 << 39)
    gva ^= spoil
    privilege = data.draw(st.sampled_from([U, S]))
    context = Context(8 << 60 | FRAMES[0], privilege, *(data.draw(st.booleans()) for _ in range(3)))
    written = dict(memory)

    def read_entry(gpa):
        return None if gpa // 4096 == OUTSIDE else memory.get(gpa, 0)

    expected = manual(written, gva, access, context)
    try:
        result = walk(read_entry, gva, access, context, memory.__setitem__)
    except Trap as trap:
        assert trap.tval == gva
        result = (int(trap.cause),)
    assert result == expected
    assert memory == written


def test_canonical_addresses_repeat_bit_38():
    assert is_canonical(0) and is_canonical((1 << 38) - 1) and is_canonical((1 << 64) - 1)
    assert is_canonical((1 << 64) - (1 << 38))
    assert not is_canonical(1 << 38) and not is_canonical(1 << 63)

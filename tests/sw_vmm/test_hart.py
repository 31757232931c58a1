"""The virtual hart against the Privileged Architecture, stated anew by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.csrs import CSRS
from sw_vmm.hart import CsrFunction, Hart, Trap

U, S, M = 0, 1, 3
ALL = (1 << 64) - 1
INTERRUPT = 1 << 63
NUMBERS = {name: csr.number for name, csr in CSRS.items()}
#: mstatus bits, as the manual draws them.
SIE, MIE, SPIE, MPIE, SPP, MPP = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 8, 3 << 11
MPRV, TVM, TW, TSR = 1 << 17, 1 << 20, 1 << 21, 1 << 22
ORDER = (11, 3, 7, 9, 1, 5)
#: Every bit of mstatus on or off with the same chance, and sets of interrupts likewise.
STATUS = st.sets(st.sampled_from(range(24))).map(lambda bits: sum(1 << bit for bit in bits))
SOME = st.sets(st.sampled_from(ORDER)).map(lambda bits: sum(1 << bit for bit in bits))


class Platform:
    """Lines and a timer that a test sets."""

    def __init__(self):
        self.bits = 0

    def mtime(self, now):
        return now // 10

    def cycle_of(self, tick, now):
        return now if tick <= now // 10 else 10 * tick

    def lines(self, now):
        return self.bits

    def next_event(self, now, interest):
        return None


def make(privilege=M, **values):
    hart = Hart(Platform())
    for name, value in values.items():
        write(hart, name, value)
    hart.privilege = privilege
    return hart


def access(hart, name, operand=0, function=CsrFunction.WRITE, writes=True):
    number = NUMBERS[name] if isinstance(name, str) else name
    return hart.access_csr(number, function, operand, writes=writes, instruction=0xABCD)


def write(hart, name, value):
    access(hart, name, value)


def read(hart, name):
    return access(hart, name, function=CsrFunction.SET, writes=False)


# -- CSRs ------------------------------------------------------------------------------------------


def legal(number, privilege, writes):
    """The rule of the manual's CSR address map, for the CSRs this hart has."""
    exists = (
        number in (0x100, 0x104, 0x105, 0x106, 0x10A, 0x140, 0x141, 0x142, 0x143, 0x144, 0x14D)
        or number in (0x180, 0x300, 0x301, 0x302, 0x303, 0x304, 0x305, 0x306, 0x30A, 0x320)
        or 0x323 <= number <= 0x33F
        or 0x340 <= number <= 0x344
        or (0x3A0 <= number <= 0x3AF and number % 2 == 0)
        or 0x3B0 <= number <= 0x3EF
        or 0x7A0 <= number <= 0x7A3
        or (0xB00 <= number <= 0xB1F and number != 0xB01)
        or 0xC00 <= number <= 0xC1F
        or 0xF11 <= number <= 0xF15
    )
    if not exists or privilege < (number >> 8 & 3) or (writes and number >> 10 == 3):
        return False
    # Nothing is enabled below M after reset: no counters, no stimecmp.
    return privilege == M or not (0xC00 <= number <= 0xC1F or number == 0x14D)


@pytest.mark.parametrize("privilege", [U, S, M])
@pytest.mark.parametrize("writes", [False, True])
def test_every_csr_number_is_legal_where_the_manual_says(privilege, writes):
    for number in range(4096):
        hart = make(privilege)
        try:
            access(hart, number, writes=writes)
        except Trap as trap:
            assert (trap.cause, trap.tval) == (2, 0xABCD)
            assert not legal(number, privilege, writes), hex(number)
        else:
            assert legal(number, privilege, writes), hex(number)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mstatus", 0xA_007E_19AA),
        ("sstatus", 0x2_000C_0122),
        ("misa", 0x8000_0000_0014_1105),
        ("medeleg", 0xB3FF),
        ("mideleg", 0x222),
        ("mie", 0xAAA),
        ("mip", 0x222),
        ("mtvec", ALL - 2),
        ("mepc", ALL - 1),
        ("mcause", INTERRUPT | 0x3F),
        ("mtval", ALL),
        ("satp", 0),
        ("stimecmp", ALL),
        ("menvcfg", INTERRUPT | 1 << 61 | 1),
        ("mcounteren", 0xFFFF_FFFF),
        ("mcountinhibit", 0x7FD),
        ("pmpaddr0", 0),
        ("mhpmcounter3", ALL),
        ("mhpmcounter10", ALL),
        ("mhpmcounter11", 0),
        ("mhpmevent3", 31),
        ("mhpmevent11", 0),
        ("sie", 0),
        ("sip", 0),
    ],
)
def test_all_ones_leave_what_exists(name, expected):
    hart = make()
    write(hart, name, ALL)
    assert read(hart, name) == expected


def test_mpp_and_satp_keep_their_values_on_reserved_encodings():
    hart = make(mstatus=1 << 11, satp=8 << 60 | 5)
    write(hart, "mstatus", 2 << 11)
    assert read(hart, "mstatus") & MPP == 1 << 11
    write(hart, "satp", 9 << 60 | 7)
    assert read(hart, "satp") == 8 << 60 | 5


@given(st.integers(0, ALL), st.integers(0, ALL))
def test_set_and_clear_change_only_the_named_bits(old, operand):
    for function, expected in ((2, old | operand), (3, old & ~operand)):
        hart = make(mscratch=old)
        assert access(hart, "mscratch", operand, function) == old
        assert read(hart, "mscratch") == expected


def test_a_device_line_is_read_but_not_set_by_software():
    hart = make()
    hart._platform.bits = 1 << 9
    assert access(hart, "mip", 0, CsrFunction.SET) == 1 << 9
    hart._platform.bits = 0
    assert read(hart, "mip") == 0
    write(hart, "mip", 1 << 9)
    hart._platform.bits = 1 << 9
    access(hart, "mip", 1 << 9, CsrFunction.CLEAR)
    assert read(hart, "mip") == 1 << 9
    hart._platform.bits = 0
    assert read(hart, "mip") == 0


def test_supervisor_views_show_only_what_is_delegated():
    hart = make(mideleg=1 << 1 | 1 << 5, mie=0xAAA, mip=0x222)
    assert read(hart, "sie") == 0x22
    assert read(hart, "sip") == 0x22
    write(hart, "sie", 0)
    assert read(hart, "mie") == 0xA88
    write(hart, "sip", 0)
    assert read(hart, "mip") == 0x220


def test_stimecmp_drives_the_timer_bit_while_enabled():
    hart = make(mip=1 << 5)
    assert read(hart, "mip") == 1 << 5
    write(hart, "menvcfg", INTERRUPT)
    write(hart, "stimecmp", 7)
    hart.now = 69
    assert read(hart, "mip") == 0
    hart.now = 70
    assert read(hart, "mip") == 1 << 5
    write(hart, "mip", 0)
    assert read(hart, "mip") == 1 << 5


@pytest.mark.parametrize("name", ["cycle", "time", "instret", "hpmcounter7"])
def test_counters_need_a_bit_for_each_level(name):
    bit = 1 << (NUMBERS[name] & 31)
    for privilege, mcounteren, scounteren, allowed in (
        (S, 0, bit, False),
        (S, bit, 0, True),
        (U, bit, 0, False),
        (U, 0, bit, False),
        (U, bit, bit, True),
        (M, 0, 0, True),
    ):
        hart = make(privilege, mcounteren=mcounteren, scounteren=scounteren)
        if allowed:
            read(hart, name)
        else:
            with pytest.raises(Trap):
                read(hart, name)


def test_stimecmp_from_s_needs_stce_and_tm():
    for stce, tm, allowed in ((0, 2, False), (INTERRUPT, 0, False), (INTERRUPT, 2, True)):
        hart = make(S, menvcfg=stce, mcounteren=tm)
        if allowed:
            write(hart, "stimecmp", 1)
        else:
            with pytest.raises(Trap):
                write(hart, "stimecmp", 1)


def test_counters_run_stop_and_can_be_written():
    hart = make()
    hart.now, hart.instret = 1000, 50
    assert (read(hart, "mcycle"), read(hart, "cycle"), read(hart, "minstret")) == (1000, 1000, 50)
    write(hart, "mcycle", 7)
    write(hart, "minstret", 100)
    hart.now, hart.instret = 1010, 51
    # minstret does not count the instruction that wrote it.
    assert (read(hart, "mcycle"), read(hart, "minstret")) == (17, 100)
    write(hart, "mcountinhibit", 1)
    hart.now, hart.instret = 2000, 61
    assert (read(hart, "mcycle"), read(hart, "minstret")) == (17, 110)
    write(hart, "mcountinhibit", 4)
    hart.now, hart.instret = 2005, 70
    assert (read(hart, "mcycle"), read(hart, "minstret")) == (22, 110)


def test_event_counters_keep_what_is_written():
    """A guest finds those of the real hart; here they count nothing."""
    hart = make(mhpmevent4=1, mhpmcounter4=77)
    hart.now, hart.instret = 1000, 50
    assert (read(hart, "mhpmevent4"), read(hart, "mhpmcounter4")) == (1, 77)
    assert (read(hart, "hpmcounter4"), read(hart, "hpmcounter5")) == (77, 0)


# -- privileged instructions -----------------------------------------------------------------------


def raises(action):
    try:
        action(0xABCD)
    except Trap as trap:
        return (trap.cause, trap.tval) == (2, 0xABCD)
    return False


@pytest.mark.parametrize(
    ("name", "privilege", "mstatus", "illegal"),
    [
        ("mret", M, 0, False),
        ("mret", S, 0, True),
        ("mret", U, 0, True),
        ("sret", M, TSR, False),
        ("sret", S, 0, False),
        ("sret", S, TSR, True),
        ("sret", U, 0, True),
        ("wfi", M, TW, False),
        ("wfi", S, 0, False),
        ("wfi", S, TW, True),
        ("wfi", U, 0, True),
        ("sfence_vma", M, TVM, False),
        ("sfence_vma", S, 0, False),
        ("sfence_vma", S, TVM, True),
        ("sfence_vma", U, 0, True),
    ],
)
def test_privileged_instructions_trap_where_they_must(name, privilege, mstatus, illegal):
    hart = make(privilege, mstatus=mstatus)
    assert raises(getattr(hart, name)) == illegal


def test_satp_traps_in_s_under_tvm():
    for mstatus, illegal in ((0, False), (TVM, True)):
        hart = make(S, mstatus=mstatus)
        assert raises(lambda _, hart=hart: read(hart, "satp")) == illegal


@settings(max_examples=400)
@given(
    st.sampled_from([U, S, M]),
    STATUS,
    st.sampled_from([0, 0xFFFF]) | st.integers(0, 0xFFFF),
    SOME,
    st.booleans(),
    st.sampled_from([0, 1, 2, 3, 5, 7, 8, 9, 11, 12, 13, 15]),
    st.integers(0, 3),
)
def test_a_trap_goes_where_delegation_says(
    privilege, mstatus, medeleg, mideleg, interrupt, code, mode
):
    hart = make(
        privilege,
        mstatus=mstatus,
        medeleg=medeleg,
        mideleg=mideleg,
        mtvec=0x1000 | mode & 1,
        stvec=0x2000 | mode >> 1,
    )
    before = hart.mstatus
    pc = hart.take_trap((INTERRUPT if interrupt else 0) | code, 77, 0x4000)
    deleg = mideleg & 0x222 if interrupt else medeleg & 0xB3FF
    to_s = privilege != M and deleg >> code & 1
    assert hart.privilege == (S if to_s else M)
    vectored = interrupt and (mode >> 1 if to_s else mode & 1)
    assert pc == (0x2000 if to_s else 0x1000) + (4 * code if vectored else 0)
    letter = "s" if to_s else "m"
    hart.privilege = M
    assert read(hart, f"{letter}epc") == 0x4000
    assert read(hart, f"{letter}cause") == (INTERRUPT if interrupt else 0) + code
    assert read(hart, f"{letter}tval") == 77
    after = hart.mstatus
    ie, pie, pp = (SIE, SPIE, SPP) if to_s else (MIE, MPIE, MPP)
    assert not after & ie
    assert bool(after & pie) == bool(before & ie)
    saved = privilege << 8 if to_s else privilege << 11
    assert after & pp == saved
    assert (after ^ before) & ~(ie | pie | pp) == 0


@settings(max_examples=300)
@given(STATUS, st.booleans())
def test_returns_restore_what_the_trap_saved(mstatus, supervisor):
    hart = make(M, mstatus=mstatus, mepc=0x5002, sepc=0x6002)
    before = hart.mstatus
    pc = hart.sret(0) if supervisor else hart.mret(0)
    after = hart.mstatus
    if supervisor:
        assert pc == 0x6002
        assert hart.privilege == (S if before & SPP else U)
        ie, pie, pp = SIE, SPIE, SPP
    else:
        assert pc == 0x5002
        assert hart.privilege == (before & MPP) >> 11
        ie, pie, pp = MIE, MPIE, MPP
    assert bool(after & ie) == bool(before & pie)
    assert after & pie and not after & pp
    mprv = before & MPRV if hart.privilege == M else 0
    assert after & MPRV == mprv
    assert (after ^ before) & ~(ie | pie | pp | MPRV) == 0


# -- interrupts ------------------------------------------------------------------------------------


@settings(max_examples=1000)
@given(
    st.sampled_from([U, S, M]),
    SOME,
    st.just(0xAAA) | SOME,
    SOME,
    st.booleans(),
    st.booleans(),
)
def test_the_interrupt_taken_is_the_manuals(privilege, pending, enabled, delegated, mie, sie):
    hart = make(privilege, mie=enabled, mideleg=delegated)
    hart._platform.bits = pending & 0xAAA
    hart.mstatus |= (MIE if mie else 0) | (SIE if sie else 0)
    expected = None
    for to_m in (True, False):
        for code in ORDER:
            bit = 1 << code
            if not pending & enabled & 0xAAA & bit or bool(delegated & 0x222 & bit) == to_m:
                continue
            level, enable = (M, mie) if to_m else (S, sie)
            takes = privilege < level or (privilege == level and enable)
            if takes and expected is None:
                expected = INTERRUPT | code
    assert hart.interrupt() == expected
    hart.privilege = M
    assert hart.wfi(0) == (not pending & enabled & 0xAAA)

"""CSRs in non-root operation: bitmaps, status mask, views, what is not there."""

from itertools import product

import pytest

from rtl.arch.csrs import (
    CSRS,
    INTERRUPTS,
    MENVCFG,
    MSTATUS,
    MSTATUS_CONSTANT,
    csr_read_only,
)
from rtl.arch.records import EXIT_BIT
from rtl.arch.traps import Exception_, Privilege
from rtl.arch.vmx.exits import ExitReason
from rtl.arch.vmx.fields import CSR_BITMAP, CSR_REASONS, GUEST_CSRS, VMCS_FIELDS
from sw_vmm.assembler import encode
from tests.golden.vmx.world import GUEST, World, controls, number, vmx_word

MACHINE, SUPERVISOR = Privilege.MACHINE, Privilege.SUPERVISOR
ALL = (1 << 64) - 1
BITMAPS = [name for name in VMCS_FIELDS if "_bitmap_" in name]
WRITABLE = [name for name in CSRS if not csr_read_only(CSRS[name].number)]
SSI, STI, SEI, MTI = (INTERRUPTS[name].mask for name in ("ssi", "sti", "sei", "mti"))


def bit_of(kind, csr):
    word, bit = divmod(CSR_BITMAP.index(csr), 64)
    return {f"csr_{kind}_bitmap_{word}": 1 << bit}


def others_of(kind, csr):
    """Every bitmap full, but for one bit."""
    full = {name: ALL & ~VMCS_FIELDS[name].reserved for name in BITMAPS}
    ((name, bit),) = bit_of(kind, csr).items()
    return full | {name: full[name] & ~bit}


def exited(world, reason):
    return world.hart.trapped is not None and world.hart.trapped[0] == reason | 1 << EXIT_BIT


READ, WRITE = ExitReason.CSR_READ, ExitReason.CSR_WRITE
#: Instruction, what it does, and so which of the bits make it exit, first first.
KINDS = {
    "csrr": (lambda csr: encode("csrrs", rd=5, csr=csr), ("read",)),
    "csrw": (lambda csr: encode("csrrw", rs1=6, csr=csr), ("write",)),
    "csrwi": (lambda csr: encode("csrrwi", imm=1, csr=csr), ("write",)),
    "csrrw": (lambda csr: encode("csrrw", rd=5, rs1=6, csr=csr), ("read", "write")),
    "csrs": (lambda csr: encode("csrrs", rs1=6, csr=csr), ("read", "write")),
    "csrrc": (lambda csr: encode("csrrc", rd=5, rs1=6, csr=csr), ("read", "write")),
    "csrrsi": (lambda csr: encode("csrrsi", rd=5, imm=2, csr=csr), ("read", "write")),
    "csrrci 0": (lambda csr: encode("csrrci", rd=5, imm=0, csr=csr), ("read",)),
}


def enter_again(world, word, **bitmaps):
    """Enter with these bitmaps, all others being empty, before the word."""
    world.again(word, vmx_word("vmcall"), **dict.fromkeys(BITMAPS, 0) | bitmaps)
    world.run()


@pytest.mark.parametrize("kind", KINDS)
def test_every_csr_against_its_bits(kind, directed):
    """Its own bits alone make it exit; with all but them, it does not."""
    make, does = KINDS[kind]
    reasons = {"read": READ, "write": WRITE}
    world = World()
    world.launch(code=[vmx_word("vmcall")], execution_controls=controls("use_csr_bitmap"))
    world.run()
    for csr in CSR_BITMAP if "write" not in does else [n for n in CSR_BITMAP if n in WRITABLE]:
        word = make(number(csr))
        for wanted in ("read", "write"):
            enter_again(world, word, **bit_of(wanted, csr))
            assert exited(world, reasons[wanted]) == (wanted in does), csr
            world.run()
            directed("a bit of the CSR bitmaps alone", kind, csr, wanted)
        fields = others_of(does[0], csr)
        if len(does) == 2:
            ((name, value),) = bit_of("write", csr).items()
            fields[name] &= ~value
        enter_again(world, word, **fields)
        assert world.hart.trapped is None, csr
        world.run()
        directed("all bits of the CSR bitmaps but its own", kind, csr)
    assert world.hart.world == 0


@pytest.mark.parametrize("kind", ["csrrw", "csrrc"])
def test_the_read_exits_first(kind):
    make, _ = KINDS[kind]
    world = World()
    world.launch(
        code=[make(number("mscratch"))],
        execution_controls=controls("use_csr_bitmap"),
        **bit_of("read", "mscratch"),
        **bit_of("write", "mscratch"),
    )
    world.run()
    assert exited(world, READ)


def test_full_bitmaps_without_the_control_do_nothing():
    fields = {name: ALL & ~VMCS_FIELDS[name].reserved for name in BITMAPS}
    world = World()
    code = [encode("csrrw", rd=5, rs1=6, csr=number(csr)) for csr in CSR_BITMAP if csr in WRITABLE]
    count = len(code)
    world.launch(code=code, **fields)
    assert world.run(count) is None
    assert world.hart.world == 1


CONTROL_OF = {
    ExitReason.TIME_READ: "time_read_exiting",
    ExitReason.COUNTER_READ: "counter_read_exiting",
}


@pytest.mark.parametrize("csr", CSR_REASONS)
def test_csrs_with_reasons_of_their_own(csr):
    """Read and written under their own control alone, and under all bitmaps."""
    reason = CSR_REASONS[csr]
    bitmaps = {name: ALL & ~VMCS_FIELDS[name].reserved for name in BITMAPS}
    read, write = (encode("csrrs", rd=5, csr=number(csr)), encode("csrrw", rs1=6, csr=number(csr)))
    for on in (False, True):
        for word in (read, write) if csr in WRITABLE else (read,):
            world = World()
            world.hart.x[6] = 0
            names = ["use_csr_bitmap"]
            fields = dict(bitmaps)
            if on and reason in CONTROL_OF:
                names.append(CONTROL_OF[reason])
            elif on and csr == "satp":
                names.append("satp_write_exiting")
            elif on:
                bit = MSTATUS["sum"].mask
                fields |= {"status_mask": bit, "status_shadow": bit}
            world.launch(code=[word], execution_controls=controls(*names), **fields)
            world.run()
            exits = on and (word == read) == (reason in CONTROL_OF)
            assert exited(world, reason) == exits
            assert exits or world.hart.trapped is None


# Status mask and shadow.

STATUS = CSRS["mstatus"].writable


@pytest.mark.parametrize("csr", ["mstatus", "sstatus"])
@pytest.mark.parametrize("bit", [n for n in range(64) if STATUS >> n & 1])
def test_each_bit_of_the_status_mask(csr, bit, directed):
    mask, seen = 1 << bit, CSRS[csr].writable >> bit & 1
    read, write = encode("csrrs", rd=5, csr=number(csr)), encode("csrrw", rs1=6, csr=number(csr))
    world = World()
    world.launch(code=[vmx_word("vmcall")])
    world.run()
    for shadow, real, written in product((0, mask), repeat=3):
        # MPP is M, so that MPRV changes nothing.
        mstatus = MSTATUS_CONSTANT | MSTATUS["mpp"].mask | real
        world.again(
            read, write, vmx_word("vmcall"),
            status_mask=mask, status_shadow=shadow, guest_mstatus=mstatus,
        )  # fmt: skip
        world.hart.x[6] = written
        world.run()
        if seen:
            assert world.hart.x[5] & mask == shadow
        world.run()
        exits = bool(seen and written != shadow)
        if exits:
            assert exited(world, ExitReason.SATP_OR_STATUS)
        else:
            assert world.hart.trapped is None
            world.run()
            assert exited(world, ExitReason.VMCALL)
        assert world.read("guest_mstatus") & mask == mstatus & mask
        directed("status mask", csr, bit, shadow, real, written, exits)


def test_bits_beside_the_mask_are_written():
    world = World()
    mask = MSTATUS.mask("tvm", "mie")
    world.launch(
        code=[encode("csrrs", rd=5, rs1=6, csr=number("mstatus"))],
        status_mask=mask,
        status_shadow=MSTATUS["tvm"].mask,
        guest_mstatus=MSTATUS_CONSTANT | MSTATUS["mie"].mask,
    )
    world.hart.x[6] = MSTATUS["sum"].mask
    assert world.run() is None
    assert world.hart.x[5] == MSTATUS_CONSTANT | MSTATUS["tvm"].mask
    real = MSTATUS_CONSTANT | MSTATUS.mask("mie", "sum")
    assert world.hart.csr.values["mstatus"] == real


@pytest.mark.parametrize(
    ("real", "shadow", "written", "after"),
    [
        (3, 2, 2, 3),
        (0, 0, 0, 0),
        (1, 0, 1, 1),
        (3, 0, 0, 3),
        (0, 2, 2, 0),
        (0, 2, 3, 1),
        (3, 2, 3, 3),
    ],
)
def test_mpp_half_owned_by_the_host(real, shadow, written, after):
    """Bit 12 belongs to the host; MPP never becomes 2."""
    mpp = MSTATUS["mpp"]
    world = World()
    world.launch(
        code=[encode("csrrw", rs1=6, csr=number("mstatus"))],
        status_mask=2 << mpp.lsb,
        status_shadow=shadow << mpp.lsb,
        guest_mstatus=mpp.insert(MSTATUS_CONSTANT, real),
    )
    world.hart.x[6] = written << mpp.lsb
    assert world.run() is None
    assert world.hart.csr.status("mpp") == after


def test_traps_use_the_real_bits():
    world = World()
    world.launch(
        privilege=SUPERVISOR,
        code=[encode("sfence.vma")],
        status_mask=MSTATUS["tvm"].mask,
        guest_mstatus=MSTATUS_CONSTANT | MSTATUS["tvm"].mask,
    )
    world.run()
    assert world.hart.trapped[0] == Exception_.ILLEGAL_INSTRUCTION


# Views and constants.


@pytest.mark.parametrize("csr", [n for n in CSRS if n.startswith(("hpmcounter", "mhpm"))])
def test_events_are_not_shown(csr):
    world = World()
    name = csr if csr in WRITABLE else None
    if name:
        world.hart.write_csr(number(csr), ALL)
    root = dict(world.hart.csr.values)
    world.outside.counters[csr] = 99
    read = encode("csrrs", rd=5, csr=number(csr))
    code = [encode("csrrw", rs1=6, csr=number(csr)), read] if name else [read]
    world.launch(code=code)
    world.hart.x[6] = ALL
    assert world.run(len(code)) is None
    assert world.hart.x[5] == 0
    assert world.hart.vmx.root_csr.values == root


def test_only_cycles_and_instructions_can_stand_still():
    world = World()
    code = [encode("csrrw", rs1=6, csr=number("mcountinhibit")), encode("csrrs", rd=5, csr=0x320)]
    world.launch(code=code)
    world.hart.x[6] = ALL
    world.run(2)
    assert world.hart.x[5] == 0b101


def test_the_hart_number_is_a_field():
    world = World()
    world.launch(code=[encode("csrrs", rd=5, csr=number("mhartid"))], guest_mhartid=0x123)
    world.run()
    assert world.hart.x[5] == 0x123


@pytest.mark.parametrize(
    "csr", ["misa", "mvendorid", "marchid", "mimpid", "mconfigptr", "pmpcfg0", "tselect"]
)
def test_constants_are_those_of_root(csr):
    world = World()
    root = world.hart.csr.read(number(csr))[0]
    world.launch(code=[encode("csrrs", rd=5, csr=number(csr))])
    world.run()
    assert world.hart.x[5] == root == CSRS[csr].reset


def test_no_instruction_of_the_guest_writes_root():
    """Every CSR of the guest written with ones, then with zeros."""
    world = World()
    skip = ("mstatus", "satp", "sstatus")
    csrs = [name for name in WRITABLE if name not in skip]
    code = [encode("csrrw", rs1=6, csr=number(csr)) for csr in csrs]
    root = {**world.hart.csr.values}
    world.launch(code=[*code, *code])
    world.hart.x[6] = ALL
    assert world.run(len(code)) is None
    world.hart.x[6] = 0
    assert world.run(len(code)) is None
    now = world.hart.vmx.root_csr.values
    assert {name for name in root if root[name] != now[name]} == set()
    assert len(csrs) > len(GUEST_CSRS)


# Interrupts pending.


def pending(world, csr="mip"):
    """What the guest reads, in M-mode at its start."""
    world.guest_code(encode("csrrs", rd=5, csr=number(csr)))
    world.hart.pc = GUEST
    assert world.run() is None
    return world.hart.x[5]


def written_back(world):
    """What csrrs and csrrc start from, in the bits of mip that can be written."""
    return world.hart.csr.read(number("mip"))[1] & CSRS["mip"].writable


@pytest.mark.parametrize("line", [n for n in range(12) if INTERRUPTS.mask() >> n & 1])
def test_each_line(line):
    """Of guest_lines; root's where it is passed through; the guest's own."""
    bit = 1 << line
    world = World()
    world.launch(guest_lines=bit, guest_mtimecmp=ALL)
    assert pending(world) == bit
    assert written_back(world) == 0
    for passed in (0, bit):
        world = World()
        world.outside.mip = bit
        world.lines(line)
        if CSRS["mip"].writable & bit:
            world.hart.write_csr(number("mip"), bit)
        world.launch(interrupt_passthrough=passed, guest_mtimecmp=ALL)
        assert pending(world) == passed
    own = bit & CSRS["mip"].writable
    world = World()
    world.launch(guest_mip=own, guest_mtimecmp=ALL)
    assert (pending(world), written_back(world)) == (own, own)


def test_lines_do_not_stick():
    """csrrs and csrrc start from what was written."""
    world = World()
    code = [encode("csrrs", rd=5, rs1=6, csr=number("mip")), vmx_word("vmcall")]
    world.launch(code=code, guest_lines=SSI | STI | SEI, guest_mtimecmp=ALL)
    world.hart.x[6] = STI
    world.run(2)
    assert world.hart.x[5] == SSI | STI | SEI
    assert world.read("guest_mip") == STI
    world.write(guest_lines=0)
    world.resume()
    assert pending(world) == STI


def test_the_timers():
    """They show where they can be pending; what drives them is outside the model."""
    stce = MENVCFG["stce"].mask
    for fields, possible in (
        ({"guest_mtimecmp": ALL}, 0),
        ({"guest_mtimecmp": 5}, MTI),
        ({"guest_mtimecmp": ALL, "guest_menvcfg": stce}, STI),
        ({"guest_mtimecmp": 5, "guest_menvcfg": stce}, MTI | STI),
    ):
        world = World()
        world.outside.mip = ALL
        world.launch(**fields)
        assert pending(world) == possible


def test_stip_is_read_only_with_stce():
    world = World()
    world.launch(
        code=[encode("csrrw", rs1=0, csr=number("mip")), vmx_word("vmcall")],
        guest_menvcfg=MENVCFG["stce"].mask,
        guest_mip=STI,
        guest_mtimecmp=ALL,
        guest_stimecmp=ALL,
    )
    world.run(2)
    assert world.read("guest_mip") == STI
    world.resume()
    assert pending(world) == 0


def test_sip_and_sie_are_views():
    world = World()
    world.launch(guest_lines=SSI | STI, guest_mideleg=STI, guest_mie=SSI | STI)
    assert pending(world, "sip") == STI
    assert pending(world, "sie") == STI


def test_instret_counts_guest_instructions_only():
    world = World()
    code = [encode("addi"), encode("csrrs", rd=5, csr=number("minstret")), vmx_word("vmcall")]
    world.launch(code=code, guest_minstret=100)
    world.run(5)
    assert world.hart.x[5] == 101
    assert world.read("guest_minstret") == 102
    world.resume(guest_mcountinhibit=4)
    assert pending(world, "instret") == 102

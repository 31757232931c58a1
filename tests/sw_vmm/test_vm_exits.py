"""Every VM exit becomes a typed one: guests of a few instructions on the golden model."""

import pytest

from rtl.arch.csrs import CSRS, INTERRUPTS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, PTE, SATP, Access, SatpMode
from rtl.arch.traps import Exception_, Interrupt, Privilege
from rtl.arch.vmx.exits import EXIT_REASONS, ExitReason
from rtl.arch.vmx.fields import CSR_BITMAP
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from sw_vmm.assembler import encode
from sw_vmm.ept import MemorySlot
from sw_vmm.errors import UnhandledExit
from sw_vmm.exits import (
    BudgetSpent,
    CsrAccess,
    EntryFailure,
    EptMisconfiguration,
    EptViolation,
    FetchFault,
    GuestException,
    Hypercall,
    InterruptExit,
    InterruptWindow,
    MemoryFault,
    MmioRead,
    MmioWrite,
    PreemptionTimer,
    SfenceVma,
    Stopped,
    VmxInstruction,
    Wfi,
)
from sw_vmm.machine import MachineError
from sw_vmm.vm_exits import decode_vm_exit
from tests.sw_vmm.vmx_machine import ALL, RAM, RAM_SIZE, SmallGuest, one, vmx_word, words

DEVICE = MEMORY_MAP["uart"].base
END = RAM + RAM_SIZE
VALUE = 0xF1E2_D3C4_B5A6_9788
LOADS = [
    ("lb", 1, True), ("lh", 2, True), ("lw", 4, True), ("ld", 8, False), ("lbu", 1, False),
    ("lhu", 2, False), ("lwu", 4, False),
]  # fmt: skip
STORES = [("sb", 1), ("sh", 2), ("sw", 4), ("sd", 8)]


def number(csr):
    return CSRS[csr].number


# -- accesses outside guest RAM --------------------------------------------------------------------


@pytest.mark.parametrize("name,size,signed", LOADS)
def test_a_load_from_a_device(name, size, signed):
    guest = SmallGuest(one(name, rd=7, rs1=5, imm=-16))
    guest.set(x5=DEVICE + 16)
    assert guest.run() == MmioRead(DEVICE, size, signed, 7)
    record = guest.vcpu.record
    assert (record.pc, record.length, record.world, record.privilege) == (RAM, 4, 1, 3)


@pytest.mark.parametrize("name,size", STORES)
def test_a_store_to_a_device(name, size):
    guest = SmallGuest(one(name, rs1=5, rs2=6, imm=8))
    guest.set(x5=DEVICE, x6=VALUE)
    assert guest.run() == MmioWrite(DEVICE + 8, size, VALUE & (1 << 8 * size) - 1)


@pytest.mark.parametrize(
    "word,exit_",
    [
        (0x4104, MmioRead(DEVICE, 4, True, 9)),  # c.lw s1, 0(a0)
        (0x6504, MmioRead(DEVICE + 8, 8, False, 9)),  # c.ld s1, 8(a0)
        (0xC144, MmioWrite(DEVICE + 4, 4, VALUE & 0xFFFF_FFFF)),  # c.sw s1, 4(a0)
        (0xE504, MmioWrite(DEVICE + 8, 8, VALUE)),  # c.sd s1, 8(a0)
        (0x44A2, MmioRead(DEVICE + 8, 4, True, 9)),  # c.lwsp s1, 8(sp)
        (0x64A2, MmioRead(DEVICE + 8, 8, False, 9)),  # c.ldsp s1, 8(sp)
        (0xC426, MmioWrite(DEVICE + 8, 4, VALUE & 0xFFFF_FFFF)),  # c.swsp s1, 8(sp)
        (0xE426, MmioWrite(DEVICE + 8, 8, VALUE)),  # c.sdsp s1, 8(sp)
    ],
)
def test_a_compressed_access_of_a_device(word, exit_):
    guest = SmallGuest(words(word))
    guest.set(x2=DEVICE, x10=DEVICE, x9=VALUE)
    assert guest.run() == exit_
    assert guest.vcpu.record.length == 2


@pytest.mark.parametrize(
    "name,access",
    [("lr.w", Access.READ), ("sc.d", Access.WRITE), ("amoadd.w", Access.WRITE)],
)
def test_an_atomic_access_of_a_device(name, access):
    guest = SmallGuest(one(name, rd=7, rs1=5, rs2=6 if name != "lr.w" else 0))
    guest.set(x5=DEVICE)
    assert guest.run() == MemoryFault(access, DEVICE)


@pytest.mark.parametrize("name,access", [("lw", Access.READ), ("sw", Access.WRITE)])
def test_an_access_that_reaches_out_of_ram(name, access):
    """Its second part is refused: what its first part is must not be taken for the access."""
    operands = {"rd": 7} if name == "lw" else {"rs2": 6}
    guest = SmallGuest(one(name, rs1=5, **operands))
    guest.set(x5=END - 2)
    assert guest.run() == MemoryFault(access, END)
    assert guest.vcpu.record.gva == END


def test_a_fetch_outside_ram():
    guest = SmallGuest(one("jalr", rs1=5))
    guest.set(x5=DEVICE)
    assert guest.run() == FetchFault(DEVICE)
    assert guest.vcpu.record.length == 0


# -- the EPT ---------------------------------------------------------------------------------------


def test_a_page_of_ram_that_is_not_entered():
    guest = SmallGuest(loop)
    assert guest.run(filled=False) == EptViolation(RAM, Access.FETCH, True)
    guest.ept.fill(RAM, Access.FETCH)
    # One page of 2 MiB holds all of guest RAM.
    assert isinstance(guest.go_on(skip=False), BudgetSpent)


@pytest.mark.parametrize(
    "name,access,rights",
    [
        ("lw", Access.READ, (Access.FETCH,)),
        ("sw", Access.WRITE, (Access.READ, Access.FETCH)),
        ("amoadd.w", Access.WRITE, (Access.READ, Access.FETCH)),
    ],
)
def test_a_right_that_is_missing(name, access, rights):
    slots = [MemorySlot(RAM, RAM, 0x1000), MemorySlot(RAM + 0x1000, RAM + 0x1000, 0x1000, rights)]
    operands = {"rd": 7} if access == Access.READ else {"rs2": 6}
    guest = SmallGuest(one(name, rs1=5, **operands), slots=slots)
    guest.set(x5=RAM + 0x1000)
    assert guest.run() == EptViolation(RAM + 0x1000, access, True)


def paged(guest, root=RAM + 0x10000):
    """Sv39 with the gigabyte of RAM mapped for U; the guest is in U-mode."""
    leaf = PTE.encode(v=1, r=1, w=1, x=1, u=1, a=1, d=1, ppn=RAM >> PAGE_BITS)
    if root >= RAM:
        guest.machine.write_memory(root + 8 * 2, leaf.to_bytes(8, "little"))
    guest.vmcs.update(
        guest_satp=SATP.encode(mode=SatpMode.SV39, ppn=root >> PAGE_BITS),
        guest_privilege=int(Privilege.USER),
    )


def test_a_page_table_that_is_not_entered():
    slots = [MemorySlot(RAM, RAM, 0x1000), MemorySlot(RAM + 0x10000, RAM + 0x10000, 0x1000)]
    guest = SmallGuest(one("addi"), slots=slots)
    paged(guest)
    guest.ept.fill(RAM, Access.FETCH)
    assert guest.run(filled=False) == EptViolation(RAM + 0x10010, Access.READ, False)


@pytest.mark.parametrize("name,access", [("lw", Access.READ), ("sw", Access.WRITE)])
def test_a_page_table_outside_ram_is_a_fault_of_the_access(name, access):
    """MPRV translates data by tables at a device while the fetch is not translated at all."""
    operands = {"rd": 7} if name == "lw" else {"rs2": 6}
    guest = SmallGuest(one(name, rs1=5, **operands))
    paged(guest, root=DEVICE & ~0xFFF)
    status = CSRS["mstatus"].layout.encode(mprv=1)
    guest.vmcs.update(
        guest_privilege=int(Privilege.MACHINE), guest_mstatus=CSRS["mstatus"].reset | status
    )
    guest.set(x5=RAM)
    assert guest.run() == MemoryFault(access, (DEVICE & ~0xFFF) + 16)


def test_a_page_table_outside_ram_is_a_fault_of_the_fetch():
    guest = SmallGuest(one("addi"))
    paged(guest, root=DEVICE & ~0xFFF)
    assert guest.run() == MemoryFault(Access.FETCH, (DEVICE & ~0xFFF) + 16)


def test_an_entry_that_makes_no_sense():
    guest = SmallGuest(one("addi"))
    root = (guest.ept.eptp & (1 << 44) - 1) << PAGE_BITS
    bad = PTE.encode(v=1, w=1, u=1, a=1, d=1, ppn=RAM >> PAGE_BITS)
    guest.machine.write_memory(root + 8 * 2, bad.to_bytes(8, "little"))
    assert guest.run(filled=False) == EptMisconfiguration(RAM)


# -- CSRs and instructions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,operands,exit_",
    [
        ("csrrw", {"rd": 7, "rs1": 5}, CsrAccess(number("mscratch"), 1, VALUE, 7, True)),
        ("csrrs", {"rd": 7, "rs1": 0}, CsrAccess(number("mscratch"), 2, 0, 7, False)),
        ("csrrc", {"rd": 7, "rs1": 5}, CsrAccess(number("mscratch"), 3, VALUE, 7, True)),
        ("csrrwi", {"rd": 0, "rs1": 9}, CsrAccess(number("mscratch"), 1, 9, 0, True)),
        ("csrrsi", {"rd": 7, "rs1": 0}, CsrAccess(number("mscratch"), 2, 0, 7, False)),
        ("csrrci", {"rd": 7, "rs1": 3}, CsrAccess(number("mscratch"), 3, 3, 7, True)),
    ],
)
def test_a_csr_of_the_bitmaps(name, operands, exit_):
    guest = SmallGuest(one(name, csr=number("mscratch"), **operands))
    guest.controls("use_csr_bitmap")
    word, bit = divmod(CSR_BITMAP.index("mscratch"), 64)
    for kind in ("read", "write"):
        guest.vmcs.update(**{f"csr_{kind}_bitmap_{word}": 1 << bit})
    guest.set(x5=VALUE)
    assert guest.run() == exit_
    reads = not (name.startswith("csrrw") and operands["rd"] == 0)
    reason = ExitReason.CSR_READ if reads else ExitReason.CSR_WRITE
    assert guest.vcpu.record.reason == reason


@pytest.mark.parametrize(
    "control,csr",
    [("time_read_exiting", "time"), ("counter_read_exiting", "instret")],
)
def test_a_counter(control, csr):
    guest = SmallGuest(one("csrrs", rd=7, csr=number(csr)))
    guest.controls(control)
    assert guest.run() == CsrAccess(number(csr), 2, 0, 7, False)


def test_a_write_of_satp_and_of_status():
    guest = SmallGuest(one("csrrw", rs1=5, csr=number("satp")))
    guest.controls("satp_write_exiting")
    guest.set(x5=VALUE)
    assert guest.run() == CsrAccess(number("satp"), 1, VALUE, 0, True)
    mie = CSRS["mstatus"].layout["mie"].mask
    guest = SmallGuest(one("csrrs", rs1=5, csr=number("mstatus")), status_mask=mie)
    guest.set(x5=mie)
    assert guest.run() == CsrAccess(number("mstatus"), 2, mie, 0, True)


def test_wfi_and_fences():
    guest = SmallGuest(one("wfi"))
    guest.controls("wfi_exiting")
    assert guest.run() == Wfi()
    for rs1, rs2, exit_ in ((0, 0, SfenceVma(None, None)), (5, 6, SfenceVma(RAM, 77))):
        guest = SmallGuest(one("sfence.vma", rs1=rs1, rs2=rs2))
        guest.controls("sfence_vma_exiting")
        guest.set(x5=RAM, x6=77)
        assert guest.run() == exit_


@pytest.mark.parametrize(
    "name",
    [
        reason.name
        for reason, row in EXIT_REASONS.items()
        if row.reachable and reason.name.lower() in VMX_INSTRUCTIONS
    ],
)
def test_the_vmx_instructions(name):
    guest = SmallGuest(words(vmx_word(name.lower(), rd=5, rs1=6, rs2=7)))
    exit_ = guest.run()
    assert exit_ == (Hypercall() if name == "VMCALL" else VmxInstruction(name.lower()))
    assert exit_.reason == name.lower()


def test_exceptions_of_the_bitmap():
    for word, cause, tval in (
        (encode("ecall"), Exception_.ECALL_FROM_MACHINE, 0),
        (0xFFFF_FFFF, Exception_.ILLEGAL_INSTRUCTION, 0xFFFF_FFFF),
    ):
        guest = SmallGuest(words(word), exception_bitmap=ALL)
        assert guest.run() == GuestException(cause, tval)


# -- events ----------------------------------------------------------------------------------------


def loop(code):
    code.label("here")
    code.add("jal", to="here")


def test_the_preemption_timer():
    guest = SmallGuest(loop, guest_preemption_timer=50)
    guest.controls("preemption_timer")
    start = guest.machine.cycle
    assert guest.run() == PreemptionTimer()
    assert 50 <= guest.vcpu.record.cycle - start < 70


def test_the_interrupt_window():
    mask = INTERRUPTS.mask("mei")
    mie = CSRS["mstatus"].layout["mie"].mask
    guest = SmallGuest(loop, interrupt_window_mask=mask, guest_mie=mask)
    guest.controls("interrupt_window_exiting")
    guest.vmcs.guest_mstatus = CSRS["mstatus"].reset | mie
    assert guest.run() == InterruptWindow()


def test_a_root_interrupt():
    guest = SmallGuest(loop)
    guest.controls("external_interrupt_exiting")
    machine = guest.machine
    machine.write_csr(number("menvcfg"), CSRS["menvcfg"].layout.encode(stce=1))
    machine.write_csr(number("stimecmp"), machine.time + 7)
    machine.write_csr(number("mie"), INTERRUPTS.mask("sti"))
    assert guest.run() == InterruptExit(Interrupt.SUPERVISOR_TIMER)


def test_a_stop_in_the_guest_and_going_on():
    guest = SmallGuest(loop)
    guest.ept.fill_all()
    guest.vcpu.launch()
    guest.vcpu.run(100)
    assert not guest.vcpu.parked
    guest.vcpu.stop()
    assert guest.vcpu.parked and guest.vcpu.record.world == 1
    assert guest.vcpu.run(100) == Stopped()
    before = guest.vcpu.record.instret
    guest.vcpu.resume(guest.vcpu.record.pc)
    guest.vcpu.run(50)
    guest.vcpu.stop()
    assert guest.vcpu.record.instret > before


# -- entries that fail -----------------------------------------------------------------------------


def test_bad_guest_state_at_the_launch_and_later():
    guest = SmallGuest(words(vmx_word("vmcall")))
    guest.vmcs.guest_privilege = 2
    assert guest.run() == EntryFailure("guest_privilege_level")
    guest.vmcs.guest_privilege = 3
    assert guest.run() == Hypercall()
    guest.vmcs.guest_satp = 1 << 60
    assert guest.go_on() == EntryFailure("guest_satp_mode")


def test_a_control_that_is_not_allowed():
    guest = SmallGuest(words(vmx_word("vmcall")))
    guest.controls("enable_pml")
    with pytest.raises(MachineError, match="VMLAUNCH failed with 0x7"):
        guest.run()
    guest.controls()
    assert guest.run() == Hypercall()
    guest.controls("enable_pml")
    assert guest.go_on() == Stopped()
    assert guest.vmcs.instruction_error == 7


# -- the rest --------------------------------------------------------------------------------------


def test_every_reachable_reason_is_known_and_no_other():
    guest = SmallGuest(words(vmx_word("vmcall")))
    guest.run()
    for reason, row in EXIT_REASONS.items():
        number = reason | 1 << 31 if reason is ExitReason.BAD_GUEST_STATE else int(reason)
        record = guest.vcpu.record._replace(
            reason=number, instruction=encode("csrrs", csr=0x300), qualification=1
        )
        if row.reachable:
            assert decode_vm_exit(guest.machine, record, range(0)) is not None
        else:
            with pytest.raises(UnhandledExit):
                decode_vm_exit(guest.machine, record, range(0))

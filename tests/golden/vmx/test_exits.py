"""Each exit reason, with all of its information (docs/isa/vmx.md#exit)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest

from rtl.arch.csrs import CSRS, MSTATUS, MSTATUS_CONSTANT
from rtl.arch.instructions import COMPRESSED, INSTRUCTIONS, Format
from rtl.arch.paging import PTE
from rtl.arch.records import EXIT_BIT, PARK, ParkKind
from rtl.arch.traps import Exception_, Interrupt, Privilege
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.exits import (
    CSR_QUALIFICATION,
    ENTRY_FAILURE,
    EPT_QUALIFICATION,
    EXIT_REASONS,
    INTERRUPTION,
    ExitReason,
    InterruptionType,
)
from rtl.arch.vmx.fields import VMCS_FIELDS, VmcsArea
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from sim.golden.events import EXIT_DUE
from sw_vmm.assembler import encode
from tests.golden.vmx.world import GUEST, HOST, PAGES, World, controls, number, vmx_word

REASON = ExitReason
USER, SUPERVISOR, MACHINE = Privilege.USER, Privilege.SUPERVISOR, Privilege.MACHINE
#: A gpa that the EPT does not map, and one whose entry is misconfigured.
ABSENT, BROKEN = GUEST + PAGES * 0x1000, GUEST + 3 * 0x1000
X1, X2 = 0x1111_0000, 0x2222
_NOTHING: Mapping = MappingProxyType({})
INFORMATION = [
    name
    for name, field in VMCS_FIELDS.items()
    if field.area is VmcsArea.INFORMATION and name not in ("instruction_error", "entry_check")
]


class Case(NamedTuple):
    """One exit: the guest's instruction, or an event; what the VMCS says before, and after."""

    reason: ExitReason
    word: int | None
    control: str = ""
    fields: Mapping = _NOTHING
    qualification: int = 0
    expected: Mapping = _NOTHING
    privilege: Privilege = SUPERVISOR
    rs1: int = 0
    rs2: int = 0


def csr_case(reason, name, csr, control="", *, immediate=False, rs1=6, **more):
    function = {"csrrw": 1, "csrrs": 2, "csrrc": 3}[name.removesuffix("i")]
    word = encode(name, rd=5, csr=number(csr), **({"imm": 6} if immediate else {"rs1": rs1}))
    qualification = CSR_QUALIFICATION.encode(
        csr=number(csr), function=function, immediate=immediate, rd=5
    )
    value = 0 if immediate or not rs1 else X1
    return Case(reason, word, control, qualification=qualification, rs1=value, **more)


def exception(cause):
    return {
        "exit_interruption": INTERRUPTION.encode(
            valid=1, type=InterruptionType.EXCEPTION, cause=cause
        )
    }


def every(kind):
    """Bitmaps of CSRs with all bits set."""
    return {
        name: (1 << 64) - 1 & ~field.reserved
        for name, field in VMCS_FIELDS.items()
        if name.startswith(f"csr_{kind}_bitmap")
    }


LOAD = encode("ld", rd=5, rs1=6, imm=8)
STORE = encode("sd", rs1=6, rs2=7, imm=8)
AMO = encode("amoadd.d", rd=5, rs1=6, rs2=7)
CASES = {
    "exception": Case(
        REASON.EXCEPTION,
        encode("ebreak"),
        fields={"exception_bitmap": 1 << Exception_.BREAKPOINT},
        qualification=GUEST,
        expected=exception(Exception_.BREAKPOINT),
    ),
    "illegal instruction": Case(
        REASON.EXCEPTION,
        0xFFFF_FFFF,
        fields={"exception_bitmap": 1 << Exception_.ILLEGAL_INSTRUCTION},
        qualification=0xFFFF_FFFF,
        expected=exception(Exception_.ILLEGAL_INSTRUCTION),
    ),
    "illegal CSR": Case(
        REASON.EXCEPTION,
        (csr := encode("csrrs", rd=5, rs1=6, csr=number("mstatus"))),
        fields={"exception_bitmap": 1 << Exception_.ILLEGAL_INSTRUCTION},
        qualification=csr,
        expected=exception(Exception_.ILLEGAL_INSTRUCTION),
        rs1=X1,
    ),
    "misaligned": Case(
        REASON.EXCEPTION,
        encode("lr.d", rd=5, rs1=7),
        fields={"exception_bitmap": 1 << Exception_.LOAD_ADDRESS_MISALIGNED},
        qualification=X2,
        expected=exception(Exception_.LOAD_ADDRESS_MISALIGNED),
        rs1=X2,
    ),
    "wfi": Case(REASON.WFI, encode("wfi"), "wfi_exiting"),
    "sfence.vma": Case(
        REASON.SFENCE_VMA,
        encode("sfence.vma", rs1=6, rs2=7),
        "sfence_vma_exiting",
        rs1=X1,
        rs2=X2,
    ),
    "counter": csr_case(
        REASON.COUNTER_READ, "csrrs", "instret", "counter_read_exiting", rs1=0, privilege=MACHINE
    ),
    "time": csr_case(
        REASON.TIME_READ, "csrrs", "time", "time_read_exiting", rs1=0, privilege=MACHINE
    ),
    "satp": csr_case(REASON.SATP_OR_STATUS, "csrrw", "satp", "satp_write_exiting"),
    "status": csr_case(REASON.SATP_OR_STATUS, "csrrw", "sstatus",
                       fields={"status_mask": MSTATUS["sum"].mask,
                               "status_shadow": MSTATUS["sum"].mask}),
    "status immediate": csr_case(
        REASON.SATP_OR_STATUS, "csrrsi", "sstatus", immediate=True,
        fields={"status_mask": MSTATUS["sie"].mask}),
    "CSR read": csr_case(REASON.CSR_READ, "csrrc", "sscratch", "use_csr_bitmap",
                         fields=every("read")),
    "CSR write": csr_case(REASON.CSR_WRITE, "csrrwi", "stvec", "use_csr_bitmap", immediate=True,
                          fields=every("write")),
    "load": Case(
        REASON.EPT_VIOLATION, LOAD,
        qualification=EPT_QUALIFICATION.encode(read=1, gva_valid=1, final=1),
        expected={"exit_gva": ABSENT + 8, "exit_gpa": ABSENT + 8}, rs1=ABSENT),
    "store": Case(
        REASON.EPT_VIOLATION, STORE,
        qualification=EPT_QUALIFICATION.encode(write=1, gva_valid=1, final=1),
        expected={"exit_gva": ABSENT + 8, "exit_gpa": ABSENT + 8}, rs1=ABSENT, rs2=X2),
    "atomic": Case(
        REASON.EPT_VIOLATION, AMO,
        qualification=EPT_QUALIFICATION.encode(write=1, gva_valid=1, final=1),
        expected={"exit_gva": ABSENT, "exit_gpa": ABSENT}, rs1=ABSENT, rs2=X2),
    "compressed load": Case(
        REASON.EPT_VIOLATION, 0x6408,  # c.ld a0, 8(s0)
        qualification=EPT_QUALIFICATION.encode(read=1, gva_valid=1, final=1),
        expected={"exit_gva": ABSENT + 8, "exit_gpa": ABSENT + 8}, rs1=ABSENT),
    "misconfiguration": Case(
        REASON.EPT_MISCONFIGURATION, LOAD,
        expected={"exit_gva": BROKEN + 8, "exit_gpa": BROKEN + 8}, rs1=BROKEN),
}  # fmt: skip
for _name, _row in VMX_INSTRUCTIONS.items():
    if _name != "vmfunc":
        CASES[_name] = Case(
            REASON[_name.upper()],
            vmx_word(_name, 5, 6, 7),
            rs1=X1 if _row.rs1 else 0,
            rs2=X2 if _row.rs2 else 0,
        )
EVENTS = {
    "external interrupt": Case(
        REASON.EXTERNAL_INTERRUPT, None, "external_interrupt_exiting",
        expected={"exit_interruption": INTERRUPTION.encode(
            valid=1, type=InterruptionType.INTERRUPT, cause=Interrupt.MACHINE_TIMER)}),
    "interrupt window": Case(
        REASON.INTERRUPT_WINDOW, None, "interrupt_window_exiting",
        fields={"interrupt_window_mask": 1 << Interrupt.MACHINE_TIMER,
                "guest_mie": 1 << Interrupt.MACHINE_TIMER}),
    "preemption timer": Case(REASON.PREEMPTION_TIMER, None, "preemption_timer",
                             fields={"guest_preemption_timer": 1}),
}  # fmt: skip


def prepared(case, *, control=True):
    world = World()
    names = [case.control] if case.control and control else []
    world.map(BROKEN, world.hpa(BROKEN), r=0)
    world.hart.write_csr(CSRS["mie"].number, 1 << Interrupt.MACHINE_TIMER)
    world.hart.csr.set_status(mie=1)
    x = world.hart.x
    x[6] = x[8] = case.rs1 or X1
    x[7] = X2
    # Something of everything stands there from an exit before.
    world.preset(**dict.fromkeys(INFORMATION, 0x1234))
    fields = {"execution_controls": controls(*names), **case.fields}
    code = () if case.word is None else (case.word,)
    world.launch(code=code, privilege=case.privilege, **fields)
    return world


def check(world, case):
    """Where the hart is, and the information area."""
    hart = world.hart
    assert hart.trapped == (case.reason | 1 << EXIT_BIT, case.qualification)
    assert (hart.world, hart.privilege, hart.pc) == (0, MACHINE, HOST)
    assert hart.csr.status("mie") == 0 and hart.csr.status("mpie") == 0
    row = EXIT_REASONS[case.reason]
    expected = dict.fromkeys(INFORMATION, 0)
    expected.update(
        exit_reason=int(case.reason), exit_qualification=case.qualification, exit_pc=GUEST
    )
    if row.instruction:
        expected.update(
            exit_instruction=case.word,
            exit_instruction_length=4 if case.word & 3 == 3 else 2,
            exit_rs1=case.rs1,
            exit_rs2=case.rs2,
        )
    expected.update(case.expected)
    fields = {name: hart.vmx.vmcs.fields[name] for name in INFORMATION}
    assert fields == expected
    assert bool(fields["exit_interruption"]) == row.interruption
    assert bool(fields["exit_gva"] or fields["exit_gpa"]) == row.address
    assert world.read("guest_pc") == GUEST
    assert world.read("guest_privilege") == case.privilege
    assert world.read("guest_activity") == 0


@pytest.mark.parametrize("name", CASES)
def test_by_instruction(name):
    case = CASES[name]
    world = prepared(case)
    hart = world.hart
    x, guest = list(hart.x), {**hart.csr.values}
    world.run()
    assert hart.x == x
    assert {**hart.vmx.guest_csr.values} == guest
    check(world, case)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.control])
def test_without_the_control(name):
    """The instruction retires."""
    world = prepared(CASES[name], control=False)
    assert world.run() is None
    assert world.hart.world == 1
    assert world.hart.pc == GUEST + 4


@pytest.mark.parametrize("name", EVENTS)
def test_between_instructions(name):
    case = EVENTS[name]
    world = prepared(case)
    if case.reason == REASON.INTERRUPT_WINDOW:
        assert world.hart.due == EXIT_DUE + case.reason
    else:
        assert world.hart.due == -1
    world.lines(Interrupt.MACHINE_TIMER)
    world.event(case.reason, Interrupt.MACHINE_TIMER)
    check(world, case)


def test_bad_guest_state_changes_nothing_else():
    """Reached by test_entry for each check; here the fields that stay."""
    world = prepared(CASES["vmcall"])
    world.run()
    before = dict(world.hart.vmx.vmcs.fields)
    world.write(guest_privilege=2)
    assert world.vmx("vmresume") is None
    after = world.hart.vmx.vmcs.fields
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"guest_privilege", "exit_reason", "exit_qualification", "entry_check"}
    assert after["exit_reason"] == REASON.BAD_GUEST_STATE | 1 << ENTRY_FAILURE


def test_every_reason_is_reached():
    reached = {case.reason for case in (*CASES.values(), *EVENTS.values())}
    reachable = {reason for reason, row in EXIT_REASONS.items() if row.reachable}
    assert reached | {REASON.BAD_GUEST_STATE} == reachable
    named = {case.control for case in (*CASES.values(), *EVENTS.values())} - {""}
    exiting = {
        row.name
        for row in CONTROL_WORDS["execution_controls"].controls
        if row.allowed and not row.required
    }
    assert exiting - named == {"use_time_scale", "enable_vpid"}


@pytest.mark.model_only  # On the machine they have to be raised: see test_exceptions_raised.
@pytest.mark.parametrize("privilege", Privilege)
@pytest.mark.parametrize("cause", Exception_)
def test_exceptions_by_the_bitmap(cause, privilege):
    """Each bit alone decides over its exception, before the guest's delegation."""
    world = World()
    value = 0x99
    bit = 1 << cause
    for bitmap, exits in ((bit, True), ((1 << 64) - 1 & ~bit, False)):
        world = World()
        world.launch(
            privilege=privilege, exception_bitmap=bitmap, guest_medeleg=CSRS["medeleg"].writable
        )
        assert world.hart.vmx.intercepts(cause) == exits
        if exits:
            world.hart.vmx.exception_exit(cause, value)
            assert world.read("exit_qualification") == value
            assert world.read("guest_mcause") == world.read("guest_scause") == 0


MEMORY = {
    name: row
    for name, row in {**INSTRUCTIONS, **COMPRESSED}.items()
    if (row.expansion or name).split(".")[0]
    in ("lb", "lh", "lw", "ld", "lbu", "lhu", "lwu", "sb", "sh", "sw", "sd", "lr", "sc")
    or name.startswith("amo")
}
_STACK, _SOURCE = 2, 15


@pytest.mark.parametrize("name", MEMORY)
def test_source_registers_of_every_access(name):
    """rs1 is the base, rs2 what is stored, and zero where nothing is."""
    row = MEMORY[name]
    expansion = row.expansion or name
    loads = expansion.startswith("l")
    if name in INSTRUCTIONS:
        base = 14
        word = encode(name, rs1=base, **({"rd": 13} if loads else {"rs2": _SOURCE}))
    elif row.format in (Format.CI_LWSP, Format.CI_LDSP):
        base, word = _STACK, row.match | 13 << 7
    elif row.format in (Format.CSS_SWSP, Format.CSS_SDSP):
        base, word = _STACK, row.match | _SOURCE << 2
    else:
        base, word = 14, row.match | 14 - 8 << 7 | _SOURCE - 8 << 2
    world = World()
    world.launch(code=[word], privilege=SUPERVISOR)
    world.hart.x[base], world.hart.x[_SOURCE] = ABSENT, 0x77
    world.run()
    fields = world.hart.vmx.vmcs.fields
    assert fields["exit_reason"] == REASON.EPT_VIOLATION
    assert (fields["exit_rs1"], fields["exit_rs2"]) == (ABSENT, 0 if loads else 0x77)
    assert fields["exit_instruction"] == word
    assert fields["exit_instruction_length"] == (4 if name in INSTRUCTIONS else 2)
    found = EPT_QUALIFICATION.decode(fields["exit_qualification"])
    assert (found["read"], found["write"]) == (loads, not loads)


@pytest.mark.parametrize("offset", [0xFFE, 0x1000])
def test_fetches_that_the_ept_refuses(offset):
    """Nothing is known of the instruction, not even when half of it was fetched."""
    world = World()
    last = GUEST + (PAGES - 1) * 0x1000
    world.hart.memory.write_physical(world.hpa(last + 0xFFE), b"\x03\x00")
    world.launch(guest_pc=last + offset)
    world.run()
    refused = last + 0x1000
    assert world.hart.world == 0
    fields = {name: world.hart.vmx.vmcs.fields[name] for name in INFORMATION}
    assert fields == {
        **dict.fromkeys(INFORMATION, 0),
        "exit_reason": REASON.EPT_VIOLATION,
        "exit_qualification": EPT_QUALIFICATION.encode(fetch=1, gva_valid=1, final=1),
        "exit_pc": last + offset,
        "exit_gva": refused,
        "exit_gpa": refused,
    }


def test_a_fetch_fault_that_exits():
    world = World()
    world.map_guest(0, GUEST, x=0)
    world.launch(
        privilege=SUPERVISOR,
        guest_satp=world.satp(),
        guest_pc=0x124,
        exception_bitmap=1 << Exception_.INSTRUCTION_PAGE_FAULT,
    )
    world.run()
    assert world.read("exit_reason") == REASON.EXCEPTION
    assert world.read("exit_qualification") == world.read("exit_pc") == 0x124
    assert world.read("exit_instruction") == world.read("exit_instruction_length") == 0


@pytest.mark.parametrize(
    ("word", "status", "privilege"),
    [
        (encode("wfi"), "tw", SUPERVISOR),
        (encode("wfi"), None, USER),
        (encode("sfence.vma"), "tvm", SUPERVISOR),
        (encode("sfence.vma"), None, USER),
        (encode("csrrw", rs1=6, csr=number("satp")), "tvm", SUPERVISOR),
        (encode("csrrs", rd=5, csr=number("time")), None, SUPERVISOR),
        (encode("csrrs", rd=5, csr=number("instret")), None, USER),
        (encode("csrrw", rs1=6, csr=number("mscratch")), None, SUPERVISOR),
        (encode("csrrw", rs1=6, csr=number("mhartid")), None, MACHINE),
        (encode("csrrw", rs1=6, csr=number("stimecmp")), None, SUPERVISOR),
        (encode("csrrs", rd=5, csr=0x5C0), None, MACHINE),
    ],
)
def test_what_the_guest_itself_must_see_comes_first(word, status, privilege):
    """Illegal instructions of the guest, though every control is on."""
    world = World()
    names = [case.control for case in CASES.values() if case.control]
    mstatus = MSTATUS_CONSTANT | (MSTATUS[status].mask if status else 0)
    world.launch(
        privilege=privilege,
        code=[word],
        execution_controls=controls(*names),
        guest_mstatus=mstatus,
        **every("read"),
        **every("write"),
    )
    assert world.run() == (Exception_.ILLEGAL_INSTRUCTION, word)
    assert world.hart.world == 1 and world.hart.csr.values["mtval"] == word


# Parking.


def test_an_exit_parks_when_asked_to():
    world = World()
    vmx = world.hart.vmx
    code = [encode("ld", rd=5, rs1=6), encode("addi", rd=7, rs1=5, imm=1), vmx_word("vmcall")]
    vmx.park_exits = 1 << REASON.EPT_VIOLATION
    world.hart.x[6] = ABSENT
    world.launch(code=code, privilege=SUPERVISOR)
    world.run()
    assert vmx.parked
    park = vmx.park()
    assert set(park) == {field.name for field in PARK.fields} - {"cycle", "instret", "time"}
    assert park == {
        "reason": REASON.EPT_VIOLATION,
        "qualification": EPT_QUALIFICATION.encode(read=1, gva_valid=1, final=1),
        "gva": ABSENT,
        "gpa": ABSENT,
        "pc": GUEST,
        "rs1": ABSENT,
        "rs2": 0,
        "instruction": code[0],
        "length": 4,
        "kind": ParkKind.VM_EXIT,
        "privilege": SUPERVISOR,
        "world": 1,
    }
    retired = vmx.root_csr.retired
    vmx.resume(GUEST + 4, rd=5, value=41)
    assert not vmx.parked and world.hart.world == 1 and world.hart.pc == GUEST + 4
    world.run(2)
    assert world.hart.x[7] == 42
    assert not vmx.parked
    assert world.read("exit_reason") == REASON.VMCALL
    # VMRESUME by the host is no instruction: one of the guest retired.
    assert world.read("guest_minstret") == 1
    assert vmx.root_csr.retired == retired + 1 + 2


@pytest.mark.parametrize("inhibit", [0, 1, 4])
def test_what_the_host_has_carried_out_counts_as_retired(inhibit):
    world = World()
    vmx = world.hart.vmx
    vmx.park_exits = 1 << REASON.EPT_VIOLATION
    absent = encode("ld", rd=5, rs1=5)
    code = [absent, absent, encode("csrrs", rd=6, csr=number("minstret")), vmx_word("vmcall")]
    world.hart.x[5] = ABSENT
    world.launch(code=code, guest_mcountinhibit=inhibit, guest_minstret=7)
    world.run()
    vmx.resume(GUEST + 4, retires=True)
    world.run()
    assert vmx.parked
    vmx.resume(GUEST + 8)
    world.run(2)
    counted = not inhibit & 4
    assert world.hart.x[6] == 7 + counted
    assert world.read("guest_minstret") == 7 + 2 * counted


def test_resuming_a_guest_that_cannot_go_on():
    world = World()
    vmx = world.hart.vmx
    vmx.park_exits = 1 << REASON.VMCALL
    world.launch(code=[vmx_word("vmcall")])
    world.run()
    world.write(vpid=1 << 16)
    vmx.resume(GUEST)
    assert vmx.parked and world.hart.world == 0 and world.hart.pc != GUEST
    assert world.hart.csr.values["vmxstatus"] == 7


def test_a_failed_entry_parks():
    world = World()
    vmx = world.hart.vmx
    vmx.park_exits = 1 << REASON.BAD_GUEST_STATE
    world.write(guest_privilege=2)
    assert world.vmx("vmlaunch") is None
    assert vmx.parked and vmx.park()["reason"] == REASON.BAD_GUEST_STATE | 1 << ENTRY_FAILURE


def test_the_ept_leaf_shows_in_the_qualification():
    """Every combination of rights, on a store."""
    for rights in ("r", "x", "rx"):
        world = World()
        flags = {name: int(name in rights) for name in "rwx"}
        entry = world.map(GUEST + 0x5000, world.hpa(GUEST + 0x5000), **flags)
        assert PTE.decode(world.get(entry))["w"] == 0
        world.hart.x[6] = GUEST + 0x5000
        world.launch(code=[encode("sd", rs1=6, rs2=7)])
        world.run()
        found = EPT_QUALIFICATION.decode(world.read("exit_qualification"))
        assert (found["readable"], found["writable"], found["executable"]) == tuple(flags.values())

"""VM entry: what is checked, taken over and injected (docs/isa/vmx.md#entry)."""

import pytest

from rtl.arch.csrs import (
    CSRS,
    DELEGABLE_EXCEPTIONS,
    DELEGABLE_INTERRUPTS,
    MSTATUS,
    MSTATUS_CONSTANT,
)
from rtl.arch.paging import SATP, SatpMode
from rtl.arch.traps import INTERRUPT_BIT, Exception_, Interrupt, Privilege
from rtl.arch.vmx.capability import VMX_CSRS
from rtl.arch.vmx.checks import ENTRY_CHECKS, CheckClass
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.exits import ENTRY_FAILURE, INTERRUPTION, ExitReason, InterruptionType
from rtl.arch.vmx.fields import GUEST_CSRS, VMCS_FIELDS
from rtl.arch.vmx.instructions import VmInstructionError
from sim.golden.events import EXIT_DUE
from sw_vmm.assembler import encode
from tests.golden.vmx.valid_vmcs import mutations, valid_fields
from tests.golden.vmx.world import GUEST, HOST, HOST_CODE, RAM, VMCS, World, controls, vmx_word

USER, SUPERVISOR, MACHINE = Privilege.USER, Privilege.SUPERVISOR, Privilege.MACHINE
MUTATIONS = list(mutations())
ALL = (1 << 64) - 1


@pytest.mark.parametrize("privilege", Privilege)
def test_each_privilege(privilege):
    """The guest is where and what the VMCS says: ecall tells its level."""
    world = World()
    cause = Exception_.ECALL_FROM_USER + privilege
    world.launch(privilege=privilege, code=[encode("ecall")], exception_bitmap=1 << cause)
    hart = world.hart
    assert (hart.pc, hart.privilege, hart.world) == (GUEST, privilege, 1)
    world.run()
    assert world.read("exit_reason") == ExitReason.EXCEPTION
    assert world.read("exit_interruption") == INTERRUPTION.encode(
        valid=1, type=InterruptionType.EXCEPTION, cause=cause
    )
    assert world.read("guest_privilege") == privilege


@pytest.mark.parametrize("name", GUEST_CSRS)
def test_each_guest_csr_is_the_guests_own(name):
    """Loaded from its field, written by the guest, saved, and root's is another."""
    world = World()
    csr, field = CSRS[name], VMCS_FIELDS[f"guest_{name}"]
    writable = csr.writable & ~field.reserved
    values = {"first": 0x5555_5555_5555_5555, "second": 0xAAAA_AAAA_AAAA_AAAA}
    match name:
        case "mstatus":
            writable &= ~MSTATUS.mask("mpp", "mprv")
        case "satp":
            values = {"first": SATP.encode(mode=SatpMode.SV39, ppn=5), "second": 0x1234}
        case "mtvec" | "stvec":
            writable &= ~3
    first, second = (value & writable for value in values.values())
    constant = MSTATUS_CONSTANT if name == "mstatus" else 0
    root = 0x0F0F_0F0F_0F0F_0F0F & csr.writable & ~MSTATUS.mask("mpp", "mprv", "mie")
    if name == "satp":
        root = 0xF0F
    if name in ("mcycle", "minstret"):
        root = 0
    else:
        world.hart.write_csr(csr.number, root)
    root = world.hart.csr.values.get(name, 0)
    code = [
        encode("csrrs", rd=5, csr=csr.number),
        encode("csrrw", rs1=6, csr=csr.number),
        vmx_word("vmcall"),
    ]
    world.outside.counters["mcycle"] = first
    world.hart.x[6] = second
    fields = {"guest_mtimecmp": ALL, f"guest_{name}": first | constant}
    world.launch(code=code, **fields)
    assert world.run(1) is None
    passed = world.hart.x[5] - (first | constant)
    # On the machine, cycles pass.
    assert 0 <= passed <= 200 if name == "mcycle" and world.on_machine else passed == 0
    world.outside.counters["guest_mcycle"] = second
    assert world.run(2) is not None
    assert world.hart.world == 0
    # The instruction that writes minstret does not count itself.
    passed = world.read(f"guest_{name}") - (second | constant)
    assert 0 <= passed <= 200 if name == "mcycle" and world.on_machine else passed == 0
    assert world.hart.csr.values.get(name, 0) == root


def test_gprs_pass_through():
    world = World()
    x = world.hart.x
    code = [encode("addi", rd=n, rs1=n, imm=1) for n in range(1, 32)]
    world.launch(code=[*code, vmx_word("vmcall")])
    for n in range(1, 32):
        x[n] = 100 * n
    world.run(40)
    assert world.hart.world == 0
    assert x[1:32] == [100 * n + 1 for n in range(1, 32)]


@pytest.mark.parametrize("check", ENTRY_CHECKS)
def test_checks_fail_the_instruction_in_the_way_of_their_class(check, directed):
    """By each mutation, one after the other; at last the entry succeeds."""
    world = World()
    world.hart.csr.set_status(mie=1)
    row = ENTRY_CHECKS[check]
    valid = {**valid_fields(), "eptp": world.eptp()}
    for name, value in [(name, value) for wanted, name, value in MUTATIONS if wanted == check]:
        world.write(**{name: value})
        world.hart.csr.set_status(mie=1)
        _fails(world, row)
        directed("entry check", check, name, hex(value))
        world.write(**{name: valid[name]})
    assert world.vmx("vmlaunch") is None and world.hart.world == 1


def _fails(world, row):
    """VMLAUNCH fails by this check, and changes no more than it must."""
    hart = world.hart
    before = dict(hart.vmx.vmcs.fields)
    result = world.vmx("vmlaunch")
    after = {**before, "entry_check": row.number}
    if row.check_class == CheckClass.GUEST_STATE:
        assert result is None
        after["exit_reason"] = ExitReason.BAD_GUEST_STATE | 1 << ENTRY_FAILURE
        after["exit_qualification"] = row.number
        assert (hart.pc, hart.csr.status("mie")) == (HOST, 0)
        assert hart.csr.values["vmxstatus"] == 0
    else:
        controls_failed = row.check_class == CheckClass.CONTROLS
        error = (
            VmInstructionError.ENTRY_INVALID_CONTROLS
            if controls_failed
            else VmInstructionError.ENTRY_INVALID_HOST_STATE
        )
        after["instruction_error"] = error
        assert result == hart.csr.values["vmxstatus"] == error
        assert (hart.pc, hart.csr.status("mie")) == (HOST_CODE + 4, 1)
    assert hart.world == 0 and hart.privilege == MACHINE
    assert hart.vmx.vmcs.fields == after
    names = ("entry_check", "exit_reason", "exit_qualification", "instruction_error")
    assert world.fields(*names) == {name: after[name] for name in names}
    assert not hart.vmx.vmcs.launched


@pytest.mark.parametrize(
    "name", [row.name for row in CONTROL_WORDS["execution_controls"].controls if not row.allowed]
)
def test_controls_that_are_not_allowed(name):
    world = World()
    world.write(execution_controls=controls(name))
    assert world.vmx("vmlaunch") == VmInstructionError.ENTRY_INVALID_CONTROLS
    assert world.read("entry_check") == ENTRY_CHECKS["execution_controls_allowed"].number


def test_the_mask_csrs_narrow_the_controls():
    world = World()
    world.write(execution_controls=controls("wfi_exiting"))
    mask = ALL & ~CONTROL_WORDS["execution_controls"].layout["wfi_exiting"].mask
    number = VMX_CSRS["vmxexecutionmask"].number
    world.hart.x[6] = mask
    assert world.step(encode("csrrw", rs1=6, csr=number)) is None
    assert world.vmx("vmlaunch") == VmInstructionError.ENTRY_INVALID_CONTROLS
    assert world.read("entry_check") == ENTRY_CHECKS["execution_controls_allowed"].number
    # Without a bit that is required there is no entry at all.
    world.write(execution_controls=controls())
    world.hart.x[6] = 0
    assert world.step(encode("csrrw", rs1=6, csr=number)) is None
    assert world.vmx("vmlaunch") == VmInstructionError.ENTRY_INVALID_CONTROLS
    world.hart.x[6] = mask
    assert world.step(encode("csrrw", rs1=6, csr=number)) is None
    assert world.vmx("vmlaunch") is None and world.hart.world == 1


def test_launch_states():
    world = World()
    assert world.vmx("vmresume") == VmInstructionError.VMRESUME_NOT_LAUNCHED
    world.launch(code=[vmx_word("vmcall")])
    world.run()
    assert world.vmx("vmlaunch") == VmInstructionError.VMLAUNCH_NOT_CLEAR
    assert world.read("entry_check") == 0
    world.resume()
    world.run()
    assert world.vmx("vmclear", VMCS) == world.vmx("vmptrld", VMCS) == 0
    assert world.vmx("vmlaunch") is None


@pytest.mark.model_only  # Stopping behind each instruction ends it, too.
@pytest.mark.parametrize("way", ["entry", "exit", "failed entry"])
def test_the_reservation_is_cleared(way):
    world = World()
    hart = world.hart
    if way == "failed entry":
        world.write(guest_privilege=2)
    if way == "exit":
        world.launch(code=[encode("lr.d", rd=5, rs1=10), vmx_word("vmcall")])
        hart.x[10] = GUEST
        assert world.run() is None
        assert hart.memory.reserved is not None
        world.run()
    else:
        hart.x[10] = HOST
        world.step(encode("lr.d", rd=5, rs1=10))
        assert hart.memory.reserved is not None
        world.vmx("vmlaunch")
    assert hart.memory.reserved is None


@pytest.mark.parametrize("way", ["none", "entry", "exit", "failed entry"])
def test_no_reservation_reaches_the_other_world(way):
    """Nothing stops in between; with no switch the store-conditional succeeds."""
    world, shared = World(), RAM + 0x7000
    world.map(shared, shared)
    reserve = encode("lr.d", rd=6, rs1=10)
    store = [encode("sc.d", rd=5, rs1=10), encode("jal", imm=0)]
    launch, call = vmx_word("vmlaunch", 7), vmx_word("vmcall")
    root, guest, host = {
        "none": ([reserve, *store], [], []),
        "entry": ([reserve, launch], store, []),
        "exit": ([launch], [reserve, call], store),
        "failed entry": ([reserve, launch], [], store),
    }[way]
    if way == "failed entry":
        world.write(guest_privilege=2)
    world.guest_code(*guest)
    world.code(HOST, *host)
    world.hart.x[5], world.hart.x[10] = 7, shared
    world.root_code(*root)
    world.free_run(len(root) + len(guest) + len(host))
    assert world.hart.x[5] == (way != "none")


# Injection.

VECTOR = {"guest_mtvec": GUEST + 0x1001, "guest_stvec": GUEST + 0x2001}


def inject(world, kind, cause, privilege, value=0x77, **fields):
    event = INTERRUPTION.encode(valid=1, type=kind, cause=cause)
    world.launch(
        privilege=privilege,
        entry_interruption=event,
        entry_interruption_value=value,
        **VECTOR,
        **fields,
    )
    world.injected()


@pytest.mark.parametrize("privilege", Privilege)
@pytest.mark.parametrize("delegated", [0, 1])
@pytest.mark.parametrize("cause", Exception_)
def test_injected_exceptions(cause, privilege, delegated):
    """To M, or to S where it is delegated; the exception bitmap is not looked at."""
    world = World()
    medeleg = DELEGABLE_EXCEPTIONS * delegated
    inject(world, InterruptionType.EXCEPTION, cause, privilege, guest_medeleg=medeleg,
           exception_bitmap=ALL)  # fmt: skip
    hart, values = world.hart, world.hart.csr.values
    to_supervisor = privilege != MACHINE and medeleg >> cause & 1
    level, prefix = (SUPERVISOR, "s") if to_supervisor else (MACHINE, "m")
    assert hart.privilege == level and hart.world == 1
    assert hart.pc == VECTOR[f"guest_{prefix}tvec"] & ~3
    assert values[f"{prefix}cause"] == cause
    assert values[f"{prefix}epc"] == GUEST
    assert values[f"{prefix}tval"] == 0x77
    status = "spp" if to_supervisor else "mpp"
    assert hart.csr.status(status) == privilege & (1 if to_supervisor else 3)
    assert hart.trapped == (cause, 0x77)
    assert hart.due == -1


@pytest.mark.parametrize("privilege", Privilege)
@pytest.mark.parametrize("delegated", [0, 1])
@pytest.mark.parametrize("enabled", [0, 1])
@pytest.mark.parametrize("cause", Interrupt)
def test_injected_interrupts(cause, privilege, delegated, enabled):
    """Whatever the enables say; vectored, and with no trap value."""
    world = World()
    mideleg = DELEGABLE_INTERRUPTS * delegated
    status = MSTATUS_CONSTANT | MSTATUS.encode(mie=enabled, sie=enabled)
    inject(world, InterruptionType.INTERRUPT, cause, privilege, guest_mideleg=mideleg,
           guest_mie=CSRS["mie"].writable * enabled, guest_mstatus=status)  # fmt: skip
    hart, values = world.hart, world.hart.csr.values
    to_supervisor = privilege != MACHINE and mideleg >> cause & 1
    level, prefix = (SUPERVISOR, "s") if to_supervisor else (MACHINE, "m")
    assert hart.privilege == level
    assert hart.pc == (VECTOR[f"guest_{prefix}tvec"] & ~3) + 4 * cause
    assert values[f"{prefix}cause"] == cause | 1 << INTERRUPT_BIT
    assert values[f"{prefix}tval"] == 0
    assert hart.csr.status(f"{prefix}pie") == enabled
    assert hart.csr.status(f"{prefix}ie") == 0


def test_only_the_valid_bit_is_cleared():
    world = World()
    inject(world, InterruptionType.EXCEPTION, Exception_.BREAKPOINT, SUPERVISOR)
    world.code(world.hpa(GUEST + 0x1000), vmx_word("vmcall"))
    world.run()
    assert world.read("exit_reason") == ExitReason.VMCALL
    event = INTERRUPTION.encode(type=InterruptionType.EXCEPTION, cause=Exception_.BREAKPOINT)
    assert world.read("entry_interruption") == event
    world.resume()
    assert world.hart.due == -1


def test_injection_comes_before_any_exit():
    world = World()
    inject(
        world,
        InterruptionType.EXCEPTION,
        Exception_.BREAKPOINT,
        SUPERVISOR,
        execution_controls=controls("preemption_timer", "interrupt_window_exiting"),
        guest_preemption_timer=0,
        interrupt_window_mask=2,
    )
    assert world.hart.due == EXIT_DUE + ExitReason.PREEMPTION_TIMER
    world.event(ExitReason.PREEMPTION_TIMER)
    assert world.read("exit_pc") == GUEST + 0x1000
    assert world.read("guest_mepc") == GUEST


def test_the_guest_is_active_after_an_injected_interrupt():
    world = World()
    inject(
        world,
        InterruptionType.INTERRUPT,
        Interrupt.SUPERVISOR_TIMER,
        SUPERVISOR,
        guest_activity=1,
        execution_controls=controls("preemption_timer"),
    )
    world.event(ExitReason.PREEMPTION_TIMER)
    assert world.read("guest_activity") == 0

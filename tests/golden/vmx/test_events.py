"""What comes between the guest's instructions (docs/isa/vmx.md#events)."""

from itertools import combinations

import pytest

from rtl.arch.csrs import CSRS, DELEGABLE_INTERRUPTS, INTERRUPTS, MSTATUS, MSTATUS_CONSTANT
from rtl.arch.traps import INTERRUPT_BIT, INTERRUPT_PRIORITY, Interrupt, Privilege
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.exits import INTERRUPTION, ExitReason
from sim.golden import InterruptRefused
from sim.golden.events import EXIT_DUE
from sw_vmm.assembler import encode
from tests.golden.vmx.world import GUEST, HOST, OTHER_VMCS, VMCS, World, controls, number, vmx_word

MACHINE, SUPERVISOR, USER = Privilege.MACHINE, Privilege.SUPERVISOR, Privilege.USER
TIMER, EXTERNAL, WINDOW = (
    ExitReason.PREEMPTION_TIMER,
    ExitReason.EXTERNAL_INTERRUPT,
    ExitReason.INTERRUPT_WINDOW,
)
ALL = (1 << 64) - 1
LINES = INTERRUPTS.mask()
MTI, SSI = Interrupt.MACHINE_TIMER, Interrupt.SUPERVISOR_SOFTWARE


def root_with(mip=0, mie=0, status=0):
    """A world whose root has software bits of mip, and mie."""
    world = World()
    world.hart.write_csr(number("mip"), mip)
    world.hart.write_csr(number("mie"), mie)
    world.hart.csr.values["mstatus"] |= status
    return world


def cause_of(world):
    return INTERRUPTION["cause"].extract(world.read("exit_interruption"))


# External interrupts.


@pytest.mark.parametrize("status", [0, MSTATUS["mie"].mask])
@pytest.mark.parametrize("privilege", Privilege)
@pytest.mark.parametrize("line", Interrupt)
def test_every_root_interrupt_exits(line, privilege, status):
    """Whatever root's MIE and mideleg, and the guest's state say."""
    own = CSRS["mip"].writable & 1 << line
    world = root_with(mip=own, mie=LINES, status=status)
    world.hart.write_csr(number("mideleg"), DELEGABLE_INTERRUPTS)
    fields = {"execution_controls": controls("external_interrupt_exiting")}
    world.launch(privilege=privilege, **fields)
    assert world.hart.due == (EXIT_DUE + EXTERNAL if own else -1)
    world.lines(line)
    world.event(EXTERNAL, line)
    assert world.hart.pc == HOST
    assert cause_of(world) == line


@pytest.mark.parametrize("pending", list(combinations([1, 5, 9], 2)))
def test_what_software_has_set_is_due_and_the_first_is_named(pending):
    mip = sum(1 << line for line in pending)
    world = root_with(mip=mip, mie=LINES)
    world.launch(execution_controls=controls("external_interrupt_exiting"))
    assert world.hart.due == EXIT_DUE + EXTERNAL
    first = next(line for line in INTERRUPT_PRIORITY if line in pending)
    for line in pending:
        if line != first:
            world.refused(EXTERNAL, line)
    world.event(EXTERNAL, first)
    assert cause_of(world) == first


@pytest.mark.parametrize(
    ("mie", "passed", "names"),
    [
        (0, 0, ["external_interrupt_exiting"]),
        (LINES, LINES, ["external_interrupt_exiting"]),
        (LINES, 0, []),
    ],
)
def test_what_does_not_exit(mie, passed, names):
    world = root_with(mip=2, mie=mie)
    world.launch(execution_controls=controls(*names), interrupt_passthrough=passed)
    assert world.hart.due == -1
    for line in Interrupt:
        world.refused(EXTERNAL, line)
    # It waits for root.
    world.guest_code(vmx_word("vmcall"))
    world.run()
    assert world.hart.world == 0 and world.hart.due == -1
    world.hart.csr.set_status(mie=1)
    world.hart.switched()
    assert world.hart.due == (1 if mie else -1)


def test_a_line_passed_through_interrupts_the_guest():
    world = root_with(mip=2, mie=LINES)
    world.launch(
        execution_controls=controls("external_interrupt_exiting"),
        interrupt_passthrough=2,
        guest_mie=2,
        guest_mstatus=MSTATUS_CONSTANT | MSTATUS["mie"].mask,
        guest_mtvec=GUEST + 0x1000,
    )
    assert world.hart.due == SSI
    world.interrupt(SSI)
    assert world.hart.world == 1 and world.hart.pc == GUEST + 0x1000
    assert world.hart.csr.values["mcause"] == 1 << INTERRUPT_BIT | SSI


# The guest's own interrupts.


def test_root_lines_do_not_reach_the_guest():
    world = root_with(mip=CSRS["mip"].writable, mie=LINES)
    world.lines(*Interrupt)
    world.launch(
        code=[encode("addi")],
        guest_mie=LINES,
        guest_mtimecmp=ALL,
        guest_mstatus=MSTATUS_CONSTANT | MSTATUS["mie"].mask,
    )
    if not world.on_machine:
        for line in Interrupt:
            with pytest.raises(InterruptRefused):
                world.hart.interrupt(line)
    assert world.run() is None


def test_the_guests_timers_interrupt_it_without_an_exit():
    world = World()
    world.launch(
        guest_mie=1 << MTI,
        guest_mtimecmp=1000,
        guest_mstatus=MSTATUS_CONSTANT | MSTATUS["mie"].mask,
        guest_mtvec=GUEST + 0x1000,
    )
    assert world.hart.due == -1
    world.time(1000)
    world.interrupt(MTI)
    assert world.hart.world == 1 and world.hart.pc == GUEST + 0x1000


def test_an_exit_that_is_due_goes_before_the_guests_interrupts():
    world = World()
    world.launch(
        execution_controls=controls("interrupt_window_exiting"),
        interrupt_window_mask=2,
        guest_lines=2,
        guest_mie=2,
        guest_mstatus=MSTATUS_CONSTANT | MSTATUS["mie"].mask,
    )
    assert world.hart.due == EXIT_DUE + WINDOW
    if not world.on_machine:
        with pytest.raises(InterruptRefused):
            world.hart.interrupt(SSI)
    world.event(WINDOW)
    world.resume(execution_controls=controls())
    assert world.hart.due == SSI


# The window.


@pytest.mark.parametrize("line", Interrupt)
@pytest.mark.parametrize("privilege", Privilege)
@pytest.mark.parametrize("enables", range(8))
def test_when_the_window_is_open(line, privilege, enables):
    """As when the guest would take the interrupt, if it were pending."""
    mie, sie, delegated = (enables >> n & 1 for n in range(3))
    mideleg = DELEGABLE_INTERRUPTS * delegated
    status = MSTATUS_CONSTANT | MSTATUS.encode(mie=mie, sie=sie)
    state = {"guest_mideleg": mideleg, "guest_mstatus": status}
    supervisors = mideleg >> line & 1
    if supervisors:
        takes = privilege == USER or (privilege == SUPERVISOR and sie)
    else:
        takes = privilege != MACHINE or mie
    for enabled in (0, 1 << line):
        world = World()
        world.launch(
            privilege=privilege,
            execution_controls=controls("interrupt_window_exiting"),
            interrupt_window_mask=1 << line,
            guest_mie=enabled,
            **state,
        )
        open_ = bool(takes and enabled)
        assert world.hart.due == (EXIT_DUE + WINDOW if open_ else -1)
        if not open_:
            world.refused(WINDOW)
    # The guest's own idea of it.
    world = World()
    world.launch(privilege=privilege, guest_lines=1 << line, guest_mie=1 << line, **state)
    assert (world.hart.due == line) == bool(takes)


def test_the_window_opens_by_an_instruction():
    world = World()
    code = [
        encode("csrrsi", imm=8, csr=number("mstatus")),
        encode("addi"),
    ]
    world.launch(
        code=code,
        execution_controls=controls("interrupt_window_exiting"),
        interrupt_window_mask=2,
        guest_mie=2,
    )
    assert world.hart.due == -1
    world.run()
    assert world.hart.due == EXIT_DUE + WINDOW
    world.event(WINDOW)
    assert world.read("exit_pc") == GUEST + 4
    assert world.read("guest_minstret") == 1


# The preemption timer.

SAVE = {"exit_controls": controls("save_preemption_timer", word="exit_controls")}


def test_it_exits_at_once_with_zero():
    world = World()
    fields = {"execution_controls": controls("preemption_timer"), "guest_preemption_timer": 0}
    world.launch(**fields)
    assert world.hart.due == EXIT_DUE + TIMER
    world.event(TIMER)
    assert world.read("exit_pc") == GUEST


@pytest.mark.model_only
def test_it_cannot_be_later_than_the_instructions():
    """Each takes a cycle; seen with the next change of what is due."""
    world = World()
    code = [encode("addi")] * 3 + [encode("csrrw", rs1=0, csr=number("mie"))]
    for timer, due in ((5, -1), (3, EXIT_DUE + TIMER)):
        world = World()
        world.launch(code=code, execution_controls=controls("preemption_timer"),
                     guest_preemption_timer=timer)  # fmt: skip
        world.run(4)
        assert world.hart.due == due


def test_it_goes_before_other_exits():
    world = root_with(mip=2, mie=2)
    names = ["preemption_timer", "external_interrupt_exiting", "interrupt_window_exiting"]
    world.launch(execution_controls=controls(*names), interrupt_window_mask=2, guest_mie=2,
                 privilege=USER)  # fmt: skip
    assert world.hart.due == EXIT_DUE + TIMER
    for reason, cause in ((EXTERNAL, 1), (WINDOW, -1)):
        world.refused(reason, cause)
    world.event(TIMER)
    world.resume(guest_preemption_timer=9)
    assert world.hart.due == EXIT_DUE + EXTERNAL
    world.refused(WINDOW)


def test_it_is_off_without_its_control():
    world = World()
    world.launch()
    assert world.hart.due == -1
    world.refused(TIMER)


@pytest.mark.model_only
@pytest.mark.parametrize("reason", [EXTERNAL, ExitReason.VMCALL])
def test_what_is_left_is_saved_when_asked(reason):
    """By the machine's word, which cannot exceed the cycles there were."""
    for save, counter, wanted in ((SAVE, 70, 70), (SAVE, 99, 98), ({}, 70, 100)):
        world = root_with(mie=LINES)
        world.outside.counters["guest_preemption_timer"] = counter
        names = ["preemption_timer", "external_interrupt_exiting"]
        code = [encode("addi"), encode("addi"), vmx_word("vmcall")]
        world.launch(
            code=code, execution_controls=controls(*names), guest_preemption_timer=100, **save
        )
        world.run(2)
        if reason == EXTERNAL:
            world.hart.vmx.event_exit(EXTERNAL, cause=MTI)
        else:
            world.run()
        assert world.read("guest_preemption_timer") == wanted
        # Told once, it stays.
        world.outside.counters["guest_preemption_timer"] = 1
        assert world.read("guest_preemption_timer") == wanted


@pytest.mark.model_only
def test_what_is_left_need_not_be_read():
    """The guest goes on with it, and only the machine knows when it expires."""
    world = World()
    world.launch(code=[vmx_word("vmcall")], execution_controls=controls("preemption_timer"),
                 guest_preemption_timer=100, **SAVE)  # fmt: skip
    world.run()
    world.resume()
    assert world.hart.due == -1
    world.run()
    world.outside.counters["guest_preemption_timer"] = 1 << 40
    assert world.read("guest_preemption_timer") == 1 << 40


def test_nothing_is_left_when_it_expired():
    world = World()
    world.outside.counters["guest_preemption_timer"] = 5
    world.launch(execution_controls=controls("preemption_timer"), guest_preemption_timer=1, **SAVE)
    world.event(TIMER)
    assert world.read("guest_preemption_timer") == 0


@pytest.mark.model_only
def test_what_cycles_made_goes_with_the_vmcs():
    """VMREAD asks the machine after the VMCS was away, and VMWRITE ends the doubt."""
    world = World()
    counters = world.outside.counters
    world.launch(code=[vmx_word("vmcall")])
    world.run()
    counters["guest_mcycle"] = 123
    world.load(OTHER_VMCS)
    assert world.read("guest_mcycle") == 0
    assert world.hart.vmx.vmcs.opaque
    assert world.vmx("vmptrld", VMCS) == 0
    assert world.read("guest_mcycle") == 123
    counters["guest_mcycle"] = 124
    assert world.read("guest_mcycle") == 123
    assert world.vmx("vmptrld", OTHER_VMCS) == world.vmx("vmptrld", VMCS) == 0
    assert not world.hart.vmx.vmcs.opaque
    world.resume()
    world.run()
    world.write(guest_mcycle=7)
    assert world.read("guest_mcycle") == 7


# Waiting.


def waiting(**fields):
    world = root_with(mie=LINES)
    names = ["external_interrupt_exiting", "preemption_timer", "interrupt_window_exiting"]
    world.launch(
        code=[encode("wfi"), encode("addi")],
        execution_controls=controls(*names),
        guest_preemption_timer=1000,
        **fields,
    )
    return world


@pytest.mark.parametrize(("reason", "cause"), [(TIMER, -1), (EXTERNAL, MTI)])
def test_an_exit_from_wfi(reason, cause):
    """pc is behind the wfi, which has retired; activity says it waited, and waits again."""
    world = waiting()
    assert world.run() is None
    world.refused(reason, cause, match="waits")
    if reason == EXTERNAL:
        world.lines(cause)
    world.event(reason, cause, waits=True)
    assert world.read("guest_activity") == 1
    assert world.read("guest_pc") == world.read("exit_pc") == GUEST + 4
    assert world.read("guest_minstret") == 1
    world.resume()
    world.event(reason, cause, waits=True)
    assert world.read("guest_activity") == 1
    assert world.read("guest_minstret") == 1


@pytest.mark.model_only
def test_nobody_waits_elsewhere():
    world = waiting()
    for _ in range(2):
        with pytest.raises(InterruptRefused, match="does not wait"):
            world.hart.vmx.event_exit(TIMER, waits=True)
        world.event(TIMER)
        assert world.read("guest_activity") == 0
        world.resume()
    world.run(2)
    with pytest.raises(InterruptRefused, match="does not wait"):
        world.hart.vmx.event_exit(TIMER, waits=True)
    world.event(TIMER)
    assert world.read("guest_activity") == 0


def test_what_is_pending_already_ends_the_wait():
    world = waiting(guest_lines=2, guest_mie=2)
    world.run()
    world.refused(TIMER, waits=True, match="does not wait")
    if world.on_machine:
        assert world.run() is None and world.hart.pc == GUEST + 8
        return
    world.event(TIMER)
    assert world.read("guest_activity") == 0


@pytest.mark.model_only
def test_a_timer_may_have_ended_it():
    for waits in (False, True):
        world = waiting(guest_mie=1 << MTI, guest_mtimecmp=5)
        world.run()
        world.hart.vmx.event_exit(TIMER, waits=waits)
        assert world.read("guest_activity") == waits


def test_the_window_is_seen_from_wfi():
    world = waiting(guest_mie=2, guest_mstatus=MSTATUS_CONSTANT | MSTATUS["mie"].mask)
    world.run()
    world.event(TIMER, waits=True)
    world.resume(interrupt_window_mask=2)
    assert world.hart.due == EXIT_DUE + WINDOW
    world.event(WINDOW, waits=True)
    assert world.read("guest_activity") == 1


@pytest.mark.model_only
def test_all_execution_controls_are_known_here():
    """The words of controls say the same as the model's names for them."""
    world = World()
    for row in CONTROL_WORDS["execution_controls"].controls:
        if row.allowed:
            world.write(execution_controls=1 << row.bit)
            assert world.hart.vmx.control(row.name)
            world.write(execution_controls=~(1 << row.bit) & ALL)
            assert not world.hart.vmx.control(row.name)
    assert CSRS["mip"].layout is INTERRUPTS

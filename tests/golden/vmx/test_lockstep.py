"""Lockstep follows a trace with VMX, and notices what is wrong in it.

The trace is the model's own, so that this says nothing about the model: it is about how records
are read, and that nothing in them goes unchecked.
"""

import pytest

from rtl.arch.records import EXIT_BIT, RETIREMENT, ParkKind
from rtl.arch.traps import Interrupt
from rtl.arch.vmx.exits import INTERRUPTION, ExitReason, InterruptionType
from rtl.arch.vmx.fields import VMCS_FIELDS
from sim.lockstep import Divergence, Lockstep
from sw_vmm.machine import ParkRecord
from tests.golden.vmx.traced import RAM_SIZE, START, trace
from tests.golden.vmx.world import GUEST

pytestmark = pytest.mark.model_only

TRACE = trace()
DECODED = [RETIREMENT.decode(record) for record in TRACE.records]
EXITS = [
    n for n, record in enumerate(DECODED) if record["trap"] and record["value"] >> EXIT_BIT == 1
]


def begun():
    lockstep = Lockstep(ram_size=RAM_SIZE, ram=TRACE.image, vmx=True)
    lockstep.hart.pc = START
    lockstep.hart.x[6], lockstep.hart.x[9] = GUEST + 0x3000, GUEST + 0x10000
    return lockstep


def follow(records):
    lockstep = begun()
    lockstep.check(TRACE.bytes(records))
    return lockstep


def diverges(records, at, match=None):
    with pytest.raises(Divergence, match=match) as found:
        follow(records)
    assert found.value.index >= at


def changed(n, **fields):
    records = list(TRACE.records)
    records[n] = RETIREMENT.encode(**DECODED[n] | fields)
    return records


def test_the_trace_is_followed():
    lockstep = follow(TRACE.records)
    assert lockstep.checked == len(TRACE.records) > 100
    assert {"injection", "interrupt", "wfi", "external", "timer"} < set(TRACE.kinds)
    reasons = {DECODED[n]["value"] & 0xFF for n in EXITS}
    assert len(reasons) == 6


def test_memory_is_compared_but_for_what_cycles_made():
    lockstep = follow(TRACE.records)
    vmcs = lockstep.hart.vmx.vmcs
    lockstep.hart.vmx.event_exit(ExitReason.PREEMPTION_TIMER)
    assert vmcs.vmclear(vmcs.pointer) == 0
    ram = bytearray(lockstep.hart.memory.ram)
    (opaque,) = vmcs.opaque
    ram[opaque - 0x8000_0000] ^= 1
    lockstep.compare_memory(ram)
    ram[opaque - 0x8000_0000 + 8] ^= 1
    with pytest.raises(Divergence, match="memory"):
        lockstep.compare_memory(ram)


@pytest.mark.parametrize("name", ["pc", "privilege", "world", "trap", "instruction"])
def test_every_record_tells(name):
    for n, record in enumerate(DECODED):
        if name == "instruction" and record["trap"] and record["value"] >> 63:
            continue  # nothing was executed
        if name == "instruction" and TRACE.kinds[n] == "injection":
            continue
        bit = 2 if name == "pc" else 1
        if name == "privilege":
            bit = 2
        diverges(changed(n, **{name: record[name] ^ bit}), n)


def test_every_register_written_tells():
    """But for those only the world outside knows: cycles, and how late it is."""
    outside = 0
    for n, record in enumerate(DECODED):
        if record["rd"] and not record["trap"]:
            try:
                follow(changed(n, value=record["value"] ^ 1 << 40))
            except Divergence:
                continue
            outside += 1
            instruction = record["instruction"]
            # VMREAD of guest_mcycle, or time in root.
            assert instruction & 0x7F == 0x0B or (
                instruction >> 20 == 0xC01 and not record["world"]
            )
    assert outside > 0


@pytest.mark.parametrize("n", EXITS)
@pytest.mark.parametrize("name", ["value", "data", "address", "instruction"])
def test_every_exit_tells(n, name):
    diverges(changed(n, **{name: DECODED[n][name] ^ 4}), n)


@pytest.mark.parametrize("n", range(len(TRACE.records) - 1))
def test_no_record_can_be_left_out(n):
    diverges(TRACE.records[:n] + TRACE.records[n + 1 :], n)


def test_who_waited_is_checked():
    for n in EXITS:
        if not DECODED[n]["load"]:
            diverges(changed(n, load=1), n, "wait") if not DECODED[n]["instruction"] else None
    first = TRACE.kinds.index("external")
    # In wfi from the entry on; a guest timer may have ended that, and nothing else.
    follow(changed(first, load=0)[: first + 1])


def test_an_exit_that_cannot_be_there():
    (n,) = (k for k, kind in enumerate(TRACE.kinds) if kind == "timer")
    window = 1 << EXIT_BIT | ExitReason.INTERRUPT_WINDOW
    diverges(changed(n, value=window), n, "window")
    external = 1 << EXIT_BIT | ExitReason.EXTERNAL_INTERRUPT
    software = INTERRUPTION.encode(
        valid=1, type=InterruptionType.INTERRUPT, cause=Interrupt.SUPERVISOR_SOFTWARE
    )
    diverges(changed(n, value=external, address=software), n, "not pending")
    for reason in (ExitReason.VMCALL, ExitReason.EPT_VIOLATION, 99, ExitReason.EXCEPTION):
        diverges(changed(n, value=1 << EXIT_BIT | reason), n)


def test_an_injection_must_come_first():
    n = TRACE.kinds.index("injection")
    diverges(changed(n, value=2), n, "injected")
    record = DECODED[n] | {"value": 1 << EXIT_BIT | ExitReason.PREEMPTION_TIMER}
    records = list(TRACE.records)
    records.insert(n, RETIREMENT.encode(**record))
    diverges(records, n, "injected")


def test_the_guests_time_must_follow_from_the_machines():
    """Behind what root has read before, nor before it."""
    (n,) = (
        k
        for k, record in enumerate(DECODED)
        if record["world"] and record["instruction"] >> 20 == 0xC01 and not record["trap"]
    )
    diverges(changed(n, value=5), n, "another value")


def parked_at(n):
    """Lockstep behind the exit that is record n, which parks."""
    lockstep = begun()
    lockstep.check(TRACE.bytes(TRACE.records[:n]))
    lockstep.hart.vmx.park_exits = 1 << (DECODED[n]["value"] & 0x7F)
    lockstep.check(TRACE.bytes(TRACE.records[n : n + 1]))
    return lockstep


@pytest.mark.parametrize("n", EXITS)
def test_parking(n):
    """The record is compared whole, and the hart does nothing after it."""
    lockstep = parked_at(n)
    park = ParkRecord(**lockstep.hart.vmx.park(), cycle=5, instret=6, time=7)
    assert park.kind == ParkKind.VM_EXIT and park.pc == DECODED[n]["pc"]
    lockstep.compare_park(park)
    for name in lockstep.hart.vmx.park():
        wrong = park._replace(**{name: getattr(park, name) ^ 1})
        with pytest.raises(Divergence, match=name):
            lockstep.compare_park(wrong)
    with pytest.raises(Divergence, match="should have parked"):
        lockstep.check(TRACE.bytes(TRACE.records[n + 1 :]))


def test_the_host_goes_on_by_itself():
    """Instead of the program's own instructions at host_pc."""
    (n, *_) = EXITS
    lockstep = parked_at(n)
    hart = lockstep.hart
    number = VMCS_FIELDS["exit_reason"].number
    assert lockstep.vmx("vmread", number) == (0, DECODED[n]["value"] & 0x7F)
    assert lockstep.vmx("vmwrite", number, 1) == (13, None)
    retired = hart.csr.retired
    hart.vmx.resume(DECODED[n]["pc"] + 4, rd=8, value=3)
    assert hart.x[8] == 3 and hart.vmx.root_csr.retired == retired
    # In the guest it goes on as the trace does behind the program's VMRESUME.
    after = next(k for k in range(n + 1, len(DECODED)) if DECODED[k]["world"])
    later = next(k for k in EXITS if k > n)
    lockstep.check(TRACE.bytes(TRACE.records[after : later + 1]))
    assert lockstep.checked == n + 1 + later + 1 - after


def test_it_parks_for_nothing_else():
    lockstep = begun()
    (first, *_) = EXITS
    lockstep.check(TRACE.bytes(TRACE.records[: first + 1]))
    park = ParkRecord(**lockstep.hart.vmx.park(), cycle=5, instret=6, time=7)
    with pytest.raises(Divergence, match="does not park"):
        lockstep.compare_park(park)


def test_without_vmx_nothing_of_it_is_believed():
    lockstep = Lockstep(ram_size=RAM_SIZE, ram=TRACE.image)
    lockstep.hart.pc = START
    with pytest.raises(Divergence):
        lockstep.check(TRACE.bytes())

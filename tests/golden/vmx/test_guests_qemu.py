"""What runs on QEMU runs the same in non-root operation, over an EPT that scatters its memory.

The directed programs, and random privileged programs with Sv39: every register after every
instruction. A small VMM answers for what lies outside of RAM and the devices.
"""

import random
from collections import Counter
from typing import ClassVar

import pytest

from rtl.arch.csrs import INTERRUPTS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, PTE
from rtl.arch.traps import Exception_
from rtl.arch.vmx.ept import EPTP
from rtl.arch.vmx.exits import EPT_QUALIFICATION, INTERRUPTION, ExitReason, InterruptionType
from rtl.arch.vmx.fields import VMCS_FIELDS, VMCS_REVISION
from sim.elf import load_elf
from sim.golden import Hart, InterruptRefused
from sim.golden.vmx.instructions import perform
from tests.golden.qemu import RAM, RAM_SIZE, Difference, follow, needs_qemu, run_qemu
from tests.golden.random_privileged import privileged_program
from tests.golden.vmx.valid_vmcs import valid_fields
from tests.golden.vmx.world import FULL, controls
from tests.programs.directed import PROGRAMS, build_directed

pytestmark = [needs_qemu, pytest.mark.model_only]

#: Above the program's memory lie the VMCS and the EPT.
_VMCS = RAM.base + RAM_SIZE
_ROOT = _VMCS + 0x4000
_TABLES = _ROOT + 0x4000
_DEVICES = ("finisher", "clint", "plic", "uart", "window", "rom")
#: Controls that make instructions exit.
_EXITING = (
    "wfi_exiting",
    "sfence_vma_exiting",
    "satp_write_exiting",
    "time_read_exiting",
    "counter_read_exiting",
    "use_csr_bitmap",
)
_FAULTS = {
    "read": Exception_.LOAD_ACCESS_FAULT,
    "write": Exception_.STORE_ACCESS_FAULT,
    "fetch": Exception_.INSTRUCTION_ACCESS_FAULT,
}


class InGuest:
    """Runs the program as a guest from M-mode on (see ``tests.golden.qemu.Root``)."""

    def __init__(self, outside):
        self.hart = Hart(RAM_SIZE + (1 << 20), outside, updates=True, vmx=True)
        self._free = _TABLES
        pages = list(range(RAM_SIZE >> PAGE_BITS))
        random.Random(1).shuffle(pages)
        self._pages = pages
        for page, place in enumerate(pages):
            self._map(RAM.base + (page << PAGE_BITS), RAM.base + (place << PAGE_BITS))
        for name in _DEVICES:
            region = MEMORY_MAP[name]
            for address in range(region.base, region.end, 1 << PAGE_BITS):
                self._map(address, address)
        self._put(_VMCS, VMCS_REVISION)
        for command in (("vmxon",), ("vmclear", _VMCS), ("vmptrld", _VMCS)):
            assert perform(self.hart.vmx, *command)[0] == 0
        self.fields(**valid_fields())
        # Lines and timers reach the guest: what they are is QEMU's word.
        lines = INTERRUPTS.mask("msi", "mei", "sei")
        self.fields(eptp=EPTP.encode(mode=8, ppn=_ROOT >> PAGE_BITS), interrupt_passthrough=lines)
        assert perform(self.hart.vmx, "vmlaunch") == (None, None)

    def fields(self, **fields):
        for name, value in fields.items():
            assert perform(self.hart.vmx, "vmwrite", VMCS_FIELDS[name].number, value)[0] == 0

    def _put(self, hpa, value):
        self.hart.memory.write_physical(hpa, value.to_bytes(8, "little"))

    def _get(self, hpa):
        place = hpa - RAM.base
        return int.from_bytes(self.hart.memory.ram[place : place + 8], "little")

    def _map(self, gpa, hpa):
        table = _ROOT
        for level in (2, 1):
            place = table + 8 * (gpa >> PAGE_BITS + 9 * level & (0x7FF if level == 2 else 511))
            if not self._get(place):
                self._put(place, PTE.encode(v=1, ppn=self._free >> PAGE_BITS))
                self._free += 0x1000
            table = PTE["ppn"].extract(self._get(place)) << PAGE_BITS
        leaf = PTE.encode(**FULL, ppn=hpa >> PAGE_BITS)
        self._put(table + 8 * (gpa >> PAGE_BITS & 511), leaf)

    def write(self, address, data):
        for n, byte in enumerate(data):
            page, offset = divmod(address + n - RAM.base, 1 << PAGE_BITS)
            place = (self._pages[page] << PAGE_BITS) + offset
            self.hart.memory.ram[place] = byte

    def step(self):
        """Where the EPT maps nothing there is nothing: an access fault, which is injected."""
        hart = self.hart
        hart.step()
        if not hart.world:
            assert hart.vmx.vmcs.fields["exit_reason"] == ExitReason.EPT_VIOLATION
            self.reflect()

    def reflect(self):
        """An EPT violation becomes an access fault of the guest."""
        fields = self.hart.vmx.vmcs.fields
        found = EPT_QUALIFICATION.decode(fields["exit_qualification"])
        cause = next(cause for name, cause in _FAULTS.items() if found[name])
        if not found["final"]:
            # A guest's table: the fault is that of the access, which the instruction tells.
            cause = self._original()
        self.inject(cause, fields["exit_gva"])

    def inject(self, cause, value):
        """Go on in the guest with the exception; what was executed stays for the comparison."""
        hart = self.hart
        executed = hart.executed
        event = INTERRUPTION.encode(valid=1, type=InterruptionType.EXCEPTION, cause=cause)
        self.fields(entry_interruption=event, entry_interruption_value=value)
        self.resume()
        hart.vmx.inject()
        hart.executed = executed

    def resume(self):
        assert perform(self.hart.vmx, "vmresume") == (None, None)

    def _original(self):
        i = self.hart.executed
        if i is None:
            return _FAULTS["fetch"]
        loads = i.name.startswith(("l", "lr."))
        return _FAULTS["read" if loads else "write"]


class Exiting(InGuest):
    """Everything an instruction can do to exit makes it exit; the VMM then lets it pass alone, or
    injects its exception.
    """

    seen: ClassVar = Counter()

    def __init__(self, outside):
        super().__init__(outside)
        bitmaps = {
            name: (1 << 64) - 1 & ~field.reserved
            for name, field in VMCS_FIELDS.items()
            if "_bitmap" in name
        }
        self.strict = bitmaps | {"execution_controls": controls("preemption_timer", *_EXITING)}
        self.lenient = dict.fromkeys(bitmaps, 0)
        self.lenient["execution_controls"] = controls("preemption_timer")
        hart = self.hart
        hart.vmx.vmcs.fields["execution_controls"] |= controls("preemption_timer")
        self._leave()
        self.fields(guest_preemption_timer=1 << 32, **self.strict)
        self.resume()

    def _leave(self):
        vmx = self.hart.vmx
        try:
            vmx.event_exit(ExitReason.PREEMPTION_TIMER)
        except InterruptRefused:
            vmx.event_exit(ExitReason.PREEMPTION_TIMER, waits=True)

    def step(self):
        hart = self.hart
        hart.step()
        if hart.world:
            return
        fields = hart.vmx.vmcs.fields
        self.seen[ExitReason(fields["exit_reason"])] += 1
        if fields["exit_reason"] == ExitReason.EXCEPTION:
            cause = INTERRUPTION["cause"].extract(fields["exit_interruption"])
            self.inject(cause, fields["exit_qualification"])
        elif fields["exit_reason"] == ExitReason.EPT_VIOLATION:
            self.reflect()
        else:
            self._pass()

    def _pass(self):
        hart = self.hart
        self.fields(**self.lenient)
        self.resume()
        hart.step()
        executed, trapped = hart.executed, hart.trapped
        self._leave()
        self.fields(**self.strict)
        self.resume()
        hart.executed, hart.trapped = executed, trapped


@pytest.mark.parametrize("name", PROGRAMS)
def test_directed_programs(name):
    program = build_directed(name, flags=("-DQEMU",))
    image = load_elf(program, ram_size=RAM_SIZE)
    assert follow(run_qemu(program), image.segments, InGuest) > 100


@pytest.mark.parametrize("runner", [InGuest, Exiting])
@pytest.mark.parametrize("seed", range(20, 23))
def test_random_privileged_programs(seed, runner):
    program = privileged_program(seed)
    assert follow(run_qemu(program), [(RAM.base, program)], runner) > 2000


def test_exits_change_nothing():
    """The directed programs that meet most of them."""
    Exiting.seen.clear()
    for name in ("machine", "supervisor", "interrupts", "wfi"):
        program = build_directed(name, flags=("-DQEMU",))
        image = load_elf(program, ram_size=RAM_SIZE)
        assert follow(run_qemu(program), image.segments, Exiting) > 100
    assert len(Exiting.seen) >= 6, Exiting.seen


def test_another_delegation_is_noticed():
    """A guest that used root's mstatus for its translation would not pass."""
    program = privileged_program(20)
    states = run_qemu(program)

    class Broken(InGuest):
        def step(self):
            self.hart.vmx.guest_csr.values["medeleg"] |= 1 << Exception_.BREAKPOINT
            super().step()

    with pytest.raises(Difference):
        follow(states, [(RAM.base, program)], Broken)

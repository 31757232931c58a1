"""Random guests on the RTL, in lockstep with the golden model."""

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.records import ParkKind
from rtl.arch.vmx.exits import ENTRY_FAILURE, EXIT_REASONS, ExitReason
from rtl.arch.vmx.fields import VMCS_FIELDS
from sim.golden import Unknowable
from sim.lockstep import Lockstep, LockstepMachine
from sw_vmm.machine import Event
from tests.golden.vmx.world import GUEST, RAM_SIZE
from tests.machine.vmx.random_guests import HOST_START, TOHOST, RandomGuest

__all__ = ["GuestDifferential"]

_RAM = MEMORY_MAP["ram"]
#: Cycles of a guest and its host, and those within which a stopped hart parks.
_BUDGET, _PARKING = 30_000, 5_000
#: Parks by exits, after which the host's program has them all; the register a host writes.
_PARKS, _RD = 20, 5
_ROOT_CSRS = [
    CSRS[name].number
    for name in ("mstatus", "mie", "mideleg", "medeleg", "mtvec", "mepc", "mcause", "mtval", "satp")
]


class GuestDifferential:
    """One machine, used for one guest after the other.

    Members
    -------
    checked : int
        Records compared so far.
    exits : dict of int to int
        How many exits there were, by reason; entries that failed under 33.
    unknowable : int
        Guests left where a store may have gone to two places.
    """

    def __init__(self, machine):
        self._machine = LockstepMachine(machine)
        self._parks = 0
        self.checked = self.unknowable = 0
        self.exits = dict.fromkeys(map(int, EXIT_REASONS), 0)

    def run(self, guest: RandomGuest) -> None:
        """Run a guest within a budget of cycles. Raises Divergence."""
        machine = self._machine
        machine.reset()
        machine.host_port.control.write(step=0)
        machine.write_memory(_RAM.base, guest.image)
        machine.lockstep = lockstep = Lockstep(ram_size=RAM_SIZE, vmx=True)
        lockstep.hart.memory.ram[:] = guest.image
        self._count(lockstep.hart.vmx)
        machine.park_on_exits(guest.park_exits)
        self._parks = 0
        machine.stop_at_tohost(TOHOST)
        machine.resume(HOST_START)
        try:
            self._run(guest)
            self._compare(lockstep)
        except Unknowable:
            self.unknowable += 1
        finally:
            self.checked += lockstep.checked

    def _count(self, vmx):
        """Have the model tell of each exit."""
        leave, fail = vmx.exit, vmx._fail

        def exit_(exit_, **more):
            self.exits[int(exit_.reason)] += 1
            leave(exit_, **more)

        def failed(check):
            self.exits[ExitReason.BAD_GUEST_STATE] += 1
            fail(check)

        vmx.exit, vmx._fail = exit_, failed

    def _run(self, guest):
        machine, left = self._machine, _BUDGET
        stops = iter((*guest.stops, _BUDGET))
        until = next(stops)
        while left > 0:
            before = machine.cycles
            event = machine.run(min(until, left))
            passed = machine.cycles - before
            left, until = left - max(passed, 1), until - passed
            if event & Event.TOHOST:
                break
            if event & Event.WINDOW:
                machine.answer_window(0)
            if until <= 0 and not event & Event.PARKED:
                event = self._stop()
                until = next(stops, _BUDGET)
            if event & Event.PARKED and left > 0:
                self._go_on()
        if not machine.parked:
            self._stop()

    def _stop(self):
        machine = self._machine
        machine.stop()
        for _ in range(10):
            event = machine.run(_PARKING)
            if event & Event.WINDOW:
                machine.answer_window(0)
            if event & Event.PARKED:
                return event
        raise AssertionError("the hart does not stop")

    def _go_on(self):
        """Over the instruction of an exit; from where there is none, at the guest's start."""
        machine, park = self._machine, self._machine.park
        if park.kind == ParkKind.STOP:
            machine.resume(park.pc)
            return
        self._parks += 1
        if self._parks == _PARKS:
            machine.park_on_exits(0)
        if park.reason >> ENTRY_FAILURE:
            self._give_up()
            return
        fetched = park.length or not park.gva
        pc = park.pc + park.length if fetched else GUEST
        machine.resume(pc, rd=_RD, value=park.gpa, retires=fetched)

    def _give_up(self):
        """Leave an entry that fails: the host's program goes on at host_pc."""
        machine = self._machine
        region = machine.vmx("vmptrst")
        machine.vmx("vmclear", region)
        machine.resume(0)
        assert machine.run(_PARKING) == Event.PARKED and machine.park.kind == ParkKind.STOP
        machine.vmx("vmptrld", region)
        machine.resume(machine.park.pc)

    def _compare(self, lockstep):
        """What is left: registers, root CSRs, memory; in root the fields of the VMCS as well."""
        machine = self._machine
        hart = lockstep.hart
        gprs = {number: machine.read_gpr(number) for number in range(1, 32)}
        csrs = {number: machine.read_csr(number) for number in _ROOT_CSRS}
        lockstep.compare_registers(gprs, csrs)
        if not hart.world and hart.vmx.vmcs.has_current:
            for field in VMCS_FIELDS.values():
                machine.read_field(field.number)
        machine.clean()
        lockstep.compare_memory(machine.read_memory(_RAM.base, RAM_SIZE))

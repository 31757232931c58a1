"""Several virtual machines on one hart, in turn."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sw_vmm.charge import ChargeModel
from sw_vmm.errors import GuestStopped
from sw_vmm.exits import Exit, Finished, PreemptionTimer
from sw_vmm.machine import Machine
from sw_vmm.result import Outcome
from sw_vmm.vmx_guest import End, VmxGuest

__all__ = ["GuestShare", "Scheduler"]

_REGISTERS = range(1, 32)
_LARGEST_CHARGE = (1 << 32) - 1
#: Cycles beyond the budget in which the exit comes that ends it.
_LAST_EXIT = 10_000
#: What changing guests costs besides the two exits around it: all registers of both, the VMCS.
_SWITCH = {"gpr": 2 * len(_REGISTERS), "vmptrld": 1}


@dataclass(slots=True)
class GuestShare:
    """What became of one guest.

    Members
    -------
    outcome : Outcome or None
        None while it has not come to its end.
    failure : GuestStopped or None
        Why it could not go on.
    cycles : int
        Cycles in which it had the hart, its exits and the change to it included.
    turns : int
        How often it was given the hart.
    exits : Counter
        By reason.
    registers : str
        Those of a guest whose budget has ended, several lines for people.
    """

    outcome: Outcome | None = None
    failure: GuestStopped | None = None
    cycles: int = 0
    turns: int = 0
    exits: Counter[str] = field(default_factory=Counter)
    registers: str = ""

    @property
    def end(self) -> str:
        """Why it does not go on: a guest's own end, the text to stop at, the budget, a failure."""
        if self.failure is not None:
            return self.failure.reason
        if self.outcome is None:
            return ""
        if self.outcome.text_seen:
            return "text"
        return "finished" if self.outcome.finished else "budget"


class Scheduler:
    """Give the hart to each of several guests for a slice of time, round robin.

    A guest that waits in wfi makes way until something may wake it; with all of them waiting, time
    passes in one step. A guest that ends, or is stopped, leaves the others alone.

    Parameters
    ----------
    machine : Machine
        In VMX operation.
    guests : sequence of VmxGuest
        Each with a Vm in a place of its own, a VPID of its own, and ``wfi_exits``.
    charges : ChargeModel
    slice_cycles : int
        A slice, measured by the preemption timer.
    """

    def __init__(
        self,
        machine: Machine,
        guests: Sequence[VmxGuest],
        charges: ChargeModel,
        *,
        slice_cycles: int = 100_000,
    ):
        self._machine = machine
        self._guests = list(guests)
        self._slice = slice_cycles
        self._price = charges.price(**_SWITCH)
        self._saved: dict[int, list[int]] = {}
        self._wake: dict[int, int | None] = {}
        self._current: int | None = None
        self._now = machine.park.cycle
        #: Cycles in which every guest waited.
        self.idle = 0
        #: By guest, in their order.
        self.shares = [GuestShare() for _ in guests]

    def run(self, cycles: int) -> list[GuestShare]:
        """Run until every guest has ended, or for ``cycles`` cycles; what became of each."""
        until = self._now + cycles
        for index, guest in enumerate(self._guests):
            self._restore([0] * len(_REGISTERS))
            guest.prepare()
            guest.until = until
            self._saved[index] = self._registers()
        while self._now < until:
            turn = self._next()
            if turn is not None:
                self._give(*turn)
                continue
            wakes = [
                self._wake[index]
                for index, guest in enumerate(self._guests)
                if guest.end is None and not self._failed(index)
            ]
            if not wakes:
                break
            self._pass(min((at for at in wakes if at is not None), default=until), until)
        for index, guest in enumerate(self._guests):
            if not self._failed(index):
                self.shares[index].outcome = self._outcome(guest)
                if self.shares[index].end == "budget":
                    self.shares[index].registers = self._shown(index, guest)
        return self.shares

    # -- whose turn it is --------------------------------------------------------------------------

    def _failed(self, index: int) -> bool:
        return self.shares[index].failure is not None

    def _next(self) -> tuple[int, VmxGuest] | None:
        """The next guest behind the current one that can go on."""
        count = len(self._guests)
        last = count - 1 if self._current is None else self._current
        for step in range(1, count + 1):
            index = (last + step) % count
            guest = self._guests[index]
            if guest.end is None and not self._failed(index):
                wake = self._wake.get(index, self._now)
                if wake is not None and wake <= self._now:
                    return index, guest
        return None

    def _pass(self, cycle: int, until: int) -> None:
        """Every guest waits: time passes."""
        left = max(0, min(cycle, until) - self._now)
        self.idle += left
        self._spend(left)

    def _spend(self, cycles: int) -> None:
        self._now += cycles
        while cycles:
            self._machine.charge(min(cycles, _LARGEST_CHARGE))
            cycles -= min(cycles, _LARGEST_CHARGE)

    # -- one turn ----------------------------------------------------------------------------------

    def _give(self, index: int, guest: VmxGuest) -> None:
        """Let the guest have the hart until its slice ends, it waits, or it ends."""
        share = self.shares[index]
        share.turns += 1
        start = self._now
        if index != self._current:
            self._switch(index, guest)
        guest.now = self._now
        guest.slice_end = min(self._now + self._slice, guest.until)
        try:
            self._turn(index, guest)
        except GuestStopped as stopped:
            share.failure = stopped
            guest.charge = 0
            self._now = guest.vcpu.record.cycle
        share.cycles += self._now - start

    def _turn(self, index: int, guest: VmxGuest) -> None:
        exits = self.shares[index].exits
        guest.attend()
        while guest.end is None:
            guest.enter()
            exit_ = guest.vcpu.run(guest.until - guest.now + guest.charge + _LAST_EXIT)
            if not guest.vcpu.parked:
                self._leave(guest, exit_)
                return
            exits[exit_.reason] += 1
            guest.handle(exit_)
            if guest.waits or (guest.now >= guest.slice_end and type(exit_) is PreemptionTimer):
                break
        # What was charged passes now; the guest goes on later.
        self._now = guest.now - guest.charge
        self._spend(guest.charge)
        guest.charge = 0
        waits = guest.end is None and guest.is_waiting()
        self._wake[index] = guest.wake_at() if waits else self._now

    def _leave(self, guest: VmxGuest, exit_: Exit) -> None:
        """The guest has ended while the hart runs it, or has used up everybody's time."""
        guest.finish(exit_, park=not isinstance(exit_, Finished))
        while not guest.vcpu.parked:
            # Only from root operation can the hart go on to another guest: an exit will come, at the
            # latest by the preemption timer.
            guest.vcpu.run(self._slice)
        self._now = guest.vcpu.record.cycle

    def _switch(self, index: int, guest: VmxGuest) -> None:
        if self._current is not None:
            self._saved[self._current] = self._registers()
        self._restore(self._saved[index])
        guest.load()
        self._current = index
        self._spend(self._price)

    def _registers(self) -> list[int]:
        return [self._machine.read_gpr(number) for number in _REGISTERS]

    def _restore(self, values: list[int]) -> None:
        for number, value in zip(_REGISTERS, values, strict=True):
            self._machine.write_gpr(number, value)

    def _shown(self, index: int, guest: VmxGuest) -> str:
        """The registers of a guest that has not ended; the hart is in root operation."""
        if index != self._current:
            self._saved[self._current] = self._registers()
            self._restore(self._saved[index])
            guest.load()
            self._current = index
        return guest.registers()

    def _outcome(self, guest: VmxGuest) -> Outcome | None:
        vm = guest.vm
        vm.uart.advance(self._now)
        if guest.end is End.FINISHED:
            vm.uart.settle()
        console = bytes(vm.uart.output)
        return Outcome(
            finished=guest.exit_code is not None,
            exit_code=guest.exit_code,
            console=vm.cut_console(console) if guest.end is End.TEXT else console,
            text_seen=guest.end is End.TEXT,
            virtio_console=vm.window.console,
        )

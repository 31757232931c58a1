"""A Machine on the golden model: what the VMM may rely on is the manual, not how the RTL does it.

It has no devices. An instruction takes a cycle; the way out of the guest, or into a trap that parks,
takes ``ENTER`` cycles, the way back ``LEAVE``; both count as transition.
"""

from rtl.arch.csrs import CSRS, INTERRUPTS
from rtl.arch.records import ParkKind
from rtl.arch.traps import INTERRUPT_BIT, Privilege
from rtl.arch.vmx.exits import ExitReason
from rtl.arch.vmx.fields import VMCS_FIELD_BY_NUMBER, ActivityState
from sim.golden import Hart
from sim.golden.events import INJECTION_DUE
from sim.golden.vmx.instructions import perform
from sim.golden.vmx.virtual_time import virtual_ticks
from sim.host_machine import MachineConfig
from sw_vmm.machine import BusError, Event, MachineBusy, MachineError, ParkRecord

ENTER, LEAVE = 7, 5
RESET_VECTOR = 0x1000
_WORD = (1 << 64) - 1
_MTI, _STI = INTERRUPTS["mti"].mask, INTERRUPTS["sti"].mask
_RAM, _ROM = 0x8000_0000, 0x1000
_STORES = frozenset(("sb", "sh", "sw", "sd"))


class _Outside:
    """What the hart asks of the world around it."""

    def __init__(self, machine):
        self._machine = machine

    def read(self, hpa, size):
        return None

    def write(self, hpa, size, value):
        return False

    def counter(self, name):
        machine = self._machine
        if name == "time":
            return machine.time
        if name in ("guest_mcycle", "mcycle", "cycle") and (machine.hart.world or name[0] == "g"):
            return machine.guest_cycles & _WORD
        if name == "guest_preemption_timer":
            return machine.preemption_left
        return machine.cycle if name in ("mcycle", "cycle") else 0

    def lines(self):
        return self._machine.lines()


class GoldenMachine:
    """The host port of ``sim.golden.Hart(vmx=True)``."""

    def __init__(self, ram_size=6 << 20, **parameters):
        self.config = MachineConfig(ram_size=ram_size, **{"vmx": True, **parameters})
        self.reset()

    def reset(self):
        self.cycle = self.guest = self.transition_cycles = self.charged = self.transition = 0
        self.finisher = self.tohost = self.accesses = 0
        self.guest_cycles = self._ran = 0
        self._timer = None
        self.hart = Hart(self.config.ram_size, _Outside(self), vmx=True)
        self.operation = self.hart.vmx
        self._park_traps = (0, 0)
        self._tohost_at, self._tohost_hit = None, False
        self.parked, self._stopping, self._armed = True, False, None
        self._waiting = self._leaving = False
        self._privilege = int(Privilege.MACHINE)
        self._parked_in = 0
        self.hart.pc = RESET_VECTOR
        self._record(ParkKind.STOP)

    # -- time and interrupt lines ------------------------------------------------------------------

    @property
    def cycles(self):
        return self.cycle

    @property
    def time(self):
        return self.cycle // self.config.cycles_per_tick

    @property
    def preemption_left(self):
        return 0 if self._timer is None else max(0, self._timer - self._ran)

    def _root_lines(self):
        return _STI if self.time >= self.operation.root_csr.values["stimecmp"] else 0

    def _root_pending(self):
        root = self.operation.root_csr
        return root.known_pending() | self._root_lines() & root.possibly_pending()

    def lines(self):
        if not self.hart.world:
            return self._root_lines()
        fields = self.operation.vmcs.fields
        now = virtual_ticks(fields, self.time)
        lines = self._root_pending() & fields["interrupt_passthrough"]
        if now >= fields["guest_mtimecmp"]:
            lines |= _MTI
        if now >= self.operation.guest_csr.values["stimecmp"]:
            lines |= _STI
        return lines

    # -- parking and going on ----------------------------------------------------------------------

    def _record(self, kind, reason=0, value=0, pc=None):
        hart = self.hart
        executed = hart.executed if kind == ParkKind.ROOT_TRAP else None
        self.park = ParkRecord(
            reason, value, value, 0, hart.pc if pc is None else pc,
            hart.x[executed.rs1] if executed else 0, hart.x[executed.rs2] if executed else 0,
            self.cycle, self._instret(), self.time, executed.bits if executed else 0,
            executed.length if executed else 0, int(kind), self._privilege, self._parked_in,
        )  # fmt: skip

    def _instret(self):
        retired = self.operation.root_csr.retired
        return retired + self.operation.guest_csr.retired if self.hart.world else retired

    def _park_exit(self):
        """The hart has left the guest, or has not got into it, and parks."""
        self._parked_in = 1
        self.parked = True
        park = self.operation.park()
        self._privilege = park["privilege"]
        self.park = ParkRecord(**park, cycle=self.cycle, instret=self._instret(), time=self.time)

    def resume(self, pc, *, rd=0, value=0, charge=0, retires=False):
        self._need_parked()
        self._armed = (pc & _WORD, rd, value & _WORD, retires)
        self.cycle += charge
        self.charged += charge

    def _go_on(self):
        pc, rd, value, retires = self._armed
        self._armed = None
        self.parked = False
        hart, kind = self.hart, self.park.kind
        if kind == ParkKind.VM_EXIT:
            self._leaving = True
            self.operation.resume(pc, rd=rd, value=value, retires=retires)
            self._entered()
            return
        if rd:
            hart.x[rd] = value
        if kind == ParkKind.ROOT_TRAP:
            hart.return_from_machine()
            self._leaving = True
        hart.privilege, hart.pc = self._privilege, pc
        hart.memory.reserved = None
        hart.switched()
        if retires:
            self.operation.count_retired()

    def _entered(self):
        """After VMLAUNCH or VMRESUME: in the guest, or not."""
        vmcs = self.operation.vmcs
        if not self.hart.world:
            if self.operation.root_csr.values["vmxstatus"]:
                # A VMfail, in front of the instruction at host_pc.
                self.hart.pc = vmcs.fields["host_pc"]
                self._park_stop()
            elif self.operation.parked:
                self._park_exit()
            return
        self._ran = 0
        self.guest_cycles = self._read_uncertain("guest_mcycle")
        self._timer = self._read_uncertain("guest_preemption_timer")
        self._waiting = vmcs.fields["guest_activity"] == ActivityState.WFI.value

    def _read_uncertain(self, name):
        vmcs = self.operation.vmcs
        return self.operation.observed(name) if name in vmcs.uncertain else vmcs.fields[name]

    def run(self, cycles):
        if cycles < 0:
            raise ValueError(f"a run of {cycles} cycles")
        if self._armed is not None:
            self._go_on()
            if self.parked:
                return Event.PARKED
        end = self.cycle + cycles
        while self.cycle < end:
            if self._stopping:
                self._stopping = False
                self._park_stop()
                return Event.PARKED
            if self._between():
                if self.parked:
                    return Event.PARKED
                continue
            if self._waiting:
                self._wait(end)
                continue
            if self._step():
                return Event.PARKED
            if self._tohost_hit:
                self._tohost_hit = False
                return Event.TOHOST
        return Event.BUDGET

    def _park_stop(self):
        self._parked_in = self.hart.world
        self._privilege = self.hart.privilege
        self.parked = True
        self._record(ParkKind.STOP)

    def _pass(self, cycles):
        """Time in which the hart runs, or waits."""
        self.cycle += cycles
        self.guest += cycles
        if self.hart.world:
            self._ran += cycles
            self.guest_cycles += cycles

    def _step(self):
        """One instruction; whether it parked."""
        hart = self.hart
        before = hart.world
        hart.step()
        if before and not hart.world:
            return self._left()
        self._pass(1)
        self._arrive()
        if hart.trapped:
            cause, value = hart.trapped
            return not before and self._trapped(cause, value, interrupt=False)
        executed = hart.executed
        if executed.name == "wfi":
            self._waiting = True
        if executed.name in ("vmlaunch", "vmresume") and hart.world and not before:
            self._entered()
        if executed.name in _STORES and hart.memory.physical == self._tohost_at:
            at = self._tohost_at - _RAM
            self.tohost = int.from_bytes(hart.memory.ram[at : at + 8], "little")
            self._tohost_hit = bool(self.tohost)
        return False

    def _arrive(self):
        """The first instruction behind a resume is done: so is the transition."""
        if self._leaving:
            self._leaving = False
            self.cycle += LEAVE
            self.transition_cycles += LEAVE

    def _enter(self):
        self._arrive()
        self.transition = self.transition_cycles
        self.cycle += ENTER
        self.transition_cycles += ENTER

    def _left(self):
        """An exit has happened; whether it parks."""
        self._waiting = False
        if self.operation.parked:
            self._enter()
            self._park_exit()
        return self.parked

    def _trapped(self, cause, value, *, interrupt):
        """A trap taken in root M-mode; whether it parks."""
        if self.hart.privilege != Privilege.MACHINE or not (
            self._park_traps[interrupt] >> cause & 1
        ):
            return False
        csr = self.hart.csr
        self._enter()
        self._privilege, self._parked_in = csr.status("mpp"), 0
        self.parked = True
        reason = cause | int(interrupt) << INTERRUPT_BIT
        self._record(ParkKind.ROOT_TRAP, reason, value, csr.values["mepc"])
        return True

    def _between(self):
        """What comes before the next instruction, if anything does."""
        hart, vmx = self.hart, self.operation
        if hart.world:
            if hart.due == INJECTION_DUE:
                vmx.inject()
                self._waiting = False
                self._pass(1)
                return True
            reason, cause = self._event()
            if reason is not None:
                vmx.event_exit(reason, cause=cause, waits=self._waiting)
                self._left()
                return True
        pending = hart.csr.read(CSRS["mip"].number)[0]
        if not pending:
            return False
        if self._waiting and pending & hart.csr.values["mie"]:
            self._waiting = False
        code = hart.chosen(pending)
        if code < 0:
            return False
        hart.interrupt(code)
        self._pass(1)
        if not hart.world:
            self._trapped(code, 0, interrupt=True)
        return True

    def _event(self):
        vmx = self.operation
        if vmx.control("preemption_timer") and self._ran >= self._timer:
            return ExitReason.PREEMPTION_TIMER, -1
        cause = vmx._exiting(self._root_pending())
        if cause >= 0:
            return ExitReason.EXTERNAL_INTERRUPT, cause
        if vmx._window_is_open():
            return ExitReason.INTERRUPT_WINDOW, -1
        return None, -1

    def _wait(self, end):
        """Pass to the next cycle at which the waiting may end."""
        per_tick = self.config.cycles_per_tick
        next_tick = (self.time + 1) * per_tick - self.cycle
        left = [end - self.cycle, next_tick]
        if self.hart.world and self.operation.control("preemption_timer"):
            left.append(max(1, self._timer - self._ran))
        self._pass(min(left))

    def stop(self):
        self._armed = None
        self._stopping = not self.parked

    # -- the host port -----------------------------------------------------------------------------

    def _need_parked(self):
        self.accesses += 1
        if not self.parked:
            raise MachineBusy("the hart runs")

    def _need_root(self):
        self._need_parked()
        if self.hart.world:
            raise MachineError("the hart stands in a guest")

    def charge(self, cycles):
        self._need_parked()
        self.cycle += cycles
        self.charged += cycles

    def read_gpr(self, number):
        self._need_parked()
        return self.hart.x[number]

    def write_gpr(self, number, value):
        self._need_parked()
        if number:
            self.hart.x[number] = value & _WORD

    def read_csr(self, number):
        self._need_parked()
        if number not in self.operation.root_csr.by_number:
            raise MachineError(f"the hart has no CSR {number:#x}")
        return self.operation.root_csr.read(number)[0]

    def write_csr(self, number, value):
        self._need_parked()
        if self.hart.world:
            self.operation.root_csr.write(number, value, retires=False)
        else:
            self.hart.write_csr(number, value, retires=False)

    def write_privilege(self, privilege):
        self._need_parked()
        self._privilege = privilege

    def sfence_vma(self, gva=None, asid=None):
        self._need_parked()
        self.hart.memory.sfence_vma(gva, asid)

    def fence_i(self):
        self._need_parked()
        self.hart.memory.fence_i()

    def clean(self):
        self._need_parked()

    def park_on(self, exceptions, interrupts):
        self._need_parked()
        self._park_traps = (exceptions, interrupts)

    def park_on_exits(self, mask):
        self._need_parked()
        self.operation.park_exits = mask

    def vmx(self, name, first=0, second=0):
        self._need_root()
        status, value = perform(self.operation, name, first, second)
        if status is None:
            self.parked = False
            self._leaving = True
            self._entered()
            return 0
        return status if value is None else value

    def read_field(self, number):
        self._need_root()
        status, value = perform(self.operation, "vmread", number)
        if status:
            raise MachineError(f"VMREAD of field {number:#x} failed with {status}")
        return value

    def write_field(self, number, value):
        self._need_root()
        assert number in VMCS_FIELD_BY_NUMBER
        status, _ = perform(self.operation, "vmwrite", number, value)
        if status:
            raise MachineError(f"VMWRITE of field {number:#x} failed with {status}")

    def _place(self, hpa, length):
        memory = self.hart.memory
        for base, content in ((_RAM, memory.ram), (_ROM, memory.rom)):
            if base <= hpa and hpa + length <= base + len(content):
                return content, hpa - base
        raise BusError(f"nobody answers {length} bytes at {hpa:#x}")

    def read_memory(self, hpa, length):
        self._need_parked()
        content, at = self._place(hpa, length)
        return bytes(content[at : at + length])

    def write_memory(self, hpa, data):
        self._need_parked()
        self._place(hpa, len(data))
        self.hart.memory.write_physical(hpa, bytes(data))

    def stop_at_tohost(self, hpa):
        self._tohost_at = hpa

    def counters(self):
        return {
            "cycles": self.cycle,
            "guest": self.guest,
            "transition": self.transition_cycles,
            "walk": 0,
            "charged": self.charged,
            "instructions": self._instret(),
        }

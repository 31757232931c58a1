"""Root and non-root operation: the way in, the way out, and what happens between instructions."""

from collections.abc import Mapping

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import SATP, SatpMode
from rtl.arch.records import PARK, ParkKind
from rtl.arch.traps import INTERRUPT_BIT, INTERRUPT_PRIORITY, Privilege, World
from rtl.arch.vmx.checks import EntryCheck
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPTP
from rtl.arch.vmx.exits import (
    ENTRY_FAILURE,
    INTERRUPTION,
    ExitReason,
    InterruptionType,
)
from rtl.arch.vmx.fields import ActivityState
from sim.golden.events import EXIT_DUE, INJECTION_DUE, PARK_DUE, InterruptRefused
from sim.golden.history import History, Space
from sim.golden.memory_unit import MemoryUnit
from sim.golden.translation import Stage
from sim.golden.vmx.exits import VmExit, csr_qualification
from sim.golden.vmx.guest_csrs import GuestCsrFile
from sim.golden.vmx.intercept import csr_exit
from sim.golden.vmx.vmcs import EntryFailure, VmcsUnit

__all__ = ["VmxOperation"]

_RAM = MEMORY_MAP["ram"]
_CONTROLS = {row.name: row.bit for word in CONTROL_WORDS.values() for row in word.controls}
_WORD_OF = {row.name: word.name for word in CONTROL_WORDS.values() for row in word.controls}
_WORD = (1 << 64) - 1
_ACTIVE, _WFI = ActivityState.ACTIVE.value, ActivityState.WFI.value


class _DoubleWords:
    """RAM as the VMCS unit reaches it: as another bus master."""

    def __init__(self, memory: MemoryUnit):
        self._memory = memory

    def read_double_word(self, hpa):
        place = hpa - _RAM.base
        return int.from_bytes(self._memory.ram[place : place + 8], "little")

    def write_double_word(self, hpa, value):
        self._memory.write_physical(hpa, value.to_bytes(8, "little"))


class VmxOperation:
    """What a hart with the extension has besides a hart; made by ``Hart``.

    Members
    -------
    vmcs : VmcsUnit
    guest_csr, root_csr : GuestCsrFile, CsrFile
        One of them is ``hart.csr``.
    park_exits : int
        Bit n: exits of reason n park the hart.
    parked : bool
        The latest exit has parked it: ``resume`` goes on.
    """

    def __init__(self, hart, ram_size: int):
        self._hart = hart
        self._platform = hart.memory.platform
        self.vmcs = VmcsUnit(_DoubleWords(hart.memory), ram_size)
        self.root_csr = hart.csr
        self.guest_csr = GuestCsrFile(self._platform, hart.csr, self.vmcs.fields)
        self.park_exits = 0
        self.parked = False
        self._park: dict[str, int] = {}
        self._injection: tuple[int, int] | None = None
        self._timer: int | None = None  # at the entry, where known
        # Where the guest would wait: pc and instructions retired directly behind a wfi.
        self._waits = (-1, -1)
        self._satp: dict[Space, int] = {}

    @property
    def history(self) -> History:
        """Of the translations of all worlds."""
        return self._hart.memory.tables.history

    def control(self, name: str) -> bool:
        """Whether the current VMCS has the control set."""
        return bool(self.vmcs.fields[_WORD_OF[name]] >> _CONTROLS[name] & 1)

    # Entry.

    def enter(self, *, launch: bool, instruction: bool) -> int | None:
        """VMLAUNCH or VMRESUME: its status; None when it goes on at ``hart.pc``, in the guest or
        behind a failed entry.

        What the host port issues is no ``instruction`` that retires.
        """
        masks = self.root_csr.values
        for name in self.vmcs.masks:
            self.vmcs.masks[name] = masks[f"vmx{name.removesuffix('_controls')}mask"]
        result = self.vmcs.enter(launch=launch)
        if isinstance(result, EntryFailure):
            self._fail(result.check)
            return None
        if result:
            return result
        hart, fields = self._hart, self.vmcs.fields
        self.parked = False
        self.root_csr.retired += instruction
        # What called this counts it once more, in the guest by then.
        self.guest_csr.load(-int(instruction))
        hart.csr, hart.world = self.guest_csr, int(World.NON_ROOT)
        hart.privilege = fields["guest_privilege"]
        hart.pc = hart.next = fields["guest_pc"]
        hart.memory.reserved = None
        hart.stage = Stage(
            EPTP["ppn"].extract(fields["eptp"]),
            bool(EPTP["ad"].extract(fields["eptp"])),
            fields["vpid"] if self.control("enable_vpid") else 0,
        )
        self._drop_untagged()
        self._take_injection()
        waits = self._injection is None and fields["guest_activity"] == _WFI
        self._waits = (hart.pc, 0) if waits else (-1, -1)
        timer = "guest_preemption_timer"
        self._timer = None if timer in self.vmcs.uncertain else fields[timer]
        hart.switched()
        self._change_root()
        return None

    def _take_injection(self):
        fields = self.vmcs.fields
        event = INTERRUPTION.decode(fields["entry_interruption"])
        self._injection = (event["type"], event["cause"]) if event["valid"] else None
        fields["entry_interruption"] &= ~INTERRUPTION["valid"].mask

    def _change_root(self):
        """The host may have given the guest another satp since its last exit."""
        satp = self.guest_csr.values["satp"]
        before = self._satp.get(self._space(), satp)
        if before != satp and SATP["mode"].extract(before) == SatpMode.SV39:
            self.history.leave_root(SATP["ppn"].extract(before), SATP["asid"].extract(before))

    def _space(self):
        stage = self._hart.stage
        return Space(stage.vpid, stage.root)

    def _drop_untagged(self):
        if not self.control("enable_vpid"):
            self.history.drop(lambda space: space.vpid == 0)

    def _fail(self, check: EntryCheck):
        fields = self.vmcs.fields
        fields["exit_reason"] = ExitReason.BAD_GUEST_STATE | 1 << ENTRY_FAILURE
        fields["exit_qualification"] = check.number
        hart = self._hart
        before = fields["guest_pc"], fields["guest_privilege"]
        self._enter_root(ExitReason.BAD_GUEST_STATE, *before)
        hart.next = hart.pc

    # Exit.

    def exit(self, exit_: VmExit, *, activity: int = _ACTIVE) -> None:
        """The guest leaves, before the instruction at pc."""
        hart, fields = self._hart, self.vmcs.fields
        i = hart.executed if exit_.of_instruction else None
        fields.update(
            exit_reason=int(exit_.reason),
            exit_qualification=exit_.qualification,
            exit_gva=exit_.gva,
            exit_gpa=exit_.gpa,
            exit_pc=hart.pc,
            exit_instruction=i.bits if i else 0,
            exit_instruction_length=i.length if i else 0,
            exit_rs1=hart.x[i.rs1] if i else 0,
            exit_rs2=hart.x[i.rs2] if i else 0,
            exit_interruption=exit_.interruption,
            guest_pc=hart.pc,
            guest_privilege=hart.privilege,
            guest_activity=activity,
        )
        guest = self.guest_csr
        guest.save()
        self.vmcs.uncertain["guest_mcycle"] = _WORD
        if self.control("save_preemption_timer") and self.control("preemption_timer"):
            if exit_.reason == ExitReason.PREEMPTION_TIMER:
                fields["guest_preemption_timer"] = 0
            else:
                # Every instruction took a cycle.
                left = _WORD if self._timer is None else max(0, self._timer - guest.retired)
                self.vmcs.uncertain["guest_preemption_timer"] = left
        self.root_csr.retired += guest.retired
        self._satp[self._space()] = guest.values["satp"]
        self._drop_untagged()
        hart.trapped = exit_.trap
        self._enter_root(exit_.reason, hart.pc, hart.privilege)

    def _enter_root(self, reason, pc, privilege):
        hart, fields = self._hart, self.vmcs.fields
        self.parked = bool(self.park_exits >> reason & 1)
        self._park = dict(
            reason=fields["exit_reason"],
            qualification=fields["exit_qualification"],
            gva=fields["exit_gva"],
            gpa=fields["exit_gpa"],
            pc=pc,
            rs1=fields["exit_rs1"],
            rs2=fields["exit_rs2"],
            instruction=fields["exit_instruction"],
            length=fields["exit_instruction_length"],
            kind=int(ParkKind.VM_EXIT),
            privilege=privilege & (1 << PARK["privilege"].width) - 1,
            world=int(World.NON_ROOT),
        )
        hart.csr, hart.world, hart.stage = self.root_csr, int(World.ROOT), None
        hart.csr.set_status(mie=0)
        hart.privilege = int(Privilege.MACHINE)
        hart.pc = fields["host_pc"]
        hart.memory.reserved = None
        hart.switched()
        if self.parked:
            hart.due = PARK_DUE

    def park(self) -> Mapping[str, int]:
        """The park record of the latest exit, without counters and times."""
        return self._park

    def resume(self, pc: int, *, rd: int = 0, value: int = 0, retires: bool = False) -> None:
        """Go on from a park by an exit: the guest at ``pc``, with ``rd`` written.

        With ``retires`` it counts an instruction that the host has carried out.
        """
        hart = self._hart
        if rd:
            hart.x[rd] = value
        self.vmcs.fields["guest_pc"] = pc
        status = self.enter(launch=False, instruction=False)
        if retires and hart.world:
            self.count_retired()
        self.root_csr.values["vmxstatus"] = status or 0
        if status is not None:
            # It stops again, before the instruction at host_pc.
            hart.due = PARK_DUE

    def count_retired(self) -> None:
        """An instruction of the world at work retires that the host has carried out."""
        self.root_csr.count_retired()
        if self._hart.world:
            self.guest_csr.count_retired()

    # What a guest's instruction meets.

    def intercepts(self, cause: int) -> bool:
        """Whether an exception of the guest exits."""
        return bool(self.vmcs.fields["exception_bitmap"] >> cause & 1)

    def exception_exit(self, cause: int, value: int) -> None:
        event = INTERRUPTION.encode(valid=1, type=InterruptionType.EXCEPTION, cause=cause)
        self.exit(VmExit(ExitReason.EXCEPTION, value, interruption=event))

    def csr_access(self, bits: int, *, reads: bool, writes: bool, value: int) -> None:
        """A legal CSR instruction, which would write ``value``. Raises VmExit."""
        fields = self.vmcs.fields
        reason = csr_exit(fields, bits >> 20, reads=reads, writes=writes, value=value)
        if reason is not None:
            raise VmExit(reason, csr_qualification(bits))

    def wfi(self) -> None:
        """A legal wfi. Raises VmExit."""
        if self.control("wfi_exiting"):
            raise VmExit(ExitReason.WFI)
        self._waits = (self._hart.next, self.guest_csr.retired + 1)

    def sfence_vma(self) -> None:
        """A legal sfence.vma. Raises VmExit."""
        if self.control("sfence_vma_exiting"):
            raise VmExit(ExitReason.SFENCE_VMA)

    # Between instructions.

    def due(self) -> int:
        """What is certain to come before the guest's next instruction, -1 for nothing."""
        if self._injection is not None:
            return INJECTION_DUE
        if self._has_expired():
            return EXIT_DUE + ExitReason.PREEMPTION_TIMER
        if self._exiting(self.root_csr.known_pending()) >= 0:
            return EXIT_DUE + ExitReason.EXTERNAL_INTERRUPT
        if self._window_is_open():
            return EXIT_DUE + ExitReason.INTERRUPT_WINDOW
        return -1

    def _has_expired(self):
        """Whether the preemption timer must have: every instruction took a cycle."""
        if not self.control("preemption_timer") or self._timer is None:
            return False
        return max(0, self.guest_csr.retired) >= self._timer

    def _exiting(self, pending):
        """The root interrupt that exits when root's mip is ``pending``; -1 for none."""
        if self.control("external_interrupt_exiting"):
            pending &= self.root_csr.values["mie"] & ~self.vmcs.fields["interrupt_passthrough"]
            for interrupt in INTERRUPT_PRIORITY:
                if pending >> interrupt & 1:
                    return int(interrupt)
        return -1

    def _window_is_open(self):
        mask = self.vmcs.fields["interrupt_window_mask"]
        return self.control("interrupt_window_exiting") and self._hart.chosen(mask) >= 0

    def inject(self) -> None:
        """Take what the entry injects (INJECTION_DUE)."""
        hart = self._hart
        kind, cause = self._injection
        self._injection = None
        hart.executed = None
        interrupt = kind == InterruptionType.INTERRUPT
        value = 0 if interrupt else self.vmcs.fields["entry_interruption_value"]
        hart.trapped = cause | int(interrupt) << INTERRUPT_BIT, value
        hart.enter_trap(cause, value, interrupt=interrupt)

    def event_exit(self, reason: int, *, cause: int = -1, waits: bool = False) -> None:
        """An exit between instructions has come: the preemption timer, root interrupt ``cause``,
        the window.

        ``waits``: the guest was in wfi. Raises InterruptRefused when it cannot come here.
        """
        hart, due = self._hart, self._hart.due
        if due == INJECTION_DUE:
            raise InterruptRefused("an event is injected before any exit")
        interruption = 0
        match reason:
            case ExitReason.PREEMPTION_TIMER:
                if not self.control("preemption_timer"):
                    raise InterruptRefused("the preemption timer is off")
            case ExitReason.EXTERNAL_INTERRUPT:
                self._check_interrupt(cause, due)
                interruption = INTERRUPTION.encode(
                    valid=1, type=InterruptionType.INTERRUPT, cause=cause
                )
            case ExitReason.INTERRUPT_WINDOW:
                if due != EXIT_DUE + reason:
                    raise InterruptRefused("the interrupt window is not open, or not what is due")
            case _:
                raise InterruptRefused(f"exit {reason} does not come between instructions")
        self._check_wait(waits)
        hart.executed = None
        exit_ = VmExit(ExitReason(reason), interruption=interruption)
        self.exit(exit_, activity=_WFI if waits else _ACTIVE)

    def _check_interrupt(self, cause, due):
        root = self.root_csr
        if due == EXIT_DUE + ExitReason.PREEMPTION_TIMER:
            raise InterruptRefused("the preemption timer has expired and goes first")
        if cause < 0 or not root.possibly_pending() >> cause & 1:
            raise InterruptRefused(f"root interrupt {cause} is not pending")
        first = self._exiting(root.known_pending() | 1 << cause)
        if first != cause:
            raise InterruptRefused(f"root interrupt {cause} does not exit, or {first} goes first")

    def _check_wait(self, waits):
        """Whether the guest may be, or may not be, in wfi."""
        hart, guest = self._hart, self.guest_csr
        behind = self._waits == (hart.pc, guest.retired)
        enabled = guest.values["mie"]
        if waits and not (behind and not guest.known_pending() & enabled):
            raise InterruptRefused("the guest does not wait")
        if behind and not waits and not guest.possibly_pending() & enabled:
            raise InterruptRefused("the guest waits in wfi")

    # VMREAD of what cycles make.

    def observed(self, name: str) -> int:
        """The value of an uncertain field, from now on known."""
        vmcs = self.vmcs
        vmcs.fields[name] = min(self._platform.counter(name), vmcs.uncertain.pop(name))
        return vmcs.fields[name]

"""A guest that starts in S-mode, as a kernel behind its firmware does: the VMM answers its SBI calls."""

from dataclasses import dataclass

from rtl.arch.csrs import COUNTEREN, CSRS, INTERRUPTS, MENVCFG, MSTATUS
from rtl.arch.paging import PAGE_BITS
from rtl.arch.traps import Exception_, Privilege
from rtl.arch.vmx.fields import ActivityState
from rtl.arch.vmx.instructions import INVVPID_OPERAND, InvvpidType
from sw_vmm.exits import GuestException
from sw_vmm.memory import GuestMemory
from sw_vmm.sbi import (
    Answer,
    HartState,
    HartStop,
    HartSuspend,
    Reset,
    ResetReason,
    ResetType,
    Sbi,
)
from sw_vmm.vmcs import execute
from sw_vmm.vmx_guest import End, VmxGuest

__all__ = ["SupervisorGuest", "SupervisorStart"]

_ALL = (1 << 64) - 1
_HART = 0
_A0, _A1, _A7 = 10, 11, 17
_ECALL = int(Exception_.ECALL_FROM_SUPERVISOR)
_ECALL_LENGTH = 4
_SSI = INTERRUPTS.mask("ssi")
_SIE = MSTATUS.mask("sie")
#: What firmware leaves to the kernel: everything but the calls to itself.
_DELEGATED = CSRS["medeleg"].writable & ~(1 << _ECALL | 1 << Exception_.ECALL_FROM_MACHINE)
_EXCEPTIONS = (1 << 64) - 1 & ~_DELEGATED
#: Pages of a fence beyond which the whole of the guest's translations are dropped.
_FENCED_PAGES = 32


@dataclass(frozen=True)
class SupervisorStart:
    """Where the kernel begins (gpa), and what a1 holds: the device tree's gpa."""

    entry: int
    device_tree: int


class SupervisorGuest(VmxGuest):
    """A ``VmxGuest`` that starts as SBI 2.0 says: S-mode, paging and interrupts off, a0 = hart, a1.

    Nothing of it runs in M-mode: what an S-mode kernel handles itself is delegated to it, and any
    other exception comes to the VMM, which answers calls and ends the guest for the rest.
    """

    def __init__(self, *arguments, start: SupervisorStart, **options):
        super().__init__(*arguments, **options)
        self._start = start
        self._sbi = Sbi(_Platform(self))
        self._handlers[GuestException] = self._exception

    def _start_pc(self) -> int:
        return self._start.entry

    def _fields(self) -> dict[str, int]:
        return {
            **super()._fields(),
            "exception_bitmap": _EXCEPTIONS,
            "guest_privilege": int(Privilege.SUPERVISOR),
            "guest_medeleg": _DELEGATED,
            "guest_mideleg": CSRS["mideleg"].writable,
            "guest_mcounteren": COUNTEREN.mask("cy", "tm", "ir"),
            "guest_menvcfg": MENVCFG.mask("stce"),
        }

    def prepare(self) -> None:
        super().prepare()
        self._machine.write_gpr(_A0, _HART)
        self._machine.write_gpr(_A1, self._start.device_tree)

    def _exception(self, exit_: GuestException) -> None:
        if exit_.cause != _ECALL:
            raise self._stopped(exit_.reason, f"tval {exit_.tval:#x}, in S- or U-mode")
        machine = self._machine
        registers = [machine.read_gpr(number) for number in range(_A0, _A7 + 1)]
        match self._sbi.call(_HART, registers):
            case Answer() as answer:
                self._answer(*answer.registers)
            case HartSuspend(retentive=True):
                self._answer(0, 0)
                self._suspend()
            case HartSuspend(address=address, opaque=opaque):
                self._restart(address, opaque)
                self._suspend()
            case HartStop():
                raise self._stopped("hart_stopped", "no other hart could start it again")
            case Reset(kind=ResetType.SHUTDOWN, reason=reason):
                self.end = End.FINISHED
                self.exit_code = int(reason is not ResetReason.NONE)
            case Reset(kind=kind):
                raise self._stopped(kind.name.lower(), "the guest wants to begin anew")

    def _answer(self, error: int, value: int) -> None:
        self.rd, self.value = _A0, error
        self._machine.write_gpr(_A1, value)
        self.pc = self.pc + _ECALL_LENGTH & _ALL

    def _suspend(self) -> None:
        self.waits = True
        self.vmcs.guest_activity = ActivityState.WFI.value
        self.charge += self._field_price

    def _restart(self, address: int, opaque: int) -> None:
        """As at the start, but with the interrupts enabled that are to end the waiting."""
        self.rd, self.value = _A0, _HART
        self._machine.write_gpr(_A1, opaque)
        self.pc = address
        self.vmcs.guest_satp = 0
        self.vmcs.guest_mstatus &= ~_SIE
        self.charge += 3 * self._field_price

    # -- what calls do to the hart -----------------------------------------------------------------

    def set_timer(self, deadline: int) -> None:
        self.vmcs.guest_stimecmp = deadline
        self.charge += self._field_price

    def send_ipi(self) -> None:
        self.vmcs.guest_mip |= _SSI
        self.charge += 2 * self._field_price

    def fence(self, start: int | None, size: int | None) -> None:
        """Drop translations of the guest's for a range of gvas, or all of them."""
        first, last = 0, _ALL
        if start is not None:
            first, last = start >> PAGE_BITS, start + max(size, 1) - 1 >> PAGE_BITS
        pages = range(first, last + 1)
        if last - first >= _FENCED_PAGES or not all(map(_is_canonical, (pages[0], pages[-1]))):
            self._invalidate(InvvpidType.SINGLE_CONTEXT, 0)
            return
        for page in pages:
            self._invalidate(InvvpidType.INDIVIDUAL_ADDRESS, page << PAGE_BITS)

    def _invalidate(self, kind: InvvpidType, gva: int) -> None:
        operand = INVVPID_OPERAND.encode(vpid=self._vpid, type=kind)
        execute(self._machine, "invvpid", operand, gva)
        self.charge += self._field_price


def _is_canonical(page: int) -> bool:
    upper = page >> 26
    return upper in (0, (1 << 26) - 1)


class _Platform:
    """``SbiPlatform`` of one hart, which is the one that calls."""

    harts = (_HART,)

    def __init__(self, guest: SupervisorGuest):
        self._guest = guest

    @property
    def memory(self) -> GuestMemory:
        return self._guest.vm.memory

    def set_timer(self, hart: int, deadline: int) -> None:
        self._guest.set_timer(deadline)

    def send_ipi(self, hart: int) -> None:
        self._guest.send_ipi()

    def fence_i(self, hart: int) -> None:
        self._guest.vm.machine.fence_i()

    def sfence_vma(self, hart: int, start: int | None, size: int | None, asid: int | None) -> None:
        # Of every ASID: more than was asked for is always right.
        self._guest.fence(start, size)

    def start_hart(self, hart: int, address: int, opaque: int) -> None:
        raise AssertionError("the only hart has started")

    def state_of(self, hart: int) -> HartState:
        return HartState.STARTED

    def write_console(self, data: bytes) -> int:
        return self._guest.vm.uart.say(data, self._guest.now)

    def read_console(self, limit: int) -> bytes:
        return self._guest.vm.uart.hear(limit, self._guest.now)

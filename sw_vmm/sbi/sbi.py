"""Answering SBI calls: arguments checked, then done by whoever runs the harts."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from sw_vmm.memory import GuestMemory
from sw_vmm.sbi.calls import (
    SPECIFICATION_VERSION,
    Answer,
    Call,
    Error,
    Extension,
    HartState,
    HartStop,
    HartSuspend,
    Reset,
    ResetReason,
    ResetType,
    SuspendType,
)

__all__ = ["Outcome", "Sbi", "SbiPlatform"]

Outcome = Answer | HartStop | HartSuspend | Reset

_ALL = (1 << 64) - 1
_WORD = (1 << 32) - 1
_XLEN = 64
_IMPLEMENTATION = int.from_bytes(b"vmx", "big")
_IMPLEMENTATION_VERSION = 1


class SbiPlatform(Protocol):
    """What SBI needs of a virtual machine; harts by their numbers."""

    @property
    def harts(self) -> Collection[int]: ...

    @property
    def memory(self) -> GuestMemory: ...

    def set_timer(self, hart: int, deadline: int) -> None:
        """Clear the hart's supervisor timer interrupt; raise it once time is at ``deadline``."""

    def send_ipi(self, hart: int) -> None:
        """Raise the hart's supervisor software interrupt."""

    def fence_i(self, hart: int) -> None: ...

    def sfence_vma(self, hart: int, start: int | None, size: int | None, asid: int | None) -> None:
        """Fence a range, or everything when ``start`` is None; of one ASID, or all of them."""

    def start_hart(self, hart: int, address: int, opaque: int) -> None:
        """Start a stopped hart in S-mode with a0 = its number and a1 = ``opaque``."""

    def state_of(self, hart: int) -> HartState: ...

    def write_console(self, data: bytes) -> int:
        """Bytes taken, perhaps fewer."""

    def read_console(self, limit: int) -> bytes:
        """At most ``limit`` bytes that were typed; none when there are none."""


class Sbi:
    """SBI 2.0 with the extensions base, TIME, IPI, RFENCE, HSM, SRST and DBCN.

    What it does not know it answers by NOT_SUPPORTED; no argument raises an exception.
    """

    def __init__(self, platform: SbiPlatform):
        self._platform = platform
        self._calls: dict[int, Callable[[int, Sequence[int]], Outcome]] = {
            Call.GET_SPEC_VERSION: _constant(SPECIFICATION_VERSION),
            Call.GET_IMPL_ID: _constant(_IMPLEMENTATION),
            Call.GET_IMPL_VERSION: _constant(_IMPLEMENTATION_VERSION),
            Call.PROBE_EXTENSION: self._probe_extension,
            Call.GET_MVENDORID: _constant(0),
            Call.GET_MARCHID: _constant(0),
            Call.GET_MIMPID: _constant(0),
            Call.SET_TIMER: self._set_timer,
            Call.SEND_IPI: self._send_ipi,
            Call.REMOTE_FENCE_I: self._remote_fence_i,
            Call.REMOTE_SFENCE_VMA: self._remote_sfence_vma,
            Call.REMOTE_SFENCE_VMA_ASID: self._remote_sfence_vma_asid,
            Call.HART_START: self._hart_start,
            Call.HART_STOP: lambda hart, arguments: HartStop(),
            Call.HART_GET_STATUS: self._hart_get_status,
            Call.HART_SUSPEND: self._hart_suspend,
            Call.SYSTEM_RESET: self._system_reset,
            Call.CONSOLE_WRITE: self._console_write,
            Call.CONSOLE_READ: self._console_read,
            Call.CONSOLE_WRITE_BYTE: self._console_write_byte,
        }

    def call(self, hart: int, registers: Sequence[int]) -> Outcome:
        """Answer the ecall of a hart in S-mode; ``registers`` are its a0 to a7."""
        *arguments, function, extension = registers
        if extension > _WORD or function > _WORD:
            return Answer(Error.NOT_SUPPORTED)
        handler = self._calls.get(function << 32 | extension)
        return Answer(Error.NOT_SUPPORTED) if handler is None else handler(hart, arguments)

    # -- base, timer -------------------------------------------------------------------------------

    def _probe_extension(self, hart: int, arguments: Sequence[int]) -> Answer:
        return Answer(value=int(arguments[0] in set(Extension)))

    def _set_timer(self, hart: int, arguments: Sequence[int]) -> Answer:
        self._platform.set_timer(hart, arguments[0])
        return Answer()

    # -- other harts -------------------------------------------------------------------------------

    def _chosen(self, mask: int, base: int) -> list[int] | None:
        """The harts of a mask, or None when one of them does not exist."""
        known = self._platform.harts
        if base == _ALL:
            return list(known)
        chosen = [base + bit for bit in range(_XLEN) if mask >> bit & 1]
        return chosen if all(hart in known for hart in chosen) else None

    def _for_each(self, arguments: Sequence[int], action: Callable[[int], None]) -> Answer:
        harts = self._chosen(arguments[0], arguments[1])
        if harts is None:
            return Answer(Error.INVALID_PARAM)
        for hart in harts:
            action(hart)
        return Answer()

    def _send_ipi(self, hart: int, arguments: Sequence[int]) -> Answer:
        return self._for_each(arguments, self._platform.send_ipi)

    def _remote_fence_i(self, hart: int, arguments: Sequence[int]) -> Answer:
        return self._for_each(arguments, self._platform.fence_i)

    def _remote_sfence_vma(self, hart: int, arguments: Sequence[int]) -> Answer:
        return self._fence(arguments, None)

    def _remote_sfence_vma_asid(self, hart: int, arguments: Sequence[int]) -> Answer:
        return self._fence(arguments, arguments[4])

    def _fence(self, arguments: Sequence[int], asid: int | None) -> Answer:
        start: int | None
        size: int | None
        start, size = arguments[2], arguments[3]
        if size == _ALL or start == size == 0:
            start = size = None
        elif start + size > 1 << _XLEN:
            return Answer(Error.INVALID_ADDRESS)
        return self._for_each(
            arguments, lambda hart: self._platform.sfence_vma(hart, start, size, asid)
        )

    # -- hart states -------------------------------------------------------------------------------

    def _hart_start(self, hart: int, arguments: Sequence[int]) -> Answer:
        target, address, opaque = arguments[:3]
        if target not in self._platform.harts:
            return Answer(Error.INVALID_PARAM)
        if not self._executable(address):
            return Answer(Error.INVALID_ADDRESS)
        if self._platform.state_of(target) is not HartState.STOPPED:
            return Answer(Error.ALREADY_AVAILABLE)
        self._platform.start_hart(target, address, opaque)
        return Answer()

    def _hart_get_status(self, hart: int, arguments: Sequence[int]) -> Answer:
        if arguments[0] not in self._platform.harts:
            return Answer(Error.INVALID_PARAM)
        return Answer(value=self._platform.state_of(arguments[0]))

    def _hart_suspend(self, hart: int, arguments: Sequence[int]) -> Outcome:
        kind, address, opaque = arguments[0] & _WORD, arguments[1], arguments[2]
        if kind == SuspendType.RETENTIVE:
            return HartSuspend(retentive=True)
        if kind != SuspendType.NON_RETENTIVE:
            return Answer(Error.INVALID_PARAM)
        if not self._executable(address):
            return Answer(Error.INVALID_ADDRESS)
        return HartSuspend(retentive=False, address=address, opaque=opaque)

    def _executable(self, gpa: int) -> bool:
        # Two bytes are the shortest instruction.
        return gpa % 2 == 0 and self._in_memory(gpa, 2)

    def _in_memory(self, gpa: int, length: int) -> bool:
        memory = self._platform.memory
        return memory.base <= gpa and gpa + length <= memory.end

    # -- system, console ---------------------------------------------------------------------------

    def _system_reset(self, hart: int, arguments: Sequence[int]) -> Outcome:
        kind, reason = (argument & _WORD for argument in arguments[:2])
        if kind not in set(ResetType) or reason not in set(ResetReason):
            return Answer(Error.INVALID_PARAM)
        return Reset(ResetType(kind), ResetReason(reason))

    def _console_write(self, hart: int, arguments: Sequence[int]) -> Answer:
        length, gpa = arguments[0], arguments[1] | arguments[2] << _XLEN
        if not self._in_memory(gpa, length):
            return Answer(Error.INVALID_PARAM)
        data = self._platform.memory.read_bytes(gpa, length)
        return Answer(value=self._platform.write_console(data))

    def _console_read(self, hart: int, arguments: Sequence[int]) -> Answer:
        length, gpa = arguments[0], arguments[1] | arguments[2] << _XLEN
        if not self._in_memory(gpa, length):
            return Answer(Error.INVALID_PARAM)
        data = self._platform.read_console(length)
        self._platform.memory.write_bytes(gpa, data)
        return Answer(value=len(data))

    def _console_write_byte(self, hart: int, arguments: Sequence[int]) -> Answer:
        taken = self._platform.write_console(bytes((arguments[0] & 0xFF,)))
        return Answer() if taken else Answer(Error.FAILED)


def _constant(value: int) -> Callable[[int, Sequence[int]], Answer]:
    return lambda hart, arguments: Answer(value=value)

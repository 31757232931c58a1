"""Numbers of the Supervisor Binary Interface 2.0, and what a call can come to."""

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "SPECIFICATION_VERSION",
    "Answer",
    "Call",
    "Error",
    "Extension",
    "HartState",
    "HartStop",
    "HartSuspend",
    "Reset",
    "ResetReason",
    "ResetType",
    "SuspendType",
]

_ALL = (1 << 64) - 1
#: Major number from bit 24 on, minor number below.
SPECIFICATION_VERSION = 2 << 24


class Extension(IntEnum):
    """Extension numbers, in a7."""

    BASE = 0x10
    TIME = 0x54494D45
    IPI = 0x735049
    RFENCE = 0x52464E43
    HSM = 0x48534D
    SRST = 0x53525354
    DBCN = 0x4442434E


class Call(IntEnum):
    """Every call that is answered: the extension's number, then the function's from bit 32 on."""

    GET_SPEC_VERSION = Extension.BASE
    GET_IMPL_ID = 1 << 32 | Extension.BASE
    GET_IMPL_VERSION = 2 << 32 | Extension.BASE
    PROBE_EXTENSION = 3 << 32 | Extension.BASE
    GET_MVENDORID = 4 << 32 | Extension.BASE
    GET_MARCHID = 5 << 32 | Extension.BASE
    GET_MIMPID = 6 << 32 | Extension.BASE
    SET_TIMER = Extension.TIME
    SEND_IPI = Extension.IPI
    REMOTE_FENCE_I = Extension.RFENCE
    REMOTE_SFENCE_VMA = 1 << 32 | Extension.RFENCE
    REMOTE_SFENCE_VMA_ASID = 2 << 32 | Extension.RFENCE
    HART_START = Extension.HSM
    HART_STOP = 1 << 32 | Extension.HSM
    HART_GET_STATUS = 2 << 32 | Extension.HSM
    HART_SUSPEND = 3 << 32 | Extension.HSM
    SYSTEM_RESET = Extension.SRST
    CONSOLE_WRITE = Extension.DBCN
    CONSOLE_READ = 1 << 32 | Extension.DBCN
    CONSOLE_WRITE_BYTE = 2 << 32 | Extension.DBCN


class Error(IntEnum):
    """Error codes, in a0."""

    SUCCESS = 0
    FAILED = -1
    NOT_SUPPORTED = -2
    INVALID_PARAM = -3
    DENIED = -4
    INVALID_ADDRESS = -5
    ALREADY_AVAILABLE = -6
    ALREADY_STARTED = -7
    ALREADY_STOPPED = -8


class HartState(IntEnum):
    """What hart_get_status tells."""

    STARTED = 0
    STOPPED = 1
    START_PENDING = 2
    STOP_PENDING = 3
    SUSPENDED = 4
    SUSPEND_PENDING = 5
    RESUME_PENDING = 6


class SuspendType(IntEnum):
    """What hart_suspend keeps: everything, or nothing."""

    RETENTIVE = 0
    NON_RETENTIVE = 0x8000_0000


class ResetType(IntEnum):
    """What system_reset does."""

    SHUTDOWN = 0
    COLD_REBOOT = 1
    WARM_REBOOT = 2


class ResetReason(IntEnum):
    """Why."""

    NONE = 0
    SYSTEM_FAILURE = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """The call returns: ``error`` in a0, ``value`` in a1, pc behind the ecall."""

    error: Error = Error.SUCCESS
    value: int = 0

    @property
    def registers(self) -> tuple[int, int]:
        """a0 and a1."""
        return self.error & _ALL, self.value & _ALL


@dataclass(frozen=True, slots=True)
class HartStop:
    """The calling hart stops; it does not return."""


@dataclass(frozen=True, slots=True)
class HartSuspend:
    """The calling hart waits for an interrupt.

    It then returns with success, or, unless ``retentive``, begins in S-mode with paging and
    interrupts off at ``address``, with a0 = its number and a1 = ``opaque``.
    """

    retentive: bool
    address: int = 0
    opaque: int = 0


@dataclass(frozen=True, slots=True)
class Reset:
    """The system goes down or begins anew; the call does not return."""

    kind: ResetType
    reason: ResetReason

"""What can go wrong between the VMM, its guest and the machine; every message is one clear line."""

from sw_vmm.machine import BusError, MachineBusy, MachineError

__all__ = [
    "BadImage",
    "BusError",
    "ChargesError",
    "GuestPages",
    "GuestStopped",
    "GuestTooLarge",
    "MachineBusy",
    "MachineError",
    "UnhandledExit",
    "UnknownTechnique",
    "VmmError",
    "VmxFailure",
    "VmxMissing",
]


class VmmError(Exception):
    """Base of every error a user of the VMM may see; its text is one line."""


class GuestPages(VmmError):
    """The guest turned paging on under a technique that has no shadow tables for it."""

    def __init__(self, pc: int, satp: int):
        super().__init__(
            f"the guest turned paging on (satp {satp:#x}, pc {pc:#x}): "
            "this technique runs only guests that do not page"
        )


class VmxFailure(VmmError):
    """A VMX instruction failed."""

    def __init__(self, instruction: str, why: str):
        super().__init__(f"{instruction} failed: {why}")


class VmxMissing(VmmError):
    """A technique needs the virtualization extension, and the machine does not have it."""

    def __init__(self, technique: str):
        super().__init__(f"{technique} needs a machine with the virtualization extension (vmx)")


class GuestStopped(VmmError):
    """The guest cannot go on, by no fault of the VMM's.

    Members
    -------
    reason : str
        Its name, for programs.
    registers : str
        pc, privilege, GPRs and CSRs of the guest, several lines for people.
    """

    def __init__(self, reason: str, pc: int, registers: str, why: str = ""):
        self.reason = reason
        self.registers = registers
        super().__init__(f"the guest was stopped: {reason} at pc {pc:#x}{why and f' ({why})'}")


class UnhandledExit(VmmError):
    """A technique does not know what to do with an exit."""

    def __init__(self, exit_: object, why: str = ""):
        super().__init__(f"unhandled exit: {exit_!r}" + (f" ({why})" if why else ""))


class BadImage(VmmError):
    """An image that cannot be loaded."""


class GuestTooLarge(BadImage):
    """An image that does not fit the guest's memory."""

    def __init__(self, name: str, gpa: int, length: int, end: int):
        super().__init__(
            f"{name}: {length} bytes at {gpa:#x} reach beyond the end of guest memory at {end:#x}"
        )


class UnknownTechnique(VmmError):
    """No technique has that name."""

    def __init__(self, name: str, known: tuple[str, ...]):
        super().__init__(f"unknown technique {name!r}; there are {', '.join(known)}")


class ChargesError(VmmError):
    """The charge constants are missing, damaged, or of another configuration."""

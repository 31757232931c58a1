"""What comes between instructions: interrupts, and under VMX injections and exits."""

__all__ = ["EXIT_DUE", "INJECTION_DUE", "PARK_DUE", "InterruptRefused"]

#: Codes of what is due that is no interrupt: an exit, with its reason added; what an entry injects;
#: parking, after which the host goes on.
EXIT_DUE = 1 << 8
INJECTION_DUE = 1 << 9
PARK_DUE = 1 << 10


class InterruptRefused(Exception):
    """The interrupt or the exit cannot be taken here; the message says why."""

"""Privilege levels, trap causes and their order (RISC-V Privileged Architecture, chapters 1, 3)."""

from enum import IntEnum

__all__ = [
    "INTERRUPT_BIT",
    "INTERRUPT_PRIORITY",
    "Exception_",
    "Interrupt",
    "Privilege",
    "World",
]

#: Bit of mcause and scause that tells an interrupt from an exception.
INTERRUPT_BIT = 63


class Privilege(IntEnum):
    """Privilege level of a hart, as encoded in mstatus.MPP."""

    USER = 0
    SUPERVISOR = 1
    MACHINE = 3


class World(IntEnum):
    """Root or non-root operation, orthogonal to the privilege level."""

    ROOT = 0
    NON_ROOT = 1


class Exception_(IntEnum):  # noqa: N801 - the field's word, and Python has taken it
    """Exception codes of mcause and scause (table "mcause values after trap")."""

    INSTRUCTION_ADDRESS_MISALIGNED = 0
    INSTRUCTION_ACCESS_FAULT = 1
    ILLEGAL_INSTRUCTION = 2
    BREAKPOINT = 3
    LOAD_ADDRESS_MISALIGNED = 4
    LOAD_ACCESS_FAULT = 5
    STORE_ADDRESS_MISALIGNED = 6
    STORE_ACCESS_FAULT = 7
    ECALL_FROM_USER = 8
    ECALL_FROM_SUPERVISOR = 9
    ECALL_FROM_MACHINE = 11
    INSTRUCTION_PAGE_FAULT = 12
    LOAD_PAGE_FAULT = 13
    STORE_PAGE_FAULT = 15


class Interrupt(IntEnum):
    """Interrupt codes of mcause and scause, and bit numbers of mip, mie and mideleg."""

    SUPERVISOR_SOFTWARE = 1
    MACHINE_SOFTWARE = 3
    SUPERVISOR_TIMER = 5
    MACHINE_TIMER = 7
    SUPERVISOR_EXTERNAL = 9
    MACHINE_EXTERNAL = 11


#: Interrupts destined for the same privilege level, first served first (section "mip and mie").
INTERRUPT_PRIORITY = (
    Interrupt.MACHINE_EXTERNAL,
    Interrupt.MACHINE_SOFTWARE,
    Interrupt.MACHINE_TIMER,
    Interrupt.SUPERVISOR_EXTERNAL,
    Interrupt.SUPERVISOR_SOFTWARE,
    Interrupt.SUPERVISOR_TIMER,
)

"""Records that cross the edge of the SoC: why the hart parked, how it goes on, what it retired."""

from enum import IntEnum

from rtl.arch.layout import Layout

__all__ = ["EXIT_BIT", "PARK", "RESUME", "RETIREMENT", "STAGES", "HostCommand", "ParkKind"]

#: Bit of a retirement record's value that tells a VM exit from a trap.
EXIT_BIT = 62


class ParkKind(IntEnum):
    """Why the hart is parked; resume continues, returns from the trap, or enters the guest."""

    STOP = 0
    ROOT_TRAP = 1
    VM_EXIT = 2


class HostCommand(IntEnum):
    """What the host port asks of a parked hart."""

    READ_GPR = 0
    WRITE_GPR = 1
    READ_CSR = 2
    WRITE_CSR = 3
    WRITE_PRIVILEGE = 4
    SFENCE_VMA = 5
    FENCE_I = 6
    CLEAN = 7
    CHARGE = 8
    VMX = 9
    READ_FIELD = 10
    WRITE_FIELD = 11


# The 64-bit fields come first in PARK and RETIREMENT, so that a record read as little-endian words
# decodes without shifting.
# fmt: off
PARK = Layout.packed("park",
    ("reason", 64, "Root trap: mcause. VM exit: the exit reason."),
    ("qualification", 64, "Root trap: mtval. VM exit: the exit qualification."),
    ("gva", 64, "The virtual address that faulted."),
    ("gpa", 64, "The guest-physical address that faulted."),
    ("pc", 64, "Address of the instruction that did not retire."),
    ("rs1", 64, "Value of its first source register."),
    ("rs2", 64, "Value of its second source register."),
    ("cycle", 64, "Machine cycles since reset, parked cycles left out."),
    ("instret", 64, "Instructions retired since reset."),
    ("time", 64, "mtime, in ticks."),
    ("instruction", 32, "Its bits as they stand in memory; a compressed one in bits 15:0."),
    ("length", 3, "Its length in bytes: 2 or 4; 0 when it could not be fetched."),
    ("kind", 2, "Stop, root trap or VM exit (ParkKind)."),
    ("privilege", 2, "Privilege level it ran at, and resume returns to."),
    ("world", 1, "Root or non-root operation."),
)

RESUME = Layout.packed("resume",
    ("value", 64, "What is written to rd."),
    ("pc", 64, "Where the hart goes on."),
    ("charge", 32, "Cycles for which everything but the hart runs first."),
    ("rd", 5, "Register written before the first instruction; 0 for none."),
    ("retires", 1, "An instruction the host has carried out retires: minstret counts it."),
)

RETIREMENT = Layout.packed("retirement",
    ("pc", 64, "Address of the instruction."),
    ("value", 64, "What it wrote to rd; for a trap, the cause in mcause's form; for a VM exit, the "
                  "exit reason and bit 62."),
    ("data", 64, "Its rs2, the low bytes of which a store stores; for a trap, the trap value; for a "
                 "VM exit, the exit qualification."),
    ("instruction", 32, "Its bits as they stand in memory; a compressed one in bits 15:0."),
    ("address", 32, "Bus address (hpa) of the access; for a VM exit, exit_interruption."),
    ("rd", 5, "Register it wrote; 0 for none."),
    ("privilege", 2, "Privilege level before it."),
    ("world", 1, "Root or non-root operation, before it."),
    ("trap", 1, "The instruction did not retire: a trap or a VM exit was taken at its pc instead."),
    ("load", 1, "It read memory; for a VM exit, the guest was in wfi."),
    ("store", 1, "It wrote memory (a failed sc did not)."),
    ("size", 2, "Logarithm of the bytes accessed."),
)

# Who is where in the pipeline in one cycle, for observers; pc and bits are those of the instruction
# in the issue stage, if there is one.
STAGES = Layout.packed("stages",
    ("pc", 64, "Its address."),
    ("bits", 32, "Its bits as they stand in memory; a compressed one in bits 15:0."),
    ("issuing", 1, "The issue stage holds an instruction."),
    ("issued", 1, "It is in the execute stage from the next cycle on."),
    ("executing", 1, "The execute stage holds one."),
    ("executed", 1, "It is in the commit stage from the next cycle on."),
    ("committing", 1, "The commit stage holds one, or takes the trap of one."),
    ("retired", 1, "It retires in this cycle."),
)
# fmt: on

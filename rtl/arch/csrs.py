"""Control and status registers: numbers, layouts, and which bits can be written.

Privilege and access follow from the number (Privileged Architecture, "CSR Address Mapping
Conventions"): bits 9:8 are the lowest privilege that may access it, 11:10 all ones is read-only.
"""

from dataclasses import dataclass

from rtl.arch.layout import Field, Layout
from rtl.arch.paging import SATP
from rtl.arch.performance import HPM_COUNTERS, MHPMEVENT
from rtl.arch.traps import Interrupt, Privilege

__all__ = [
    "CAUSE",
    "COUNTEREN",
    "CSRS",
    "CSR_BY_NUMBER",
    "DELEGABLE_EXCEPTIONS",
    "DELEGABLE_INTERRUPTS",
    "INTERRUPTS",
    "MENVCFG",
    "MISA_VALUE",
    "MSTATUS",
    "MSTATUS_CONSTANT",
    "SSTATUS_FIELDS",
    "TVEC",
    "Csr",
    "csr_privilege",
    "csr_read_only",
]

_ALL = (1 << 64) - 1


def csr_privilege(number: int) -> Privilege:
    """Lowest privilege that may access the CSR (a hypervisor-level number needs M)."""
    level = number >> 8 & 3
    return Privilege.MACHINE if level == 2 else Privilege(level)


def csr_read_only(number: int) -> bool:
    return number >> 10 == 3


@dataclass(frozen=True)
class Csr:
    """A CSR the hart implements; bits outside ``writable`` keep their value on a write."""

    name: str
    number: int
    text: str
    writable: int = 0
    reset: int = 0
    layout: Layout | None = None

    @property
    def privilege(self) -> Privilege:
        return csr_privilege(self.number)

    @property
    def read_only(self) -> bool:
        """A write raises illegal instruction (a property of the number)."""
        return csr_read_only(self.number)


# fmt: off
MSTATUS = Layout("mstatus", 64, (
    Field("sie", 1, 1, "Interrupts are enabled in S-mode."),
    Field("mie", 3, 1, "Interrupts are enabled in M-mode."),
    Field("spie", 5, 1, "sie before the trap into S-mode."),
    Field("mpie", 7, 1, "mie before the trap into M-mode."),
    Field("spp", 8, 1, "Privilege before the trap into S-mode: 0 user, 1 supervisor."),
    Field("mpp", 11, 2, "Privilege before the trap into M-mode."),
    Field("fs", 13, 2, "Floating-point state: always off."),
    Field("xs", 15, 2, "Extension state: always off."),
    Field("mprv", 17, 1, "Loads and stores use the privilege in mpp."),
    Field("sum", 18, 1, "S-mode loads and stores may use U pages."),
    Field("mxr", 19, 1, "Loads may read pages that are executable only."),
    Field("tvm", 20, 1, "satp accesses and sfence.vma trap in S-mode."),
    Field("tw", 21, 1, "wfi traps below M-mode."),
    Field("tsr", 22, 1, "sret traps in S-mode."),
    Field("uxl", 32, 2, "U-mode width: 2 (64 bits)."),
    Field("sxl", 34, 2, "S-mode width: 2 (64 bits)."),
    Field("sd", 63, 1, "Some extension state is dirty: never."),
))
#: Fields of mstatus that never change.
MSTATUS_CONSTANT = MSTATUS.encode(uxl=2, sxl=2)
_MSTATUS_WRITABLE = MSTATUS.mask("sie", "mie", "spie", "mpie", "spp", "mpp", "mprv", "sum",
                                 "mxr", "tvm", "tw", "tsr")
#: Fields of mstatus visible in sstatus.
SSTATUS_FIELDS = ("sie", "spie", "spp", "fs", "xs", "sum", "mxr", "uxl", "sd")
_SSTATUS_WRITABLE = MSTATUS.mask("sie", "spie", "spp", "sum", "mxr")

INTERRUPTS = Layout("interrupts", 64, (
    Field("ssi", Interrupt.SUPERVISOR_SOFTWARE, 1, "Supervisor software interrupt."),
    Field("msi", Interrupt.MACHINE_SOFTWARE, 1, "Machine software interrupt."),
    Field("sti", Interrupt.SUPERVISOR_TIMER, 1, "Supervisor timer interrupt."),
    Field("mti", Interrupt.MACHINE_TIMER, 1, "Machine timer interrupt."),
    Field("sei", Interrupt.SUPERVISOR_EXTERNAL, 1, "Supervisor external interrupt."),
    Field("mei", Interrupt.MACHINE_EXTERNAL, 1, "Machine external interrupt."),
))
TVEC = Layout("tvec", 64, (
    Field("mode", 0, 2, "0 direct, 1 vectored; other values cannot be written."),
    Field("base", 2, 62, "Trap vector, a multiple of 4."),
))
CAUSE = Layout("cause", 64, (
    Field("code", 0, 6, "Exception or interrupt code."),
    Field("interrupt", 63, 1, "The trap was an interrupt."),
))
MENVCFG = Layout("menvcfg", 64, (
    Field("fiom", 0, 1, "Fences of I/O imply fences of memory below M-mode."),
    Field("adue", 61, 1, "Page walks set A and D (Svadu); 0: a page fault says they must be set (Svade)."),
    Field("stce", 63, 1, "stimecmp exists below M-mode and drives the S timer interrupt."),
))
COUNTEREN = Layout("counteren", 32, (
    Field("cy", 0, 1, "cycle may be read one level below."),
    Field("tm", 1, 1, "time may be read one level below."),
    Field("ir", 2, 1, "instret may be read one level below."),
    Field("hpm", 3, 29, "hpmcounter3 to 31 may be read one level below."),
))

#: medeleg bits that can be set: every exception that can reach a level below M.
DELEGABLE_EXCEPTIONS = 0xB3FF
#: mideleg bits that can be set.
DELEGABLE_INTERRUPTS = INTERRUPTS.mask("ssi", "sti", "sei")
#: RV64 (MXL = 2) with A, C, I, M, S and U.
MISA_VALUE = 2 << 62 | sum(1 << ord(letter) - ord("a") for letter in "acimsu")

_XEPC = _ALL & ~1
_CAUSE_WRITABLE = CAUSE.mask()
_ENABLES = INTERRUPTS.mask()
_COUNTERS = 0b101 | sum(1 << index for index in HPM_COUNTERS)


def _rows():
    yield Csr("cycle", 0xC00, "Cycle counter.")
    yield Csr("time", 0xC01, "Timer, in ticks (CLINT mtime).")
    yield Csr("instret", 0xC02, "Instructions retired.")
    for index in range(3, 32):
        text = "Event counter." if index in HPM_COUNTERS else "Event counter: reads zero."
        yield Csr(f"hpmcounter{index}", 0xC00 + index, text)

    yield Csr("sstatus", 0x100, "The S-mode view of mstatus.", _SSTATUS_WRITABLE, 0, MSTATUS)
    yield Csr("sie", 0x104, "Delegated interrupts enabled.", DELEGABLE_INTERRUPTS, 0, INTERRUPTS)
    yield Csr("stvec", 0x105, "S-mode trap vector.", _ALL & ~2, 0, TVEC)
    yield Csr("scounteren", 0x106, "Counters U-mode may read.", 0xFFFF_FFFF, 0, COUNTEREN)
    yield Csr("senvcfg", 0x10A, "U-mode environment.", 1)
    yield Csr("sscratch", 0x140, "S-mode scratch register.", _ALL)
    yield Csr("sepc", 0x141, "pc of the trap into S-mode.", _XEPC)
    yield Csr("scause", 0x142, "Cause of the trap into S-mode.", _CAUSE_WRITABLE, 0, CAUSE)
    yield Csr("stval", 0x143, "Value of the trap into S-mode.", _ALL)
    yield Csr("sip", 0x144, "Delegated interrupts pending.", INTERRUPTS.mask("ssi"), 0, INTERRUPTS)
    yield Csr("stimecmp", 0x14D, "S timer deadline, in ticks.", _ALL, _ALL)
    yield Csr("satp", 0x180, "Root table, ASID and mode of translation.", _ALL, 0, SATP)

    yield Csr("mvendorid", 0xF11, "Vendor: none.")
    yield Csr("marchid", 0xF12, "Architecture: none assigned.")
    yield Csr("mimpid", 0xF13, "Implementation: none.")
    yield Csr("mhartid", 0xF14, "Number of this hart: 0.")
    yield Csr("mconfigptr", 0xF15, "Configuration structure: none.")
    yield Csr("mstatus", 0x300, "Status.", _MSTATUS_WRITABLE, MSTATUS_CONSTANT, MSTATUS)
    yield Csr("misa", 0x301, "Extensions; writes have no effect.", 0, MISA_VALUE)
    yield Csr("medeleg", 0x302, "Exceptions delegated to S-mode.", DELEGABLE_EXCEPTIONS)
    yield Csr("mideleg", 0x303, "Interrupts delegated to S-mode.", DELEGABLE_INTERRUPTS, 0,
              INTERRUPTS)
    yield Csr("mie", 0x304, "Interrupts enabled.", _ENABLES, 0, INTERRUPTS)
    yield Csr("mtvec", 0x305, "M-mode trap vector.", _ALL & ~2, 0, TVEC)
    yield Csr("mcounteren", 0x306, "Counters S-mode may read.", 0xFFFF_FFFF, 0, COUNTEREN)
    yield Csr("menvcfg", 0x30A, "S-mode environment.", MENVCFG.mask(), 0, MENVCFG)
    yield Csr("mcountinhibit", 0x320, "Counters that stand still.", _COUNTERS)
    for index in range(3, 32):
        if index in HPM_COUNTERS:
            yield Csr(f"mhpmevent{index}", 0x320 + index, "Event counted.", MHPMEVENT.mask(), 0,
                      MHPMEVENT)
        else:
            yield Csr(f"mhpmevent{index}", 0x320 + index, "No event counter: reads zero.")
    yield Csr("mscratch", 0x340, "M-mode scratch register.", _ALL)
    yield Csr("mepc", 0x341, "pc of the trap into M-mode.", _XEPC)
    yield Csr("mcause", 0x342, "Cause of the trap into M-mode.", _CAUSE_WRITABLE, 0, CAUSE)
    yield Csr("mtval", 0x343, "Value of the trap into M-mode.", _ALL)
    yield Csr("mip", 0x344, "Interrupts pending; sti cannot be written while menvcfg.stce is set.",
              INTERRUPTS.mask("ssi", "sti", "sei"), 0, INTERRUPTS)
    for index in range(0, 16, 2):
        yield Csr(f"pmpcfg{index}", 0x3A0 + index, "No PMP entries: reads zero.")
    for index in range(64):
        yield Csr(f"pmpaddr{index}", 0x3B0 + index, "No PMP entries: reads zero.")
    yield Csr("tselect", 0x7A0, "No triggers: reads zero.")
    for index in range(1, 4):
        yield Csr(f"tdata{index}", 0x7A0 + index, "No triggers: reads zero.")
    yield Csr("mcycle", 0xB00, "Cycle counter.", _ALL)
    yield Csr("minstret", 0xB02, "Instructions retired.", _ALL)
    for index in range(3, 32):
        if index in HPM_COUNTERS:
            yield Csr(f"mhpmcounter{index}", 0xB00 + index, "Event counter.", _ALL)
        else:
            yield Csr(f"mhpmcounter{index}", 0xB00 + index, "Event counter: reads zero.")
# fmt: on


CSRS = {csr.name: csr for csr in _rows()}
CSR_BY_NUMBER = {csr.number: csr for csr in CSRS.values()}

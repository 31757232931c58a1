"""The hart: registers, privilege, instructions one by one, traps and interrupts."""

from typing import NamedTuple, Protocol

from rtl.arch.csrs import (
    COUNTEREN,
    CSRS,
    MENVCFG,
    TVEC,
    csr_privilege,
    csr_read_only,
)
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import SATP, SatpMode
from rtl.arch.traps import (
    INTERRUPT_BIT,
    INTERRUPT_PRIORITY,
    Privilege,
    World,
)
from rtl.arch.vmx.capability import VMX_CSRS
from sim.golden.csr_file import CsrFile
from sim.golden.decode import BIT_MANIPULATION, VMX, Decoded, decoded
from sim.golden.events import EXIT_DUE, InterruptRefused
from sim.golden.memory_unit import MemoryUnit, Trap
from sim.golden.translation import Context, Stage
from sim.golden.vmx.exits import VmExit
from sim.golden.vmx.operation import VmxOperation

__all__ = ["Claim", "Hart", "Platform"]

_WORD = (1 << 64) - 1
_MACHINE, _SUPERVISOR, _USER = Privilege.MACHINE, Privilege.SUPERVISOR, Privilege.USER
_STIMECMP, _SATP = CSRS["stimecmp"].number, CSRS["satp"].number
#: cycle, time, instret and hpmcounter3 to 31: each enabled by its bit of mcounteren and scounteren.
_COUNTERS = range(CSRS["cycle"].number, CSRS["cycle"].number + 32)
_TIME_ENABLE = COUNTEREN["tm"].mask
_STCE = MENVCFG["stce"].mask
_UPDATE = MENVCFG["adue"].mask
#: CSRs whose writes change translation, and those that change which interrupt is due.
_TRANSLATING = {CSRS[name].number for name in ("mstatus", "sstatus", "satp", "menvcfg")}
_INTERRUPTING = {
    CSRS[name].number
    for name in ("mstatus", "sstatus", "mie", "sie", "mip", "sip", "mideleg", "menvcfg")
}


class Platform(Protocol):
    """What lies outside the hart, RAM and ROM."""

    def read(self, hpa: int, size: int) -> int | None:
        """A device's answer; None is an error."""

    def write(self, hpa: int, size: int, value: int) -> bool:
        """Whether the device takes it."""

    def counter(self, name: str) -> int:
        """What ``cycle``, ``mcycle`` or ``time`` reads now; time is the machine's.

        Of a VMCS: what VMREAD of guest_mcycle or guest_preemption_timer reads.
        """

    def lines(self) -> int:
        """The bits of mip that are driven from outside, and as the timers drive it."""


class Claim(NamedTuple):
    """What an implementation says of the instruction.

    ``bits`` it executed; the exception's ``cause`` and ``value``, -1 and 0 if it retired. Its memory
    access is claimed in ``MemoryUnit.claimed``.
    """

    bits: int
    cause: int
    value: int


class Hart:
    """One hart: RV64IMAC_Zicsr_Zifencei_Zicntr_Zba_Zbb_Zbs_Sstc with M, S and U and Sv39.

    It starts at the reset vector in M-mode.

    Parameters
    ----------
    ram_size : int
        Bytes of RAM fitted.
    platform : Platform
    updates : bool
        Hardware always sets A and D, as other harts do; else only with menvcfg.ADUE.
    bit_manipulation : bool
        Zba, Zbb and Zbs are implemented.
    vmx : bool
        The virtualization extension is implemented (``sim.golden.vmx``).

    Members
    -------
    x : list of int
        Registers; the one behind x31 takes what is written to x0.
    pc, privilege, world : int
    csr : CsrFile
        Those of the present world.
    memory : MemoryUnit
    vmx : VmxOperation or None
    trapped : tuple of (cause, value) or None
        The exception the last step raised; or the VM exit, as a retirement record shows it.
    executed : Decoded or None
        What the last step executed or refused; None when it could not be fetched.
    due : int
        An interrupt that has to be taken before the next instruction, or -1; or what else
        ``sim.golden.events`` has codes for.
    """

    def __init__(
        self,
        ram_size: int,
        platform: Platform,
        *,
        updates: bool = False,
        bit_manipulation: bool = True,
        vmx: bool = False,
    ):
        self._updates = updates
        self._extensions = BIT_MANIPULATION * bit_manipulation + VMX * vmx
        self.x = [0] * 33
        self.pc = self.next = MEMORY_MAP["rom"].base
        self.privilege = int(_MACHINE)
        self.world = int(World.ROOT)
        self.csr = CsrFile(platform, VMX_CSRS if vmx else None)
        self.memory = MemoryUnit(ram_size, platform)
        self.stage: Stage | None = None
        self.vmx = VmxOperation(self, ram_size) if vmx else None
        self.trapped: tuple[int, int] | None = None
        self.executed: Decoded | None = None
        self.due = -1
        self.switched()

    # Instructions.

    def step(self, claim: Claim | None = None) -> None:
        """Execute one instruction, or take the exception it raises."""
        pc = self.pc
        self.executed = None
        self.trapped = None
        try:
            bits = self.memory.fetch(pc, claim)
            self.executed = instruction = decoded(bits, self._extensions)
            self.next = pc + instruction.length & _WORD
            instruction.execute(self, instruction)
            self.pc = self.next
            self.csr.retired += 1
        except Trap as trap:
            self.trapped = trap.cause, trap.value
            if self.world and self.vmx.intercepts(trap.cause):
                self.vmx.exception_exit(trap.cause, trap.value)
            else:
                self.enter_trap(trap.cause, trap.value, interrupt=False)
        except VmExit as exit_:
            self.vmx.exit(exit_)

    def csr_accessible(self, number: int, writes: bool) -> bool:
        """Whether the instruction is legal."""
        if number not in self.csr.by_number or (writes and csr_read_only(number)):
            return False
        privilege, values = self.privilege, self.csr.values
        if privilege == _MACHINE:
            return True
        if privilege < csr_privilege(number):
            return False
        if number in _COUNTERS:
            bit = 1 << number - _COUNTERS.start
            enabled = values["mcounteren"]
            if privilege == _USER:
                enabled &= values["scounteren"]
            return bool(enabled & bit)
        if number == _SATP:
            return not self.csr.status("tvm")
        if number == _STIMECMP:
            return bool(values["menvcfg"] & _STCE and values["mcounteren"] & _TIME_ENABLE)
        return True

    def write_csr(self, number: int, value: int, *, retires: bool = True) -> None:
        """Write a CSR, with all that follows; ``retires`` is False for the host."""
        before = self.csr.values["satp"]
        self.csr.write(number, value, retires=retires)
        paged = SATP["mode"].extract(before) == SatpMode.SV39
        if number == _SATP and paged and before != self.csr.values["satp"]:
            self.memory.tables.history.leave_root(
                SATP["ppn"].extract(before), SATP["asid"].extract(before)
            )
        if number in _TRANSLATING:
            self.switched()
        elif number in _INTERRUPTING:
            self.due = self._due()

    def switched(self) -> None:
        """Privilege, mstatus, satp or menvcfg have changed."""
        csr = self.csr
        satp, status = csr.values["satp"], csr.status
        data_privilege = status("mpp") if status("mprv") else self.privilege
        self.memory.switch(self._context(self.privilege, satp), self._context(data_privilege, satp))
        self.due = self._due()

    def _context(self, privilege, satp):
        paged = privilege != _MACHINE and SATP["mode"].extract(satp) == SatpMode.SV39
        return Context(
            paged,
            privilege,
            SATP["ppn"].extract(satp),
            SATP["asid"].extract(satp),
            bool(self.csr.status("sum")),
            bool(self.csr.status("mxr")),
            self._updates or bool(self.csr.values["menvcfg"] & _UPDATE),
            self.stage,
        )

    # Traps.

    def enter_trap(self, cause: int, value: int, *, interrupt: bool) -> None:
        """Take a trap at the present pc, to M or where it is delegated."""
        csr, values = self.csr, self.csr.values
        delegated = values["mideleg" if interrupt else "medeleg"] >> cause & 1
        full = cause | int(interrupt) << INTERRUPT_BIT
        if self.privilege != _MACHINE and delegated:
            values.update(sepc=self.pc, scause=full, stval=value)
            csr.set_status(spie=csr.status("sie"), sie=0, spp=self.privilege)
            self.privilege, vector = int(_SUPERVISOR), values["stvec"]
        else:
            values.update(mepc=self.pc, mcause=full, mtval=value)
            csr.set_status(mpie=csr.status("mie"), mie=0, mpp=self.privilege)
            self.privilege, vector = int(_MACHINE), values["mtvec"]
        base = vector & TVEC["base"].mask
        vectored = interrupt and TVEC["mode"].extract(vector) == 1
        self.pc = base + (4 * cause if vectored else 0) & _WORD
        self.memory.reserved = None
        self.switched()

    def return_from_machine(self) -> None:
        """mret."""
        csr = self.csr
        self.privilege = csr.status("mpp")
        csr.set_status(mie=csr.status("mpie"), mpie=1, mpp=int(_USER))
        self._returned(csr.values["mepc"])

    def return_from_supervisor(self) -> None:
        """sret."""
        csr = self.csr
        self.privilege = csr.status("spp")
        csr.set_status(sie=csr.status("spie"), spie=1, spp=0)
        self._returned(csr.values["sepc"])

    def _returned(self, pc):
        if self.privilege != _MACHINE:
            self.csr.set_status(mprv=0)
        self.next = pc
        self.memory.reserved = None
        self.switched()

    # Interrupts.

    def _enabled(self, privilege, delegated):
        """Whether interrupts for M, or those delegated to S, can be taken at ``privilege``."""
        if delegated:
            return privilege == _USER or (privilege == _SUPERVISOR and bool(self.csr.status("sie")))
        return privilege != _MACHINE or bool(self.csr.status("mie"))

    def chosen(self, pending: int) -> int:
        """The interrupt taken when ``pending`` is mip: M's first, then by priority; -1 for none."""
        values = self.csr.values
        for delegated in (0, 1):
            ready = pending & values["mie"]
            ready &= values["mideleg"] if delegated else ~values["mideleg"]
            if ready and self._enabled(self.privilege, delegated):
                for interrupt in INTERRUPT_PRIORITY:
                    if ready >> interrupt & 1:
                        return int(interrupt)
        return -1

    def _due(self):
        if self.world:
            due = self.vmx.due()
            if due >= 0:
                return due
        known = self.csr.known_pending()
        return self.chosen(known) if known else -1

    def interrupt(self, code: int) -> None:
        """Take an interrupt that has arrived. Raises InterruptRefused when it cannot be taken."""
        csr = self.csr
        if self.due >= EXIT_DUE:
            raise InterruptRefused(f"before interrupt {code} comes something else")
        if not csr.possibly_pending() >> code & 1:
            raise InterruptRefused(f"interrupt {code} is not pending and nothing can make it so")
        if not csr.values["mie"] >> code & 1:
            raise InterruptRefused(f"interrupt {code} is disabled in mie")
        chosen = self.chosen(csr.known_pending() | 1 << code)
        if chosen == -1:
            raise InterruptRefused(f"interrupt {code} is disabled at privilege {self.privilege}")
        if chosen != code:
            raise InterruptRefused(f"interrupt {chosen} is pending and goes before {code}")
        self.executed = None
        self.trapped = code | 1 << INTERRUPT_BIT, 0
        self.enter_trap(code, 0, interrupt=True)

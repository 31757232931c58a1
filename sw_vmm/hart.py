"""The virtual hart: privilege, CSRs with their WARL rules, trap delivery and pending interrupts.

It holds everything of a guest's hart but pc and the general-purpose registers, and is shared by
every technique that emulates privileged behaviour.
"""

from typing import Protocol

from rtl.arch.csrs import (
    COUNTEREN,
    CSR_BY_NUMBER,
    CSRS,
    DELEGABLE_INTERRUPTS,
    INTERRUPTS,
    MENVCFG,
    MSTATUS,
    SSTATUS_FIELDS,
    csr_privilege,
    csr_read_only,
)
from rtl.arch.paging import SATP, SatpMode
from rtl.arch.performance import HPM_COUNTERS
from rtl.arch.traps import INTERRUPT_BIT, INTERRUPT_PRIORITY, Exception_, Privilege

__all__ = ["CsrFunction", "Hart", "Platform", "Trap"]

_ALL = (1 << 64) - 1
_INTERRUPT = 1 << INTERRUPT_BIT

_SIE, _MIE = MSTATUS.mask("sie"), MSTATUS.mask("mie")
_SPIE, _MPIE = MSTATUS.mask("spie"), MSTATUS.mask("mpie")
_SPP, _MPP = MSTATUS.mask("spp"), MSTATUS.mask("mpp")
_MPP_LSB = MSTATUS["mpp"].lsb
_MPRV, _TVM, _TW, _TSR = (MSTATUS.mask(name) for name in ("mprv", "tvm", "tw", "tsr"))
_SSTATUS = MSTATUS.mask(*SSTATUS_FIELDS)
_STI, _SEI = INTERRUPTS.mask("sti"), INTERRUPTS.mask("sei")
_STCE = MENVCFG.mask("stce")
_TM = COUNTEREN.mask("tm")
_SATP_MODE = SATP["mode"]
_VECTORED = 1

_USER, _SUPERVISOR, _MACHINE = (
    int(Privilege.USER),
    int(Privilege.SUPERVISOR),
    int(Privilege.MACHINE),
)
_PRIVILEGES = frozenset(int(level) for level in Privilege)

_N = {name: csr.number for name, csr in CSRS.items()}
_CSR_PRIVILEGES = {number: csr_privilege(number) for number in CSR_BY_NUMBER}
_USER_COUNTERS = range(_N["cycle"], _N["hpmcounter31"] + 1)
_MCYCLE, _MINSTRET = _N["mcycle"], _N["minstret"]


class CsrFunction:
    """funct3 of a CSR instruction, without the bit that selects the immediate form."""

    WRITE = 1
    SET = 2
    CLEAR = 3


class Trap(Exception):
    """An exception the current instruction raises in the guest."""

    def __init__(self, cause: int, tval: int = 0):
        self.cause = cause
        self.tval = tval
        super().__init__(cause, tval)


class Platform(Protocol):
    """What a virtual hart sees of the machine around it; cycles are machine cycles."""

    def mtime(self, now: int) -> int:
        """The timer, in ticks."""

    def cycle_of(self, tick: int, now: int) -> int | None:
        """When the timer reaches ``tick``: ``now`` if it has, None if it never will."""

    def lines(self, now: int) -> int:
        """The bits of mip that devices drive."""

    def next_event(self, now: int, interest: int) -> int | None:
        """The next cycle after ``now`` at which one of those bits of mip may change by itself."""


class Hart:
    """CSRs, privilege and traps of one virtual hart.

    ``now`` (machine cycle) and ``instret`` (instructions retired before the current one) are set
    by whoever runs the guest, before anything that may look at the counters or the time.

    Parameters
    ----------
    platform : Platform
        Time, and the devices that raise interrupts.
    """

    def __init__(self, platform: Platform):
        self._platform = platform
        self.now = 0
        self.instret = 0
        self.reset()

    def reset(self) -> None:
        self.privilege = _MACHINE
        #: CSRs that are nothing but storage.
        self._stored = {number: csr.reset for number, csr in CSR_BY_NUMBER.items()}
        self.mstatus = CSRS["mstatus"].reset
        self.medeleg = self.mideleg = self.mie = 0
        self.satp = CSRS["satp"].reset
        self.stimecmp = CSRS["stimecmp"].reset
        self.menvcfg = 0
        #: Bits of mip that software has set.
        self._mip_software = 0
        self._inhibit = 0
        #: mcycle and minstret: what the running count is ahead of the CSR, or the frozen CSR.
        self._ahead = {_MCYCLE: 0, _MINSTRET: 0}
        self._frozen = {_MCYCLE: 0, _MINSTRET: 0}

    # -- CSRs --------------------------------------------------------------------------------------

    def access_csr(
        self, number: int, function: int, operand: int, *, writes: bool, instruction: int
    ) -> int:
        """Do what a CSR instruction does; the value is what rd gets.

        Raises Trap with ``instruction`` as its value when the access is illegal.
        """
        if (
            number not in CSR_BY_NUMBER
            or self.privilege < _CSR_PRIVILEGES[number]
            or (writes and csr_read_only(number))
            or not self._allowed(number)
        ):
            raise Trap(Exception_.ILLEGAL_INSTRUCTION, instruction)
        old = self.read_csr(number)
        if writes:
            # The lines of the devices take no part in setting and clearing bits.
            base = self._mip_software if number == _N["mip"] else old
            if function == CsrFunction.WRITE:
                value = operand
            elif function == CsrFunction.SET:
                value = base | operand
            else:
                value = base & ~operand
            self.write_csr(number, value)
        return old

    def _allowed(self, number: int) -> bool:
        """Conditions besides existence, number and privilege."""
        privilege = self.privilege
        if privilege == _MACHINE:
            return True
        if number == _N["satp"]:
            return not self.mstatus & _TVM
        if number == _N["stimecmp"]:
            return bool(self.menvcfg & _STCE and self._stored[_N["mcounteren"]] & _TM)
        if number in _USER_COUNTERS:
            bit = 1 << (number & 31)
            enabled = self._stored[_N["mcounteren"]]
            if privilege == _USER:
                enabled &= self._stored[_N["scounteren"]]
            return bool(enabled & bit)
        return True

    def read_csr(self, number: int) -> int:
        """The value an allowed access reads."""
        reader = _READERS.get(number)
        return self._stored[number] if reader is None else reader(self)

    def write_csr(self, number: int, value: int) -> None:
        """Write by the CSR's WARL rules."""
        writer = _WRITERS.get(number)
        if writer is not None:
            writer(self, value)
            return
        mask = CSR_BY_NUMBER[number].writable
        self._stored[number] = self._stored[number] & ~mask | value & mask

    @property
    def mip(self) -> int:
        pending = self._mip_software | self._platform.lines(self.now)
        if self.menvcfg & _STCE:
            pending &= ~_STI
            if self._platform.mtime(self.now) >= self.stimecmp:
                pending |= _STI
        return pending

    def _write_mip(self, value: int) -> None:
        mask = CSRS["mip"].writable
        if self.menvcfg & _STCE:
            mask &= ~_STI
        self._mip_software = self._mip_software & ~mask | value & mask

    def _write_sip(self, value: int) -> None:
        mask = CSRS["sip"].writable & self.mideleg
        self._mip_software = self._mip_software & ~mask | value & mask

    def _write_sie(self, value: int) -> None:
        mask = CSRS["sie"].writable & self.mideleg
        self.mie = self.mie & ~mask | value & mask

    def _write_mstatus(self, value: int) -> None:
        mask = CSRS["mstatus"].writable
        if (value & _MPP) >> _MPP_LSB not in _PRIVILEGES:
            mask &= ~_MPP
        self.mstatus = self.mstatus & ~mask | value & mask

    def _write_sstatus(self, value: int) -> None:
        mask = CSRS["sstatus"].writable
        self.mstatus = self.mstatus & ~mask | value & mask

    def _write_satp(self, value: int) -> None:
        if _SATP_MODE.extract(value) in (SatpMode.BARE, SatpMode.SV39):
            self.satp = value

    def _write_menvcfg(self, value: int) -> None:
        mask = CSRS["menvcfg"].writable
        self.menvcfg = self.menvcfg & ~mask | value & mask

    def _write_medeleg(self, value: int) -> None:
        self.medeleg = value & CSRS["medeleg"].writable

    def _write_mideleg(self, value: int) -> None:
        self.mideleg = value & CSRS["mideleg"].writable

    def _write_mie(self, value: int) -> None:
        self.mie = value & CSRS["mie"].writable

    def _write_stimecmp(self, value: int) -> None:
        self.stimecmp = value & _ALL

    # -- counters ----------------------------------------------------------------------------------

    def _running(self, counter: int) -> int:
        return self.now if counter == _MCYCLE else self.instret

    def _counter(self, counter: int) -> int:
        if self._inhibit >> (counter & 31) & 1:
            return self._frozen[counter]
        return self._running(counter) - self._ahead[counter] & _ALL

    def _write_counter(self, counter: int, value: int) -> None:
        if self._inhibit >> (counter & 31) & 1:
            self._frozen[counter] = value & _ALL
            return
        # The instruction that writes minstret is not counted in what it wrote.
        running = self._running(counter) + (counter == _MINSTRET)
        self._ahead[counter] = running - value

    def _write_inhibit(self, value: int) -> None:
        new = value & CSRS["mcountinhibit"].writable
        for counter in (_MCYCLE, _MINSTRET):
            bit = 1 << (counter & 31)
            if new & bit and not self._inhibit & bit:
                self._frozen[counter] = self._counter(counter)
            elif self._inhibit & bit and not new & bit:
                self._ahead[counter] = self._running(counter) - self._frozen[counter]
        self._inhibit = new

    # -- traps and returns -------------------------------------------------------------------------

    def take_trap(self, cause: int, tval: int, pc: int) -> int:
        """Enter the handler of a trap (``cause`` in mcause's form); the value is the new pc."""
        code = cause & _INTERRUPT - 1
        interrupt = cause & _INTERRUPT
        delegated = self.mideleg if interrupt else self.medeleg
        stored, mstatus = self._stored, self.mstatus
        if self.privilege != _MACHINE and delegated >> code & 1:
            stored[_N["sepc"]], stored[_N["scause"]], stored[_N["stval"]] = pc, cause, tval
            mstatus &= ~(_SPIE | _SPP)
            if mstatus & _SIE:
                mstatus |= _SPIE
            if self.privilege == _SUPERVISOR:
                mstatus |= _SPP
            self.mstatus = mstatus & ~_SIE
            self.privilege = _SUPERVISOR
            vector = stored[_N["stvec"]]
        else:
            stored[_N["mepc"]], stored[_N["mcause"]], stored[_N["mtval"]] = pc, cause, tval
            mstatus &= ~(_MPIE | _MPP)
            if mstatus & _MIE:
                mstatus |= _MPIE
            self.mstatus = mstatus & ~_MIE | self.privilege << _MPP_LSB
            self.privilege = _MACHINE
            vector = stored[_N["mtvec"]]
        base = vector & ~3
        return base + 4 * code if interrupt and vector & 3 == _VECTORED else base

    def mret(self, instruction: int) -> int:
        """The new pc. Raises Trap when the instruction is illegal here."""
        if self.privilege != _MACHINE:
            raise Trap(Exception_.ILLEGAL_INSTRUCTION, instruction)
        mstatus = self.mstatus
        self.privilege = (mstatus & _MPP) >> _MPP_LSB
        mstatus = mstatus & ~(_MIE | _MPP) | _MPIE | (_MIE if mstatus & _MPIE else 0)
        self.mstatus = mstatus if self.privilege == _MACHINE else mstatus & ~_MPRV
        return self._stored[_N["mepc"]]

    def sret(self, instruction: int) -> int:
        """The new pc. Raises Trap when the instruction is illegal here."""
        if self.privilege == _USER or (self.privilege == _SUPERVISOR and self.mstatus & _TSR):
            raise Trap(Exception_.ILLEGAL_INSTRUCTION, instruction)
        mstatus = self.mstatus
        self.privilege = _SUPERVISOR if mstatus & _SPP else _USER
        mstatus = mstatus & ~(_SIE | _SPP) | _SPIE | (_SIE if mstatus & _SPIE else 0)
        self.mstatus = mstatus & ~_MPRV
        return self._stored[_N["sepc"]]

    def wfi(self, instruction: int) -> bool:
        """Whether the hart waits. Raises Trap when the instruction is illegal here."""
        # U-mode traps every privileged encoding (architecture, hart).
        if self.privilege == _USER or (self.privilege == _SUPERVISOR and self.mstatus & _TW):
            raise Trap(Exception_.ILLEGAL_INSTRUCTION, instruction)
        return not self.mip & self.mie

    def sfence_vma(self, instruction: int) -> None:
        """Raises Trap when the instruction is illegal here; what it drops is the caller's."""
        if self.privilege == _USER or (self.privilege == _SUPERVISOR and self.mstatus & _TVM):
            raise Trap(Exception_.ILLEGAL_INSTRUCTION, instruction)

    def environment_call(self) -> int:
        """The exception an ecall raises at the current privilege."""
        return Exception_.ECALL_FROM_USER + self.privilege

    # -- interrupts --------------------------------------------------------------------------------

    def takeable(self) -> int:
        """Interrupts that would be taken now if they were pending."""
        privilege, mstatus = self.privilege, self.mstatus
        mask = 0
        if privilege < _MACHINE or mstatus & _MIE:
            mask = self.mie & ~self.mideleg
        if privilege < _SUPERVISOR or (privilege == _SUPERVISOR and mstatus & _SIE):
            mask |= self.mie & self.mideleg
        return mask

    def interrupt(self) -> int | None:
        """Cause of the interrupt to take before the next instruction, or None."""
        takeable = self.takeable()
        if not takeable:
            return None
        pending = self.mip & takeable
        if not pending:
            return None
        # Interrupts for M-mode go before those delegated to S-mode.
        chosen = pending & ~self.mideleg or pending
        for code in INTERRUPT_PRIORITY:
            if chosen >> code & 1:
                return _INTERRUPT | int(code)
        raise AssertionError("every pending interrupt has a priority")

    def next_event(self, interest: int) -> int | None:
        """The next cycle after ``now`` at which a bit of mip in ``interest`` may change."""
        at = self._platform.next_event(self.now, interest)
        if interest & _STI and self.menvcfg & _STCE:
            due = self._platform.cycle_of(self.stimecmp, self.now)
            if due is not None and due > self.now and (at is None or due < at):
                at = due
        return at

    # -- translation -------------------------------------------------------------------------------

    def translates(self, privilege: int) -> bool:
        """Whether an access at that effective privilege goes through the guest's page tables."""
        return privilege != _MACHINE and _SATP_MODE.extract(self.satp) == SatpMode.SV39

    def data_privilege(self) -> int:
        """Effective privilege of loads and stores."""
        if self.mstatus & _MPRV:
            return (self.mstatus & _MPP) >> _MPP_LSB
        return self.privilege


def _read_sie(hart):
    return hart.mie & hart.mideleg & DELEGABLE_INTERRUPTS


_READERS = {
    _N["mstatus"]: lambda hart: hart.mstatus,
    _N["sstatus"]: lambda hart: hart.mstatus & _SSTATUS,
    _N["medeleg"]: lambda hart: hart.medeleg,
    _N["mideleg"]: lambda hart: hart.mideleg,
    _N["mie"]: lambda hart: hart.mie,
    _N["sie"]: _read_sie,
    _N["mip"]: lambda hart: hart.mip,
    _N["sip"]: lambda hart: hart.mip & hart.mideleg,
    _N["satp"]: lambda hart: hart.satp,
    _N["stimecmp"]: lambda hart: hart.stimecmp,
    _N["menvcfg"]: lambda hart: hart.menvcfg,
    _N["mcountinhibit"]: lambda hart: hart._inhibit,
    _N["time"]: lambda hart: hart._platform.mtime(hart.now),
    _N["cycle"]: lambda hart: hart._counter(_MCYCLE),
    _N["instret"]: lambda hart: hart._counter(_MINSTRET),
    _MCYCLE: lambda hart: hart._counter(_MCYCLE),
    _MINSTRET: lambda hart: hart._counter(_MINSTRET),
    # The event counters are there as on the real hart, but nothing happens that they count.
    **{
        _N[f"hpmcounter{n}"]: lambda hart, counter=_N[f"mhpmcounter{n}"]: hart._stored[counter]
        for n in HPM_COUNTERS
    },
}

_WRITERS = {
    _N["mstatus"]: Hart._write_mstatus,
    _N["sstatus"]: Hart._write_sstatus,
    _N["medeleg"]: Hart._write_medeleg,
    _N["mideleg"]: Hart._write_mideleg,
    _N["mie"]: Hart._write_mie,
    _N["sie"]: Hart._write_sie,
    _N["mip"]: Hart._write_mip,
    _N["sip"]: Hart._write_sip,
    _N["satp"]: Hart._write_satp,
    _N["stimecmp"]: Hart._write_stimecmp,
    _N["menvcfg"]: Hart._write_menvcfg,
    _N["mcountinhibit"]: Hart._write_inhibit,
    _MCYCLE: lambda hart, value: hart._write_counter(_MCYCLE, value),
    _MINSTRET: lambda hart, value: hart._write_counter(_MINSTRET, value),
}

"""The CSRs of one world: values, views of each other, and what writes may change."""

from collections.abc import Mapping

from rtl.arch.csrs import (
    CSR_BY_NUMBER,
    CSRS,
    INTERRUPTS,
    MENVCFG,
    MSTATUS,
    SSTATUS_FIELDS,
    Csr,
)
from rtl.arch.paging import SATP, SatpMode
from rtl.arch.performance import HPM_COUNTERS

__all__ = ["COUNTERS", "EXTERNAL_LINES", "CsrFile"]

_WORD = (1 << 64) - 1
#: What a counter reads only the world outside can tell (minstret is the model's own).
COUNTERS = (
    "cycle",
    "mcycle",
    "time",
    *(f"{level}hpmcounter{n}" for level in ("", "m") for n in HPM_COUNTERS),
)
#: Bits of mip driven from outside; seip is also a bit of the hart's own, and both are ored.
EXTERNAL_LINES = INTERRUPTS.mask("msi", "mti", "mei", "sei")
_STI, _SEI = (INTERRUPTS[name].mask for name in ("sti", "sei"))
_STCE = MENVCFG["stce"].mask
_SSTATUS = MSTATUS.mask(*SSTATUS_FIELDS)
_MPP = MSTATUS["mpp"]
_STATUS = {field.name: field for field in MSTATUS.fields}
_INHIBIT_INSTRET = 1 << 2
_NEVER = (1 << 64) - 1


class CsrFile:
    """Registers by name in ``values``; ``read`` and ``write`` are those of CSR instructions.

    Accesses are not checked here (``Hart.csr_accessible``).

    Parameters
    ----------
    platform : Platform
        Asked for counters and interrupt lines.
    more : dict of str to Csr
        CSRs there are besides those of ``rtl.arch.csrs``.

    Members
    -------
    values : dict of str to int
        Every register with bits of its own. ``mip`` holds the bits that software can set.
    retired : int
        Instructions retired, for minstret.
    by_number : dict of int to Csr
        The CSRs that exist.
    """

    def __init__(self, platform, more: Mapping[str, Csr] | None = None):
        self.platform = platform
        self.by_number = CSR_BY_NUMBER
        if more:
            self.by_number = CSR_BY_NUMBER | {csr.number: csr for csr in more.values()}
        self.values = {
            name: csr.reset
            for name, csr in {**CSRS, **(more or {})}.items()
            if csr.writable and name not in ("sstatus", "sie", "sip", "minstret", *COUNTERS)
        }
        self.retired = 0
        self._instret_base = 0
        self._instret_frozen = 0
        self._own = 1  # the write under way is an instruction that will retire
        self._read = {
            "sstatus": lambda: self.values["mstatus"] & _SSTATUS,
            "sie": lambda: self.values["mie"] & self.values["mideleg"],
            "mip": self._pending,
            "sip": lambda: self._pending() & self.values["mideleg"],
            "minstret": self._instret,
            "instret": self._instret,
            **{name: self._counter(name) for name in COUNTERS},
        }
        self._write = {
            "mstatus": self._write_status,
            "sstatus": self._write_status,
            "mie": self._write_plain,
            "sie": self._write_sie,
            "mip": self._write_mip,
            "sip": self._write_sip,
            "satp": self._write_satp,
            "mcountinhibit": self._write_inhibit,
            "minstret": self._write_instret,
            **{name: lambda csr, value: None for name in COUNTERS},
        }

    def status(self, name: str) -> int:
        """A field of mstatus."""
        return _STATUS[name].extract(self.values["mstatus"])

    def set_status(self, **values: int) -> None:
        """Set fields of mstatus, as hardware does."""
        status = self.values["mstatus"]
        for name, value in values.items():
            status = _STATUS[name].insert(status, value)
        self.values["mstatus"] = status

    def read(self, number: int) -> tuple[int, int]:
        """What an access reads, and what csrrs and csrrc start from."""
        csr = self.by_number[number]
        special = self._read.get(csr.name)
        value = special() if special else self.values.get(csr.name, csr.reset)
        if csr.name == "mip":
            # The line of the interrupt controller is not part of what is written back.
            return value, value & ~_SEI | self.values["mip"] & _SEI
        return value, value

    def write(self, number: int, value: int, *, retires: bool = True) -> None:
        """Write what can be written of ``value``; the host's writes are no instructions."""
        csr = self.by_number[number]
        self._own = int(retires)
        self._write.get(csr.name, self._write_plain)(csr, value & _WORD)

    def count_retired(self) -> None:
        """An instruction retires that somebody else has carried out."""
        self._instret_base -= 1

    # Reading.

    def known_pending(self) -> int:
        """Bits of mip that are set whatever happens outside."""
        pending = self.values["mip"]
        return pending & ~_STI if self.values["menvcfg"] & _STCE else pending

    def possibly_pending(self) -> int:
        """Bits of mip that may be set."""
        possible = self.values["mip"] | EXTERNAL_LINES
        if self.values["menvcfg"] & _STCE:
            possible &= ~_STI
            if self.values["stimecmp"] != _NEVER:
                possible |= _STI
        return possible

    def _pending(self):
        known = self.known_pending()
        unknown = self.possibly_pending() & ~known
        return known | self.platform.lines() & unknown

    def _counter(self, name):
        return lambda: self.platform.counter(name)

    def _instret(self):
        if self.values["mcountinhibit"] & _INHIBIT_INSTRET:
            return self._instret_frozen
        return self.retired - self._instret_base & _WORD

    # Writing.

    def _write_plain(self, csr, value):
        if csr.writable:
            old = self.values[csr.name]
            self.values[csr.name] = old & ~csr.writable | value & csr.writable

    def _write_status(self, csr, value):
        writable = csr.writable
        if _MPP.extract(value) == 2:  # no such privilege
            writable &= ~_MPP.mask
        old = self.values["mstatus"]
        self.values["mstatus"] = old & ~writable | value & writable

    def _write_sie(self, csr, value):
        writable = csr.writable & self.values["mideleg"]
        self.values["mie"] = self.values["mie"] & ~writable | value & writable

    def _write_mip(self, csr, value):
        writable = csr.writable
        if self.values["menvcfg"] & _STCE:
            writable &= ~_STI
        self.values["mip"] = self.values["mip"] & ~writable | value & writable

    def _write_sip(self, csr, value):
        writable = csr.writable & self.values["mideleg"]
        self.values["mip"] = self.values["mip"] & ~writable | value & writable

    def _write_satp(self, csr, value):
        # A write with an unsupported mode has no effect at all.
        if SATP["mode"].extract(value) in (SatpMode.BARE, SatpMode.SV39):
            self._write_plain(csr, value)

    # An instruction that writes minstret does not count itself; one that starts or stops the
    # counter counts as before.

    def _write_inhibit(self, csr, value):
        was = self._instret()
        stood = self.values["mcountinhibit"] & _INHIBIT_INSTRET
        self._write_plain(csr, value)
        if not stood:
            self._instret_frozen = was + self._own & _WORD
        elif not value & _INHIBIT_INSTRET:
            self._instret_base = self.retired + self._own - self._instret_frozen

    def _write_instret(self, csr, value):
        self._instret_frozen = value
        self._instret_base = self.retired + self._own - value

    def snapshot(self) -> dict[str, int]:
        """Registers by name, without those that need the world outside."""
        return {**self.values, "minstret": self._instret()}

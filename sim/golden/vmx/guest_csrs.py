"""The CSRs of the guest (docs/isa/vmx.md#guest-csrs)."""

from rtl.arch.csrs import CSR_BY_NUMBER, CSRS, INTERRUPTS, MENVCFG, MSTATUS, SSTATUS_FIELDS
from rtl.arch.vmx.fields import GUEST_CSRS, VMCS_FIELDS
from sim.golden.csr_file import CsrFile
from sim.golden.vmx.virtual_time import virtual_ticks

__all__ = ["GuestCsrFile"]

_STI, _MTI = INTERRUPTS["sti"].mask, INTERRUPTS["mti"].mask
_STCE = MENVCFG["stce"].mask
_SSTATUS = MSTATUS.mask(*SSTATUS_FIELDS)
_NEVER = (1 << 64) - 1
_COUNTINHIBIT = _NEVER & ~VMCS_FIELDS["guest_mcountinhibit"].reserved
#: Counters have ways of their own.
_COPIED = tuple(name for name in GUEST_CSRS if name not in ("mcycle", "minstret"))
_EVENTS = tuple(
    name for name in CSRS if name.startswith(("hpmcounter", "mhpmcounter", "mhpmevent"))
)


class GuestCsrFile(CsrFile):
    """Those of non-root operation.

    Parameters
    ----------
    platform : Platform
        Its ``lines`` are asked for the timers of the guest too.
    root : CsrFile
        Whose mip may be passed through.
    fields : dict of str to int
        Those of the current VMCS.
    """

    def __init__(self, platform, root: CsrFile, fields: dict[str, int]):
        super().__init__(platform)
        self._root, self._fields = root, fields
        self._read.update(
            mstatus=self._status,
            sstatus=lambda: self._status() & _SSTATUS,
            mhartid=lambda: fields["guest_mhartid"],
            time=lambda: virtual_ticks(fields, platform.counter("time")),
            **{name: lambda: 0 for name in _EVENTS},
        )
        inhibit = self._write_inhibit
        self._write.update(
            mcountinhibit=lambda csr, value: inhibit(csr, value & _COUNTINHIBIT),
            **{name: lambda csr, value: None for name in _EVENTS},
        )

    def load(self, retired: int) -> None:
        """Take over from the fields; ``retired`` instructions count from now on."""
        for name in _COPIED:
            self.values[name] = self._fields[f"guest_{name}"]
        self.retired = retired
        self._instret_frozen = self._fields["guest_minstret"]
        self._instret_base = -self._instret_frozen

    def save(self) -> None:
        """Write the fields, but for mcycle, which only the world outside knows."""
        for name in _COPIED:
            self._fields[f"guest_{name}"] = self.values[name]
        self._fields["guest_minstret"] = self._instret()

    def read(self, number: int) -> tuple[int, int]:
        value, base = super().read(number)
        csr = CSR_BY_NUMBER[number]
        if csr.name in ("mip", "sip"):
            # What csrrs and csrrc start from: lines and timers are no part of it.
            own = self.values["mip"] & (_NEVER if csr.name == "mip" else self.values["mideleg"])
            base = value & ~csr.writable | own & csr.writable
        return value, base

    def known_pending(self) -> int:
        passed = self._root.known_pending() & self._fields["interrupt_passthrough"]
        return super().known_pending() | self._fields["guest_lines"] | passed

    def possibly_pending(self) -> int:
        possible = self.known_pending()
        possible |= self._root.possibly_pending() & self._fields["interrupt_passthrough"]
        if self.values["menvcfg"] & _STCE:
            possible |= _STI
        if self._fields["guest_mtimecmp"] != _NEVER:
            possible |= _MTI
        return possible

    # The host owns some bits of mstatus.

    def _status(self):
        mask = self._fields["status_mask"]
        return self.values["mstatus"] & ~mask | self._fields["status_shadow"] & mask

    def _write_status(self, csr, value):
        mask, real = self._fields["status_mask"], self.values["mstatus"]
        super()._write_status(csr, value & ~mask | real & mask)

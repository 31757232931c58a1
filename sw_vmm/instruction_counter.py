"""The minstret of a guest in non-root operation, which counts what the VMM carries out, too."""

from rtl.arch.csrs import COUNTEREN, CSRS
from rtl.arch.vmx.fields import CSR_BITMAP, VMCS_FIELDS
from sw_vmm.exits import CsrAccess
from sw_vmm.hart import CsrFunction

__all__ = ["InstructionCounter"]

_ALL = (1 << 64) - 1
_MINSTRET, _INHIBIT = (CSRS[name].number for name in ("minstret", "mcountinhibit"))
_INHIBITABLE = _ALL & ~VMCS_FIELDS["guest_mcountinhibit"].reserved
_IR = COUNTEREN.mask("ir")


class InstructionCounter:
    """What the field guest_minstret holds, known without reading it.

    The park record tells how many instructions the hart has retired; what the guest itself writes
    to minstret and mcountinhibit exits.

    Parameters
    ----------
    instret : int
        The park record's, while the field is 0.

    Members
    -------
    bitmaps : dict
        Fields of the VMCS that make those writes exit.
    """

    def __init__(self, instret: int):
        #: The field is this much ahead of the record, unless it stands still.
        self._ahead = -instret
        self._inhibit = 0
        self._frozen = 0
        self.bitmaps: dict[str, int] = {}
        for name in ("minstret", "mcountinhibit"):
            word, bit = divmod(CSR_BITMAP.index(name), 64)
            field = f"csr_write_bitmap_{word}"
            self.bitmaps[field] = self.bitmaps.get(field, 0) | 1 << bit

    def __contains__(self, number: int) -> bool:
        return number in (_MINSTRET, _INHIBIT)

    def skip(self, instructions: int) -> None:
        """The hart has retired instructions that are not this guest's."""
        self._ahead -= instructions

    def count(self) -> None:
        """The VMM has carried out an instruction, and the next resume says so."""
        if not self._inhibit & _IR:
            self._ahead += 1

    def access(self, access: CsrAccess, instret: int) -> tuple[int, dict[str, int]]:
        """Do what a CSR instruction that writes does: what rd gets, and fields with their values.

        An instruction that writes minstret does not count itself; one that starts or stops the
        counter counts as before it.
        """
        stopped = self._inhibit & _IR
        present = self._frozen if stopped else self._ahead + instret & _ALL
        if access.csr == _MINSTRET:
            value = _written(present, access)
            self._frozen, self._ahead = value, value - instret
            return present, {"guest_minstret": value}
        old = self._inhibit
        self._inhibit = _written(old, access) & _INHIBITABLE
        if not stopped:
            self._frozen = present = present + 1 & _ALL
        self._ahead = present - instret
        return old, {"guest_minstret": present, "guest_mcountinhibit": self._inhibit}


def _written(old: int, access: CsrAccess) -> int:
    match access.function:
        case CsrFunction.WRITE:
            return access.operand
        case CsrFunction.SET:
            return old | access.operand
        case _:
            return old & ~access.operand

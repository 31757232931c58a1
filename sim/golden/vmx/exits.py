"""What makes the guest exit, and what the exit tells of it (docs/isa/vmx.md#exit)."""

from rtl.arch.paging import PTE, Access
from rtl.arch.records import EXIT_BIT
from rtl.arch.vmx.exits import CSR_QUALIFICATION, EPT_QUALIFICATION, EXIT_REASONS, ExitReason
from sim.golden.translation import EptFault

__all__ = ["VmExit", "csr_qualification", "ept_exit"]


class VmExit(Exception):
    """The instruction does not retire, or none begins: the guest exits.

    Members are fields of the information area; what is not given is zero, or follows from the
    instruction.
    """

    def __init__(
        self,
        reason: ExitReason,
        qualification: int = 0,
        *,
        gva: int = 0,
        gpa: int = 0,
        interruption: int = 0,
    ):
        super().__init__(reason, qualification)
        self.reason = ExitReason(reason)
        self.qualification = qualification
        self.gva, self.gpa = gva, gpa
        self.interruption = interruption

    @property
    def trap(self) -> tuple[int, int]:
        """Cause and value in a retirement record."""
        return self.reason | 1 << EXIT_BIT, self.qualification

    @property
    def of_instruction(self) -> bool:
        """It tells of an instruction."""
        return EXIT_REASONS[self.reason].instruction


def ept_exit(gva: int, refusal: EptFault) -> VmExit:
    """The exit for an access to ``gva`` that the EPT has refused."""
    if not refusal.violation:
        return VmExit(ExitReason.EPT_MISCONFIGURATION, gva=gva, gpa=refusal.gpa)
    leaf = PTE.decode(refusal.leaf)
    qualification = EPT_QUALIFICATION.encode(
        read=refusal.access == Access.READ,
        write=refusal.access == Access.WRITE,
        fetch=refusal.access == Access.FETCH,
        readable=leaf["r"],
        writable=leaf["w"],
        executable=leaf["x"],
        gva_valid=1,
        final=refusal.final,
        level=refusal.level,
    )
    return VmExit(ExitReason.EPT_VIOLATION, qualification, gva=gva, gpa=refusal.gpa)


def csr_qualification(bits: int) -> int:
    """The qualification of an exit by the CSR instruction ``bits``."""
    return CSR_QUALIFICATION.encode(
        csr=bits >> 20, function=bits >> 12 & 3, immediate=bits >> 14 & 1, rd=bits >> 7 & 31
    )

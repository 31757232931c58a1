"""CSR, privileged and fence instructions."""

from rtl.arch.traps import Exception_, Privilege
from sim.golden.memory_unit import Trap

__all__ = ["EXECUTE", "illegal"]


def illegal(hart, i):
    raise Trap(Exception_.ILLEGAL_INSTRUCTION, i.bits)


def _csr(immediate, modify):
    """``modify`` combines the CSR's value and the operand; None is csrrw, which always writes."""

    def execute(hart, i):
        number, source = i.bits >> 20, i.bits >> 15 & 31
        operand = i.immediate if immediate else hart.x[source]
        writes = modify is None or source != 0
        if not hart.csr_accessible(number, writes):
            illegal(hart, i)
        value, base = hart.csr.read(number)
        written = operand if modify is None else modify(base, operand)
        if hart.world:
            reads = modify is not None or i.rd < len(hart.x) - 1
            hart.vmx.csr_access(i.bits, reads=reads, writes=writes, value=written)
        if writes:
            hart.write_csr(number, written)
        hart.x[i.rd] = value

    return execute


def _set(value, operand):
    return value | operand


def _clear(value, operand):
    return value & ~operand


def _ecall(hart, i):
    raise Trap(Exception_.ECALL_FROM_USER + hart.privilege, 0)


def _ebreak(hart, i):
    raise Trap(Exception_.BREAKPOINT, hart.pc)


def _mret(hart, i):
    if hart.privilege != Privilege.MACHINE:
        illegal(hart, i)
    hart.return_from_machine()


def _sret(hart, i):
    if hart.privilege == Privilege.USER or (
        hart.privilege == Privilege.SUPERVISOR and hart.csr.status("tsr")
    ):
        illegal(hart, i)
    hart.return_from_supervisor()


def _wfi(hart, i):
    # It ends when an enabled interrupt is pending, which only the world outside can tell.
    if hart.privilege == Privilege.USER or (
        hart.privilege == Privilege.SUPERVISOR and hart.csr.status("tw")
    ):
        illegal(hart, i)
    if hart.world:
        hart.vmx.wfi()


def _sfence_vma(hart, i):
    if hart.privilege == Privilege.USER or (
        hart.privilege == Privilege.SUPERVISOR and hart.csr.status("tvm")
    ):
        illegal(hart, i)
    if hart.world:
        hart.vmx.sfence_vma()
    hart.memory.sfence_vma(
        hart.x[i.rs1] if i.rs1 else None, hart.x[i.rs2] & 0xFFFF if i.rs2 else None
    )


def _fence(hart, i):
    # One hart, and accesses in program order.
    pass


def _fence_i(hart, i):
    hart.memory.fence_i()


#: Semantics by name.
EXECUTE = {
    "csrrw": _csr(False, None),
    "csrrs": _csr(False, _set),
    "csrrc": _csr(False, _clear),
    "csrrwi": _csr(True, None),
    "csrrsi": _csr(True, _set),
    "csrrci": _csr(True, _clear),
    "ecall": _ecall,
    "ebreak": _ebreak,
    "mret": _mret,
    "sret": _sret,
    "wfi": _wfi,
    "sfence.vma": _sfence_vma,
    "fence": _fence,
    "fence.i": _fence_i,
}

"""A VM exit in the commit stage: whether there is one, and its record."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.vmx import exits
from rtl.core.decode import Unit
from rtl.core.execute.execute import Executed
from rtl.core.traps import Trap
from rtl.lib.layouts import struct_of
from rtl.mmu.context import Access, EptFault, Fault, Privilege
from rtl.vmx.intercept import ExitReason
from rtl.vmx.ports import VmxOperation
from rtl.vmx.saved_state import ExitRecord

__all__ = ["GuestExit", "Leave", "reason_of"]

_EptQualification = struct_of(exits.EPT_QUALIFICATION)
_CsrQualification = struct_of(exits.CSR_QUALIFICATION)


class Leave(data.Struct):
    """With ``valid`` the guest exits for ``reason``, and does not take the trap decided with it;
    ``waiting``: from wfi. ``exempt``: the trap was injected, no exception bitmap is looked at.
    """

    valid: 1
    reason: ExitReason
    waiting: 1
    exempt: 1


def reason_of(m, operation):
    """The exit reason of a VMX instruction, by its number in VmxOperation."""
    reason = Signal(ExitReason)
    with m.Switch(operation):
        for member in VmxOperation:
            with m.Case(member.value):
                m.d.comb += reason.eq(ExitReason[member.name])
    return reason


class GuestExit(wiring.Component):
    """Make the record of an exit of the instruction that has stepped aside.

    Members
    -------
    leave, trap : In
        What was decided in the cycle before: ``trap.value`` is the gva of an EPT fault, otherwise the
        trap value; ``trap.code`` the cause.
    instruction : In(Executed)
        It did not retire.
    bitmap : In
        The exception bitmap.
    fetch_refusal, data_refusal : In(EptFault)
    exits : Out(1)
        Instead of the trap.
    record : Out(ExitRecord)
    """

    leave: In(Leave)
    trap: In(Trap)
    instruction: In(Executed)
    privilege: In(Privilege)
    bitmap: In(64)
    fetch_refusal: In(EptFault)
    data_refusal: In(EptFault)
    exits: Out(1)
    record: Out(ExitRecord)

    def elaborate(self, platform):
        m = Module()
        inst, record, trap = self.instruction, self.record, self.trap
        fetched = inst.fault == Fault.NONE
        refusal = Signal(EptFault)
        m.d.comb += refusal.eq(
            Mux(fetched, self.data_refusal.as_value(), self.fetch_refusal.as_value())
        )
        qualification = Signal(64)
        m.d.comb += [
            self.exits.eq(
                self.leave.valid
                | ~trap.interrupt & ~self.leave.exempt & self.bitmap.bit_select(trap.code, 1)
            ),
            qualification.eq(trap.value),
            record.reason.eq(ExitReason.EXCEPTION),
            record.qualification.eq(qualification),
            record.gva.eq(trap.value),
            record.gpa.eq(refusal.gpa),
            record.pc.eq(inst.pc),
            record.privilege.eq(self.privilege),
            record.instruction.eq(inst.bits),
            record.length.eq(Mux(fetched, Mux(inst.compressed, 2, 4), 0)),
            record.rs1.eq(Mux(inst.has_rs1, inst.rs1, 0)),
            record.rs2.eq(Mux(inst.has_rs2, inst.rs2, 0)),
            record.cause.eq(trap.code),
            record.waiting.eq(self.leave.waiting),
        ]
        with m.If(self.leave.valid):
            m.d.comb += record.reason.eq(self.leave.reason)
        ept, csr = Signal(_EptQualification), Signal(_CsrQualification)
        m.d.comb += [
            ept.read.eq(refusal.access == Access.READ),
            ept.write.eq(refusal.access == Access.WRITE),
            ept.fetch.eq(refusal.access == Access.FETCH),
            ept.readable.eq(refusal.readable),
            ept.writable.eq(refusal.writable),
            ept.executable.eq(refusal.executable),
            ept.gva_valid.eq(1),
            ept.final.eq(~refusal.page_table),
            ept.level.eq(refusal.level),
            csr.csr.eq(inst.bits[20:32]),
            csr.function.eq(inst.funct3[:2]),
            csr.immediate.eq(inst.funct3[2]),
            csr.rd.eq(inst.bits[7:12]),
        ]
        with m.If(self.leave.valid & (self.leave.reason == ExitReason.EPT_VIOLATION)):
            m.d.comb += qualification.eq(ept)
        with m.Elif(self.leave.valid & (inst.unit == Unit.CSR)):
            m.d.comb += qualification.eq(csr)
        return m

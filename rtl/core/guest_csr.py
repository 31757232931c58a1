"""The control and status registers of non-root operation (docs/isa/vmx.md#guest-csrs)."""

from amaranth import *
from amaranth.lib.wiring import In, Out

from rtl.arch.csrs import CSRS, MSTATUS, SSTATUS_FIELDS
from rtl.arch.traps import Interrupt
from rtl.arch.vmx.fields import GUEST_CSRS, VMCS_FIELDS, VMCS_NUMBER_BITS
from rtl.core.csr_base import CsrFileBase, memory_row
from rtl.core.traps import InterruptSelect
from rtl.vmx.entry_checks import FieldWrite

__all__ = ["GuestCsrFile"]

_ALL = (1 << 64) - 1
_PRIVILEGE = VMCS_FIELDS["guest_privilege"].number
#: Fields of the VMCS that are kept here, by the CSR they hold.
_FIELDS = {name: VMCS_FIELDS[f"guest_{name}"] for name in GUEST_CSRS}


class GuestCsrFile(CsrFileBase):
    """Hold the CSRs and the privilege of the guest; see CsrFileBase for what it does.

    What is kept here is at the same time part of the guest-state area of the current VMCS. CSR
    instructions, traps and trap returns come in non-root operation only, reads and writes of fields
    in root operation only, from ``cleared`` on. The reserved bits of fields are not kept: they
    read zero, but those of mstatus that never change.

    Members
    -------
    time : In(64)
        Virtual time.
    advance, retired : In(1)
        Of non-root operation.
    field_write : In(FieldWrite)
        A field of the current VMCS gets a value, which may be one that no CSR instruction could
        write; those kept elsewhere are ignored.
    field_read : In(1)
        Fields are read, CSRs are not.
    field_number : In(9)
        With ``field_read``, and no ``field_write``: the field that is read.
    field_value : Out(64)
        One cycle later: what the CSR of that field holds; 0 for other fields.
    next_value : Out(64)
        In the second cycle of a CSR instruction: what it would write.
    lines, mtimecmp, mhartid : In(64)
        The fields of the guest-state area of these names.
    passthrough, status_mask, status_shadow, window_mask : In(64)
        The controls.
    root_pending : In(64)
        Root's mip.
    pending : Out(64)
        The guest's.
    window_open : Out(1)
        As early as ``interrupt``: the guest would take one of the interrupts of ``window_mask``.
    """

    field_write: In(FieldWrite)
    field_read: In(1)
    field_number: In(VMCS_NUMBER_BITS)
    field_value: Out(64)
    next_value: Out(64)

    lines: In(64)
    mtimecmp: In(64)
    mhartid: In(64)
    passthrough: In(64)
    status_mask: In(64)
    status_shadow: In(64)
    window_mask: In(64)
    root_pending: In(64)
    pending: Out(64)
    window_open: Out(1)

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += [
            self.pending.eq(self._pending),
            self.field_value.eq(self.value),
            self.next_value.eq(self._new),
        ]
        m.submodules.window = window = InterruptSelect()
        m.d.comb += [
            window.pending.eq(self.window_mask),
            window.enabled.eq(self._plain["mie"]),
            window.delegated.eq(self._plain["mideleg"]),
            window.privilege.eq(self.privilege),
            window.mie.eq(self._status["mie"]),
            window.sie.eq(self._status["sie"]),
        ]
        m.d.sync += self.window_open.eq(window.valid)
        self._write_field(m)
        return m

    def _drive(self, m, bits):
        expired = Signal()
        # A deadline of all ones is never.
        m.d.sync += expired.eq((self.time >= self.mtimecmp) & ~self.mtimecmp.all())
        bits[Interrupt.MACHINE_TIMER] = expired
        for bit in Interrupt:
            bits[bit] |= self.lines[bit] | self.root_pending[bit] & self.passthrough[bit]

    # What CSRs and fields read.

    def _views(self):
        views = super()._views()
        # The host owns some bits of mstatus; traps and translation use the real ones.
        owned = Mux(self.field_read, 0, self.status_mask & CSRS["mstatus"].writable)
        status = self._mstatus() & ~owned | self.status_shadow & owned
        own = Const(0, 64)
        for bit, signal in self._own().items():
            own |= signal << bit
        views.update(
            mstatus=status,
            sstatus=status & MSTATUS.mask(*SSTATUS_FIELDS),
            mip=Mux(self.field_read, own, self._pending),
            mhartid=self.mhartid,
        )
        return views

    def _own(self):
        """The bits of mip that software has set, by interrupt."""
        return {
            Interrupt.SUPERVISOR_SOFTWARE: self._ssip,
            Interrupt.SUPERVISOR_TIMER: self._stip,
            Interrupt.SUPERVISOR_EXTERNAL: self._seip,
        }

    def _reads(self, m):
        number = Signal(12)
        with m.If(self.field_read):
            m.d.comb += number.eq(self._csr_of(m, self.field_number))
        with m.Elif(self.request.valid):
            m.d.comb += number.eq(self.request.number)
        return self.request.valid | self.field_read, number

    def _kept(self):
        # Nor are other lines and timers; what cannot be written of sip is left out later.
        return self._own(), ("mip", "sip")

    # What writes change.

    def _writable(self, name):
        return CSRS[name].writable & ~_FIELDS[name].reserved

    def _status_part(self, name, part):
        field = MSTATUS[name]
        owned = self.status_mask[field.lsb : field.lsb + field.width]
        return part & ~owned | self._status[name] & owned

    def _csr_of(self, m, field_number):
        """Number of the CSR that a field holds; 0, which is none, for the other fields."""
        number = Signal(12)
        with m.Switch(field_number):
            for name, field in _FIELDS.items():
                with m.Case(field.number):
                    m.d.comb += number.eq(CSRS[name].number)
        return number

    def _write_field(self, m):
        write, bank = self.field_write, self._counters
        with m.If(write.valid):
            number = self._csr_of(m, write.number)
            m.d.comb += [
                bank.access.eq(1),
                bank.row.eq(number[: len(bank.row)]),
                bank.data.eq(write.value),
                self._write.addr.eq(memory_row(number)),
            ]
            with m.Switch(write.number):
                with m.Case(_PRIVILEGE):
                    m.d.sync += self.privilege.eq(write.value[: len(self.privilege.as_value())])
                for name, field in _FIELDS.items():
                    with m.Case(field.number):
                        self._put(m, name, write.value & (_ALL & ~field.reserved))

    def _put(self, m, name, value):
        """Give the CSR of a field its value, whether a CSR instruction could write it or not."""
        match name:
            case "mstatus":
                for part, signal in self._status.items():
                    field = MSTATUS[part]
                    m.d.sync += signal.eq(value[field.lsb : field.lsb + field.width])
            case "mip":
                m.d.sync += [signal.eq(value[bit]) for bit, signal in self._own().items()]
            case "satp":
                m.d.sync += self._satp.eq(value)
            case "mcycle" | "minstret":
                m.d.comb += self._counters.write.eq(1)
            case _ if name in self._row_names:
                m.d.comb += [self._write.en.eq(1), self._write.data.eq(value)]
            case _:
                # Bit by bit: synthesis does not see that the others stay zero.
                for bit in range(64):
                    if self._writable(name) >> bit & 1:
                        m.d.sync += self._plain[name][bit].eq(value[bit])

"""Fields of the current VMCS that the hart needs at speed, kept in registers."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.traps import Exception_, Interrupt
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPTP
from rtl.arch.vmx.fields import VMCS_FIELDS
from rtl.lib.layouts import struct_of
from rtl.vmx.entry_checks import FieldWrite
from rtl.vmx.intercept import ExecutionControls

__all__ = ["ExitControls", "FieldMirror", "VmcsMirror"]

ExitControls = struct_of(CONTROL_WORDS["exit_controls"].layout)
_LINES = max(Interrupt) + 1


class VmcsMirror(data.Struct):
    """Fields under their own names. Bits that must be zero may be missing, and so may those of
    the exception bitmap that no exception has.
    """

    execution_controls: ExecutionControls
    exit_controls: ExitControls
    exception_bitmap: max(Exception_) + 1
    interrupt_passthrough: _LINES
    interrupt_window_mask: _LINES
    status_mask: 64
    status_shadow: 64
    time_offset: 64
    time_scale: 64
    eptp: struct_of(EPTP)
    vpid: 16
    guest_mhartid: 64
    guest_lines: _LINES
    guest_mtimecmp: 64
    entry_interruption_value: 64
    host_pc: 64


class FieldMirror(wiring.Component):
    """Keep a copy of every field of ``VmcsMirror`` as it is written; up to date a cycle later."""

    write: In(FieldWrite)
    fields: Out(VmcsMirror)

    def elaborate(self, platform):
        m = Module()
        with m.If(self.write.valid):
            with m.Switch(self.write.number):
                for name, _ in data.Layout.cast(VmcsMirror):
                    with m.Case(VMCS_FIELDS[name].number):
                        m.d.sync += Value.cast(self.fields[name]).eq(self.write.value)
        return m

"""Exits before an instruction (docs/isa/vmx.md#events)."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.traps import INTERRUPT_PRIORITY
from rtl.vmx.intercept import ExitReason
from rtl.vmx.mirror import VmcsMirror

__all__ = ["EventExit", "EventExits"]


class EventExit(data.Struct):
    """``cause`` is the interrupt of EXTERNAL_INTERRUPT."""

    valid: 1
    reason: ExitReason
    cause: 6


class EventExits(wiring.Component):
    """Choose the exit that comes before the guest's next instruction.

    Members
    -------
    fields : In(VmcsMirror)
    non_root : In(1)
    expiring : In(1)
        The preemption timer is zero in the next cycle.
    root_interrupts : In(64)
        Root ``mip & mie``.
    window_open : In(1)
        The guest would take one of ``interrupt_window_mask``.
    event : Out(EventExit)
        What applied in the cycle before, the timer apart; nothing in root operation.
    """

    fields: In(VmcsMirror)
    non_root: In(1)
    expiring: In(1)
    root_interrupts: In(64)
    window_open: In(1)
    event: Out(EventExit)

    def elaborate(self, platform):
        m = Module()
        event, controls = Signal(EventExit), self.fields.execution_controls
        exiting = self.root_interrupts & ~self.fields.interrupt_passthrough
        # What comes first is assigned last.
        with m.If(controls.interrupt_window_exiting & self.window_open):
            m.d.comb += [event.valid.eq(1), event.reason.eq(ExitReason.INTERRUPT_WINDOW)]
        for interrupt in reversed(INTERRUPT_PRIORITY):
            with m.If(controls.external_interrupt_exiting & exiting[interrupt]):
                m.d.comb += [
                    event.valid.eq(1),
                    event.reason.eq(ExitReason.EXTERNAL_INTERRUPT),
                    event.cause.eq(interrupt),
                ]
        with m.If(controls.preemption_timer & self.expiring):
            m.d.comb += [event.valid.eq(1), event.reason.eq(ExitReason.PREEMPTION_TIMER)]
        held = Signal(EventExit)
        m.d.sync += held.eq(event)
        m.d.comb += self.event.eq(held)
        with m.If(~self.non_root):
            m.d.sync += held.valid.eq(0)
            m.d.comb += self.event.valid.eq(0)
        return m

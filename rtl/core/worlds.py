"""Both worlds' CSRs and the VMX unit, behind the face of one CSR file."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.snoop import SnoopPort
from rtl.core.csr import RootCsrFile
from rtl.core.csr_base import CsrRequest
from rtl.core.guest_csr import GuestCsrFile
from rtl.core.guest_port import GuestPort, VmxPort
from rtl.core.performance_counters import PerformanceEvents
from rtl.core.ports import InterruptLines, Skip
from rtl.core.traps import Trap
from rtl.core.world_switch import WorldSwitch
from rtl.mmu.context import Invalidation, Privilege, TranslationContext, World
from rtl.vmx.ports import VmxOutcome
from rtl.vmx.vmx_unit import VmxUnit

__all__ = ["Worlds"]


class Worlds(wiring.Component):
    """Serve the world at work: CSR instructions, traps, trap returns, interrupts and contexts.

    Members
    -------
    request ... settled
        As in CsrFile. In non-root operation they are about the guest's CSRs, but requests of the
        host, ``lines``, ``events``, ``skip``, ``cleared`` and ``settled``, which stay root's. ``time``
        is that of the machine. ``interrupt`` tells of exits that come before an instruction, too.
    hold : In(1)
        Requests and writes are those of the host.
    commit, host : In(VmxPort())
    guest : In(GuestPort())
    park_exits : In(64)
        Bit n: VM exits of reason n park.
    invalidate : Out(stream.Signature(Invalidation))
    memory : Out(SnoopPort())
    quiet, saving : Out(1)
        The VMX unit's ``settled`` and ``saving``.
    """

    request: In(CsrRequest)
    write: In(1)
    value: Out(64)
    illegal: Out(1)
    trap_valid: In(1)
    trap: In(Trap)
    trap_pc: In(64)
    trap_vector: Out(64)
    trap_to_machine: Out(1)
    ret_valid: In(1)
    ret_supervisor: In(1)
    ret_pc: Out(64)
    privilege: Out(Privilege)
    tvm: Out(1)
    tw: Out(1)
    tsr: Out(1)
    fetch_context: Out(TranslationContext)
    data_context: Out(TranslationContext)
    cleared: Out(1)
    time: In(64)
    advance: In(1)
    retired: In(1)
    interrupt: Out(1)
    interrupt_code: Out(6)
    wake: Out(1)
    privilege_write: In(1)
    privilege_next: In(Privilege)
    lines: In(InterruptLines)
    events: In(PerformanceEvents)
    skip: In(Skip)
    settled: Out(1)

    hold: In(1)
    commit: In(VmxPort())
    host: In(VmxPort())
    guest: In(GuestPort())
    park_exits: In(64)
    invalidate: Out(stream.Signature(Invalidation))
    memory: Out(SnoopPort())
    quiet: Out(1)
    saving: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.root = root = RootCsrFile()
        m.submodules.guest = guest = GuestCsrFile()
        m.submodules.vmx = vmx = VmxUnit()
        m.submodules.switch = switch = WorldSwitch()
        connect(m, vmx.memory, flipped(self.memory))
        connect(m, vmx.invalidate, flipped(self.invalidate))
        connect(m, switch.request, vmx.request)
        connect(m, vmx.answer, switch.answer)
        connect(m, flipped(self.commit), switch.commit)
        connect(m, flipped(self.host), switch.host)
        non_root = vmx.world == World.NON_ROOT
        self._csrs(m, root, guest, non_root)
        self._unit(m, vmx, root, guest, switch, non_root)
        return m

    def _csrs(self, m, root, guest, non_root):
        """What comes and goes by the world at work."""
        # The host reaches root's CSRs only.
        of_guest = non_root & ~self.hold
        for csrs, chosen, at_work in ((root, ~of_guest, ~non_root), (guest, of_guest, non_root)):
            m.d.comb += [
                csrs.request.eq(self.request),
                csrs.request.valid.eq(self.request.valid & chosen),
                csrs.write.eq(self.write & chosen),
                csrs.trap_valid.eq(self.trap_valid & at_work),
                csrs.trap.eq(self.trap),
                csrs.trap_pc.eq(self.trap_pc),
                csrs.ret_valid.eq(self.ret_valid & at_work),
                csrs.ret_supervisor.eq(self.ret_supervisor),
                csrs.privilege_write.eq(self.privilege_write & at_work),
                csrs.privilege_next.eq(self.privilege_next),
            ]
        for names, chosen in (
            (("value", "illegal"), of_guest),
            (
                (
                    "trap_vector", "trap_to_machine", "ret_pc", "privilege", "tvm", "tw", "tsr",
                    "fetch_context", "data_context", "interrupt_code", "wake",
                ),
                non_root,
            ),
        ):  # fmt: skip
            for name in names:
                values = (Value.cast(getattr(csrs, name)) for csrs in (guest, root))
                m.d.comb += Value.cast(getattr(self, name)).eq(Mux(chosen, *values))
        m.d.comb += [
            root.time.eq(self.time),
            root.advance.eq(self.advance),
            root.retired.eq(self.retired),
            root.lines.eq(self.lines),
            root.events.eq(self.events),
            root.skip.eq(self.skip),
            guest.advance.eq(self.advance & non_root),
            guest.retired.eq(self.retired & non_root),
            self.cleared.eq(root.cleared & guest.cleared),
            self.settled.eq(root.settled),
        ]

    def _unit(self, m, vmx, root, guest, switch, non_root):
        fields, port = vmx.fields, self.guest
        # In root operation nobody needs to know, and simulation need not look.
        with m.If(self.request.valid & non_root):
            m.d.comb += vmx.intercept_number.eq(self.request.number)
        m.d.comb += [
            vmx.park_exits.eq(self.park_exits),
            vmx.root_interrupts.eq(root.pending & root.enabled),
            vmx.window_open.eq(guest.window_open),
            vmx.advance.eq(self.advance),
            vmx.execution_mask.eq(root.execution_mask),
            vmx.exit_mask.eq(root.exit_mask),
            vmx.guest_value.eq(guest.field_value),
            vmx.guest_tw.eq(guest.tw),
            vmx.time.eq(self.time),
            vmx.access.reads.eq(port.reads),
            vmx.access.writes.eq(port.writes),
            vmx.access.value.eq(guest.next_value),
            root.vmxstatus_write.eq(vmx.status_stb),
            root.vmxstatus_next.eq(vmx.status),
            switch.status_failed.eq(vmx.status.any()),
            switch.on.eq(vmx.on),
            switch.world.eq(vmx.world),
            switch.saved.eq(vmx.saved),
            guest.time.eq(vmx.virtual_time),
            guest.field_write.eq(vmx.guest_write),
            guest.field_read.eq(vmx.guest_read),
            guest.field_number.eq(vmx.guest_number),
            guest.lines.eq(fields.guest_lines),
            guest.mtimecmp.eq(fields.guest_mtimecmp),
            guest.mhartid.eq(fields.guest_mhartid),
            guest.passthrough.eq(fields.interrupt_passthrough),
            guest.status_mask.eq(fields.status_mask),
            guest.status_shadow.eq(fields.status_shadow),
            guest.window_mask.eq(fields.interrupt_window_mask),
            guest.root_pending.eq(root.pending),
            self.interrupt.eq(Mux(non_root, guest.interrupt | vmx.event.valid, root.interrupt)),
            self.quiet.eq(vmx.settled),
            self.saving.eq(vmx.saving),
        ]
        m.d.comb += [
            port.fields.eq(fields),
            port.event.eq(vmx.event),
            port.csr_exits.eq(vmx.intercepted & non_root),
            port.csr_reason.eq(vmx.intercept_reason),
            port.parks.eq(vmx.exit_parks),
            vmx.exit.payload.eq(port.exit.payload),
            vmx.exit.valid.eq(port.exit.valid),
            port.exit.ready.eq(vmx.exit.ready),
            root.exited.eq(
                vmx.exit.valid & vmx.exit.ready
                | self.host.answered & (self.host.answer.outcome == VmxOutcome.HOST)
            ),
        ]
        for name in ("world", "vpid", "ept_tag", "ept", "ept_ad", "ept_root"):
            for context in (self.fetch_context, self.data_context):
                m.d.comb += Value.cast(context[name]).eq(Value.cast(vmx.context[name]))

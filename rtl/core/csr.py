"""The control and status registers of root operation: all there are without the extension."""

from amaranth import *
from amaranth.lib.wiring import In, Out

from rtl.arch.csrs import CSRS
from rtl.arch.performance import HPM_COUNTERS
from rtl.arch.traps import Interrupt
from rtl.arch.vmx.capability import VMX_CSRS
from rtl.core.csr_base import CsrFileBase, CsrOperation, CsrRequest, rows_of
from rtl.core.performance_counters import PerformanceCounters, PerformanceEvents
from rtl.core.ports import InterruptLines, Skip
from rtl.mmu.context import Privilege

__all__ = ["CsrFile", "CsrOperation", "CsrRequest", "RootCsrFile"]

_ROOT_CSRS = {**CSRS, **VMX_CSRS}


class CsrFile(CsrFileBase):
    """Hold every CSR of a hart; see CsrFileBase for what it does.

    Members
    -------
    lines : In(InterruptLines)
    events : In(PerformanceEvents)
        What mhpmcounters may count in this cycle.
    skip : In(Skip)
        Only while ``settled``.
    settled : Out(1)
        ``skip`` may come: it does not for some cycles after reset and after another.
    """

    lines: In(InterruptLines)
    events: In(PerformanceEvents)
    skip: In(Skip)
    settled: Out(1)

    _counter_names = ("cycle", "instret", *(f"hpmcounter{index}" for index in HPM_COUNTERS))

    def elaborate(self, platform):
        self._performance = PerformanceCounters()
        m = super().elaborate(platform)
        m.submodules.performance = self._performance
        return m

    def _drive(self, m, bits):
        bits[Interrupt.MACHINE_SOFTWARE] = self.lines.msi
        bits[Interrupt.MACHINE_TIMER] = self.lines.mti
        bits[Interrupt.SUPERVISOR_EXTERNAL] |= self.lines.sei
        bits[Interrupt.MACHINE_EXTERNAL] = self.lines.mei

    def _count(self, m):
        super()._count(m)
        inhibit = self._plain["mcountinhibit"]
        bank, performance = self._counters, self._performance
        m.d.comb += [
            performance.events.eq(self.events),
            performance.inhibit.eq(inhibit[HPM_COUNTERS.start : HPM_COUNTERS.stop]),
            performance.skip.eq(self.skip),
            performance.value.eq(self._new),
        ]
        # What is skipped is added one cycle later, when the events counters are sure of it, too.
        skipped, cycles_counted, amount = Signal(), Signal(), Signal(len(self.skip.cycles))
        m.d.sync += [
            skipped.eq(self.skip.valid),
            cycles_counted.eq(~inhibit[0]),
            amount.eq(self.skip.cycles),
        ]
        addends = {f"hpmcounter{index}": performance.add[n] for n, index in enumerate(HPM_COUNTERS)}
        m.d.comb += [
            bank.add.eq(skipped),
            bank.amount.eq(amount),
            bank.addends.eq(rows_of({"cycle": cycles_counted, **addends})),
            self.settled.eq(bank.settled & ~skipped & ~self._clearing),
        ]

    def _counts(self):
        counts = super()._counts()
        counts["cycle"] &= ~self.skip.valid
        events = self._performance.count
        return counts | {f"hpmcounter{index}": events[n] for n, index in enumerate(HPM_COUNTERS)}

    def _views(self):
        selectors = {
            f"mhpmevent{index}": self._performance.selectors[n]
            for n, index in enumerate(HPM_COUNTERS)
        }
        return {**super()._views(), **selectors}

    def _writes(self, m, new):
        super()._writes(m, new)
        for n, index in enumerate(HPM_COUNTERS):
            with m.If(self._written[f"mhpmcounter{index}"]):
                m.d.comb += [
                    self._counters.write.eq(1),
                    self._performance.counter_write[n].eq(1),
                ]
            with m.If(self._written[f"mhpmevent{index}"]):
                m.d.comb += self._performance.event_write[n].eq(1)


class RootCsrFile(CsrFile):
    """The same for a hart with the extension: with its CSRs, and what VM entries and exits need.

    Members
    -------
    vmxstatus_write, vmxstatus_next : In(1), In(64)
        What became of a VMX instruction. Not in a cycle in which a CSR is written.
    execution_mask, exit_mask : Out(64)
        What software lets the control words have.
    exited : In(1)
        A VM exit: root goes on in M-mode with mstatus.MIE = 0. Not in a cycle with anything else.
    pending, enabled : Out(64)
        mip and mie.
    """

    vmxstatus_write: In(1)
    vmxstatus_next: In(64)
    execution_mask: Out(64)
    exit_mask: Out(64)
    exited: In(1)
    pending: Out(64)
    enabled: Out(64)

    _csrs = _ROOT_CSRS
    _plain_names = (
        *CsrFile._plain_names,
        *(name for name, csr in VMX_CSRS.items() if csr.writable),
    )

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += [
            self.execution_mask.eq(self._plain["vmxexecutionmask"]),
            self.exit_mask.eq(self._plain["vmxexitmask"]),
            self.pending.eq(self._pending),
            self.enabled.eq(self._plain["mie"]),
        ]
        with m.If(self.vmxstatus_write):
            m.d.sync += self._plain["vmxstatus"].eq(self.vmxstatus_next)
        with m.If(self.exited):
            m.d.sync += [
                self.privilege.eq(Privilege.MACHINE),
                self._status["mie"].eq(0),
            ]
        return m

    def _views(self):
        constant = {name: Const(csr.reset, 64) for name, csr in VMX_CSRS.items()}
        return {**constant, **super()._views()}

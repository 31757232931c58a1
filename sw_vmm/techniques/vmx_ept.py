"""vmx-ept: the guest has M, S and U of its own in non-root operation, over an EPT.

What the guest does to its own state it does without the VMM; accesses to devices come to the VMM,
and the first access to each page of guest RAM.
"""

from collections.abc import Callable

from sw_vmm.charge import ChargeModel
from sw_vmm.ept import PageAllocator
from sw_vmm.errors import VmxMissing
from sw_vmm.result import Result
from sw_vmm.supervisor_guest import SupervisorGuest, SupervisorStart
from sw_vmm.techniques.technique import (
    ExitLog,
    ExitRow,
    counted_cycles,
    exit_row,
    result_of,
)
from sw_vmm.vm import Vm
from sw_vmm.vmcs import start_vmx
from sw_vmm.vmx_guest import End, VmxGuest

__all__ = ["VmxEpt"]


class VmxEpt:
    """Run a guest in non-root operation.

    Parameters
    ----------
    vm, charges, on_exit
        As for every technique.
    start : SupervisorStart or None
        Start in S-mode, with the VMM for firmware; None: in M-mode at the reset vector.
    options
        Those of ``VmxGuest``.

    Raises VmxMissing on a machine without the extension, VmxFailure when it does not do as the
    manual says, and GuestStopped from ``run`` when the guest cannot go on.
    """

    name = "vmx-ept"
    needs_vmx = True

    def __init__(
        self,
        vm: Vm,
        charges: ChargeModel,
        on_exit: Callable[[ExitRow], None] | None = None,
        *,
        start: SupervisorStart | None = None,
        **options,
    ):
        self._vm = vm
        self._machine = vm.machine
        if not vm.config.vmx:
            raise VmxMissing(self.name)
        start_vmx(vm.machine)
        parts = vm, charges, PageAllocator(vm.monitor)
        self.guest = (
            VmxGuest(*parts, **options)
            if start is None
            else SupervisorGuest(*parts, start=start, **options)
        )
        self._log = ExitLog(on_exit)

    def run(self, cycles: int) -> Result:
        guest, log, machine = self.guest, self._log, self._machine
        vcpu = guest.vcpu
        guest.prepare()
        guest.now = vcpu.record.cycle
        guest.until = guest.now + cycles
        guest.attend()
        while guest.end is None:
            guest.enter()
            exit_ = vcpu.run(guest.until - guest.now + guest.charge)
            if not vcpu.parked:
                guest.finish(exit_)
                break
            before = machine.transition
            log.close(before)
            record = vcpu.record
            instret = record.instret + guest.emulated
            guest.handle(exit_)
            row = None
            if log.wants_rows:
                row = exit_row(
                    exit_,
                    record,
                    instret=instret,
                    privilege=record.privilege,
                    charged=guest.charge,
                )
            log.open(exit_.reason, guest.charge, before, row)
        return self._result()

    def _result(self) -> Result:
        vm, machine, guest = self._vm, self._machine, self.guest
        if guest.charge:
            machine.charge(guest.charge)
        counters = machine.counters()
        self._log.close(counters["transition"])
        vm.uart.advance(guest.now)
        if guest.end is End.FINISHED:
            vm.uart.settle()
        return result_of(
            vm,
            self.name,
            exit_code=guest.exit_code,
            text_seen=guest.end is End.TEXT,
            console=bytes(vm.uart.output),
            cycles=counted_cycles(counters),
            instructions=guest.vcpu.record.instret + guest.emulated,
            exits=self._log.statistics(),
            counters=counters,
            registers=guest.registers() if guest.end is End.BUDGET else "",
        )

    def read_memory(self, gpa: int, length: int) -> bytes:
        return self._vm.memory.read_bytes(gpa, length)

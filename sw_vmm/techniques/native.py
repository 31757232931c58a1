"""native: the guest has the hart and the hardware's devices, and no VMM is in its way."""

from collections.abc import Callable

from rtl.arch.memory_map import MEMORY_MAP
from sw_vmm.charge import ChargeModel
from sw_vmm.errors import UnhandledExit
from sw_vmm.exits import BudgetSpent, ConsoleText, Finished, Stopped, WindowAccess
from sw_vmm.result import Result
from sw_vmm.techniques.technique import ExitRow, counted_cycles, result_of
from sw_vmm.vcpu import Vcpu
from sw_vmm.vm import Vm

__all__ = ["Native"]

#: Bytes the UART may still hold when the guest ends: its FIFO, and the one being sent.
_UART_BYTES = 17


class Native:
    """Run the guest in root M, S and U. Charges nothing: there is no VMM."""

    name = "native"
    needs_vmx = False

    def __init__(
        self,
        vm: Vm,
        charges: ChargeModel,
        on_exit: Callable[[ExitRow], None] | None = None,
    ):
        self._vm = vm
        self._machine = vm.machine
        self._vcpu = Vcpu(vm.machine)

    def run(self, cycles: int) -> Result:
        vm, machine, vcpu = self._vm, self._machine, self._vcpu
        machine.park_on(0, 0)
        for text, keys in vm.keys:
            machine.type_after(text, keys)
        if vm.stop_text:
            machine.stop_at_text(vm.stop_text)
        if vm.tohost is not None:
            machine.stop_at_tohost(vm.tohost)
        machine.window_interrupts(vm.window.interrupts)
        end = vcpu.record.cycle + cycles
        vcpu.resume(vm.reset_vector)
        exit_code, text_seen = None, False
        stopping = False
        while True:
            now = machine.cycles
            left = end - now
            due = vm.window.next_event(now)
            if due is not None and due <= now and not stopping:
                # Devices get at memory only while the hart is parked.
                machine.stop()
                stopping = True
            part = left if due is None or stopping else min(left, due - now)
            exit_ = vcpu.run(part) if left > 0 else BudgetSpent()
            if stopping and vcpu.parked and isinstance(exit_, Stopped | BudgetSpent):
                stopping = False
                self._serve()
                continue
            match exit_:
                case WindowAccess() as access:
                    self._answer(access)
                case Finished(code):
                    exit_code = code
                    break
                case ConsoleText():
                    text_seen = True
                    break
                case BudgetSpent():
                    if left <= part:
                        break
                case unknown:
                    raise UnhandledExit(unknown)
        counters = machine.counters()
        vcpu.stop()
        if exit_code is not None:
            # What the guest has handed to the UART is part of what it said.
            machine.charge(_UART_BYTES * vm.config.uart_cycles_per_byte)
        return result_of(
            vm,
            self.name,
            exit_code=exit_code,
            text_seen=text_seen,
            console=machine.console(),
            cycles=counted_cycles(counters),
            instructions=counters["instructions"],
            exits={},
            counters=counters,
        )

    def _serve(self) -> None:
        """Let the devices work on guest memory, and the parked hart go on."""
        record = self._vcpu.record
        self._vm.window.advance(record.cycle)
        self._machine.window_interrupts(self._vm.window.interrupts)
        self._vcpu.resume(record.pc)

    def _answer(self, access: WindowAccess) -> None:
        """Let the device object serve a device-window access of the hardware."""
        lanes = [lane for lane in range(8) if access.mask >> lane & 1]
        first, size = lanes[0], len(lanes)
        offset = access.address + first - MEMORY_MAP["window"].base
        now = self._machine.cycles
        answer = 0
        if access.write:
            data = access.data >> 8 * first & (1 << 8 * size) - 1
            self._vm.window.write(offset, size, data, now)
        else:
            answer = self._vm.window.read(offset, size, now) << 8 * first
        self._machine.answer_window(answer)
        self._machine.window_interrupts(self._vm.window.interrupts)

    def read_memory(self, gpa: int, length: int) -> bytes:
        return self._machine.read_memory(gpa, length)

"""interpret: the hart stays parked, and the VMM interprets every instruction of the guest."""

from collections.abc import Callable

from sw_vmm.charge import ChargeModel
from sw_vmm.hart import Hart
from sw_vmm.interpreter import Interpreter, Stop
from sw_vmm.memory import LocalMemory
from sw_vmm.result import Cycles, Result
from sw_vmm.techniques.technique import ExitRow, result_of
from sw_vmm.vcpu import exit_code_of_tohost
from sw_vmm.vm import Vm

__all__ = ["Interpret"]

#: Instructions between two looks at the console when a text is to stop the run.
_POLL = 10_000
#: A charge is a 32-bit number.
_LARGEST_CHARGE = (1 << 32) - 1


class Interpret:
    """Interpret the guest on a copy of its memory.

    Every instruction costs its charge, at least one cycle however fast the VMM is said to be: with
    none, time would stand still in the guest.
    """

    name = "interpret"
    needs_vmx = False

    def __init__(
        self,
        vm: Vm,
        charges: ChargeModel,
        on_exit: Callable[[ExitRow], None] | None = None,
    ):
        self._vm = vm
        self._hart = Hart(vm)
        self._memory = LocalMemory(vm.ram_base, vm.ram_size, vm.images)
        vm.use_memory(self._memory)
        self._interpreter = Interpreter(
            self._hart,
            self._memory,
            vm.bus,
            cycles_per_instruction=max(1, charges.price(instruction=1)),
            cycles_per_device_access=charges.price(device=1),
            bit_manipulation=vm.config.bit_manipulation,
        )
        self._interpreter.unit.watched = vm.tohost

    def run(self, cycles: int) -> Result:
        vm, interpreter, uart = self._vm, self._interpreter, self._vm.uart
        start = vm.machine.park.cycle
        interpreter.pc = vm.reset_vector
        interpreter.now = start

        def asked() -> bool:
            if vm.stop_text:
                uart.advance(self._hart.now)
            return bool(
                vm.finisher.exit_code is not None
                or interpreter.unit.watched_value
                or uart.text_seen
            )

        stop = interpreter.run(start + cycles, asked, poll=_POLL if vm.stop_text else 0)
        spent = interpreter.now - start
        for _ in range(spent // _LARGEST_CHARGE):
            vm.machine.charge(_LARGEST_CHARGE)
        vm.machine.charge(spent % _LARGEST_CHARGE)
        exit_code = vm.finisher.exit_code
        if interpreter.unit.watched_value:
            exit_code = exit_code_of_tohost(interpreter.unit.watched_value)
        if exit_code is not None:
            uart.settle()
        return result_of(
            vm,
            self.name,
            exit_code=exit_code,
            text_seen=stop is Stop.ASKED and exit_code is None,
            console=bytes(uart.output),
            cycles=Cycles(start + spent, 0, 0, 0, start + spent, interpreter.idle),
            instructions=interpreter.instret,
            exits={},
            counters=vm.machine.counters(),
        )

    def read_memory(self, gpa: int, length: int) -> bytes:
        return self._memory.read_bytes(gpa, length)

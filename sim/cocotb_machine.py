"""The machine inside a cocotb test: the same synchronous VMM code drives the simulated SoC.

The VMM runs in a thread of its own (``cocotb.task.bridge``); while it thinks, simulated time
stands still.
"""

import ctypes
import json
import os
import struct
from collections import deque

from cocotb.clock import Clock
from cocotb.task import resume
from cocotb.triggers import FallingEdge, ReadOnly

from rtl.arch.layout import Layout
from rtl.arch.records import PARK, RESUME, RETIREMENT
from rtl.bus.register_bus import RegisterRequest, RegisterResponse
from rtl.lib.skip import Skip
from rtl.soc.config import SocConfig
from sim.cocotb_model import CONFIGURATION
from sim.console import Console
from sim.errors import VmxlabError
from sim.host_machine import HostPortMachine, MachineConfig
from sim.ports import layout_of
from sw_vmm.machine import BusError, Event, MachineError

__all__ = ["CocotbMachine", "CocotbSoc", "machine_configuration"]

_REQUEST = layout_of("request", RegisterRequest)
_RESPONSE = layout_of("response", RegisterResponse)
_SKIP = layout_of("skip", Skip)
_FINISHER = Layout.packed("finisher", ("valid", 1, ""), ("code", 32, ""))
_RETIREMENT_BYTES = 8 * -(-RETIREMENT.width // 64)
_ANSWER_LIMIT = 1_000_000


def machine_configuration() -> SocConfig:
    """The configuration of the machine this simulation was built for."""
    return SocConfig(**json.loads(os.environ[CONFIGURATION]))


#: Cycles within which the hart is parked after a reset.
_RESET_LIMIT = 100_000


class CocotbSoc:
    """One simulated SoC with its RAM: ``sim.verilated.Verilated`` for a cocotb test.

    Everything that takes clock cycles is called from a thread made by ``cocotb.task.bridge``, but
    ``start``. The members mean what they mean there.

    Parameters
    ----------
    dut
        The handle cocotb gives the test.
    ram_size : int
        Bytes of RAM, a multiple of 8.
    """

    def __init__(self, dut, *, ram_size: int):
        self._dut = dut
        self._cycles_per_tick = machine_configuration().cycles_per_tick
        # The simulator is this process: its RAM's functions are there already.
        fit = ctypes.CDLL(None).vmxlab_ram_fit
        fit.restype, fit.argtypes = ctypes.c_void_p, (ctypes.c_uint64,)
        address = fit(ram_size)
        if not address:
            raise VmxlabError(f"no memory for a machine with {ram_size >> 20} MiB of RAM")
        self.ram = memoryview((ctypes.c_uint8 * ram_size).from_address(address)).cast("B")
        self._fit = lambda: fit(ram_size)
        self._skipping = True
        self._clock = Clock(dut.clk, 2, unit="ns")
        self._clocking = None
        self._capacity = 0
        self._forget()

    def _forget(self) -> None:
        self._console = Console()
        self._events = Event(0)
        self._tohost_address = None
        self._asking = self._answering = False
        self._records = deque(maxlen=self._capacity)
        self._changed = True
        self.cycles = self.transition = self.finisher = self.tohost = self.lost = 0
        self.parked = False
        self.park = memoryview(b"")

    async def start(self) -> None:
        """Start the clock and reset; ``reset`` from outside of a bridged thread."""
        self._fit()
        self._forget()
        dut = self._dut
        for name in ("host__request", "resume", "keyboard", "window_response"):
            getattr(dut, f"{name}__valid").value = 0
            getattr(dut, f"{name}__payload").value = 0
        for name in ("window_request__ready", "window_interrupts", "skip"):
            getattr(dut, name).value = 0
        dut.console__ready.value = 1
        dut.host__response__ready.value = 1
        dut.rst.value = 1
        if self._clocking is None:
            self._clocking = self._clock.start(start_high=False)
        for _ in range(3):
            await FallingEdge(dut.clk)
        dut.rst.value = 0
        await FallingEdge(dut.clk)
        # The hart clears its tables before it parks.
        for _ in range(_RESET_LIMIT):
            if dut.parked.value == 1:
                break
            await FallingEdge(dut.clk)
        await self._settle()
        self._publish()
        await FallingEdge(dut.clk)

    def reset(self) -> None:
        resume(self.start)()

    # Between two calls the clock has just fallen: outputs show the state, and inputs may be set that
    # take effect at the next rising edge.

    def _set(self, name: str, value: int) -> None:
        getattr(self._dut, name).value = value
        self._changed = True

    async def _settle(self) -> None:
        """Let inputs that were set reach the outputs; none can be set any more in this cycle."""
        if self._changed:
            self._changed = False
            await ReadOnly()

    async def _tick(self) -> None:
        """Take note of this cycle's outputs and go on to the next."""
        await self._settle()
        dut = self._dut
        if dut.console__valid.value:
            self._console.send(dut.console__payload.value.to_unsigned())
        finisher = dut.finisher.value.to_unsigned()
        if _FINISHER["valid"].extract(finisher):
            self.finisher = _FINISHER["code"].extract(finisher)
            self._events |= Event.FINISHED
        if (self._capacity or self._tohost_address is not None) and dut.retirement__valid.value:
            self._retired(dut.retirement__record.value.to_unsigned())
        await FallingEdge(dut.clk)

    def _retired(self, word: int) -> None:
        record = RETIREMENT.decode(word)
        if (
            record["store"]
            and not record["trap"]
            and record["address"] == self._tohost_address
            and (value := record["data"] & (1 << (8 << record["size"])) - 1)
        ):
            self.tohost = value
            self._events |= Event.TOHOST
        if self._capacity:
            self.lost += len(self._records) == self._capacity
            self._records.append(word.to_bytes(_RETIREMENT_BYTES, "little"))

    def _publish(self) -> None:
        self.parked = bool(self._dut.parked.value)
        park = self._dut.park.value.to_unsigned()
        self.cycles = PARK["cycle"].extract(park)
        self.transition = self._dut.transition.value.to_unsigned()
        if self.parked:
            self.park = memoryview(park.to_bytes(8 * -(-PARK.width // 64), "little"))

    def run(self, cycles: int) -> Event:
        return resume(self._run)(cycles)

    async def _run(self, budget: int) -> Event:
        dut, console = self._dut, self._console
        cycles = 0
        while True:
            events = self._events
            if console.stopped:
                events |= Event.CONSOLE
            if dut.parked.value:
                events |= Event.PARKED
            if dut.window_request__valid.value and not self._asking:
                events |= Event.WINDOW
            if events:
                break
            if cycles == budget:
                events = Event.BUDGET
                break
            typing = taken = False
            if console.keys and dut.keyboard_empty.value:
                self._set("keyboard__valid", 1)
                self._set("keyboard__payload", console.keys[0])
                await self._settle()
                typing, taken = True, bool(dut.keyboard__ready.value)
            await self._settle()
            answered = self._answering and dut.window_response__ready.value
            await self._tick()
            cycles += 1
            if typing:
                self._set("keyboard__valid", 0)
            if taken:
                console.keys.popleft()
            if self._asking:
                self._asking = False
                self._set("window_request__ready", 0)
            if answered:
                self._answering = False
                self._set("window_response__valid", 0)
        self._events, console.stopped = Event(0), False
        self._publish()
        return events

    def resume_and_run(
        self, pc: int, value: int, rd: int, charge: int, cycles: int, retires: bool = False
    ) -> Event:
        return resume(self._resume_and_run)(pc, value, rd, charge, cycles, retires)

    async def _resume_and_run(self, pc, value, rd, charge, cycles, retires) -> Event:
        if charge and await self._skip(charge):
            charge = 0
        record = RESUME.encode(value=value, pc=pc, charge=charge, rd=rd, retires=retires)
        self._set("resume__payload", record)
        self._set("resume__valid", 1)
        for _ in range(_ANSWER_LIMIT):
            await self._settle()
            taken = self._dut.resume__ready.value
            await self._tick()
            if taken:
                break
        self._set("resume__valid", 0)
        return await self._run(cycles)

    def read(self, address: int, mask: int = 0xFF) -> int:
        return resume(self._access)(address, 0, mask, 0)

    def write(self, address: int, data: int, mask: int = 0xFF) -> None:
        resume(self._access)(address, 1, mask, data)

    def repeat_read(self, address: int, count: int) -> bytes:
        return resume(self._repeat_read)(address, count)

    async def _repeat_read(self, address, count) -> bytes:
        words = [await self._access(address, 0, 0xFF, 0) for _ in range(count)]
        return struct.pack(f"<{count}Q", *words)

    def repeat_write(self, address: int, data: bytes) -> None:
        resume(self._repeat_write)(address, data)

    async def _repeat_write(self, address, data) -> None:
        for (word,) in struct.iter_unpack("<Q", data):
            await self._access(address, 1, 0xFF, word)

    async def _access(self, address, write, mask, data) -> int:
        dut = self._dut
        request = _REQUEST.encode(address=address, write=write, mask=mask, data=data)
        self._set("host__request__payload", request)
        self._set("host__request__valid", 1)
        waiting, answer = True, None
        for _ in range(_ANSWER_LIMIT):
            await self._settle()
            taken = waiting and dut.host__request__ready.value
            if dut.host__response__valid.value:
                answer = _RESPONSE.decode(dut.host__response__payload.value.to_unsigned())
            # The hart may run meanwhile, and take the answer to its own access of the window.
            asked, given = self._asking, self._answering and dut.window_response__ready.value
            await self._tick()
            if asked:
                self._asking = False
                self._set("window_request__ready", 0)
            if given:
                self._answering = False
                self._set("window_response__valid", 0)
            if taken:
                waiting = False
                self._set("host__request__valid", 0)
            # The host's own access has reached the device window: whoever answers there is the
            # host itself.
            if dut.parked.value and dut.window_request__valid.value and not self._asking:
                self._answer(0, error=1)
            if answer is not None:
                break
        self._set("host__request__valid", 0)
        if self._asking and dut.parked.value:
            self._asking = self._answering = False
            self._set("window_request__ready", 0)
            self._set("window_response__valid", 0)
        self._publish()
        if answer is None:
            raise MachineError(f"the host port does not answer at its offset {address:#x}")
        if answer["error"]:
            raise BusError(f"the host port refuses the access to its offset {address:#x}")
        return answer["data"]

    def skip(self, cycles: int) -> bool:
        return resume(self._skip)(cycles)

    async def _skip(self, cycles) -> bool:
        dut = self._dut
        if not self._skipping or not dut.parked.value or not dut.quiet.value:
            return False
        ticks, phase = divmod(self.cycles % self._cycles_per_tick + cycles, self._cycles_per_tick)
        self._set("skip", _SKIP.encode(valid=1, cycles=cycles, ticks=ticks, phase=phase))
        await self._tick()
        self._set("skip", 0)
        self._publish()
        return True

    def set_skipping(self, on: bool) -> None:
        self._skipping = on

    def window_request(self) -> tuple[int, bool, int, int]:
        access = _REQUEST.decode(self._dut.window_request__payload.value.to_unsigned())
        return access["address"], bool(access["write"]), access["mask"], access["data"]

    def answer_window(self, data: int) -> None:
        self._answer(data, error=0)

    def _answer(self, data: int, *, error: int) -> None:
        self._asking = self._answering = True
        self._set("window_response__payload", _RESPONSE.encode(data=data, error=error))
        self._set("window_response__valid", 1)
        self._set("window_request__ready", 1)

    def window_interrupts(self, lines: int) -> None:
        self._set("window_interrupts", lines)

    def console(self) -> bytes:
        return bytes(self._console.sent)

    def type_after(self, text: bytes, keys: bytes) -> None:
        self._console.type_after(text, keys)

    def stop_at_text(self, text: bytes) -> None:
        self._console.stop_at(text)

    def stop_at_tohost(self, hpa: int | None) -> None:
        self._tohost_address = hpa

    def observe(self, capacity: int) -> None:
        self._capacity = capacity
        self._records = deque(maxlen=capacity)
        self.lost = 0

    def drain(self, most: int) -> bytes:
        return b"".join(self._records.popleft() for _ in range(min(most, len(self._records))))


class CocotbMachine(HostPortMachine):
    """The machine of a cocotb test (``sw_vmm.machine.Machine``), made by ``create``.

    Its methods are called from functions that run under ``cocotb.task.bridge``.
    """

    @classmethod
    async def create(cls, dut, *, ram_size: int = 64 << 20) -> "CocotbMachine":
        """Start the clock, reset the SoC of ``dut``, and give it RAM.

        Raises ValueError or VmxlabError when there cannot be so much.
        """
        whole = MachineConfig(**machine_configuration().as_dict(), ram_size=ram_size)
        soc = CocotbSoc(dut, ram_size=ram_size)
        await soc.start()
        return cls(soc, whole)

    def reset(self) -> None:
        """Power-on, as far as anything tells: registers are zero, too."""
        super().reset()
        # They are a memory, which a reset leaves as it is.
        for number in range(1, 32):
            self.write_gpr(number, 0)

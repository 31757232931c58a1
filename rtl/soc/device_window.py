"""The device window: virtio-mmio slots that the machine around the SoC answers."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import DEVICE_WINDOW_SLOTS, MEMORY_MAP
from rtl.bus.register_bus import RegisterBus, RegisterRequest, RegisterResponse

__all__ = ["DeviceWindow"]


class DeviceWindow(wiring.Component):
    """Pass accesses out of the SoC and give the answers back after a fixed latency.

    The hart's access is answered when exactly ``device_latency`` cycles with ``advance`` = 1 have
    passed, the one in which the request was taken included, however long the machine takes: if
    it has not answered by then, ``overdue`` is 1 and the SoC holds ``advance`` at 0. A request
    that comes while time stands still (``advance`` = 0) is the host's, and is answered as soon as
    the machine has answered.

    Parameters
    ----------
    device_latency : int
        Cycles from the request to the response.

    Members
    -------
    bus : In(RegisterBus())
        Addresses relative to the window's region.
    advance : In(1)
    request : Out(stream.Signature(RegisterRequest))
        The access, with its whole bus address; leaves from the cycle after it came.
    response : In(stream.Signature(RegisterResponse))
        The machine's answer, taken at any time after its request was.
    interrupts : In(8)
        Interrupt lines of the slots, from the machine.
    lines : Out(8)
        The same lines, to the PLIC.
    overdue : Out(1)
        The latency is over and the answer has not come.
    idle : Out(1)
        No access is under way.

    Raises ValueError when ``device_latency`` is not positive.
    """

    def __init__(self, *, device_latency: int):
        if not isinstance(device_latency, int) or device_latency < 1:
            raise ValueError(f"device_latency must be positive, not {device_latency!r}")
        self._device_latency = device_latency
        super().__init__(
            {
                "bus": In(RegisterBus()),
                "advance": In(1),
                "request": Out(stream.Signature(RegisterRequest)),
                "response": In(stream.Signature(RegisterResponse)),
                "interrupts": In(DEVICE_WINDOW_SLOTS),
                "lines": Out(DEVICE_WINDOW_SLOTS),
                "overdue": Out(1),
                "idle": Out(1),
            }
        )

    @property
    def device_latency(self) -> int:
        return self._device_latency

    def elaborate(self, platform):
        m = Module()
        waiting = Signal()
        remaining = Signal(range(self._device_latency))
        asked = Signal()
        answered = Signal()

        m.d.comb += [
            self.lines.eq(self.interrupts),
            self.idle.eq(~waiting),
            self.bus.request.ready.eq(~waiting),
            self.request.valid.eq(waiting & ~asked),
            self.response.ready.eq(waiting & asked & ~answered),
            self.overdue.eq(waiting & (remaining == 0) & ~answered),
            self.bus.response.valid.eq(waiting & (remaining == 0) & answered),
        ]
        with m.If(~waiting):
            m.d.sync += [asked.eq(0), answered.eq(0)]
            with m.If(self.bus.request.valid):
                base = MEMORY_MAP["window"].base
                m.d.sync += [
                    waiting.eq(1),
                    remaining.eq(Mux(self.advance, self._device_latency - 1, 0)),
                    self.request.p.eq(self.bus.request.p),
                    self.request.p.address.eq(self.bus.request.p.address + base),
                ]
        with m.Else():
            with m.If(self.advance & (remaining != 0)):
                m.d.sync += remaining.eq(remaining - 1)
            with m.If(self.request.valid & self.request.ready):
                m.d.sync += asked.eq(1)
            with m.If(self.response.valid & self.response.ready):
                m.d.sync += [answered.eq(1), self.bus.response.p.eq(self.response.p)]
            with m.If(self.bus.response.valid & self.bus.response.ready):
                m.d.sync += waiting.eq(0)
        return m

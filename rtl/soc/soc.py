"""The computer: the hart, its devices and the host port on their buses."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.arch.memory_map import MEMORY_MAP, UART_INTERRUPT, WINDOW_INTERRUPTS
from rtl.bus.axi4 import Axi4
from rtl.bus.register_bus import RegisterBus, RegisterRequest, RegisterResponse
from rtl.bus.register_decoder import RegisterDecoder
from rtl.bus.request_arbiter import RequestArbiter
from rtl.bus.snoop import SnoopPort
from rtl.core.hart import Hart
from rtl.core.ports import Park, PipelineStages, Resume, RetirementPort, Skip
from rtl.irq.clint import Clint
from rtl.irq.plic import Plic
from rtl.lib.register_slice import RegisterSlice
from rtl.soc.config import SocConfig
from rtl.soc.device_window import DeviceWindow
from rtl.soc.finisher import Finisher
from rtl.soc.host_port import HostPortUnit
from rtl.soc.rom import Rom
from rtl.soc.uart import Uart

__all__ = ["FinisherStatus", "Soc"]


class FinisherStatus(data.Struct):
    """``code`` is the word the guest has written to the test finisher."""

    valid: 1
    code: 32


class Soc(wiring.Component):
    """Everything but RAM and the world outside.

    Parameters
    ----------
    config : SocConfig
    observed : bool
        Adds the member ``stages: Out(PipelineStages)``, for a trace of the pipeline.
    bus_master : bool
        Adds the member ``master: In(SnoopPort())``, for a bus master outside.

    Members
    -------
    host : In(RegisterBus())
        The host port: the map of ``rtl/maps/host_port.rdl`` from address 0. No hart reaches it.
    parked, park, resume :
        The park record, valid while ``parked``, and the way to go on.
    transition : Out(64)
        Transition cycles of all exits before the one the hart is parked for.
    skip : In(Skip)
        Time passes in one step; only while ``parked`` and ``quiet``.
    quiet : Out(1)
        Nothing but timers would move if time went on.
    memory : Out(Axi4(id_width=1))
        To RAM.
    console, keyboard : streams of bytes
        What the UART sends and receives; ``keyboard_empty`` says that all received was read.
    window_request, window_response, window_interrupts :
        The device window; see DeviceWindow.
    finisher : Out(FinisherStatus)
    retirement : Out(RetirementPort())
    """

    def __init__(self, config: SocConfig, *, observed: bool = False, bus_master: bool = False):
        self._config = config
        self._observed = observed
        self._bus_master = bus_master
        super().__init__(
            {
                "host": In(RegisterBus()),
                "parked": Out(1),
                "park": Out(Park),
                "resume": In(stream.Signature(Resume)),
                "transition": Out(64),
                "skip": In(Skip),
                "quiet": Out(1),
                "memory": Out(Axi4(id_width=1)),
                "console": Out(stream.Signature(8)),
                "keyboard": In(stream.Signature(8)),
                "keyboard_empty": Out(1),
                "window_request": Out(stream.Signature(RegisterRequest)),
                "window_response": In(stream.Signature(RegisterResponse)),
                "window_interrupts": In(len(WINDOW_INTERRUPTS)),
                "finisher": Out(FinisherStatus),
                "retirement": Out(RetirementPort()),
                **({"stages": Out(PipelineStages)} if observed else {}),
                **({"master": In(SnoopPort())} if bus_master else {}),
            }
        )

    @property
    def config(self) -> SocConfig:
        return self._config

    def elaborate(self, platform):
        m = Module()
        config = self._config
        port = HostPortUnit()
        hart = Hart(**config.hart)
        arbiter = RequestArbiter(signature=RegisterBus(), count=2)
        decoder = RegisterDecoder(region for region in MEMORY_MAP.values() if not region.cached)
        rom = Rom()
        finisher = Finisher()
        clint = Clint(cycles_per_tick=config.cycles_per_tick)
        plic = Plic()
        uart = Uart(cycles_per_byte=config.uart_cycles_per_byte)
        window = DeviceWindow(device_latency=config.device_latency)
        m.submodules.host_port = port
        # The host port outlives a reset of everything else.
        for name, unit in (
            ("hart", hart),
            ("arbiter", arbiter),
            ("decoder", decoder),
            ("rom", rom),
            ("finisher", finisher),
            ("clint", clint),
            ("plic", plic),
            ("uart", uart),
            ("window", window),
        ):
            m.submodules[name] = ResetInserter(port.reset_request)(unit)

        # Buses.
        connect(m, flipped(self.memory), hart.memory)
        connect(m, hart.peripheral, arbiter.initiators[0])
        connect(m, port.peripheral, arbiter.initiators[1])
        if self._bus_master:
            m.submodules.masters = masters = RequestArbiter(signature=SnoopPort(), count=2)
            connect(m, port.snoop, masters.initiators[0])
            connect(m, flipped(self.master), masters.initiators[1])
            connect(m, masters.bus, hart.snoop)
        else:
            connect(m, port.snoop, hart.snoop)
        connect(m, arbiter.bus, decoder.bus)
        for name, unit in (
            ("rom", rom),
            ("finisher", finisher),
            ("clint", clint),
            ("plic", plic),
            ("uart", uart),
            ("window", window),
        ):
            connect(m, getattr(decoder, name), unit.bus)

        # The host.
        # Registers keep the paths from outside short, and simulation from following them through
        # the whole SoC at each change of an input.
        m.submodules.host_slice = host_slice = RegisterSlice(shape=RegisterRequest)
        m.submodules.resume_slice = resume_slice = RegisterSlice(shape=Resume)
        connect(m, flipped(self.host.request), host_slice.i)
        connect(m, host_slice.o, port.host.request)
        connect(m, port.host.response, flipped(self.host.response))
        connect(m, flipped(self.resume), resume_slice.i)
        connect(m, resume_slice.o, port.resume_wide)
        connect(m, port.command, hart.host)
        connect(m, port.resume, hart.resume)
        m.d.comb += [
            port.parked.eq(hart.parked),
            port.park.eq(hart.park),
            port.events.eq(hart.events),
            port.advance.eq(hart.advance),
            port.skip.eq(self.skip),
            hart.stop.eq(port.stop),
            hart.step.eq(port.step),
            hart.park_exceptions.eq(port.park_exceptions),
            hart.park_interrupts.eq(port.park_interrupts),
            hart.park_exits.eq(port.park_exits),
            hart.park_ebreak.eq(port.park_ebreak),
            hart.skip.eq(self.skip),
            hart.stall.eq(window.overdue),
            self.parked.eq(hart.parked & ~resume_slice.o.valid),
            self.park.eq(hart.park),
            self.transition.eq(port.transition_before),
            self.retirement.valid.eq(hart.retirement.valid),
            self.retirement.record.eq(hart.retirement.record),
            self.quiet.eq(uart.idle & window.idle & plic.idle & hart.settled),
        ]

        if self._observed:
            m.d.comb += self.stages.eq(hart.stages)

        # Devices.
        connect(m, flipped(self.console), uart.tx)
        connect(m, flipped(self.keyboard), uart.rx)
        connect(m, flipped(self.window_request), window.request)
        connect(m, flipped(self.window_response), window.response)
        m.d.comb += [
            rom.writable.eq(hart.parked),
            clint.advance.eq(hart.advance),
            clint.skip.eq(self.skip),
            plic.advance.eq(hart.advance),
            uart.advance.eq(hart.advance),
            window.advance.eq(hart.advance),
            window.interrupts.eq(self.window_interrupts),
            self.keyboard_empty.eq(uart.rx_empty),
            self.finisher.valid.eq(finisher.o.valid),
            self.finisher.code.eq(finisher.o.word),
            hart.time.eq(clint.time),
            hart.lines.msi.eq(clint.msi),
            hart.lines.mti.eq(clint.mti),
            hart.lines.mei.eq(plic.mei),
            hart.lines.sei.eq(plic.sei),
            plic.sources[UART_INTERRUPT].eq(uart.interrupt),
        ]
        for slot, source in enumerate(WINDOW_INTERRUPTS):
            m.d.comb += plic.sources[source].eq(window.lines[slot])
        return m

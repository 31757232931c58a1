"""A bus master beside the hart, and the SoC with it."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.arch.layout import Field, Layout
from rtl.arch.records import RETIREMENT
from rtl.bus.snoop import SnoopPort
from rtl.lib.layouts import struct_of
from rtl.soc.config import SocConfig
from rtl.soc.soc import Soc
from tests.racing.commands import COMMAND, COMMANDS, CONTROL, COUNT, REPORT

__all__ = ["ACCESSES", "BusMaster", "RacingSoc"]

#: Behind the retirement record, in its last word: the master's accesses that came before.
ACCESSES = Field("accesses", 288, 32, "Accesses of the bus master that came before.")
_RECORD = Layout(RETIREMENT.name, 320, (*RETIREMENT.fields, ACCESSES))


class BusMaster(wiring.Component):
    """Work off the commands in RAM while the hart runs; stand still, and report, while it is parked.

    What was read and written is folded into a sum, which goes into what is written next: a wrong
    read shows in memory.

    Members
    -------
    bus : Out(SnoopPort())
    running : In(1)
    accesses : Out(32)
        Accesses done; those that fetch commands and report are not counted.
    """

    bus: Out(SnoopPort())
    running: In(1)
    accesses: Out(32)

    def elaborate(self, platform):
        m = Module()
        request, response = self.bus.request, self.bus.response
        command = Signal(struct_of(COMMAND))
        report = Signal(struct_of(REPORT))
        data = Signal(64)
        written = Signal(64)
        fold = Signal(64)
        left = Signal(64)
        place = Signal(32, init=COMMANDS)
        wait = Signal(range(1 << COMMAND["delay"].width))
        sent, asks, answered = Signal(), Signal(), Signal()
        m.d.comb += [
            request.valid.eq(asks & ~sent),
            request.p.forward.eq(1),
            request.p.mask.eq(0xFF),
            response.ready.eq(1),
            answered.eq(sent & response.valid),
            report.valid.eq(1),
            report.accesses.eq(self.accesses),
            written.eq(data ^ (fold & command.mixed.replicate(64))),
        ]
        with m.If(request.valid & request.ready):
            m.d.sync += sent.eq(1)
        with m.If(answered):
            m.d.sync += sent.eq(0)

        with m.FSM():
            with m.State("START"):
                with m.If(self.running):
                    m.next = "COUNT"
            with m.State("COUNT"):
                m.d.comb += [asks.eq(1), request.p.address.eq(COUNT)]
                with m.If(answered):
                    m.d.sync += left.eq(response.p.data)
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.next = "FETCH"
                with m.If(left == 0):
                    m.next = "WAIT"
            with m.State("FETCH"):
                m.d.comb += [asks.eq(1), request.p.address.eq(place)]
                with m.If(answered):
                    m.d.sync += [command.eq(response.p.data), place.eq(place + 8)]
                    m.next = "FETCH_DATA"
            with m.State("FETCH_DATA"):
                m.d.comb += [asks.eq(1), request.p.address.eq(place)]
                m.d.sync += wait.eq(command.delay)
                with m.If(answered):
                    m.d.sync += [data.eq(response.p.data), place.eq(place + 8)]
                    m.next = "WAIT"
                    with m.If(~command.valid):
                        m.d.sync += left.eq(left - 1)
                        m.next = "NEXT"
            with m.State("WAIT"):
                with m.If(~self.running):
                    m.next = "REPORT"
                with m.Elif(wait != 0):
                    m.d.sync += wait.eq(wait - 1)
                with m.Elif(left != 0):
                    m.next = "ACCESS"
            with m.State("ACCESS"):
                m.d.comb += [
                    asks.eq(1),
                    request.p.address.eq(command.address),
                    request.p.write.eq(command.write),
                    request.p.mask.eq(command.mask),
                    request.p.data.eq(written),
                ]
                with m.If(answered):
                    m.d.sync += [
                        self.accesses.eq(self.accesses + 1),
                        fold.eq(fold.rotate_left(1) ^ Mux(command.write, written, response.p.data)),
                        wait.eq(command.gap),
                        command.repeat.eq(command.repeat - 1),
                    ]
                    m.next = "WAIT"
                    with m.If(command.repeat == 0):
                        m.d.sync += left.eq(left - 1)
                        m.next = "NEXT"
            with m.State("REPORT"):
                m.d.comb += [
                    asks.eq(1),
                    request.p.address.eq(CONTROL),
                    request.p.write.eq(1),
                    request.p.data.eq(report),
                ]
                with m.If(answered):
                    m.next = "STOPPED"
            with m.State("STOPPED"):
                with m.If(self.running):
                    m.next = "WAIT"
        return m


class RacingSoc(wiring.Component):
    """The SoC with the bus master; ``retirement`` tells with each record what came before it.

    The count is exact: an access of the master that the data cache serves before one of the hart is
    counted in the record of the latter, and one that it serves later is not.
    """

    def __init__(self, config: SocConfig):
        self._soc = Soc(config, bus_master=True)
        members = dict(self._soc.signature.members)
        del members["master"]
        record = {"valid": Out(1), "record": Out(struct_of(_RECORD))}
        super().__init__({**members, "retirement": Out(wiring.Signature(record))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.soc = soc = self._soc
        m.submodules.master = master = BusMaster()
        connect(m, master.bus, soc.master)
        running = Signal()
        m.d.comb += master.running.eq(running)
        # While the hart works for the host it is not parked either.
        with m.If(soc.parked):
            m.d.sync += running.eq(0)
        with m.If(soc.resume.valid & soc.resume.ready):
            m.d.sync += running.eq(1)
        for name, member in self.signature.members.items():
            inner, outer = getattr(soc, name), getattr(self, name)
            if name == "retirement":
                m.d.comb += [
                    outer.valid.eq(inner.valid),
                    outer.record.as_value()[: RETIREMENT.width].eq(inner.record),
                    outer.record.accesses.eq(master.accesses),
                ]
            elif member.is_signature:
                connect(m, inner, flipped(outer))
            elif member.flow is wiring.Out:
                m.d.comb += outer.eq(inner)
            else:
                m.d.comb += inner.eq(outer)
        return m

"""A tiny component with the SoC's ports, so that the machines can be tested without the hart.

What it does is stated by its registers (host port, 64-bit, offsets in bytes):

======  ====================================================================================
0x00    write: read ``data[39:32] + 1`` beats from the bus address in ``data[31:0]``
0x08    read: cycles from the read request to its first beat
0x10    read: cycles from the first beat to the last
0x18    read: the exclusive or of all beats
0x20    read: the worst response of the last access
0x28    write data of the next write
0x30    write: one beat to the address in ``data[31:0]`` with the strobe in ``data[39:32]``
0x38    write: send the low byte on the console
0x40    write: finish with the code in the low 32 bits
0x48    write: request the device window with this address when running
0x50    read: the window's answer; its interrupt lines from bit 56
0x58    write: tell the retirement port of a store of ``data[31:0]`` to address ``data[63:32]``
======  ====================================================================================

Anything else answers with an error. ``resume`` lets it run for ``value`` cycles; while it
runs, it sends every key it gets back to the console, plus one. Keys wait until the one before
is echoed.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.bus.axi4 import Axi4, Burst
from rtl.bus.register_bus import RegisterBus, RegisterRequest, RegisterResponse
from rtl.core.ports import Park, Resume, RetirementPort, Skip

__all__ = ["StandIn", "build"]


class StandIn(wiring.Component):
    host: In(RegisterBus())
    parked: Out(1, init=1)
    park: Out(Park)
    transition: Out(64)
    resume: In(stream.Signature(Resume))
    memory: Out(Axi4(id_width=1))
    console: Out(stream.Signature(8))
    keyboard: In(stream.Signature(8))
    keyboard_empty: Out(1)
    finisher: Out(data.StructLayout({"valid": 1, "code": 32}))
    window_request: Out(stream.Signature(RegisterRequest))
    window_response: In(stream.Signature(RegisterResponse))
    window_interrupts: In(8)
    retirement: Out(RetirementPort())
    quiet: Out(1)
    skip: In(Skip)

    def elaborate(self, platform):
        m = Module()
        request = self.host.request.payload
        response = self.host.response
        command = request.data
        latency, streaming, total = Signal(64), Signal(64), Signal(64)
        worst, write_data, window, wanted = Signal(2), Signal(64), Signal(64), Signal()
        ar, r, aw, w, b = (getattr(self.memory, name) for name in ("ar", "r", "aw", "w", "b"))
        answer, seen = Signal(64), Signal()

        def respond(error=0):
            m.d.sync += response.valid.eq(1)
            m.d.sync += response.payload.error.eq(error)
            m.d.sync += response.payload.data.eq(answer)

        m.d.comb += self.quiet.eq(1)
        with m.If(response.valid & response.ready):
            m.d.sync += response.valid.eq(0)
        m.d.sync += self.finisher.valid.eq(0)
        m.d.sync += self.retirement.valid.eq(0)
        m.d.comb += r.ready.eq(1)
        m.d.comb += b.ready.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.host.request.ready.eq(~response.valid)
                with m.If(self.host.request.valid & ~response.valid & request.write):
                    m.d.sync += worst.eq(0)
                    with m.Switch(request.address):
                        with m.Case(0x00):
                            m.d.sync += [
                                ar.valid.eq(1),
                                ar.payload.address.eq(command[:32]),
                                ar.payload.len.eq(command[32:40]),
                                ar.payload.size.eq(3),
                                ar.payload.burst.eq(Burst.INCR),
                                latency.eq(0),
                                streaming.eq(0),
                                total.eq(0),
                                seen.eq(0),
                            ]
                            m.next = "READ"
                        with m.Case(0x28):
                            m.d.sync += write_data.eq(command)
                            respond()
                        with m.Case(0x30):
                            m.d.sync += [
                                aw.valid.eq(1),
                                aw.payload.address.eq(command[:32]),
                                w.valid.eq(1),
                                w.payload.data.eq(write_data),
                                w.payload.strb.eq(command[32:40]),
                                w.payload.last.eq(1),
                            ]
                            m.next = "WRITE"
                        with m.Case(0x38):
                            m.d.sync += self.console.payload.eq(command[:8])
                            m.d.sync += self.console.valid.eq(1)
                            m.next = "SEND"
                        with m.Case(0x40):
                            m.d.sync += self.finisher.valid.eq(1)
                            m.d.sync += self.finisher.code.eq(command[:32])
                            respond()
                        with m.Case(0x48):
                            m.d.sync += self.window_request.payload.address.eq(command[:32])
                            m.d.sync += self.window_request.payload.mask.eq(0xFF)
                            m.d.sync += wanted.eq(1)
                            respond()
                        with m.Case(0x58):
                            m.d.sync += [
                                self.retirement.valid.eq(1),
                                self.retirement.record.store.eq(1),
                                self.retirement.record.size.eq(2),
                                self.retirement.record.data.eq(command[:32]),
                                self.retirement.record.address.eq(command[32:]),
                            ]
                            respond()
                        with m.Default():
                            respond(error=1)
                with m.Elif(self.host.request.valid & ~response.valid):
                    with m.Switch(request.address):
                        for offset, value in (
                            (0x08, latency),
                            (0x10, streaming),
                            (0x18, total),
                            (0x20, worst),
                            (0x50, Cat(window[:56], self.window_interrupts)),
                        ):
                            with m.Case(offset):
                                m.d.comb += answer.eq(value)
                                respond()
                        with m.Default():
                            respond(error=1)
            with m.State("READ"):
                with m.If(ar.valid & ar.ready):
                    m.d.sync += ar.valid.eq(0)
                with m.If(~r.valid & ~seen & ~(ar.valid & ~ar.ready)):
                    m.d.sync += latency.eq(latency + 1)
                with m.If(seen & ~(ar.valid & ~ar.ready)):
                    m.d.sync += streaming.eq(streaming + 1)
                with m.If(r.valid):
                    m.d.sync += seen.eq(1)
                    m.d.sync += total.eq(total ^ r.payload.data)
                    with m.If(r.payload.resp.as_value() > worst):
                        m.d.sync += worst.eq(r.payload.resp)
                    with m.If(r.payload.last):
                        respond()
                        m.next = "IDLE"
            with m.State("WRITE"):
                with m.If(aw.ready):
                    m.d.sync += aw.valid.eq(0)
                with m.If(w.ready):
                    m.d.sync += w.valid.eq(0)
                with m.If(b.valid):
                    m.d.sync += worst.eq(b.payload.resp)
                    respond()
                    m.next = "IDLE"
            with m.State("SEND"):
                with m.If(self.console.ready):
                    m.d.sync += self.console.valid.eq(0)
                    respond()
                    m.next = "IDLE"

        cycle, left, key = Signal(64), Signal(64), Signal(8)
        m.d.comb += self.park.cycle.eq(cycle)
        m.d.comb += self.transition.eq(cycle ^ 0xFFFF_0000_0000)
        with m.If(self.skip.valid):
            m.d.sync += cycle.eq(cycle + self.skip.cycles)
        m.d.comb += self.resume.ready.eq(self.parked)
        with m.If(self.resume.valid & self.resume.ready):
            m.d.sync += self.parked.eq(0)
            m.d.sync += left.eq(self.resume.payload.value + self.resume.payload.charge)
            m.d.sync += self.park.pc.eq(self.resume.payload.pc)
        with m.If(~self.parked):
            m.d.sync += cycle.eq(cycle + 1)
            m.d.sync += left.eq(left - 1)
            with m.If(left == 1):
                m.d.sync += self.parked.eq(1)

        held = Signal()
        m.d.comb += self.keyboard_empty.eq(~held)
        m.d.comb += self.keyboard.ready.eq(~held & ~self.parked)
        with m.If(self.keyboard.valid & self.keyboard.ready):
            m.d.sync += key.eq(self.keyboard.payload + 1)
            m.d.sync += held.eq(1)
        with m.If(held & ~self.console.valid & ~self.parked):
            m.d.sync += self.console.payload.eq(key)
            m.d.sync += self.console.valid.eq(1)
        with m.If(held & self.console.valid & self.console.ready):
            m.d.sync += self.console.valid.eq(0)
            m.d.sync += held.eq(0)

        m.d.comb += self.window_request.valid.eq(wanted & ~self.parked)
        with m.If(self.window_request.valid & self.window_request.ready):
            m.d.sync += wanted.eq(0)
        m.d.comb += self.window_response.ready.eq(1)
        with m.If(self.window_response.valid):
            m.d.sync += window.eq(self.window_response.payload.data)
        return m


def build(config):
    """As ``rtl.soc.soc.Soc(config)``."""
    return StandIn()

"""The way of VMX instructions to the VMX unit and back."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.core.guest_port import VmxPort
from rtl.mmu.context import World
from rtl.vmx.ports import VmxAnswer, VmxRequest
from rtl.vmx.saved_state import SavedFields

__all__ = ["WorldSwitch"]


class WorldSwitch(wiring.Component):
    """Let the commit stage or the parked hart's host ask, and tell both the answer from registers.

    Members
    -------
    commit, host : In(VmxPort())
        At most one of them asks at a time.
    on, world, saved : In
        The VMX unit's.
    request, answer : streams
        To the VMX unit. An answer is taken in the cycle after it is offered, when ``answered`` strobes.
    status_failed : In(1)
        In the cycle in which an answer is taken: it is a VMfail.
    """

    commit: In(VmxPort())
    host: In(VmxPort())
    request: Out(stream.Signature(VmxRequest))
    answer: In(stream.Signature(VmxAnswer))
    status_failed: In(1)
    on: In(1)
    world: In(World)
    saved: In(SavedFields)

    def elaborate(self, platform):
        m = Module()
        answered, held = Signal(), Signal(VmxAnswer)
        m.d.sync += answered.eq(self.answer.valid & ~answered)
        with m.If(self.answer.valid):
            m.d.sync += held.eq(self.answer.payload)
        m.d.comb += [
            self.request.valid.eq(self.commit.request.valid | self.host.request.valid),
            self.request.payload.eq(
                Mux(
                    self.host.request.valid,
                    self.host.request.payload.as_value(),
                    self.commit.request.payload.as_value(),
                )
            ),
            self.answer.ready.eq(answered),
        ]
        for port in (self.commit, self.host):
            m.d.comb += [
                port.request.ready.eq(self.request.ready),
                port.answered.eq(answered),
                port.answer.eq(held),
                port.failed.eq(self.status_failed),
                port.on.eq(self.on),
                port.world.eq(self.world),
                port.saved.eq(self.saved),
            ]
        return m

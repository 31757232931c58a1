"""Platform-level interrupt controller."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.register_bus import RegisterBus
from rtl.lib.register_block import RegisterBlock
from rtl.maps import map_path

__all__ = ["Plic"]

#: The contexts of the hart, in their order in the register map.
_MACHINE, _SUPERVISOR = range(2)


class Plic(wiring.Component):
    """The PLIC of ``rtl/maps/plic.rdl``: level-triggered sources, contexts M and S of one hart.

    A gateway forwards a request in a cycle with ``advance`` = 1 in which its line is high, and
    forwards no other until that one is completed; a request that has been forwarded stays pending
    when the line falls. A claim acts when the lowest byte of the register is read.

    Members
    -------
    bus : In(RegisterBus())
        Addresses relative to the region.
    advance : In(1)
    sources : In(32)
        Interrupt lines, levels; bit n is source n, and there is no source 0.
    mei, sei : Out(1)
        Interrupt lines of the contexts, levels.
    idle : Out(1)
        No gateway has a request to forward: time changes nothing.
    """

    bus: In(RegisterBus())
    advance: In(1)
    sources: In(32)
    mei: Out(1)
    sei: Out(1)
    idle: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = RegisterBlock(map_path("plic"))
        connect(m, flipped(self.bus), registers.bus)

        count = len(self.sources)
        # By bit of the priorities: the sources in which it is one.
        planes = self._priorities(m, registers, count)
        # A source is in service from its gateway's request to completion, and pending until it is
        # claimed.
        pending, in_service = Signal(count), Signal(count)
        claimed, completed = Signal(count), Signal(count)
        m.d.comb += registers.pending.sources.next.eq(pending[1:])

        for number, line in ((_MACHINE, self.mei), (_SUPERVISOR, self.sei)):
            enabled = Cat(C(0, 1), registers.enable[number].word.sources.value)
            m.submodules[f"choice_{number}"] = choice = _Choice(planes)
            m.d.comb += [
                choice.candidates.eq(pending & enabled),
                line.eq(choice.priority > registers.context[number].threshold.priority.value),
            ]
            claim = registers.context[number].claim
            request, response = claim.request, claim.response
            m.d.comb += [
                request.ready.eq(1),
                response.valid.eq(request.valid),
                response.payload.data.eq(choice.source),
            ]
            with m.If(request.valid & request.payload.mask[0]):
                with m.If(~request.payload.write):
                    m.d.comb += claimed.bit_select(choice.source, 1).eq(1)
                with m.Else():
                    written = Cat(byte.replicate(8) for byte in request.payload.mask)
                    source = request.payload.data & written
                    with m.If(source < count):
                        m.d.comb += completed.eq(C(1) << source[: len(choice.source)] & enabled)

        requests, forwarded = Signal(count), Signal(count)
        m.d.comb += [
            # Source 0 stands for none in a claim.
            requests.eq(self.sources & ~in_service & ~1),
            forwarded.eq(Mux(self.advance, requests, 0)),
            self.idle.eq(requests == 0),
        ]
        m.d.sync += [
            pending.eq((pending | forwarded) & ~claimed),
            # Only what has been claimed can be completed.
            in_service.eq((in_service | forwarded) & ~(completed & ~pending)),
        ]
        return m

    def _priorities(self, m, registers, count):
        """For each bit of the priorities, the sources in which it is one."""
        values = [C(0, 1), *(register.priority.value for register in registers.priority)]
        planes = [Signal(count, name=f"priority_{bit}") for bit in range(len(values[-1]))]
        # They are compared in every cycle but seldom written, and gathering them takes simulation
        # longer than all else here: that is done in the cycle after they may have changed.
        written = Signal()
        request = self.bus.request
        m.d.sync += written.eq(request.valid & request.ready & request.payload.write)
        with m.If(written):
            for bit, plane in enumerate(planes):
                m.d.sync += plane.eq(Cat((value >> bit)[0] for value in values))
        return planes


class _Choice(wiring.Component):
    """The candidate of highest priority, of those the lowest; 0 if none has a priority above 0."""

    def __init__(self, planes):
        self._planes = planes
        super().__init__(
            {
                "candidates": In(len(planes[0])),
                "priority": Out(len(planes)),
                "source": Out(range(len(planes[0]))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # From the highest bit of the priority on, whoever has it 1 leaves the others behind.
        remaining = self.candidates
        for bit in reversed(range(len(self._planes))):
            those = Signal(len(self.candidates), name=f"with_bit_{bit}")
            left = Signal(len(self.candidates), name=f"after_bit_{bit}")
            m.d.comb += [
                those.eq(remaining & self._planes[bit]),
                self.priority[bit].eq(those.any()),
                left.eq(Mux(those.any(), those, remaining)),
            ]
            remaining = left
        with m.If(self.priority != 0):
            for number in reversed(range(len(self.candidates))):
                with m.If(remaining[number]):
                    m.d.comb += self.source.eq(number)
        return m

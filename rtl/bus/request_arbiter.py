"""Several initiators on one bus of requests and responses."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RequestArbiter"]


class RequestArbiter(wiring.Component):
    """Let initiators take turns on one bus, one access in flight.

    Whoever was served last comes last in the next choice, so every initiator is served after at
    most ``count - 1`` accesses of others. A request is passed on in the cycle it is chosen.

    Parameters
    ----------
    signature : wiring.Signature
        The bus: a ``request`` stream out and a ``response`` stream in, such as RegisterBus.
    count : int
        Number of initiators.

    Members
    -------
    initiators : In(signature).array(count)
    bus : Out(signature)

    Raises ValueError when ``count`` is not positive.
    """

    def __init__(self, *, signature: wiring.Signature, count: int):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"count must be a positive whole number, not {count!r}")
        self._count = count
        super().__init__({"initiators": In(signature).array(count), "bus": Out(signature)})

    @property
    def count(self) -> int:
        return self._count

    def elaborate(self, platform):
        m = Module()
        owner = Signal(range(self._count))
        chosen = Signal.like(owner)
        # A request that has been shown to the target stays chosen until the target takes it.
        shown = Signal()
        waiting = Signal()
        request = self.bus.request
        response = self.bus.response

        m.d.comb += chosen.eq(owner)
        with m.If(~shown), m.Switch(owner):
            for last in range(self._count):
                with m.Case(last):
                    # The later assignment wins: the nearest successor is written last.
                    for distance in range(self._count, 0, -1):
                        number = (last + distance) % self._count
                        with m.If(self.initiators[number].request.valid):
                            m.d.comb += chosen.eq(number)

        for number, initiator in enumerate(self.initiators):
            with m.If(~waiting & (chosen == number)):
                m.d.comb += [
                    request.p.eq(initiator.request.p),
                    request.valid.eq(initiator.request.valid),
                    initiator.request.ready.eq(request.ready),
                ]
            m.d.comb += initiator.response.p.eq(response.p)
            with m.If(waiting & (owner == number)):
                m.d.comb += [
                    initiator.response.valid.eq(response.valid),
                    response.ready.eq(initiator.response.ready),
                ]

        with m.If(request.valid):
            m.d.sync += [owner.eq(chosen), shown.eq(~request.ready), waiting.eq(request.ready)]
        with m.If(response.valid & response.ready):
            m.d.sync += waiting.eq(0)
        return m

"""The performance counters: mhpmcounter and mhpmevent."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.layout import Field, Layout
from rtl.arch.performance import HPM_COUNTERS, MHPMEVENT, PERFORMANCE_EVENTS, Stall
from rtl.lib.layouts import struct_of
from rtl.lib.skip import Skip

__all__ = ["COUNTER_COUNT", "PerformanceCounters", "PerformanceEvents"]

COUNTER_COUNT = len(HPM_COUNTERS)
_SELECTOR_WIDTH = MHPMEVENT["event"].width

#: One bit per event, at its number.
PerformanceEvents = struct_of(
    Layout(
        "performance_events",
        1 << _SELECTOR_WIDTH,
        tuple(Field(event.name, event.number, 1, event.text) for event in PERFORMANCE_EVENTS),
    )
)


class PerformanceCounters(wiring.Component):
    """Count, in each counter, the cycles in which its event happens.

    What happens in a cycle is counted at the end of the next one: no instruction is fast enough
    to see the difference.

    Members
    -------
    events : In(PerformanceEvents)
        What happens in this cycle.
    inhibit : In
        Bit n: counter n does not count this cycle.
    skip : In(Skip)
        So many cycles pass at once, all the host's (``stall_host``); ``events`` are zero then.
    counter_write, event_write : In
        Strobes by counter: ``value`` is written to it, or to its event selector. It does not count
        what happens in that cycle.
    counters, selectors : Out
        The registers.
    """

    events: In(PerformanceEvents)
    inhibit: In(COUNTER_COUNT)
    skip: In(Skip)
    counter_write: In(COUNTER_COUNT)
    event_write: In(COUNTER_COUNT)
    value: In(64)
    counters: Out(64).array(COUNTER_COUNT)
    selectors: Out(_SELECTOR_WIDTH).array(COUNTER_COUNT)

    def elaborate(self, platform):
        m = Module()
        # Registered before anything is chosen: what happens in a cycle is known late in it.
        events, skipped = Signal(1 << _SELECTOR_WIDTH), Signal()
        enabled = Signal(COUNTER_COUNT)
        amount = Signal(len(self.skip.cycles), init=1)
        m.d.sync += [
            events.eq(self.events),
            enabled.eq(~(self.inhibit | self.counter_write | self.event_write)),
            skipped.eq(self.skip.valid),
            amount.eq(Mux(self.skip.valid, self.skip.cycles, 1)),
        ]
        seen = Signal.like(events)
        m.d.comb += seen.eq(events | skipped << int(Stall.HOST))
        for n in range(COUNTER_COUNT):
            counter, selector = self.counters[n], self.selectors[n]
            with m.If(enabled[n] & seen.bit_select(selector, 1)):
                m.d.sync += counter.eq(counter + amount)
            with m.If(self.counter_write[n]):
                m.d.sync += counter.eq(self.value)
            with m.If(self.event_write[n]):
                m.d.sync += selector.eq(self.value)
        return m

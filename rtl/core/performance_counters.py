"""The performance counters: mhpmcounter and mhpmevent."""

from amaranth import *
from amaranth.lib import data, wiring
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
        So many cycles pass at once, all the host's (``stall_host``).
    counter_write, event_write : In
        Strobes by counter: ``value`` is written to it, or to its event selector. What happens
        in that cycle is not counted.
    counters, selectors : Out
        The registers.
    """

    events: In(PerformanceEvents)
    inhibit: In(COUNTER_COUNT)
    skip: In(Skip)
    counter_write: In(COUNTER_COUNT)
    event_write: In(COUNTER_COUNT)
    value: In(64)
    counters: Out(data.ArrayLayout(64, COUNTER_COUNT))
    selectors: Out(data.ArrayLayout(_SELECTOR_WIDTH, COUNTER_COUNT))

    def elaborate(self, platform):
        m = Module()
        events = self.events.as_value()
        skipped = Signal(len(self.skip.cycles))
        m.d.sync += skipped.eq(self.skip.cycles)
        for n in range(COUNTER_COUNT):
            counter, selector = self.counters[n], self.selectors[n]
            happens, skips = Signal(name=f"happens{n}"), Signal(name=f"skips{n}")
            m.d.sync += [
                happens.eq(events.bit_select(selector, 1) & ~self.inhibit[n] & ~self.skip.valid),
                skips.eq(self.skip.valid & (selector == int(Stall.HOST)) & ~self.inhibit[n]),
                counter.eq(counter + Mux(skips, skipped, happens)),
            ]
            with m.If(self.counter_write[n]):
                m.d.sync += [counter.eq(self.value), happens.eq(0), skips.eq(0)]
            with m.If(self.event_write[n]):
                m.d.sync += selector.eq(self.value)
        return m

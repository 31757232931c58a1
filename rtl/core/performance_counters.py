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
    """Choose, for each event counter, the cycles it counts.

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
        Strobes by counter: it is written, or its event selector is, with ``value``. It does not
        count what happens in that cycle.
    value : In
    selectors : Out
        The event selectors.
    count : Out
        Bit n: counter n counts one in this cycle.
    add : Out
        Bit n: in this cycle it counts the cycles skipped in the one before.
    """

    events: In(PerformanceEvents)
    inhibit: In(COUNTER_COUNT)
    skip: In(Skip)
    counter_write: In(COUNTER_COUNT)
    event_write: In(COUNTER_COUNT)
    value: In(_SELECTOR_WIDTH)
    selectors: Out(_SELECTOR_WIDTH).array(COUNTER_COUNT)
    count: Out(COUNTER_COUNT)
    add: Out(COUNTER_COUNT)

    def elaborate(self, platform):
        m = Module()
        # Registered before anything is chosen: what happens in a cycle is known late in it.
        events, skipped = Signal(1 << _SELECTOR_WIDTH), Signal()
        enabled = Signal(COUNTER_COUNT)
        m.d.sync += [
            events.eq(self.events),
            enabled.eq(~(self.inhibit | self.counter_write | self.event_write)),
            skipped.eq(self.skip.valid),
        ]
        for n in range(COUNTER_COUNT):
            selector = self.selectors[n]
            m.d.comb += self.count[n].eq(enabled[n] & events.bit_select(selector, 1))
            with m.If(self.event_write[n]):
                m.d.sync += selector.eq(self.value)
        with m.If(skipped):
            hosts = Cat(selector == int(Stall.HOST) for selector in self.selectors)
            m.d.comb += self.add.eq(enabled & hosts)
        return m

"""What the hart does in each cycle, as the performance counters see it."""

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.performance import PERFORMANCE_EVENTS, STALLS, Stall
from rtl.core.decode import MemoryOperation, SystemOperation, Unit
from rtl.core.performance_counters import PerformanceEvents

__all__ = ["AccessActivity", "CommitActivity", "PerformanceMonitor"]

_CAUSE = range(max(Stall) + 1)


class AccessActivity(data.Struct):
    """How one side of the hart, fetch or data, accesses memory in this cycle.

    ``miss`` strobes for its cache, ``walk`` when a page walk is taken up; ``walks``: it asks for
    one or awaits its end. ``access`` and ``result``: it accesses its cache, the cache answers;
    ``request`` and ``response``: the register bus.
    """

    miss: 1
    walk: 1
    walks: 1
    access: 1
    result: 1
    request: 1
    response: 1


class CommitActivity(data.Struct):
    """The instruction in the commit stage; ``held`` when it has taken a cycle already.

    ``taken``: control does not go on in line; ``mispredicted``: it was thought to go elsewhere.
    ``operation`` means what ``unit`` makes of it.
    """

    valid: 1
    held: 1
    unit: Unit
    operation: 5
    taken: 1
    mispredicted: 1


class PerformanceMonitor(wiring.Component):
    """Tell what happens in each cycle, above all why no instruction retires.

    It only looks on. A cycle in which no instruction retires is put down to what holds up the
    instruction in the commit stage or, when there is none, to what kept the next one from
    coming: every gap carries its cause through the pipeline.

    Members
    -------
    advance, hold, retired : In(1)
        This cycle is machine time; the pipeline is held for the host; an instruction retires.
    fetch, data : In(AccessActivity)
    walking, walk_read : In(1)
        A page walk is under way; it reads an entry.
    offered : In(1)
        The frontend offers an instruction to the issue stage.
    executing, execute_unit : In
        There is an instruction in the execute stage, of that unit.
    commit : In(CommitActivity)
    unpredicted, mispredicted, killed : In(1)
        The first two as ``Pipeline`` has them; the commit stage drops everything younger.
    events : Out(PerformanceEvents)
    """

    advance: In(1)
    hold: In(1)
    retired: In(1)
    fetch: In(AccessActivity)
    data: In(AccessActivity)
    walking: In(1)
    walk_read: In(1)
    offered: In(1)
    executing: In(1)
    execute_unit: In(Unit)
    commit: In(CommitActivity)
    unpredicted: In(1)
    mispredicted: In(1)
    killed: In(1)
    events: Out(PerformanceEvents)

    def elaborate(self, platform):
        m = Module()
        unit, operation = self.commit.unit, self.commit.operation

        # Why everything younger than the instruction in the commit stage is dropped.
        drops = self.hold | self.killed
        dropped = Signal(_CAUSE)
        with m.If(self.hold):
            m.d.comb += dropped.eq(Stall.HOST)
        with m.Elif(self.retired):
            m.d.comb += dropped.eq(Stall.SYSTEM)
        with m.Else():
            m.d.comb += dropped.eq(Stall.TRAP)

        fetch_gap = self._fetch_gap(m, drops, dropped)
        issue_gap = Signal(_CAUSE)
        with m.If(self.mispredicted):
            m.d.comb += issue_gap.eq(Stall.MISPREDICT)
        with m.Elif(self.unpredicted):
            m.d.comb += issue_gap.eq(Stall.UNPREDICTED)
        with m.Elif(~self.offered):
            m.d.comb += issue_gap.eq(fetch_gap)
        with m.Else():
            self._awaited(m, issue_gap, self.execute_unit, operand=True)

        # What keeps the execute stage, and then the commit stage, without an instruction. While one
        # is held all gaps stay where they are.
        execute_gap = Signal(_CAUSE, init=Stall.HOST)
        commit_gap = Signal(_CAUSE, init=Stall.HOST)
        awaited = Signal(_CAUSE)
        self._awaited(m, awaited, self.execute_unit)
        with m.If(drops):
            m.d.sync += [execute_gap.eq(dropped), commit_gap.eq(dropped)]
        with m.Elif(~self.commit.held):
            m.d.sync += execute_gap.eq(issue_gap)
            m.d.sync += commit_gap.eq(Mux(self.executing, awaited, execute_gap))

        cause = Signal(_CAUSE)
        memory_stall = self._memory_stall(m, unit)
        with m.If(self.hold):
            m.d.comb += cause.eq(Stall.HOST)
        with m.Elif(self.killed):
            m.d.comb += cause.eq(Stall.TRAP)
        with m.Elif(~self.commit.valid):
            m.d.comb += cause.eq(commit_gap)
        with m.Elif(unit == Unit.MEMORY):
            m.d.comb += cause.eq(memory_stall)
        with m.Elif((unit == Unit.SYSTEM) & (operation == SystemOperation.WFI.value)):
            m.d.comb += cause.eq(Stall.WFI)
        with m.Else():
            self._awaited(m, cause, unit)
        # All bits at once: simulation is slow at putting a word together bit by bit.
        stalled = Signal()
        m.d.comb += stalled.eq(self.advance & ~self.retired)
        others = self._instructions(unit, operation) | self._accesses(m)
        bits = [others.get(event.name, 0) for event in PERFORMANCE_EVENTS[len(STALLS) :]]
        m.d.comb += self.events.eq(Cat((stalled << cause)[: 1 + len(STALLS)], *bits))
        return m

    def _awaited(self, m, cause, unit, *, operand=False):
        """Put a wait down to the unit that is waited for, as an operand or for its own end."""
        with m.Switch(unit):
            with m.Case(Unit.MEMORY):
                m.d.comb += cause.eq(Stall.LOAD_USE if operand else Stall.MEMORY)
            with m.Case(Unit.MULTIPLY, Unit.COUNT):
                m.d.comb += cause.eq(Stall.MULTIPLY)
            with m.Case(Unit.DIVIDE):
                m.d.comb += cause.eq(Stall.DIVIDE)
            with m.Default():
                m.d.comb += cause.eq(Stall.SYSTEM)

    def _under_way(self, m, side, begins, ends):
        """From the cycle in which something begins to the one before it ends."""
        begun = Signal(name=f"{side}_begun")
        now = Signal(name=f"{side}_now")
        m.d.comb += now.eq((begins | begun) & ~ends)
        m.d.sync += begun.eq(now)
        return now

    def _fetch_gap(self, m, drops, dropped):
        """Why no instruction is offered.

        What began a gap is its cause, until a miss prolongs it; both last until an instruction
        has come.
        """
        access = self.fetch
        missing = self._under_way(m, "fetch", access.access, access.result)
        bus = self._under_way(m, "fetch_bus", access.request, access.response)
        held, gap = Signal(_CAUSE, init=Stall.HOST), Signal(_CAUSE)
        m.d.comb += gap.eq(held)
        with m.If(access.walks):
            m.d.comb += gap.eq(Stall.INSTRUCTION_TLB)
        with m.Elif(missing):
            m.d.comb += gap.eq(Stall.INSTRUCTION_CACHE)
        with m.Elif(bus):
            m.d.comb += gap.eq(Stall.DEVICE)

        with m.If(drops):
            m.d.sync += held.eq(dropped)
        with m.Elif(self.mispredicted):
            m.d.sync += held.eq(Stall.MISPREDICT)
        with m.Elif(self.unpredicted):
            m.d.sync += held.eq(Stall.UNPREDICTED)
        with m.Elif(self.offered):
            m.d.sync += held.eq(Stall.FETCH)
        with m.Else():
            m.d.sync += held.eq(gap)
        return gap

    def _memory_stall(self, m, unit):
        """Why the memory instruction in the commit stage is not done.

        What held it up last stays the cause of the cycles it needs to begin anew.
        """
        access = self.data
        missing = self._under_way(m, "data", access.access, access.result)
        bus = self._under_way(m, "data_bus", access.request, access.response)
        held, stall = Signal(_CAUSE, init=Stall.MEMORY), Signal(_CAUSE)
        m.d.comb += stall.eq(held)
        with m.If(access.walks):
            m.d.comb += stall.eq(Stall.DATA_TLB)
        with m.Elif(missing):
            m.d.comb += stall.eq(Stall.DATA_CACHE)
        with m.Elif(bus):
            m.d.comb += stall.eq(Stall.DEVICE)
        m.d.sync += held.eq(stall)
        with m.If(~self.commit.valid | self.retired):
            m.d.sync += held.eq(Stall.MEMORY)
        return stall

    def _instructions(self, unit, operation):
        """Events of what retires, by name."""
        retired = self.retired
        branch = retired & (unit == Unit.BRANCH)
        memory = retired & (unit == Unit.MEMORY)
        store = (operation == MemoryOperation.STORE.value) | (
            operation == MemoryOperation.STORE_CONDITIONAL.value
        )
        return {
            "branch": branch,
            "branch_taken": branch & self.commit.taken,
            "jump": retired & ((unit == Unit.JUMP) | (unit == Unit.JUMP_REGISTER)),
            "mispredict": retired & self.commit.mispredicted,
            "load": memory & ~store,
            "store": memory & (store | (operation == MemoryOperation.AMO.value)),
        }

    def _accesses(self, m):
        """Misses and walks, by name, but not those of a frozen hart's host."""
        walked = Signal()
        m.d.sync += walked.eq(self.walking)
        runs = ~self.hold
        return {
            "instruction_cache_miss": runs & self.fetch.miss,
            "data_cache_miss": runs & self.data.miss,
            "instruction_tlb_miss": runs & self.fetch.walk,
            "data_tlb_miss": runs & self.data.walk,
            "walk": runs & self.walking & ~walked,
            "walk_read": runs & self.walk_read,
            "walk_cycle": runs & self.walking & self.advance,
        }

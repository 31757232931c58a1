"""The whole MMU while software changes tables and invalidates under its feet.

Everything is driven by one loop, cycle by cycle, so that the order of events is exact. An
*epoch* ends with each invalidation. What a translation was made of may have been read in any
epoch since the last invalidation that names it, tables on the way earlier than the leaf. A fault
comes from a walk within one epoch.
"""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE, Access
from rtl.arch.traps import Privilege
from rtl.mmu.context import Fault, TranslationQuery
from rtl.mmu.mmu import Mmu
from tests.rtl.mmu import sv39_reference as sv39
from tests.rtl.mmu.tables import SLOTS, memories, pte_words, queries, translated
from tests.streams import get, put, simulate

CYCLES = 400


def small_mmu(entry_count, guests=True):
    """So small that everything is replaced all the time."""
    return Mmu(
        entry_count=entry_count,
        shared_entries=16,
        shared_ways=2,
        walk_cache_entries=2,
        nested_entries=2,
        guests=guests,
    )


@dataclass
class Epoch:
    """The values each word had in it, and the invalidation that ended it."""

    values: dict[int, set[int]]
    end: dict | None = None


@dataclass
class History:
    """What memory held, and which results that justifies."""

    words: dict[int, int]
    epochs: list[Epoch] = field(default_factory=list)

    def __post_init__(self):
        self.begin()

    def begin(self):
        self.epochs.append(Epoch({address: {word} for address, word in self.words.items()}))

    def write(self, address, word):
        self.words[address] = word
        self.epochs[-1].values[address].add(word)

    def invalidate(self, invalidation):
        self.epochs[-1].end = invalidation
        self.begin()

    def walks(self, epochs, root, gva):
        """What a walk within the epochs may have come to: leaves and exception classes."""
        outcomes, open_choices = set(), [()]
        while open_choices:
            choices = open_choices.pop()
            remaining = list(choices)

            def read(address, remaining=remaining, choices=choices):
                if remaining:
                    return remaining.pop(0)
                options = sorted(set().union(*(e.values.get(address, {0}) for e in epochs)))
                open_choices.extend((*choices, word) for word in options)
                raise StopIteration

            try:
                outcomes.add(sv39.find_leaf(read, root, gva))
            except (sv39.PageFault, sv39.AccessFault) as fault:
                outcomes.add(type(fault))
            except StopIteration:
                pass
        return outcomes

    def justifies_hit(self, query, frame, sources):
        """Whether some walk for one of ``sources`` (asid, root) has found what the query got."""
        # Most hits are explained by the newest epochs.
        for index in reversed(range(len(self.epochs))):
            epochs, later = self.epochs[index:], [e.end for e in self.epochs[index:-1]]
            for asid, root in sources:
                for leaf in self.walks(epochs, root, query["gva"]):
                    if (
                        isinstance(leaf, sv39.Leaf)
                        and translated(leaf.physical_page(query["gva"])) == frame
                        and permits(leaf, query)
                        and (leaf.is_global or asid == query["context"]["asid"])
                        and not any(names(i, leaf, asid, query["context"]) for i in later)
                    ):
                        return True
        return False

    def justifies_fault(self, query, fault, first_epoch):
        for epoch in self.epochs[first_epoch:]:
            for outcome in self.walks([epoch], query["context"]["root"], query["gva"]):
                if isinstance(outcome, sv39.Leaf):
                    if fault == Fault.PAGE and not permits(outcome, query):
                        return True
                elif (outcome is sv39.PageFault) == (fault == Fault.PAGE):
                    return True
        return False


def permits(leaf, query):
    rules = (query["context"][name] for name in ("privilege", "sum", "mxr"))
    return sv39.permits(leaf, query["access"], *rules)


def names(invalidation, leaf, asid, space):
    """Whether the invalidation drops this leaf, cached for ``asid`` in the query's space."""
    if any(invalidation[name] != space[name] for name in ("world", "vpid")):
        return False
    if invalidation["match_asid"] and (leaf.is_global or invalidation["asid"] != asid):
        return False
    return not invalidation["match_page"] or leaf.covers(invalidation["page"] << 12)


class Requester:
    """Asks one query after the other; ``step`` plays one cycle."""

    def __init__(self, port, history, software, accesses, schedule):
        self.port, self.history, self.software = port, history, software
        self.accesses, self.schedule = accesses, schedule
        self.query, self.state, self.rest = None, "QUERY", 0
        self.asked_in = self.walked_at = None
        self.patience, self.hits, self.faults = 0, 0, 0

    def drive(self, ctx):
        if self.query is None:
            self.query = self.software.choose(self.accesses)
            value = TranslationQuery.const(self.query)
            ctx.set(self.port.query, value)
            ctx.set(self.port.walk.payload, value)
        missed = self.state == "LOOK" and not ctx.get(self.port.hit)
        # A walk once asked for is asked for until it is taken, even if an old hit came back.
        ctx.set(self.port.walk.valid, missed or self.state == "ASK")
        ctx.set(self.port.walked.ready, self.state == "WAIT" and self.schedule.random() < 0.7)

    def observe(self, ctx, cycle, sources, last_invalidation):
        port, history = self.port, self.history
        self.patience += 1
        assert self.patience < 600, "no answer"
        if self.state == "QUERY":
            if self.rest:
                self.rest -= 1
            else:
                self.state = "LOOK"
            return
        if self.state == "LOOK":
            if ctx.get(port.hit):
                self.check_hit(ctx.get(port.translation), sources)
                self.finish()
            else:
                # What was walked is there at once, unless an invalidation came after the walk
                # had begun.
                assert self.walked_at is None or last_invalidation >= self.walked_at
                self.state = "ASK"
        if self.state == "ASK" and ctx.get(port.walk.ready):
            self.state, self.asked_in, self.asked_at = "WAIT", len(history.epochs) - 1, cycle
        elif self.state == "WAIT" and ctx.get(port.walked.valid) and ctx.get(port.walked.ready):
            fault = ctx.get(port.walked.payload)
            if fault == Fault.NONE:
                self.state, self.walked_at = "QUERY", self.asked_at
            else:
                assert history.justifies_fault(self.query, fault, self.asked_in), self.query
                self.faults += 1
                self.finish()

    def check_hit(self, translation, sources):
        assert translation.fault == Fault.NONE
        assert self.history.justifies_hit(self.query, translation.frame, sources), self.query
        self.hits += 1

    def finish(self):
        self.query, self.state, self.walked_at, self.patience = None, "QUERY", None, 0
        self.rest = self.schedule.choice([0, 0, 2])


class Memory:
    """Answers the walker, with the value of the cycle in which the answer appears."""

    def __init__(self, port, history, schedule):
        self.port, self.history, self.schedule = port, history, schedule
        self.address, self.delay, self.data, self.reads = None, 0, None, 0

    def drive(self, ctx):
        ctx.set(self.port.request.ready, self.address is None and self.schedule.random() < 0.6)
        if self.address is not None and not self.delay and self.data is None:
            self.data = self.history.words.get(self.address, 0)
            ctx.set(self.port.response.payload.data, self.data)
        ctx.set(self.port.response.valid, self.data is not None)

    def observe(self, ctx):
        if self.data is not None and ctx.get(self.port.response.ready):
            self.address = self.data = None
        elif self.delay:
            self.delay -= 1
        elif ctx.get(self.port.request.valid) and ctx.get(self.port.request.ready):
            self.address = ctx.get(self.port.request.payload.address)
            self.delay = self.schedule.choice([0, 1, 4])
            self.reads += 1


class Software:
    """Changes entries that are in use and invalidates, with and without the two belonging together."""

    def __init__(self, asked, history, changes, rate, schedule):
        self.asked, self.history, self.changes = asked, history, changes
        self.rate, self.schedule = rate, schedule
        self.first, self.usable = dict(history.words), []
        self.look()

    def path(self, query):
        """Addresses of the entries of the query's walk, and whether it succeeds."""

        def read(address):
            addresses.append(address)
            return self.history.words.get(address, 0)

        addresses, context = [], query["context"]
        try:
            leaf = sv39.find_leaf(read, context["root"], query["gva"])
        except (sv39.PageFault, sv39.AccessFault):
            return addresses, False
        return addresses, permits(leaf, query)

    def look(self):
        self.usable = [query for query in self.asked if self.path(query)[1]]

    def choose(self, accesses):
        """Mostly one of two queries that work, so that entries live to see their tables change."""
        candidates = [q for q in self.usable if q["access"] in accesses][:2]
        if not candidates or self.schedule.random() < 0.2:
            candidates = self.asked
        query = self.schedule.choice(candidates)
        if query["access"] in accesses:
            return query
        return {**query, "access": self.schedule.choice(accesses)}

    def change(self):
        kind = self.schedule.choice(["leaf", "leaf", "leaf", "leaf", "rights", "path", "any"])
        query = self.schedule.choice(self.usable or self.asked)
        path, works = self.path(query)
        if not works:
            # Back to the beginning, or nothing would work any more after a while.
            for slot, word in self.first.items():
                self.history.write(slot, word)
        elif kind == "any":
            self.history.write(*self.schedule.choice(self.changes))
        else:
            bits = (1, 2, 3, 4, 6, 7) if kind == "rights" else range(28, 54)
            address = self.schedule.choice(path) if kind == "path" else path[-1]
            word = self.history.words[address] ^ 1 << self.schedule.choice(bits)
            self.history.write(address, word)
        self.look()

    def invalidation(self):
        like = self.schedule.choice(self.usable[:2] or self.asked)
        return {
            "match_page": self.schedule.getrandbits(1),
            "match_asid": self.schedule.getrandbits(1),
            "page": like["gva"] >> 12 & (1 << 27) - 1,
            **{name: like["context"][name] for name in ("asid", "world", "vpid")},
        }

    def step(self):
        """Play one cycle; the invalidation of it, if any."""
        if self.schedule.random() < self.rate:
            self.change()
        return self.invalidation() if self.schedule.random() < self.rate else None


def space_of(query):
    return tuple(query["context"][name] for name in ("world", "vpid", "ept_tag"))


def of_root(query):
    return {**query, "context": {**query["context"], "world": 0, "vpid": 0, "ept_tag": 0}}


@pytest.mark.parametrize("guests", [True, False])
@settings(max_examples=20, deadline=None)
@given(
    memories,
    st.lists(queries, min_size=6, max_size=20),
    st.lists(st.tuples(st.sampled_from(SLOTS), pte_words), min_size=1, max_size=12),
    st.integers(0, 2**32),
    st.sampled_from([0.01, 0.04, 0.1]),
)
def test_results_are_current_since_the_last_invalidation(guests, words, asked, changes, seed, rate):
    dut = small_mmu(4, guests)
    if not guests:
        asked = [of_root(query) for query in asked]
    schedule, history = random.Random(seed), History(dict(words))
    software = Software(asked, history, changes, rate, schedule)
    sources = {space_of(query): set() for query in asked}
    for query in asked:
        context = query["context"]
        sources[space_of(query)].add((context["asid"], context["root"]))
    data = Requester(dut.data, history, software, (Access.READ, Access.WRITE), schedule)
    fetch = Requester(dut.instruction, history, software, (Access.FETCH,), schedule)
    memory = Memory(dut.memory, history, schedule)

    async def testbench(ctx):
        last_invalidation = -1
        for cycle in range(CYCLES):
            named = software.step()
            if named:
                ctx.set(dut.i_invalidate.payload, named)
            ctx.set(dut.i_invalidate.valid, named is not None)
            assert ctx.get(dut.i_invalidate.ready)
            for agent in (data, fetch, memory):
                agent.drive(ctx)
            waiting = "WAIT" in (data.state, fetch.state)
            assert ctx.get(dut.walking) == waiting
            asking = ctx.get(dut.data.walk.valid) or ctx.get(dut.instruction.walk.valid)
            assert ctx.get(dut.idle) == (not waiting and not asking)
            if named:
                last_invalidation = cycle
            for agent in (data, fetch):
                agent.observe(ctx, cycle, sources[space_of(agent.query)], last_invalidation)
            memory.observe(ctx)
            if named:
                history.invalidate(named)
            await ctx.tick()

    simulate(dut, testbench)
    event(f"hits: {(data.hits + fetch.hits) // 20 * 20}+")
    event(f"faults: {(data.faults + fetch.faults) // 20 * 20}+")


gvas = st.integers(0, 2**64 - 1) | st.builds(
    lambda bit, delta, sign: ((1 << bit) + delta - (sign << 63)) % 2**64,
    st.integers(0, 64),
    st.integers(-2, 2),
    st.integers(0, 1),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(gvas, st.sampled_from(list(Access)), st.booleans()), min_size=20))
@example(
    [
        ((1 << bit) + delta - (sign << 63) & (1 << 64) - 1, access, paged)
        for bit in (0, 38, 39, 55, 56, 63)
        for delta in (-1, 0)
        for sign in (0, 1)
        for access in (Access.READ, Access.FETCH)
        for paged in (False, True)
    ]
    + [(((1 << 64) - (1 << 38)) + delta, Access.READ, True) for delta in (-1, 0)]
)
def test_queries_that_need_no_tables(asked):
    """Unpaged and not canonical addresses are answered at once, whatever the TLB holds."""
    dut = small_mmu(2)

    async def testbench(ctx):
        for gva, access, paged in asked:
            port = dut.instruction if access == Access.FETCH else dut.data
            privilege = Privilege.SUPERVISOR if paged else Privilege.MACHINE
            context = {"privilege": privilege, "paged": paged, "root": 0x80000}
            ctx.set(port.query, {"gva": gva, "access": access, "context": context})
            await ctx.tick()
            hit, answer = ctx.get(port.hit), ctx.get(port.translation)
            if not paged:
                assert hit
                wanted = Fault.ACCESS if gva >= 2**56 else Fault.NONE
                assert answer.fault == wanted
                assert wanted != Fault.NONE or answer.frame == translated(gva >> 12)
            elif 2**38 <= gva < 2**64 - 2**38:
                assert hit
                assert answer.fault == Fault.PAGE
            else:
                assert not hit

    simulate(dut, testbench)


def test_data_side_walks_first():
    """When both sides ask at once, the data side is answered first, and each gets its own."""
    dut = small_mmu(2)
    order = []

    async def testbench(ctx):
        for name in ("data", "instruction"):
            port = getattr(dut, name)
            # A root outside RAM: an access fault without any read.
            ctx.set(port.walk.payload, {"context": {"paged": 1, "root": 1}})
            ctx.set(port.walk.valid, 1)
            ctx.set(port.walked.ready, 1)
        for _ in range(20):
            for name in ("data", "instruction"):
                port = getattr(dut, name)
                if ctx.get(port.walk.valid) and ctx.get(port.walk.ready):
                    order.append((name, "taken"))
                if ctx.get(port.walked.valid):
                    order.append((name, ctx.get(port.walked.payload)))
            assert not ctx.get(dut.memory.request.valid)
            await ctx.tick()
            for name, what in order:
                if what == "taken":
                    ctx.set(getattr(dut, name).walk.valid, 0)

    simulate(dut, testbench)
    assert order == [
        ("data", "taken"),
        ("data", Fault.ACCESS),
        ("instruction", "taken"),
        ("instruction", Fault.ACCESS),
    ]


def test_each_side_has_its_own_entries():
    dut = small_mmu(2)
    root = MEMORY_MAP["ram"].base // 4096
    leaf = PTE.encode(v=1, r=1, x=1, a=1, ppn=root)
    query = {"access": Access.READ, "context": {"privilege": 1, "paged": 1, "root": root}}

    async def testbench(ctx):
        for port in (dut.data, dut.instruction):
            ctx.set(port.query, {**query, "access": Access.READ})
        await put(ctx, dut.data.walk, query)
        await get(ctx, dut.memory.request)
        await put(ctx, dut.memory.response, {"data": leaf})
        assert await get(ctx, dut.data.walked) == Fault.NONE
        await ctx.tick()
        assert ctx.get(dut.data.hit)
        assert ctx.get(dut.data.translation.frame) == root
        assert not ctx.get(dut.instruction.hit)

    simulate(dut, testbench)


@pytest.mark.parametrize("side", ["data", "instruction"])
@pytest.mark.parametrize("match_page", [0, 1])
def test_invalidation_during_a_walk(side, match_page):
    """Whenever in a walk its first pointer changes and is invalidated, what it led to is gone."""
    dut = small_mmu(2)
    port = getattr(dut, side)
    root = MEMORY_MAP["ram"].base // 4096
    gva = 1 << 30 | 1 << 21 | 1 << 12
    access = Access.READ if side == "data" else Access.FETCH
    context = {"privilege": Privilege.SUPERVISOR, "paged": 1, "root": root}
    query = {"gva": gva, "access": access, "context": context}
    old, new = 1, 2
    # Two branches: root, then the tables 1 and 11 with frame 1, or 2 and 12 with frame 2.
    words = {}
    for frame in (old, new):
        words[(root + frame) * 4096 + 8] = PTE.encode(v=1, ppn=root + frame + 10)
        words[(root + frame + 10) * 4096 + 8] = PTE.encode(v=1, r=1, x=1, a=1, ppn=frame)

    async def testbench(ctx):
        ctx.set(port.query, query)
        ctx.set(port.walk.payload, query)
        ctx.set(port.walked.ready, 1)
        ctx.set(dut.memory.request.ready, 1)
        invalidation = {"match_page": match_page, "page": gva >> 12}
        for moment in range(24):
            words[root * 4096 + 8] = PTE.encode(v=1, ppn=root + old)
            state, address = "QUERY", None
            for cycle in range(60):
                if cycle == moment:
                    words[root * 4096 + 8] = PTE.encode(v=1, ppn=root + new)
                    ctx.set(dut.i_invalidate.payload, invalidation)
                ctx.set(dut.i_invalidate.valid, cycle == moment)
                ctx.set(dut.memory.response.valid, address is not None)
                ctx.set(dut.memory.response.payload.data, words.get(address, 0))
                if cycle > moment and ctx.get(port.hit):
                    break
                if state == "LOOK":
                    # Either it was kept, or an invalidation has come.
                    assert ctx.get(port.hit) or cycle > moment
                    state = "QUERY"
                if state == "ANSWERED":
                    state = "LOOK"
                if ctx.get(port.walked.valid):
                    assert ctx.get(port.walked.payload) == Fault.NONE
                    state = "ANSWERED"
                ctx.set(port.walk.valid, state == "QUERY" and not ctx.get(port.hit))
                if ctx.get(port.walk.valid) and ctx.get(port.walk.ready):
                    state = "WALK"
                requested = ctx.get(dut.memory.request.valid)
                address = ctx.get(dut.memory.request.payload.address) if requested else None
                await ctx.tick()
            frame = ctx.get(port.translation.frame)
            assert (ctx.get(port.hit), frame) == (1, new), f"changed in cycle {moment}"
            ctx.set(port.walk.valid, 0)
            ctx.set(dut.i_invalidate.payload, {})
            ctx.set(dut.i_invalidate.valid, 1)
            await ctx.tick()
            ctx.set(dut.i_invalidate.valid, 0)
            assert ctx.get(dut.idle)

    simulate(dut, testbench)


def test_invalidation_while_the_second_level_answers():
    """What the second level knew before an invalidation is not what the first level gets after."""
    dut = small_mmu(2)
    root = MEMORY_MAP["ram"].base // 4096
    context = {"privilege": Privilege.SUPERVISOR, "paged": 1, "root": root}
    query = {"gva": 0x1000, "access": Access.READ, "context": context}
    leaf = {"v": 1, "r": 1, "x": 1, "a": 1}

    async def walk(ctx, port, frame, *, at=None):
        """Ask, with an invalidation in cycle ``at``; how many entries were read."""
        reads = 0
        ctx.set(port.walk.payload, query)
        ctx.set(port.walk.valid, 1)
        ctx.set(port.walked.ready, 1)
        for cycle in range(20):
            ctx.set(dut.i_invalidate.valid, cycle == at)
            taken = ctx.get(port.walk.valid) and ctx.get(port.walk.ready)
            request = ctx.get(dut.memory.request.valid)
            done = ctx.get(port.walked.valid) and cycle > 0
            reads += request
            await ctx.tick()
            if taken:
                ctx.set(port.walk.valid, 0)
            ctx.set(dut.memory.response.valid, request)
            ctx.set(dut.memory.response.payload.data, PTE.encode(**leaf, ppn=frame))
            if done and (at is None or cycle > at):
                break
        ctx.set(dut.i_invalidate.valid, 0)
        await ctx.tick()
        return reads

    async def testbench(ctx):
        ctx.set(dut.memory.request.ready, 1)
        for port in (dut.data, dut.instruction):
            ctx.set(port.query, query)
        asked_twice = 0
        for at in range(6):
            old, new = 1 << 18, 2 << 18
            assert await walk(ctx, dut.instruction, old) == 1
            assert ctx.get(dut.instruction.hit) and not ctx.get(dut.data.hit)
            for _ in range(5):
                await ctx.tick()
            reads = await walk(ctx, dut.data, new, at=at)
            # The second level answered, and the invalidation came before, with, or after that.
            if not reads and not ctx.get(dut.data.hit):
                asked_twice += 1
                assert await walk(ctx, dut.data, new) == 1
            for port in (dut.data, dut.instruction):
                frame = ctx.get(port.translation.frame)
                assert not ctx.get(port.hit) or frame >> 18 == 2, f"invalidated in cycle {at}"
            ctx.set(dut.i_invalidate.valid, 1)
            await ctx.tick()
            ctx.set(dut.i_invalidate.valid, 0)
            for _ in range(30):
                await ctx.tick()
            assert ctx.get(dut.settled)
        assert asked_twice > 1

    simulate(dut, testbench)

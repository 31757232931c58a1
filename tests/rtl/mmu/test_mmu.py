"""The whole MMU while software changes tables and invalidates under its feet.

Everything is driven by one loop, cycle by cycle, so that the order of events is exact. An
*epoch* ends with each invalidation. Every walk that is kept lies within one epoch, so that what
it may have read is known: for each word, the values it had during that epoch.
"""

import random
from dataclasses import dataclass, field

from hypothesis import event, given, settings
from hypothesis import strategies as st

from rtl.arch.paging import Access
from rtl.arch.traps import Privilege
from rtl.mmu.context import Fault, TranslationQuery
from rtl.mmu.mmu import Mmu
from tests.rtl.mmu import sv39_reference as sv39
from tests.rtl.mmu.tables import SLOTS, memories, pte_words, queries
from tests.streams import simulate

CYCLES = 400


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

    def walks(self, epoch, root, gva):
        """What a walk within the epoch may have come to: leaves and exception classes."""
        outcomes, open_choices = set(), [()]
        while open_choices:
            choices = open_choices.pop()
            remaining = list(choices)

            def read(address, remaining=remaining, choices=choices):
                if remaining:
                    return remaining.pop(0)
                options = sorted(epoch.values.get(address, {0}))
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
            epoch, later = self.epochs[index], [e.end for e in self.epochs[index:-1]]
            for asid, root in sources:
                for leaf in self.walks(epoch, root, query["gva"]):
                    if (
                        isinstance(leaf, sv39.Leaf)
                        and leaf.physical_page(query["gva"]) == frame
                        and permits(leaf, query)
                        and (leaf.is_global or asid == query["context"]["asid"])
                        and not any(names(i, leaf, asid, query["context"]) for i in later)
                    ):
                        return True
        return False

    def justifies_fault(self, query, fault, first_epoch):
        for epoch in self.epochs[first_epoch:]:
            for outcome in self.walks(epoch, query["context"]["root"], query["gva"]):
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

    def __init__(self, name, port, history, choose, schedule):
        self.name, self.port, self.history = name, port, history
        self.choose, self.schedule = choose, schedule
        self.query, self.state, self.rest = None, "QUERY", 0
        self.asked_in = self.walked_at = None
        self.patience, self.hits, self.faults = 0, 0, 0

    def drive(self, ctx):
        if self.query is None:
            self.query = self.choose(self.schedule)
            value = TranslationQuery.const(self.query)
            ctx.set(self.port.query, value)
            ctx.set(self.port.walk.payload, value)
        missed = self.state == "QUERY" and not self.rest and not ctx.get(self.port.hit)
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
                return
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


@settings(max_examples=20, deadline=None)
@given(
    memories,
    st.lists(queries, min_size=4, max_size=8),
    st.lists(st.tuples(st.sampled_from(SLOTS), pte_words), min_size=1, max_size=12),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.01, 0.05]),
)
def test_results_are_current_since_the_last_invalidation(words, asked, changes, seed, rate):
    dut = Mmu(entry_count=4)
    schedule, history = random.Random(seed), History(dict(words))
    sources = {
        (q["context"]["world"], q["context"]["vpid"], q["context"]["ept_tag"]): set() for q in asked
    }
    for q in asked:
        context = q["context"]
        key = (context["world"], context["vpid"], context["ept_tag"])
        sources[key].add((context["asid"], context["root"]))

    def choose_for(access):
        def choose(schedule):
            # Often one of the first two, so that entries live to see their tables change.
            query = schedule.choice(asked[: schedule.choice([2, len(asked)])])
            return {**query, "access": access(schedule)}

        return choose

    data = Requester(
        "data",
        dut.data,
        history,
        choose_for(lambda s: s.choice([Access.READ, Access.WRITE])),
        schedule,
    )
    fetch = Requester(
        "instruction", dut.instruction, history, choose_for(lambda s: Access.FETCH), schedule
    )
    memory = Memory(dut.memory, history, schedule)

    def invalidation():
        like = schedule.choice(asked)
        return {
            "match_page": schedule.getrandbits(1),
            "match_asid": schedule.getrandbits(1),
            "page": like["gva"] >> 12 & (1 << 27) - 1,
            **{name: like["context"][name] for name in ("asid", "world", "vpid")},
        }

    async def testbench(ctx):
        last_invalidation = -1
        for cycle in range(CYCLES):
            if schedule.random() < 2 * rate:
                history.write(*schedule.choice(changes))
            invalidating = schedule.random() < rate
            if invalidating:
                named = invalidation()
                ctx.set(dut.i_invalidate.payload, named)
            ctx.set(dut.i_invalidate.valid, invalidating)
            assert ctx.get(dut.i_invalidate.ready)
            for agent in (data, fetch, memory):
                agent.drive(ctx)
            idle, walking = ctx.get(dut.idle), ctx.get(dut.walking)
            waiting = "WAIT" in (data.state, fetch.state)
            assert walking == waiting
            asking = ctx.get(dut.data.walk.valid) or ctx.get(dut.instruction.walk.valid)
            assert idle == (not waiting and not asking)
            for agent in (data, fetch):
                space = tuple(agent.query["context"][k] for k in ("world", "vpid", "ept_tag"))
                agent.observe(ctx, cycle, sources[space], last_invalidation)
            memory.observe(ctx)
            if invalidating:
                history.invalidate(named)
                last_invalidation = cycle
            await ctx.tick()

    simulate(dut, testbench)
    assert data.hits + data.faults > 10
    event(f"hits {(data.hits + fetch.hits) // 50 * 50}+")


gvas = st.integers(0, 2**64 - 1) | st.builds(
    lambda bit, delta, sign: ((1 << bit) + delta - (sign << 63)) % 2**64,
    st.integers(0, 64),
    st.integers(-2, 2),
    st.integers(0, 1),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(gvas, st.sampled_from(list(Access)), st.booleans()), min_size=20))
def test_queries_that_need_no_tables(asked):
    """Unpaged and not canonical addresses are answered at once, whatever the TLB holds."""
    dut = Mmu(entry_count=2)

    async def testbench(ctx):
        for gva, access, paged in asked:
            port = dut.instruction if access == Access.FETCH else dut.data
            privilege = Privilege.SUPERVISOR if paged else Privilege.MACHINE
            context = {"privilege": privilege, "paged": paged, "root": 0x80000}
            ctx.set(port.query, {"gva": gva, "access": access, "context": context})
            hit, answer = ctx.get(port.hit), ctx.get(port.translation)
            if not paged:
                assert hit
                wanted = Fault.ACCESS if gva >= 2**56 else Fault.NONE
                assert answer.fault == wanted
                assert wanted != Fault.NONE or answer.frame == gva >> 12
            elif 2**38 <= gva < 2**64 - 2**38:
                assert hit
                assert answer.fault == Fault.PAGE
            else:
                assert not hit
            await ctx.tick()

    simulate(dut, testbench)


def test_data_side_walks_first():
    """When both sides ask at once, the data side is answered first, and each gets its own."""
    dut = Mmu(entry_count=2)
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

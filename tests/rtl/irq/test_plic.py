"""The PLIC against a model written from the RISC-V PLIC specification."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.irq.plic import Plic
from tests.streams import Answer, access, simulate

SOURCES = range(1, 32)
PRIORITY, PENDING, ENABLE, THRESHOLD, CLAIM = 0x0, 0x1000, 0x2000, 0x20_0000, 0x20_0004


class Model:
    """Chapters "Interrupt Gateways" to "Interrupt Completion", one object per sentence."""

    def __init__(self):
        self.levels = 0
        self.priority = dict.fromkeys(SOURCES, 0)
        self.enable = [set(), set()]
        self.threshold = [0, 0]
        self.pending = set()
        # Sources whose gateway has forwarded a request that is not completed yet.
        self.forwarded = set()

    def clock(self, advance):
        if advance:
            for source in self.requests():
                self.forwarded.add(source)
                self.pending.add(source)

    def requests(self):
        high = {source for source in SOURCES if self.levels >> source & 1}
        return high - self.forwarded

    def candidates(self, context):
        ready = self.pending & self.enable[context]
        return sorted(
            (source for source in ready if self.priority[source]),
            key=lambda source: (-self.priority[source], source),
        )

    def line(self, context):
        return any(
            self.priority[source] > self.threshold[context] for source in self.candidates(context)
        )

    def claim(self, context):
        first = next(iter(self.candidates(context)), 0)
        self.pending.discard(first)
        return first

    def complete(self, context, source):
        if source in self.enable[context] and source in self.forwarded - self.pending:
            self.forwarded.discard(source)


lines = st.tuples(st.just("lines"), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
sources = st.sampled_from([1, 2, 9, 10, 30, 31])
contexts = st.integers(0, 1)
words = st.one_of(sources, st.integers(0, 2**32 - 1))
steps = st.one_of(
    lines,
    st.tuples(st.just("wait"), st.integers(1, 3), st.booleans()),
    st.tuples(st.just("priority"), st.one_of(sources, st.sampled_from(SOURCES)), words),
    st.tuples(st.just("enable"), contexts, words),
    st.tuples(st.just("threshold"), contexts, st.integers(0, 9)),
    st.tuples(st.just("claim"), contexts),
    st.tuples(st.just("complete"), contexts, words),
    st.tuples(st.just("finish"), contexts, st.booleans()),
    st.tuples(st.just("read"), st.sampled_from(["priority", "pending", "enable", "threshold"])),
)


@settings(max_examples=6, deadline=None)
@given(st.lists(steps, min_size=40, max_size=120), st.integers(1, 7), st.booleans())
def test_random_traffic_agrees_with_the_specification(traffic, priority, running):
    dut = Plic()
    model = Model()

    def check(ctx):
        assert ctx.get(dut.mei) == model.line(0)
        assert ctx.get(dut.sei) == model.line(1)
        assert ctx.get(dut.idle) == (not model.requests())

    async def cycles(ctx, count, advance):
        ctx.set(dut.advance, advance)
        for _ in range(count):
            await ctx.tick()
            model.clock(advance)
            check(ctx)
        ctx.set(dut.advance, 0)

    async def word(ctx, address, *, write=0, data=0):
        """Access one 32-bit register; time stands still meanwhile."""
        upper = address & 4
        answer = await access(
            ctx,
            dut.bus,
            address & ~7,
            write=write,
            mask=0xF0 if upper else 0x0F,
            data=data << 32 if upper else data,
        )
        assert not answer.error
        return answer.data >> (32 if upper else 0) & 0xFFFF_FFFF

    async def play(ctx):
        in_service = [[], []]
        # A start from which interrupts are likely.
        for source in (1, 2, 9, 10, 30, 31):
            await word(ctx, PRIORITY + 4 * source, write=1, data=priority)
            model.priority[source] = priority
        for context in range(2):
            await word(ctx, ENABLE + 0x80 * context, write=1, data=0xFFFF_FFFF)
            model.enable[context] = set(SOURCES)
        for kind, *rest in traffic:
            if running:
                await cycles(ctx, 1, 1)
            match kind, *rest:
                case "lines", first, second:
                    model.levels = first & second
                    ctx.set(dut.sources, model.levels)
                case "wait", count, advance:
                    await cycles(ctx, count, advance)
                case "priority", source, value:
                    await word(ctx, PRIORITY + 4 * source, write=1, data=value)
                    model.priority[source] = value & 7
                case "enable", context, value:
                    await word(ctx, ENABLE + 0x80 * context, write=1, data=value)
                    model.enable[context] = {s for s in SOURCES if value >> s & 1}
                case "threshold", context, value:
                    await word(ctx, THRESHOLD + 0x1000 * context, write=1, data=value)
                    model.threshold[context] = value & 7
                case "claim", context:
                    expected = model.claim(context)
                    assert await word(ctx, CLAIM + 0x1000 * context) == expected
                    if expected:
                        in_service[context].append(expected)
                case "complete", context, value:
                    await word(ctx, CLAIM + 0x1000 * context, write=1, data=value)
                    model.complete(context, value)
                case "finish", context, disabled:
                    if in_service[context]:
                        source = in_service[context].pop()
                        if disabled:
                            model.enable[context].discard(source)
                            data = bits(model.enable[context])
                            await word(ctx, ENABLE + 0x80 * context, write=1, data=data)
                        await word(ctx, CLAIM + 0x1000 * context, write=1, data=source)
                        model.complete(context, source)
                case "read", what:
                    await compare(ctx, what)
            check(ctx)
        await compare(ctx, "pending")

    def bits(those):
        return sum(1 << source for source in those)

    async def compare(ctx, what):
        match what:
            case "priority":
                for source in SOURCES:
                    assert await word(ctx, PRIORITY + 4 * source) == model.priority[source]
            case "pending":
                assert await word(ctx, PENDING) == bits(model.pending)
            case "enable":
                for context in range(2):
                    value = await word(ctx, ENABLE + 0x80 * context)
                    assert value == bits(model.enable[context])
            case "threshold":
                for context in range(2):
                    value = await word(ctx, THRESHOLD + 0x1000 * context)
                    assert value == model.threshold[context]

    simulate(dut, play)


def test_only_the_lowest_byte_of_the_register_claims():
    dut = Plic()

    async def host(ctx):
        await access(ctx, dut.bus, 0x28, write=1, mask=0x0F, data=1)
        await access(ctx, dut.bus, ENABLE, write=1, mask=0x0F, data=1 << 10)
        ctx.set(dut.sources, 1 << 10)
        ctx.set(dut.advance, 1)
        await ctx.tick()
        for mask in (0x20, 0x40, 0xE0):
            await access(ctx, dut.bus, THRESHOLD, mask=mask)
            assert ctx.get(dut.mei)
        assert (await access(ctx, dut.bus, THRESHOLD, mask=0x10)).data >> 32 & 0xFF == 10
        assert not ctx.get(dut.mei)
        assert await access(ctx, dut.bus, 0x3000) == Answer(0, 1)

    simulate(dut, host)


def test_what_has_not_been_claimed_cannot_be_completed():
    dut = Plic()

    async def host(ctx):
        await access(ctx, dut.bus, ENABLE, write=1, mask=0x0F, data=1 << 10)
        ctx.set(dut.sources, 1 << 10)
        ctx.set(dut.advance, 1)
        await ctx.tick()
        ctx.set(dut.advance, 0)
        await access(ctx, dut.bus, THRESHOLD, write=1, mask=0xF0, data=10 << 32)
        # Had it been completed, the gateway would have a request again.
        assert ctx.get(dut.idle)
        assert (await access(ctx, dut.bus, PENDING, mask=0x0F)).data == 1 << 10

    simulate(dut, host)

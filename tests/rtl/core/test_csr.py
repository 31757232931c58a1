"""The CSR file against a model: access rules, WARL fields, traps, returns, counters."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.csrs import CSR_BY_NUMBER, CSRS, MSTATUS
from rtl.core.csr import CsrFile, CsrOperation
from rtl.mmu.context import Privilege
from tests.rtl.core.csr_model import ALL, CsrModel
from tests.streams import simulate

LEVELS = {Privilege.USER: 0, Privilege.SUPERVISOR: 1, Privilege.MACHINE: 3}
OF_LEVEL = {level: privilege for privilege, level in LEVELS.items()}


class Bench:
    """A CSR file and its model, driven together; every answer is compared."""

    def __init__(self, ctx, dut, noise):
        self._ctx, self._dut, self._noise = ctx, dut, noise
        self.model = CsrModel()

    async def tick(self, *, written=None, skip=0, retired=0):
        """A cycle, in which time goes on or not; strobes fall back."""
        ctx, dut = self._ctx, self._dut
        advance = self._noise.getrandbits(1)
        ctx.set(dut.advance, advance)
        ctx.set(dut.retired, retired)
        ctx.set(dut.skip, {"valid": bool(skip), "cycles": skip})
        # Event 0 is none, and while cycles are skipped there are no others.
        events = 0 if skip else self._noise.getrandbits(len(dut.events.as_value())) & ~1
        ctx.set(dut.events.as_value(), events)
        await ctx.tick()
        self.model.tick(advance=advance, retired=retired, written=written, skip=skip, events=events)
        ctx.set(dut.retired, 0)
        ctx.set(dut.skip.valid, 0)
        if skip:
            await self.ready()

    async def ready(self):
        """Wait until counters may be read and written."""
        while not self._ctx.get(self._dut.settled):
            await self.tick()

    async def access(self, number, operation, operand, writes, *, host=False):
        """A CSR instruction: read, then write as it retires."""
        ctx, dut, model = self._ctx, self._dut, self.model
        request = {"valid": 1, "number": number, "operation": CsrOperation[operation]}
        request |= {"writes": writes, "host": host, "operand": operand}
        ctx.set(dut.request, request)
        refused = model.refuses(number, writes, host=host)
        value = None if number not in CSR_BY_NUMBER else model.read(number)
        new = None if value is None else model.modified(number, operation, operand)
        await self.tick()
        ctx.set(dut.request, {"number": self._noise.getrandbits(12)})
        told = f"{number:#x} {operation} at level {model.level}"
        assert ctx.get(dut.illegal) == refused, told
        if not refused:
            assert ctx.get(dut.value) == value, told
        # Writing is tried even when it is refused; the host's side does so.
        ctx.set(dut.write, writes)
        written = number if writes and not refused else None
        await self.tick(written=written, retired=0 if refused or host else 1)
        ctx.set(dut.write, 0)
        if written is not None:
            model.write(number, new)
        self.check()

    async def set_csr(self, name, value):
        await self.access(CSRS[name].number, "WRITE", value, 1, host=True)

    async def trap(self, interrupt, code, value, pc):
        ctx, dut, model = self._ctx, self._dut, self.model
        ctx.set(dut.trap_valid, 1)
        ctx.set(dut.trap, {"interrupt": interrupt, "code": code, "value": value})
        ctx.set(dut.trap_pc, pc)
        to_machine, vector = model.trap_target(interrupt, code)
        assert (ctx.get(dut.trap_to_machine), ctx.get(dut.trap_vector)) == (to_machine, vector)
        await self.tick()
        ctx.set(dut.trap_valid, 0)
        model.trap(interrupt, code, value, pc)
        # Nothing comes in the cycle after a trap: its value is written then.
        await self.tick()
        self.check()

    async def ret(self, supervisor, *, privilege=None):
        """mret or sret; with a privilege, what resuming from a parked trap does."""
        ctx, dut, model = self._ctx, self._dut, self.model
        ctx.set(dut.ret_valid, 1)
        ctx.set(dut.ret_supervisor, supervisor)
        assert ctx.get(dut.ret_pc) == model.held["sepc" if supervisor else "mepc"]
        if privilege is not None:
            ctx.set(dut.privilege_write, 1)
            ctx.set(dut.privilege_next, privilege)
        await self.tick()
        ctx.set(dut.ret_valid, 0)
        ctx.set(dut.privilege_write, 0)
        model.ret(supervisor)
        if privilege is not None:
            model.level = LEVELS[privilege]
        self.check()

    async def privilege(self, privilege):
        ctx, dut = self._ctx, self._dut
        ctx.set(dut.privilege_write, 1)
        ctx.set(dut.privilege_next, privilege)
        await self.tick()
        ctx.set(dut.privilege_write, 0)
        self.model.level = LEVELS[privilege]
        self.check()

    async def world(self, time, **lines):
        """Time and interrupt lines change."""
        ctx, dut, model = self._ctx, self._dut, self.model
        ctx.set(dut.time, time)
        ctx.set(dut.lines, lines)
        model.time, model.lines = time, lines
        await self.tick()

    async def settled(self):
        """Two cycles later the choice of an interrupt shows."""
        await self.tick()
        await self.tick()
        ctx, dut = self._ctx, self._dut
        valid, code, wake = self.model.interrupt()
        assert (ctx.get(dut.interrupt), ctx.get(dut.wake)) == (valid, wake)
        assert not valid or ctx.get(dut.interrupt_code) == code

    def check(self):
        """What other units see."""
        ctx, dut, model = self._ctx, self._dut, self.model
        assert ctx.get(dut.privilege) == OF_LEVEL[model.level]
        for name in ("tvm", "tw", "tsr"):
            assert ctx.get(getattr(dut, name)) == model.status(name)
        for context, data in ((dut.fetch_context, False), (dut.data_context, True)):
            for name, value in model.context(data=data).items():
                assert ctx.get(getattr(context, name)) == value, (name, data)

    async def check_all(self):
        """Every CSR there is."""
        for number in CSR_BY_NUMBER:
            await self.access(number, "SET", 0, 0, host=True)


def bench(scenario, seed=0, cycles=100_000):
    dut = CsrFile()

    async def testbench(ctx):
        started = Bench(ctx, dut, random.Random(seed))
        await started.ready()
        await scenario(started)

    simulate(dut, testbench, cycles=cycles)


def test_every_csr_has_its_reset_value_and_keeps_what_can_be_written():
    async def scenario(bench):
        await bench.check_all()
        for pattern in (ALL, 0, 0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA):
            for number in CSR_BY_NUMBER:
                await bench.access(number, "WRITE", pattern, number >> 10 != 3)
            for number in CSR_BY_NUMBER:
                await bench.access(number, "SET", 0, 0)

    bench(scenario)


@pytest.mark.parametrize("privilege", LEVELS, ids=lambda p: p.name)
def test_every_number_is_accessible_where_it_should_be(privilege):
    """All CSRs and their neighbours that are not there, read and written; nothing is enabled."""
    numbers = {n + d for n in CSR_BY_NUMBER for d in (-1, 0, 1, 0x100, 0x400)}
    numbers = sorted(number for number in numbers if 0 <= number < 4096)

    async def scenario(bench):
        await bench.privilege(privilege)
        for number in numbers:
            await bench.access(number, "SET", 0, 0)
            await bench.access(number, "CLEAR", 0, 1)
            # The host has M's rights, but cannot write what is read-only either.
            await bench.access(number, "CLEAR", 0, number % 2, host=True)

    bench(scenario)


@pytest.mark.parametrize("privilege", LEVELS, ids=lambda p: p.name)
def test_enable_bits_open_what_they_name(privilege):
    """Counters, satp and stimecmp under all combinations of the bits that guard them."""
    counters = [CSRS[name].number for name in ("cycle", "time", "instret", "hpmcounter3")]
    counters.append(CSRS["hpmcounter31"].number)

    async def scenario(bench):
        for mask in (1, 2, 4, 8, 1 << 31, 0xFFFF_FFFF):
            for machine, supervisor in itertools.product((mask, ~mask), repeat=2):
                await bench.set_csr("mcounteren", machine & ALL)
                await bench.set_csr("scounteren", supervisor & ALL)
                await bench.privilege(privilege)
                for number in counters:
                    await bench.access(number, "SET", 0, 0)
                    await bench.access(number, "SET", 1, 1)
        for tvm, stce, tm in itertools.product((0, 1), repeat=3):
            await bench.set_csr("mcounteren", tm << 1)
            await bench.set_csr("menvcfg", stce << 63)
            await bench.set_csr("mstatus", MSTATUS.encode(tvm=tvm))
            for name in ("satp", "stimecmp", "mcycle", "sstatus"):
                for operation, writes in (("SET", 0), ("WRITE", 1), ("CLEAR", 1)):
                    await bench.access(CSRS[name].number, operation, 0x77, writes)

    bench(scenario)


#: CSRs that matter for what happens next, drawn more often.
HOT = [
    "mstatus", "sstatus", "mie", "mip", "sie", "sip", "mideleg", "medeleg", "mtvec", "stvec",
    "menvcfg", "mcounteren", "scounteren", "satp", "stimecmp", "mcountinhibit", "mcycle",
    "minstret", "mepc", "sepc", "time", "mhpmevent3", "mhpmevent10", "mhpmcounter3",
    "hpmcounter3", "mhpmcounter10", "hpmcounter10",
]  # fmt: skip
numbers = (
    st.sampled_from([CSRS[name].number for name in HOT])
    | st.sampled_from(list(CSR_BY_NUMBER))
    | st.integers(0, 4095)
)
words = st.sampled_from([0, ALL, 1 << 63, 8 << 60, 5 << 60, 1, 2, 0x1800, 0x800]) | st.integers(
    0, ALL
)
accesses = st.tuples(
    st.just("access"), numbers, st.sampled_from(["WRITE", "SET", "CLEAR"]), words, st.booleans()
)
privileges = st.sampled_from(list(LEVELS))
codes = st.sampled_from([0, 1, 2, 3, 5, 7, 8, 9, 11, 12, 13, 15])
interrupt_codes = st.sampled_from([1, 3, 5, 7, 9, 11])
steps = (
    accesses
    | accesses
    | st.tuples(st.just("exception"), codes, words, words)
    | st.tuples(st.just("interrupt"), interrupt_codes, words)
    | st.tuples(st.just("ret"), st.booleans())
    | st.tuples(st.just("resume"), privileges)
    | st.tuples(st.just("privilege"), privileges)
    | st.tuples(st.just("world"), words, st.integers(0, 15))
    | st.tuples(st.just("skip"), st.integers(1, 2**32 - 1))
)


@settings(max_examples=15, deadline=None)
@given(st.lists(steps, min_size=20, max_size=60), st.integers(0, 2**32 - 1))
def test_sequences_do_what_the_model_does(drawn, seed):
    async def scenario(bench):
        noise = random.Random(seed)
        for name in ("mideleg", "medeleg", "mie", "mstatus"):
            await bench.set_csr(name, noise.getrandbits(64))
        for kind, *rest in drawn:
            match kind:
                case "access":
                    number, operation, operand, writes = rest
                    writes = writes or operation == "WRITE"
                    await bench.access(number, operation, operand, writes)
                case "exception":
                    code, value, pc = rest
                    await bench.trap(0, code, value, pc & ~1)
                case "interrupt":
                    await bench.trap(1, rest[0], 0, rest[1] & ~1)
                case "ret":
                    await bench.ret(rest[0])
                case "resume":
                    await bench.ret(False, privilege=rest[0])
                case "privilege":
                    await bench.privilege(rest[0])
                case "world":
                    lines = {
                        name: rest[1] >> n & 1
                        for n, name in enumerate(("msi", "mti", "sei", "mei"))
                    }
                    await bench.world(rest[0], **lines)
                case "skip":
                    await bench.tick(skip=rest[0])
            await bench.settled()
        await bench.check_all()

    bench(scenario, seed)


@pytest.mark.parametrize("operation", ["SET", "CLEAR"])
def test_the_line_of_an_external_interrupt_is_not_written_back(operation):
    """csrrs and csrrc read it in mip, but its bit keeps what software has put there."""

    async def scenario(bench):
        mip = CSRS["mip"].number
        await bench.world(0, msi=0, mti=0, sei=1, mei=0)
        await bench.access(mip, operation, 2, 1)
        await bench.world(0, msi=0, mti=0, sei=0, mei=0)
        await bench.access(mip, "SET", 0, 0)
        assert bench.model.mip >> 9 & 1 == 0

    bench(scenario)


def test_mprv_holds_at_every_level():
    """The host may have set the privilege, so that no trap return has cleared it."""

    async def scenario(bench):
        for mpp in LEVELS.values():
            await bench.set_csr("mstatus", MSTATUS.encode(mprv=1, mpp=mpp))
            for privilege in LEVELS:
                await bench.privilege(privilege)
                assert bench.model.context(data=True)["privilege"] == OF_LEVEL[mpp]

    bench(scenario)

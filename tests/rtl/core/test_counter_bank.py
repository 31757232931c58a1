"""The bank of counters against plain integers."""

import random

import pytest

from rtl.core.counter_bank import CounterBank
from tests.streams import simulate

ROWS = (0, 2, 3, 9, 15)
ALL = (1 << 64) - 1


class Bench:
    """A bank and what its counters should hold, driven together."""

    def __init__(self, ctx, dut, busy):
        self._ctx, self._dut, self._busy = ctx, dut, busy
        self._noise = random.Random(busy)
        self.held = dict.fromkeys(ROWS, 0)

    async def cycle(self, *, write=None):
        """Each counter counts, or not; ``write`` is a row and its value."""
        counted = [n for n in ROWS if self._noise.random() < self._busy]
        self._ctx.set(self._dut.count, sum(1 << n for n in counted))
        await self._ctx.tick()
        for n in counted:
            self.held[n] = self.held[n] + 1 & ALL
        if write:
            self.held[write[0]] = write[1]

    async def settle(self):
        while not self._ctx.get(self._dut.settled):
            await self.cycle()

    async def read(self, row):
        ctx, dut = self._ctx, self._dut
        ctx.set(dut.access, 1)
        ctx.set(dut.row, row)
        assert ctx.get(dut.value) == self.held[row]
        await self.cycle()
        ctx.set(dut.access, 0)

    async def write(self, row, value):
        ctx, dut = self._ctx, self._dut
        for member, now in (("access", 1), ("row", row), ("write", 1), ("data", value)):
            ctx.set(getattr(dut, member), now)
        await self.cycle(write=(row, value))
        ctx.set(dut.access, 0)
        ctx.set(dut.write, 0)

    async def add(self, rows, amount):
        ctx, dut = self._ctx, self._dut
        ctx.set(dut.add, 1)
        ctx.set(dut.addends, sum(1 << n for n in rows))
        ctx.set(dut.amount, amount)
        await self.cycle()
        ctx.set(dut.add, 0)
        ctx.set(dut.amount, self._noise.getrandbits(32))
        for n in rows:
            self.held[n] = self.held[n] + amount & ALL


def bench(scenario, busy):
    dut = CounterBank(rows=ROWS)

    async def testbench(ctx):
        made = Bench(ctx, dut, busy)
        await made.settle()
        await scenario(made, random.Random(repr(busy)))

    simulate(dut, testbench, cycles=100_000)


@pytest.mark.parametrize("busy", [0, 0.3, 0.9])
def test_counters_are_integers(busy):
    """Whatever comes between: reads, writes next to carries, amounts added at once."""

    async def scenario(made, draw):
        for _ in range(600):
            row = draw.choice(ROWS)
            match draw.randrange(6):
                case 0:
                    low = draw.choice((0, 60, 63))
                    await made.write(row, draw.choice((0, 1 << 32, ALL ^ 63)) + low)
                case 1:
                    rows = [n for n in ROWS if draw.random() < 0.5]
                    await made.add(rows, draw.choice((1, 63, 64, 2**32 - 1, draw.getrandbits(32))))
                    for _ in range(draw.randrange(4)):
                        await made.read(draw.choice(ROWS))
                    await made.settle()
                case 2:
                    for _ in range(draw.randrange(120)):
                        await made.cycle()
                case _:
                    await made.read(row)
        for row in ROWS:
            await made.read(row)

    bench(scenario, busy)


@pytest.mark.parametrize("period", [2, 3, 16])
def test_no_carry_is_lost_whatever_the_phase_of_accesses(period):
    """Programs loop: an access may come in each turn of a loop, always the same time apart."""

    async def scenario(made, draw):
        for _ in range(16):
            await made.cycle()
            for _ in range(256 // period):
                await made.read(ROWS[-1])
                for _ in range(period - 1):
                    await made.cycle()
            for row in ROWS:
                await made.read(row)

    bench(scenario, 1)


def test_no_carry_is_lost_while_accesses_take_every_second_cycle():
    async def scenario(made, draw):
        for _ in range(1500):
            await made.read(draw.choice(ROWS))
            await made.cycle()

    bench(scenario, 1)

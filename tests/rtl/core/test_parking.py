"""The parking unit alone: where every cycle is counted, and what a resume does."""

import random

import pytest

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.records import ParkKind
from rtl.arch.traps import Privilege
from rtl.core.parking import ParkingUnit
from tests.streams import simulate

GUEST, TRANSITION, CHARGED, FROZEN = "guest", "transition", "charged", "frozen"


class Bench:
    """Plays the hart and the host around the unit, and checks each cycle it lets pass."""

    def __init__(self, ctx, dut, rng):
        self.ctx, self.dut, self.rng = ctx, dut, rng
        self.machine_cycles = self.retired = self.length = 0

    async def cycle(self, kind, *, stalls=True, **inputs):
        """One cycle that must count as ``kind``, unless the hart stalls; ``inputs`` last as long.

        Returns whether it counted.
        """
        ctx, dut = self.ctx, self.dut
        stall = stalls and self.rng.random() < 0.3
        for name, value in inputs.items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.stall, stall)
        ctx.set(dut.time, self.machine_cycles // 10)
        counts = kind != FROZEN and not stall
        assert ctx.get(dut.advance) == counts, kind
        if kind != FROZEN:
            assert ctx.get(dut.transition) == (kind == TRANSITION)
            assert ctx.get(dut.charging) == (kind == CHARGED)
        self.machine_cycles += counts
        self.retired += inputs.get("retired", 0)
        await ctx.tick()
        for name in inputs:
            ctx.set(getattr(dut, name), 0)
        return counts

    async def halt(self, kind, pc, privilege, drain):
        """The hart halts, drains for some cycles, and is parked."""
        ctx, dut = self.ctx, self.dut
        ctx.set(dut.halt.kind, kind)
        ctx.set(dut.halt.pc, pc)
        ctx.set(dut.halt.privilege, privilege)
        self.length = self.rng.choice((0, 2, 4))
        ctx.set(dut.halt.fetched, self.length != 0)
        ctx.set(dut.halt.compressed, self.length == 2)
        ctx.set(dut.halt.valid, 1)
        trap = kind == ParkKind.ROOT_TRAP
        await self.cycle(TRANSITION, trapped_park=trap, trapped=trap)
        ctx.set(dut.halt.valid, 0)
        for _ in range(drain):
            assert ctx.get(dut.hold) and not ctx.get(dut.parked)
            await self.cycle(TRANSITION)
        await self.cycle(TRANSITION, idle=1)

    async def parked(self, kind, pc, privilege, cycles):
        """The record is that of the halt, and nothing counts."""
        ctx, dut = self.ctx, self.dut
        for _ in range(cycles):
            assert ctx.get(dut.parked) and ctx.get(dut.hold)
            park = dut.park
            assert ctx.get(park.kind) == kind and ctx.get(park.pc) == pc
            assert ctx.get(park.privilege) == privilege
            assert ctx.get(park.length) == self.length
            assert ctx.get(park.cycle) == self.machine_cycles
            assert ctx.get(park.instret) == self.retired
            await self.cycle(FROZEN)

    async def resume(self, kind, privilege, pc, rd, value, charge):
        """The charge passes, if there is one; then one cycle sends the hart off."""
        ctx, dut = self.ctx, self.dut
        payload = dut.resume.payload
        retires = self.rng.randrange(2)
        ctx.set(payload.retires, retires)
        for name, given in (("pc", pc), ("rd", rd), ("value", value), ("charge", charge)):
            ctx.set(payload[name], given)
        ctx.set(dut.resume.valid, 1)
        if charge:
            assert not ctx.get(dut.redirect.valid)
            await self.cycle(FROZEN)
        while charge:
            assert not ctx.get(dut.redirect.valid) and not ctx.get(dut.resume.ready)
            assert not ctx.get(dut.parked)
            charge -= await self.cycle(CHARGED)
        # The payload has stood still until now.
        assert ctx.get(dut.resume.ready)
        assert ctx.get(dut.redirect.valid) and ctx.get(dut.redirect.pc) == pc
        assert ctx.get(dut.gpr_write) == rd and ctx.get(dut.gpr_write_value) == value
        assert ctx.get(dut.ret_valid) == (kind == ParkKind.ROOT_TRAP)
        assert ctx.get(dut.privilege_write)
        assert ctx.get(dut.privilege_next.as_value()) == privilege
        assert ctx.get(dut.clear_reservation)
        assert not ctx.get(dut.retires)
        await self.cycle(TRANSITION)
        assert ctx.get(dut.retires) == retires
        ctx.set(dut.resume.valid, 0)
        assert not ctx.get(dut.redirect.valid) and not ctx.get(dut.hold)
        assert not ctx.get(dut.clear_reservation)

    async def first_instruction(self, wait):
        """The transition ends with the first retirement; what traps and stays does not end it."""
        for _ in range(wait):
            await self.cycle(TRANSITION, trapped=self.rng.randrange(2))
        await self.cycle(TRANSITION, retired=1)

    async def guest(self, cycles):
        for _ in range(cycles):
            await self.cycle(GUEST, retired=self.rng.randrange(2))


@pytest.mark.parametrize("seed", range(8))
def test_every_cycle_counts_where_it_belongs(seed):
    """A transition begins with the trap taken and ends with the first retirement after resume."""
    rng = random.Random(seed)
    dut = ParkingUnit(vmx=False)

    async def bench(ctx):
        hart = Bench(ctx, dut, rng)
        halted = ParkKind.STOP, MEMORY_MAP["rom"].base, Privilege.MACHINE.value
        for _ in range(rng.randrange(5)):
            assert not ctx.get(dut.parked)
            await hart.cycle(FROZEN)
        await hart.cycle(FROZEN, idle=1)
        for _ in range(12):
            kind, _, privilege = halted
            await hart.parked(*halted, rng.randrange(1, 4))
            await hart.resume(
                kind,
                privilege,
                rng.getrandbits(64),
                rng.randrange(32),
                rng.getrandbits(64),
                rng.choice((0, 0, 1, 2, 9)),
            )
            if rng.randrange(4):
                await hart.first_instruction(rng.randrange(4))
                await hart.guest(rng.randrange(6))
            halted = (
                rng.choice((ParkKind.STOP, ParkKind.ROOT_TRAP)),
                rng.getrandbits(64),
                rng.choice((0, 1, 3)),
            )
            await hart.halt(*halted, rng.randrange(3))
        await hart.parked(*halted, 1)

    simulate(dut, bench)


def test_stops_and_steps():
    """A request to stop lasts until the hart halts; a step stops after one instruction or trap."""
    dut = ParkingUnit(vmx=False)

    async def bench(ctx):
        hart = Bench(ctx, dut, random.Random(0))

        async def off():
            await hart.resume(ParkKind.STOP, Privilege.USER.value, 0x1000, 0, 0, 0)

        async def back():
            ctx.set(dut.halt.valid, 1)
            ctx.set(dut.halt.kind, ParkKind.STOP)
            ctx.set(dut.halt.privilege, Privilege.USER)
            await hart.cycle(TRANSITION)
            ctx.set(dut.halt.valid, 0)
            await hart.cycle(TRANSITION, idle=1)

        await hart.cycle(FROZEN, idle=1)
        # A request to the parked hart is none.
        await hart.cycle(FROZEN, stop_request=1)
        ctx.set(dut.stop_request, 0)
        await hart.resume(ParkKind.STOP, Privilege.MACHINE.value, 0x1000, 0, 0, 0)
        assert not ctx.get(dut.stop)
        await hart.first_instruction(2)
        await hart.guest(3)
        assert not ctx.get(dut.stop)
        await hart.cycle(GUEST, stop_request=1)
        for _ in range(4):
            assert ctx.get(dut.stop)
            await hart.cycle(GUEST)
        await back()
        await off()
        assert not ctx.get(dut.stop)

        for event in ("retired", "trapped"):
            await hart.first_instruction(0)
            assert not ctx.get(dut.stop)
            await back()
            ctx.set(dut.step, 1)
            await off()
            for _ in range(3):
                assert not ctx.get(dut.stop)
                await hart.cycle(TRANSITION)
            await hart.cycle(TRANSITION, **{event: 1})
            assert ctx.get(dut.stop)
            await back()
            ctx.set(dut.step, 0)
            await off()

    simulate(dut, bench)

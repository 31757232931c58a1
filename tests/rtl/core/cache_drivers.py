"""Those who use the caches in the benches: a two-phase port, snoop ports, and their operations."""

import random
from dataclasses import dataclass, field

from tests.rtl.core.coherence import Span

__all__ = ["Clock", "HartOp", "PteOp", "SnoopOp", "drive_hart", "drive_snoop", "word"]


def word(*key):
    """A word that no other key gives."""
    return random.Random(repr(key)).getrandbits(64)


class Clock:
    """``cycle`` is the number of the cycle under way; runs before all other testbenches."""

    def __init__(self):
        self.cycle = 0

    async def run(self, ctx):
        while True:
            await ctx.tick()
            self.cycle += 1


@dataclass
class HartOp:
    """An access of the two-phase port, offered ``gap`` cycles after the one before is taken.

    ``drop``: phase 1 comes with valid = 0. ``lock``: the lock is held from the time it is offered
    until the next access is done.
    """

    address: int
    write: int = 0
    mask: int = 0xFF
    data: int = 0
    gap: int = 0
    drop: bool = False
    lock: bool = False


async def drive_hart(ctx, dut, ops, clock, done, seed=0):
    """Run ``ops``; call ``done(op, span, data, error)`` for each that is not dropped.

    Works for the data cache and, with loads only, for the instruction cache. Outside phase 1,
    ``access`` holds noise, but for what a write that waits writes. Asserts that nothing else is answered, and that no access is taken
    while another waits.
    """
    noise = random.Random(seed)
    writes = hasattr(dut.access, "write")
    todo = list(ops)
    offered = phase1 = waiting = None
    held = False
    gap = todo[0].gap if todo else 0
    while todo or offered or phase1 or waiting:
        if offered is None and todo:
            if gap == 0:
                offered = todo.pop(0)
                gap = todo[0].gap if todo else 0
            else:
                gap -= 1
        ctx.set(dut.i_index.valid, offered is not None)
        ctx.set(dut.i_index.payload, offered.address & 0xFFF if offered else noise.getrandbits(12))
        shown = phase1 or HartOp(
            noise.getrandbits(32), noise.getrandbits(1), 0xFF, 0, drop=noise.random() < 0.3
        )
        access = {"valid": not shown.drop, "frame": shown.address >> 12}
        if writes:
            locked = held or any(op.lock for op in (offered, phase1, waiting and waiting[0]) if op)
            kept = waiting[0] if waiting else shown
            access |= {"write": kept.write, "mask": kept.mask, "data": kept.data}
            ctx.set(dut.lock, locked)
        ctx.set(dut.access, access)
        result = dut.o_result
        now = clock.cycle
        _, _, ready, valid, data, error = await ctx.tick().sample(
            dut.i_index.ready, result.valid, result.data, result.error
        )
        if phase1:
            if phase1.drop:
                assert not valid, "an access that was dropped is answered"
                held = phase1.lock
            else:
                waiting = (phase1, now)
            phase1 = None
        if waiting and valid:
            op, start = waiting
            done(op, Span(start, now), data, error)
            waiting = None
            held = op.lock
        elif valid:
            raise AssertionError("an answer to nothing")
        if offered and ready:
            assert waiting is None, "an access is taken while another waits"
            phase1, offered = offered, None
    ctx.set(dut.i_index.valid, 0)
    if writes:
        ctx.set(dut.lock, 0)


@dataclass
class SnoopOp:
    """An access of a snoop port, offered ``gap`` cycles after the answer before."""

    address: int
    write: int = 0
    forward: int = 1
    mask: int = 0xFF
    data: int = 0
    gap: int = 0
    #: Cycles in which the response is not taken.
    patience: int = 0

    def payload(self):
        return {
            "address": self.address,
            "write": self.write,
            "forward": self.forward,
            "mask": self.mask,
            "data": self.data,
        }


@dataclass
class PteOp:
    """A read, or with ``bits`` an update, on the walker's port; ``known`` holds what was read last
    by address, and is what an update expects.
    """

    address: int
    bits: int = 0
    gap: int = 0
    patience: int = 0
    known: dict[int, int] = field(default_factory=dict)

    def payload(self):
        self.expected = self.known.get(self.address, 0)
        return {"address": self.address, "set": self.bits, "expected": self.expected}


async def drive_snoop(ctx, port, ops, clock, done):
    """Run ``ops``; call ``done(op, span, response)`` when each response appears."""
    request, response = port.request, port.response
    for op in ops:
        for _ in range(op.gap):
            await ctx.tick()
        ctx.set(request.payload, op.payload())
        ctx.set(request.valid, 1)
        ready = False
        while not ready:
            start = clock.cycle
            _, _, ready = await ctx.tick().sample(request.ready)
        ctx.set(request.valid, 0)
        left = op.patience
        seen = None
        while True:
            ctx.set(response.ready, left == 0)
            now = clock.cycle
            _, _, valid, payload = await ctx.tick().sample(response.valid, response.payload)
            if valid and seen is None:
                seen = payload
                done(op, Span(start, now), payload)
            assert seen is None or (valid and payload == seen), "the response changed"
            if seen is not None:
                if left == 0:
                    break
                left -= 1
        ctx.set(response.ready, 0)

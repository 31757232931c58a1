"""Drive and observe streams and register buses from pysim testbenches.

Everything here is called from a testbench (``ctx`` is its simulator context). ``put`` and ``get``
leave the stream idle again; cycles are those of the domain ``sync``. Background testbenches use
these helpers instead of ``tick().until()`` and ``tick().repeat()``, whose generators Python cannot
close when the simulation ends before them.
"""

import gc
import warnings
from typing import NamedTuple

from amaranth.hdl import UnusedElaboratable
from amaranth.sim import Simulator

__all__ = ["Answer", "access", "get", "put", "refusal", "simulate", "wait"]


def simulate(dut, *testbenches, background=(), cycles=20_000):
    """Run ``testbenches`` to their end. Raises AssertionError when that takes over ``cycles``.

    In each cycle the background ones run first.
    """

    async def watchdog(ctx):
        await wait(ctx, cycles)
        raise AssertionError(f"the testbenches have not ended after {cycles} cycles")

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for testbench in (watchdog, *background):
        simulator.add_testbench(testbench, background=True)
    for testbench in testbenches:
        simulator.add_testbench(testbench)
    simulator.run()


def refusal(build):
    """The message of the ValueError with which ``build()`` refuses to make a component."""
    with warnings.catch_warnings():
        # Amaranth warns of every component that is not elaborated when it is collected, a half-made
        # one too; it refers to itself, so only the collector frees it.
        warnings.simplefilter("ignore", UnusedElaboratable)
        message = None
        try:
            build()
        except ValueError as error:
            message = str(error)
        gc.collect()
    assert message is not None, "it was built"
    return message


async def wait(ctx, cycles):
    """Let ``cycles`` cycles pass."""
    for _ in range(cycles):
        await ctx.tick()


async def put(ctx, stream, payload):
    """Offer ``payload`` until it is taken."""
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    taken = False
    while not taken:
        _, _, taken = await ctx.tick().sample(stream.ready)
    ctx.set(stream.valid, 0)


async def get(ctx, stream):
    """Take one payload."""
    ctx.set(stream.ready, 1)
    given = False
    while not given:
        _, _, payload, given = await ctx.tick().sample(stream.payload, stream.valid)
    ctx.set(stream.ready, 0)
    return payload


class Answer(NamedTuple):
    """The response of a register-bus access."""

    data: int
    error: int


async def access(ctx, bus, address, *, write=0, mask=0xFF, data=0):
    """Make one access as a register-bus initiator and return its answer."""
    request = {"address": address, "write": write, "mask": mask, "data": data}
    await put(ctx, bus.request, request)
    response = await get(ctx, bus.response)
    return Answer(response.data, response.error)

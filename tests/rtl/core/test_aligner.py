"""The aligner against a model that cuts the bytes of memory, without any packets."""

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtl.core.frontend.aligner import Aligner
from rtl.mmu.context import Fault
from tests.streams import simulate

MASK = (1 << 64) - 1


class Code:
    """Halfwords everywhere, narrow or the start of wide ones; whole packets are faults."""

    def __init__(self, seed, fault_share):
        self._seed = seed
        self._fault_share = fault_share

    def _source(self, *key):
        return random.Random(repr((self._seed, *key)))

    def halfword(self, place):
        source = self._source("halfword", place & MASK)
        value = source.getrandbits(16)
        return value | 3 if source.random() < 0.5 else value & ~1

    def packet(self, place):
        place &= ~7
        data = sum(self.halfword(place + 2 * n) << 16 * n for n in range(4))
        return data, self.fault(place)

    def fault(self, place):
        source = self._source("fault", (place & MASK) >> 3)
        if source.random() >= self._fault_share:
            return Fault.NONE
        return source.choice([Fault.PAGE, Fault.ACCESS])

    def instruction(self, pc):
        """(bits, length, fault, second half) at ``pc``; bits are None when they mean nothing."""
        if self.fault(pc) != Fault.NONE:
            return None, None, self.fault(pc), 0
        low = self.halfword(pc)
        if low & 3 != 3:
            return low, 2, Fault.NONE, 0
        second = self.fault(pc + 2)
        if second != Fault.NONE:
            return None, None, second, 1
        return low | self.halfword(pc + 2) << 16, 4, Fault.NONE, 0


def run(code, paths, seed):
    """Send packets along each path; what comes out before the redirect that ends the path.

    A path is (pc, instructions to be taken). Both sides pause at random; the packets run ahead of
    what is taken, as far as there is room.
    """
    dut = Aligner()
    noise = random.Random(seed)
    taken = []

    async def testbench(ctx):
        for pc, count in [*paths, (0, 0)]:
            ctx.set(dut.redirect, {"valid": 1, "pc": pc})
            ctx.set(dut.i.valid, 0)
            # What is offered in the cycle of a redirect belongs to the old path.
            ctx.set(dut.o.ready, noise.getrandbits(1))
            await ctx.tick()
            ctx.set(dut.redirect.valid, 0)
            fetch, stopped, out = pc, False, []
            idle = 0
            while len(out) < count:
                # A sender that minds the room it saw one cycle ago sends up to two.
                room = ctx.get(dut.room)
                send = room and not stopped and noise.random() < 0.7
                ctx.set(dut.i.valid, send)
                data, fault = code.packet(fetch)
                ctx.set(
                    dut.i.payload,
                    {
                        "data": data if fault == Fault.NONE else noise.getrandbits(64),
                        "fault": fault,
                    },
                )
                ready = noise.random() < 0.7
                ctx.set(dut.o.ready, ready)
                _, _, valid, payload, i_ready = await ctx.tick().sample(
                    dut.o.valid, dut.o.payload, dut.i.ready
                )
                assert i_ready
                if send:
                    fetch = (fetch & ~7) + 8 & MASK
                    # The fetch unit waits for a redirect after a fault.
                    stopped = fault != Fault.NONE
                if valid and ready:
                    out.append(
                        (payload.pc, payload.bits, payload.compressed, payload.fault,
                         payload.fault_second)
                    )  # fmt: skip
                    if payload.fault != Fault.NONE:
                        break
                idle = 0 if valid else idle + 1
                assert idle < 100, "no instruction comes"
            if count:
                taken.append(out)

    simulate(dut, testbench, cycles=100_000)
    return taken


pcs = st.integers(0, 63).map(lambda n: 0x8000_0FC0 + 2 * n) | st.sampled_from(
    [0, MASK - 1, MASK - 3, MASK - 7, (1 << 32) - 2]
)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    paths=st.lists(st.tuples(pcs, st.integers(1, 30)), min_size=3, max_size=12),
    fault_share=st.sampled_from([0, 0.05, 0.3]),
)
@example(seed=1, paths=[(0x8000_0000 + 2 * n, 25) for n in range(4)] * 4, fault_share=0)
def test_instructions_are_those_in_memory(seed, paths, fault_share):
    code = Code(seed, fault_share)
    for (pc, count), out in zip(paths, run(code, paths, seed), strict=True):
        for at, bits, compressed, fault, second in out:
            wanted_bits, length, wanted_fault, wanted_second = code.instruction(pc)
            assert at == pc
            assert (fault, second) == (wanted_fault, wanted_second)
            if fault == Fault.NONE:
                assert (bits, compressed) == (wanted_bits, length == 2)
                pc = pc + length & MASK
        assert len(out) == count or out[-1][3] != Fault.NONE


def test_room_is_for_two_packets():
    """Two packets that follow the cycle in which room was seen are kept."""
    dut = Aligner()
    levels = []

    async def testbench(ctx):
        ctx.set(dut.redirect, {"valid": 1, "pc": 0})
        await ctx.tick()
        ctx.set(dut.redirect.valid, 0)
        sent = 0
        while ctx.get(dut.room):
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, {"data": 0})
            await ctx.tick()
            sent += 1
        await ctx.tick()  # one more, decided before the room was gone
        sent += 1
        ctx.set(dut.i.valid, 0)
        levels.append(sent)
        ctx.set(dut.o.ready, 1)
        for _ in range(4 * sent):
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            assert valid
            levels.append(payload.pc)
        assert not ctx.get(dut.o.valid)

    simulate(dut, testbench)
    sent, *pcs_ = levels
    assert sent == 4
    assert pcs_ == [2 * n for n in range(16)]

"""The aligner against a model that walks over the packets it was sent, one by one."""

import random
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtl.core.frontend.aligner import Aligner
from rtl.core.frontend.predictor import TARGET_BITS
from rtl.mmu.context import Fault
from tests.streams import simulate

MASK = (1 << 64) - 1


class Guess(NamedTuple):
    """What was predicted for a packet: after the halfword ``last`` comes ``target``."""

    known: int
    taken: int
    last: int
    target: int


class Packet(NamedTuple):
    """Four halfwords as they were sent."""

    place: int
    halfwords: tuple[int, ...]
    fault: Fault
    guess: Guess


class Given(NamedTuple):
    """An instruction handed out; of one that faults, only where and how."""

    pc: int
    link: int | None
    bits: int | None
    compressed: bool | None
    fault: Fault
    second: int
    known: int
    taken: int


class Misfit(NamedTuple):
    """A prediction cuts the instruction at ``pc`` in two."""

    pc: int


def walk(pc, packets):
    """What comes out for ``packets``, the first of which holds ``pc``."""
    index = 0
    while index < len(packets):
        packet = packets[index]
        assert packet.place == pc & ~7, "the sender leaves the path"
        half = pc >> 1 & 3
        if packet.fault != Fault.NONE:
            yield Given(pc, None, None, None, packet.fault, 0, 0, 0)
            return
        bits = packet.halfwords[half]
        narrow = bits & 3 != 3
        if not narrow and packet.guess.taken and packet.guess.last == half:
            yield Misfit(pc)
            return
        end = packet
        if not narrow:
            index += half == 3
            if index == len(packets):
                return
            end, half = packets[index], (half + 1) % 4
            if end.fault != Fault.NONE:
                yield Given(pc, pc + 2 & MASK, None, None, end.fault, 1, 0, 0)
                return
            bits |= end.halfwords[half] << 16
        about = end.guess.last == half
        known, taken = end.guess.known & about, end.guess.taken & about
        link = pc + (2 if narrow else 4) & MASK
        yield Given(pc, link, bits, narrow, Fault.NONE, 0, known, taken)
        if taken:
            pc = end.guess.target
            index += 1
        else:
            pc = link
            index += half == 3


class Memory:
    """Packets of code, faults and predictions, the same each time they are sent."""

    def __init__(self, seed, faults, guesses):
        self._seed, self._faults, self._guesses = seed, faults, guesses

    def packet(self, fetched):
        """The packet of an address fetched, which lies anywhere in it."""
        place = fetched & ~7
        source = random.Random(repr((self._seed, place)))
        halfwords = tuple(
            source.getrandbits(16) | 3 if source.random() < 0.5 else source.getrandbits(16) & ~1
            for _ in range(4)
        )
        fault = Fault.NONE
        if source.random() < self._faults:
            fault = source.choice([fault for fault in Fault if fault != Fault.NONE])
        last = source.randrange(4)
        # The predictor says nothing of halfwords in front of the address.
        known = source.random() < self._guesses and last >= fetched >> 1 & 3 and not fault.value
        taken = known and source.random() < 0.7
        target = place + 2 * source.randrange(-20, 20) & MASK
        # Targets are kept in fewer bits, as all addresses are that a hart can run.
        sign = target >> TARGET_BITS - 1 & 1
        target = target % 2**TARGET_BITS | (MASK << TARGET_BITS & MASK) * sign
        return Packet(place, halfwords, fault, Guess(int(known), int(taken), last, target))


def run(memory, paths, seed):
    """Send packets along each path; pairs of packets sent and what came out.

    A path is (pc, instructions to be taken), and ends with a redirect to the next one. Both sides
    pause at random; the sender runs ahead as far as there is room.
    """
    dut = Aligner()
    noise = random.Random(seed)
    results = []

    async def testbench(ctx):
        for pc, count in [*paths, (0, 0)]:
            ctx.set(dut.redirect, {"valid": 1, "pc": pc})
            # What comes in the cycle of a redirect belongs to the old path.
            ctx.set(dut.i.valid, 0)
            ctx.set(dut.o.ready, noise.getrandbits(1))
            await ctx.tick()
            ctx.set(dut.redirect.valid, 0)
            fetch, stopped, sent, out = pc, False, [], []
            idle = 0
            while len(out) < count:
                send = ctx.get(dut.room) and not stopped and noise.random() < 0.7
                ready = noise.random() < 0.7
                packet = memory.packet(fetch)
                ctx.set(dut.i.valid, send)
                data = sum(value << 16 * n for n, value in enumerate(packet.halfwords))
                payload = {"data": data, "fault": packet.fault}
                payload["prediction"] = packet.guess._asdict() | {"history": len(sent) % 1024}
                payload["prediction"]["target"] %= 2**TARGET_BITS
                ctx.set(dut.i.payload, payload)
                ctx.set(dut.o.ready, ready)
                _, _, valid, given, misfit, i_ready = await ctx.tick().sample(
                    dut.o.valid, dut.o.payload, dut.misfit, dut.i.ready
                )
                assert i_ready
                if send:
                    sent.append(packet)
                    fetch = packet.guess.target if packet.guess.taken else (fetch & ~7) + 8 & MASK
                    # The fetch unit waits for a redirect after a fault.
                    stopped = packet.fault != Fault.NONE
                idle = 0 if valid or misfit.valid else idle + 1
                assert idle < 100, "nothing comes"
                if misfit.valid:
                    assert not valid
                    out.append(Misfit(misfit.pc))
                    break
                if valid and ready:
                    guess = given.prediction
                    link, bits = given.link, (given.bits, bool(given.compressed))
                    if given.fault != Fault.NONE:
                        link = link if given.fault_second else None
                        bits = (None, None)
                    out.append(
                        Given(
                            given.pc,
                            link,
                            *bits,
                            given.fault,
                            given.fault_second,
                            guess.known,
                            guess.taken,
                        )
                    )
                    if given.fault != Fault.NONE:
                        break
            if count:
                results.append((sent, out))

    simulate(dut, testbench, cycles=100_000)
    return results


pcs = st.integers(0, 63).map(lambda n: 0x8000_0FC0 + 2 * n) | st.sampled_from(
    [0, MASK - 1, MASK - 3, MASK - 7, (1 << 32) - 2]
)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    paths=st.lists(st.tuples(pcs, st.integers(1, 30)), min_size=3, max_size=12),
    faults=st.sampled_from([0, 0.05, 0.3]),
    guesses=st.sampled_from([0, 0.3, 0.9]),
)
@example(seed=1, paths=[(0x8000_0000 + 2 * n, 25) for n in range(4)] * 4, faults=0, guesses=0)
@example(seed=2, paths=[(0x8000_0000 + 2 * n, 25) for n in range(60)], faults=0, guesses=0.5)
def test_instructions_are_those_of_the_packets(seed, paths, faults, guesses):
    memory = Memory(seed, faults, guesses)
    for (pc, count), (sent, out) in zip(paths, run(memory, paths, seed), strict=True):
        wanted = list(walk(pc, sent))
        assert out == wanted[: len(out)]
        ended = isinstance(out[-1], Misfit) or out[-1].fault != Fault.NONE
        assert ended or len(out) == count


def test_every_end_of_a_path_occurs():
    """What the property above would not see if it never drew it."""
    memory = Memory(3, 0.1, 0.5)
    paths = [(0x8000_0000 + 0x102 * n, 30) for n in range(150)]
    out = [item for _, items in run(memory, paths, 3) for item in items]
    given_ = [item for item in out if isinstance(item, Given)]
    assert len(out) - len(given_) > 5, "misfits"
    assert sum(item.taken for item in given_) > 20
    assert sum(item.known and not item.taken for item in given_) > 5
    assert sum(item.second for item in given_) > 3
    assert {item.fault for item in given_} == set(Fault)
    wide_at_the_end = [i for i in given_ if i.compressed is False and i.pc & 7 == 6]
    assert sum(item.taken for item in wide_at_the_end) > 0, "a taken one over two packets"


def test_room_is_for_two_packets():
    """Two packets that follow the cycle in which room was seen are kept."""
    dut = Aligner()
    told = []

    async def testbench(ctx):
        ctx.set(dut.redirect, {"valid": 1, "pc": 0})
        await ctx.tick()
        ctx.set(dut.redirect.valid, 0)
        sent = 0
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload, {"data": 0})
        while ctx.get(dut.room):
            await ctx.tick()
            sent += 1
        await ctx.tick()  # one more, decided before the room was gone
        ctx.set(dut.i.valid, 0)
        told.append(sent + 1)
        ctx.set(dut.o.ready, 1)
        while True:
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if not valid:
                break
            told.append(payload.pc)

    simulate(dut, testbench)
    sent, *places = told
    assert sent == 4
    assert places == [2 * n for n in range(4 * sent)]

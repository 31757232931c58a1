"""A RAM on AXI4 for pysim benches: any latency, any pauses, and nothing fitted in places."""

import random

from amaranth import Cat

from rtl.bus.axi4 import DATA_BYTES, Burst, Response

__all__ = ["AxiRam"]

_ADDRESS_FIELDS = ("id", "address", "len", "size", "burst")


class AxiRam:
    """Answer the accesses of ``bus`` from ``memory``, a dict from word address to 64-bit word.

    A write takes effect only when its response is given, a read when its beat is first shown:
    as late as AXI allows. Addresses for which ``fitted(address)`` is false answer DECERR.
    Reads and writes go side by side, each in order. The rules of streams are asserted of what the
    initiator sends.

    Parameters
    ----------
    bus : Axi4 or Axi4Read
        The initiator's side.
    latency : range
        Cycles to the first beat, and to the write response, are drawn from it.
    pause : float
        Share of cycles in which a channel is not ready or not valid although it could be.
    """

    def __init__(self, bus, *, memory=None, fitted=None, latency=range(1, 2), pause=0.0, seed=0):
        self.bus = bus
        self.memory = {} if memory is None else memory
        self.fitted = fitted or (lambda address: True)
        #: Every request taken: ("read" or "write", address, beats, id).
        self.requests = []
        self._latency = latency
        self._pause = pause
        self._random = random.Random(seed)

    def read(self, address):
        return self.memory.get(address, 0)

    def write(self, address, data, mask):
        old = self.read(address)
        keep = sum(0xFF << 8 * byte for byte in range(DATA_BYTES) if not mask >> byte & 1)
        self.memory[address] = old & keep | data & ~keep & (1 << 64) - 1

    def testbenches(self):
        """What to run in the background."""
        writes = [self.serve_writes] if hasattr(self.bus, "aw") else []
        return [self.serve_reads, *writes]

    async def serve_reads(self, ctx):
        ar, r = self.bus.ar, self.bus.r
        waiting = _Requests(ar, "read", self)
        beats = []
        delay = 0
        shown = False
        while True:
            sampled = await ctx.tick().sample(*waiting.signals, r.ready)
            *request, r_ready = sampled[2:]
            waiting.step(*request)
            if shown and r_ready:
                beats.pop(0)
                shown = False
            if not beats and waiting.queue:
                identifier, address, beat_count = waiting.queue.pop(0)
                beats = [
                    (identifier, address + DATA_BYTES * beat, beat == beat_count - 1)
                    for beat in range(beat_count)
                ]
                delay = self._random.choice(self._latency)
            elif beats and not shown:
                delay -= 1
            if beats and not shown and delay <= 0 and self._random.random() >= self._pause:
                identifier, address, last = beats[0]
                shown = True
                ok = self.fitted(address)
                ctx.set(r.p.id, identifier)
                ctx.set(r.p.data, self.read(address) if ok else self._random.getrandbits(64))
                ctx.set(r.p.resp, Response.OKAY if ok else Response.DECERR)
                ctx.set(r.p.last, last)
            ctx.set(r.valid, shown)
            waiting.offer(ctx, len(waiting.queue) < 2)

    async def serve_writes(self, ctx):
        aw, w, b = self.bus.aw, self.bus.w, self.bus.b
        waiting = _Requests(aw, "write", self)
        beats = []
        w_ready = False
        shown = False
        delay = 0
        held = None
        while True:
            sampled = await ctx.tick().sample(
                *waiting.signals, w.valid, w.p.data, w.p.strb, w.p.last, b.ready
            )
            *request, w_valid, data, strobe, last, b_ready = sampled[2:]
            waiting.step(*request)
            assert held is None or (w_valid and (data, strobe, last) == held), "W changed"
            held = (data, strobe, last) if w_valid and not w_ready else None
            if w_valid and w_ready:
                beats.append((data, strobe, last))
                delay = self._random.choice(self._latency)
            if shown and b_ready:
                shown = False
            elif shown:
                pass
            elif waiting.queue and any(last for _, _, last in beats):
                delay -= 1
                if delay <= 0:
                    identifier, address, beat_count = waiting.queue.pop(0)
                    burst, beats = beats[:beat_count], beats[beat_count:]
                    assert [last for _, _, last in burst] == [0] * (beat_count - 1) + [1]
                    ok = True
                    for beat, (data, strobe, _) in enumerate(burst):
                        if self.fitted(address + DATA_BYTES * beat):
                            self.write(address + DATA_BYTES * beat, data, strobe)
                        else:
                            ok = False
                    shown = True
                    ctx.set(b.p.id, identifier)
                    ctx.set(b.p.resp, Response.OKAY if ok else Response.DECERR)
            ctx.set(b.valid, shown)
            w_ready = self._random.random() >= self._pause
            ctx.set(w.ready, w_ready)
            waiting.offer(ctx, len(waiting.queue) < 2)


class _Requests:
    """An address channel, and the requests taken from it: (id, address, beats)."""

    def __init__(self, channel, kind, ram):
        self.queue = []
        self._channel = channel
        self._kind = kind
        self._ram = ram
        self._ready = False
        self._held = None
        payload = [channel.payload[name] for name in _ADDRESS_FIELDS]
        self.signals = (channel.valid, Cat(*payload), *payload)

    def step(self, valid, whole, identifier, address, length, size, burst):
        assert self._held is None or (valid and whole == self._held), f"{self._kind} changed"
        self._held = whole if valid and not self._ready else None
        if valid and self._ready:
            assert (1 << size, burst) == (DATA_BYTES, Burst.INCR)
            assert address % DATA_BYTES == 0
            assert address // 4096 == (address + DATA_BYTES * length) // 4096, "crosses a page"
            self.queue.append((identifier, address, length + 1))
            self._ram.requests.append((self._kind, address, length + 1, identifier))

    def offer(self, ctx, room):
        self._ready = room and self._ram._random.random() >= self._ram._pause
        ctx.set(self._channel.ready, self._ready)

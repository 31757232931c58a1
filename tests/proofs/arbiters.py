"""Arbiters serve whoever asks, one at a time, in turn, and answer whoever has asked."""

from amaranth import *
from amaranth.hdl import ValueLike

from rtl.bus.register_bus import RegisterBus
from tests.proofs.properties import Fault, Proof, Properties

__all__ = ["PROOFS"]

#: Initiators: enough for one in the middle.
_COUNT = 3


def _one_at_most(flags: list[Value]) -> Value:
    return sum(flags) <= 1


def _stays_until_taken(p: Properties, stream) -> Value:
    """A stream that was offered and not taken is offered again, the same."""
    offered = p.before(stream.valid & ~stream.ready)
    payload = stream.payload.as_value()
    return ~offered | (stream.valid & (payload == p.before(payload)))


def _fair(p, *, asks: list[Value], served: list[Value], last: Value, held_by: list[Value]) -> None:
    """Whoever asks is served after at most one access of every other.

    ``served`` has a 1 when the access of one is over. The arbiter's state helps: ``last`` was
    chosen last, and ``held_by`` is who keeps the bus beyond this cycle.
    """
    m, count = p.m, len(asks)
    for me in range(count):
        others = Signal(range(2 * count), name=f"served_before_{me}")
        with m.If(~asks[me] | served[me]):
            m.d.sync += others.eq(0)
        with m.Elif(Cat(served).any()):
            m.d.sync += others.eq(others + 1)
        p.always(others < count, f"{me} waits for each of the others once at most")
        for place in range(count):
            distance = (me - place - 1) % count + 1
            ahead = Cat(holder for other, holder in enumerate(held_by) if other != me).any()
            p.invariant(
                (last != place) | ~asks[me] | held_by[me] | (others + distance + ahead <= count),
                f"the turn comes nearer to {me}",
            )


def _request_arbiter(p, unit_class):
    m = p.m
    arbiter = unit_class(signature=RegisterBus(), count=_COUNT)
    inside = p.unit("arbiter", arbiter)
    request, response = arbiter.bus.request, arbiter.bus.response
    asks = [port.request.valid for port in arbiter.initiators]
    grants = [port.request.valid & port.request.ready for port in arbiter.initiators]
    for port in arbiter.initiators:
        p.assume(_stays_until_taken(p, port.request))

    in_flight, owner = Signal(), Signal(range(_COUNT))
    with m.If(response.valid & response.ready):
        m.d.sync += in_flight.eq(0)
    for number, granted in enumerate(grants):
        with m.If(granted):
            m.d.sync += [in_flight.eq(1), owner.eq(number)]

    p.always(_one_at_most(grants), "one is served at a time")
    p.always(Cat(grants).any() == (request.valid & request.ready), "none is served in secret")
    p.always(request.valid == (Cat(asks).any() & ~in_flight), "the bus asks when somebody does")
    p.always(_stays_until_taken(p, request), "what was shown to the target stays")
    for number, port in enumerate(arbiter.initiators):
        p.always(
            ~grants[number] | (request.payload.as_value() == port.request.payload.as_value()),
            "who is served has sent the request",
        )
        mine = in_flight & (owner == number)
        p.always(
            port.response.valid == (mine & response.valid), "responses go to who sent the request"
        )
        p.always(
            ~port.response.valid
            | (port.response.payload.as_value() == response.payload.as_value()),
            "responses are handed on unchanged",
        )
        p.always(~mine | (response.ready == port.response.ready), "they are taken when it is ready")

    shown, last = inside["shown"], inside["owner"]
    p.invariant(inside["waiting"] == in_flight, "waiting for the response")
    p.invariant(~in_flight | (last == owner), "of the one served last")
    p.invariant(~(shown & in_flight), "nothing is shown meanwhile")
    p.invariant((last < _COUNT) & (owner < _COUNT), "numbers of initiators")
    held_by = [shown & (last == number) for number in range(_COUNT)]
    for number in range(_COUNT):
        p.invariant(~held_by[number] | asks[number], "what is shown is still asked for")
    p.invariant(~p.before(request.valid & ~request.ready) | shown, "a request not taken is shown")
    _fair(p, asks=asks, served=grants, last=last, held_by=held_by)


def _last_chosen(m: Module, name: str, behind: Value) -> Signal:
    """Who was chosen last, from those behind it; ``len(behind)`` where that is nobody's mask."""
    last = Signal(range(len(behind) + 1), init=len(behind), name=name)
    for place in range(len(behind)):
        with m.If(behind == (-2 << place) & ((1 << len(behind)) - 1)):
            m.d.comb += last.eq(place)
    return last


def _handed_on(p, port, bus, granted: ValueLike, number: int, says: str) -> None:
    """What the bus gets from a port: everything but the identifier, which is the number."""
    for field in ("address", "len", "size", "burst"):
        ours, theirs = (Value.cast(each.payload[field]) for each in (port, bus))
        p.always(~granted | (ours == theirs), says)
    p.always(~granted | (bus.payload.id == number), "the identifier is the initiator's number")


def _routed(p, ports, stream: str, first: int, bus) -> None:
    """Responses go to the initiator that the identifier names."""
    for number, port in enumerate(ports, first):
        answer, source = getattr(port, stream), getattr(bus, stream)
        mine = source.payload.id == number
        p.always(answer.valid == (source.valid & mine), "responses go where the identifier says")
        p.always(
            ~mine | (answer.payload.as_value() == source.payload.as_value()),
            "responses are handed on unchanged",
        )
        p.always(~mine | (source.ready == answer.ready), "they are taken when it is ready")


def _axi4_reads(p, unit_class):
    arbiter = unit_class(readers=1, writers=2, id_width=2)
    inside = p.unit("arbiter", arbiter)
    ports, bus = [*arbiter.readers, *arbiter.writers], arbiter.bus
    asks = [port.ar.valid for port in ports]
    grants = [port.ar.valid & port.ar.ready for port in ports]
    for port in ports:
        p.assume(_stays_until_taken(p, port.ar))
    p.always(_one_at_most(grants), "one is served at a time")
    p.always(Cat(grants).any() == (bus.ar.valid & bus.ar.ready), "none is served in secret")
    p.always(bus.ar.valid == Cat(asks).any(), "the bus asks when somebody does")
    p.always(_stays_until_taken(p, bus.ar), "what was shown to the target stays")
    for number, port in enumerate(ports):
        _handed_on(p, port.ar, bus.ar, grants[number], number, "who is served has sent the request")
    _routed(p, ports, "r", 0, bus)

    held = inside["reads.held_choice"]
    last = _last_chosen(p.m, "last_reader", inside["reads.behind"])
    p.invariant(last < len(ports), "somebody was chosen last")
    p.invariant(_one_at_most(list(held)), "one at most is held")
    p.invariant(~(held & ~Cat(asks)).any(), "who is held still asks")
    p.invariant(held.any() == p.before(bus.ar.valid & ~bus.ar.ready), "held until it is taken")
    p.invariant(~held.any() | (held == 1 << last), "who is held was chosen last")
    _fair(p, asks=asks, served=grants, last=last, held_by=list(held))


def _axi4_writes(p, unit_class):
    m = p.m
    arbiter = unit_class(readers=1, writers=_COUNT, id_width=2)
    inside = p.unit("arbiter", arbiter)
    ports, bus = arbiter.writers, arbiter.bus
    asks = [port.aw.valid | port.w.valid for port in ports]
    addresses = [port.aw.valid & port.aw.ready for port in ports]
    beats = [port.w.valid & port.w.ready for port in ports]
    for port in ports:
        p.assume(_stays_until_taken(p, port.aw))
        p.assume(_stays_until_taken(p, port.w))

    # What each has handed over of a write that is not complete.
    has_address = [Signal(name=f"has_address_{number}") for number in range(_COUNT)]
    has_data = [Signal(name=f"has_data_{number}") for number in range(_COUNT)]
    begun = [Signal(name=f"begun_{number}") for number in range(_COUNT)]
    complete = [Signal(name=f"complete_{number}") for number in range(_COUNT)]
    for number, port in enumerate(ports):
        address = has_address[number] | addresses[number]
        data = has_data[number] | (beats[number] & port.w.payload.last)
        m.d.comb += complete[number].eq(address & data)
        m.d.sync += [
            has_address[number].eq(address & ~complete[number]),
            has_data[number].eq(data & ~complete[number]),
            begun[number].eq(
                (begun[number] | addresses[number] | beats[number]) & ~complete[number]
            ),
        ]
    p.always(
        _one_at_most([a | b | c for a, b, c in zip(addresses, beats, begun, strict=True)]),
        "a write is not mixed with another",
    )
    p.always(Cat(addresses).any() == (bus.aw.valid & bus.aw.ready), "no address comes from nowhere")
    p.always(Cat(beats).any() == (bus.w.valid & bus.w.ready), "no data comes from nowhere")
    p.always(
        Cat(asks).any() <= (bus.aw.valid | bus.w.valid | Cat(begun).any()),
        "the bus asks when somebody does",
    )
    p.always(_stays_until_taken(p, bus.aw), "an address shown to the target stays")
    p.always(_stays_until_taken(p, bus.w), "data shown to the target stays")
    for number, port in enumerate(ports):
        _handed_on(
            p, port.aw, bus.aw, addresses[number], 1 + number, "who is served has sent the address"
        )
        p.always(
            ~beats[number] | (bus.w.payload.as_value() == port.w.payload.as_value()),
            "who is served has sent the data",
        )
        p.always(~(has_address[number] & addresses[number]), "a write has one address")
        p.always(~(has_data[number] & beats[number]), "a write ends with its last beat")
    _routed(p, ports, "b", 1, bus)

    held = inside["writes.held_choice"]
    last = _last_chosen(m, "last_writer", inside["writes.behind"])
    p.invariant(last < _COUNT, "somebody was chosen last")
    p.invariant(_one_at_most(list(held)), "one at most is held")
    p.invariant(~held.any() | (held == 1 << last), "who is held was chosen last")
    p.invariant(
        held.any() == (p.before(Cat(asks).any() & ~Cat(complete).any()) | Cat(begun).any()),
        "held until the write is complete",
    )
    taken = [inside["address_taken"], inside["data_taken"]]
    for flag, model in zip(taken, (has_address, has_data), strict=True):
        p.invariant(flag == Cat(model).any(), "what the write under way has handed over")
    for number in range(_COUNT):
        p.invariant(~begun[number] | held[number], "who has begun is held")
        p.invariant(
            begun[number] | ~(has_address[number] | has_data[number]), "who has sent has begun"
        )
        p.invariant(
            ~held[number] | begun[number] | asks[number], "who is held asks until it has begun"
        )
        p.invariant(~(has_address[number] & has_data[number]), "what is complete is over")
    _fair(p, asks=asks, served=complete, last=last, held_by=list(held))


_ARBITER = "rtl.bus.axi4_arbiter:Axi4Arbiter"
_TURN = (
    Fault(
        "the first always wins",
        "candidates = Mux(first.any(), first, self.requests)",
        "candidates = self.requests",
    ),
    Fault("two are chosen", "candidates & -candidates", "candidates"),
)
PROOFS = (
    Proof(
        "request arbiter",
        "rtl.bus.request_arbiter:RequestArbiter",
        _request_arbiter,
        (
            Fault(
                "a shown request is chosen again", "with m.If(~shown), m.Switch", "with m.Switch"
            ),
            Fault(
                "the last one goes first",
                "distance in range(self._count, 0, -1)",
                "distance in range(self._count - 1, -1, -1)",
            ),
            Fault(
                "a second access in flight",
                "m.If(~waiting & (chosen == number))",
                "m.If(chosen == number)",
            ),
            Fault(
                "the response goes to who asks now",
                "m.If(waiting & (owner == number))",
                "m.If(waiting & (chosen == number))",
            ),
        ),
    ),
    Proof(
        "AXI4 arbiter, reads",
        _ARBITER,
        _axi4_reads,
        (
            *_TURN,
            Fault(
                "the initiator's own identifier",
                "m.d.comb += bus.ar.p.id.eq(number)",
                "pass",
            ),
            Fault(
                "every initiator is answered",
                "port.r.valid.eq(bus.r.valid & mine)",
                "port.r.valid.eq(bus.r.valid)",
            ),
        ),
    ),
    Proof(
        "AXI4 arbiter, writes",
        _ARBITER,
        _axi4_writes,
        (
            *_TURN,
            Fault(
                "the address frees the bus",
                "writes.release.eq(address_ends & data_ends)",
                "writes.release.eq(address_ends)",
            ),
            Fault(
                "the address is sent again",
                "bus.aw.valid.eq(port.aw.valid & ~address_taken)",
                "bus.aw.valid.eq(port.aw.valid)",
            ),
            Fault(
                "any beat is the last",
                "bus.w.valid & bus.w.ready & bus.w.p.last",
                "bus.w.valid & bus.w.ready",
            ),
        ),
    ),
)

"""Every register block decodes as its SystemRDL says.

The addresses come from the SystemRDL compiler's own unrolled tree, not from our model of it.
"""

from dataclasses import dataclass

from amaranth import *
from systemrdl.node import MemNode, RegNode

from rtl.bus.register_bus import RegisterRequest
from rtl.lib.rdl.source import compiled
from rtl.maps import MAPS, map_path
from tests.proofs.properties import Fault, Proof, Properties

__all__ = ["PROOFS"]

_IDLE, _FORWARDING, _ANSWERING = range(3)


@dataclass(eq=False)
class _Place:
    """Bytes that answer: a register, or elements side by side that the block's owner holds."""

    address: int
    size: int
    count: int
    idle_only: bool
    node: object
    ports: object

    @property
    def readable(self) -> bool:
        match self.node:
            case RegNode():
                return self.node.has_sw_readable
            case MemNode():
                return self.node.is_sw_readable
        return True

    @property
    def writable(self) -> bool:
        match self.node:
            case RegNode():
                return self.node.has_sw_writable
            case MemNode():
                return self.node.is_sw_writable
        return True

    def held(self, word: Value) -> Value:
        """The bytes of a register in that word."""
        mask = ((1 << self.size) - 1) << self.address % 8
        return Mux(word == self.address // 8, C(mask, 8), 0)

    def elements(self, word: Value):
        """Where an element can begin in a word: its byte, whether one does, and its index."""
        for byte in range(self.address % 8 if self.count == 1 else 0, 8, self.size):
            distance = Cat(C(byte, 3), word) - self.address
            yield byte, (distance >= 0) & (distance < self.count * self.size), distance // self.size
            if self.count == 1:
                return


def _places(parent, ports, idle_only: bool) -> tuple[list[_Place], list[_Place]]:
    """The registers in the block and what its owner holds."""
    registers, owned = [], {}
    for node in parent.children(unroll=True):
        given = node.get_property("idle_only") if "idle_only" in node.list_properties() else None
        idle = idle_only if given is None else given
        inner = getattr(ports, node.inst_name, None)
        if node.external:
            size = node.get_property("memwidth") // 8 if isinstance(node, MemNode) else None
            size = node.size if isinstance(node, RegNode) else size or 8
            known = owned.get(node.inst_name)
            if known is None:
                owned[node.inst_name] = _Place(
                    node.absolute_address, size, node.size // size, idle, node, inner
                )
            else:
                assert node.absolute_address == known.address + known.count * size
                known.count += node.size // size
            continue
        for index in node.current_idx or ():
            inner = inner and inner[index]
        if isinstance(node, RegNode):
            registers.append(_Place(node.absolute_address, node.size, 1, idle, node, inner))
        else:
            more, more_owned = _places(node, inner, idle)
            registers += more
            owned |= {(node.get_path(), place.node.inst_name): place for place in more_owned}
    return registers, list(owned.values())


def _field(m: Module, field, ports, *, written: Value, data: Value) -> tuple[Value, Value | None]:
    """What software would read from a field now, and the register that models it, if it has one."""
    port = getattr(ports, field.inst_name, None)

    def given(name):
        return Value.cast(getattr(port, name))

    if not field.implements_storage:
        value = given("next") if field.is_hw_writable else C(field.get_property("reset") or 0)
        return value, None
    held = Signal(field.width, init=field.get_property("reset") or 0, name=field.inst_name)
    if field.get_property("singlepulse"):
        m.d.sync += held.eq(0)
    if field.is_hw_writable:
        with m.If(given("we") if field.get_property("we") else C(1)):
            m.d.sync += held.eq(given("next"))
    if field.get_property("hwclr"):
        with m.If(given("hwclr")):
            m.d.sync += held.eq(0)
    # What software writes wins.
    effect = field.get_property("onwrite")
    assert effect is None or effect.name == "wclr"
    for bit in range(field.width):
        with m.If(written[bit]):
            m.d.sync += held[bit].eq(0 if effect else data[bit])
    return held, held


def _block(name: str):
    def properties(p: Properties, unit_class):
        m = p.m
        block = unit_class(map_path(name))
        inside = p.unit("block", block)
        with compiled(map_path(name)) as top:
            whole = "idle_only" in top.list_properties() and top.get_property("idle_only")
            registers, owned = _places(top, block, bool(whole))
        busy = block.busy if hasattr(block, "busy") else C(0)
        request, response = block.bus.request, block.bus.response
        access = request.payload
        word = access.address[3:]
        p.assume((access.address[:3] == 0) & access.mask.any())

        # Who is meant.
        held = Signal(8)
        guarded = Signal(8)
        m.d.comb += [
            held.eq(_any(place.held(word) for place in registers)),
            guarded.eq(_any(place.held(word) for place in registers if place.idle_only)),
        ]
        internal = Signal()
        m.d.comb += internal.eq((access.mask & ~held) == 0)
        meant, index, first = [], [], []
        for number, place in enumerate(owned):
            here, which = Signal(name=f"meant_{number}"), Signal(32, name=f"index_{number}")
            byte_of = Signal(3, name=f"byte_{number}")
            for byte, begins, element in place.elements(word):
                lanes = ((1 << place.size) - 1) << byte
                with m.If(begins & ((access.mask & ~C(lanes, 8)) == 0)):
                    m.d.comb += [here.eq(1), which.eq(element), byte_of.eq(byte)]
            meant.append(here)
            index.append(which)
            first.append(byte_of)
        idle_wanted = (internal & (access.mask & guarded).any()) | Cat(
            here for here, place in zip(meant, owned, strict=True) if place.idle_only
        ).any()
        allowed = Signal()
        m.d.comb += allowed.eq((internal | Cat(meant).any()) & ~(busy & idle_wanted))
        taken = request.valid & request.ready
        forwarded = [
            here & allowed & Mux(access.write, place.writable, place.readable)
            for here, place in zip(meant, owned, strict=True)
        ]
        p.always(~taken | (sum([internal, *meant]) <= 1), "one answers at most")

        # The registers and what they read.
        acts = taken & allowed & internal
        bits = Cat(byte.replicate(8) for byte in access.mask)
        reads = Signal(64)
        for place in registers:
            here = word == place.address // 8
            for field in place.node.fields():
                low = 8 * (place.address % 8) + field.low
                part = slice(low, low + field.width)
                written = Signal(field.width, name=f"{field.inst_name}_written")
                if field.is_sw_writable:
                    m.d.comb += written.eq(
                        bits[part] & (acts & access.write & here).replicate(field.width)
                    )
                value, model = _field(
                    m, field, place.ports, written=written, data=access.data[part]
                )
                port = getattr(place.ports, field.inst_name, None)
                if field.is_hw_readable and port is not None and model is not None:
                    p.always(
                        Value.cast(port.value) == model,
                        f"{place.node.get_path()}.{field.inst_name} changes when it should",
                    )
                if field.is_sw_readable:
                    with m.If(here & internal & allowed):
                        m.d.comb += reads[part].eq(value)

        # One access from request to response.
        phase = Signal(range(3))
        kept = Signal.like(access.as_value())
        error, answer, sent = Signal(), Signal(64), Signal()
        to = [Signal(name=f"to_{number}") for number in range(len(owned))]
        kept_index = [Signal(32, name=f"kept_index_{number}") for number in range(len(owned))]
        kept_byte = [Signal(3, name=f"kept_byte_{number}") for number in range(len(owned))]
        with m.If(taken):
            m.d.sync += [
                phase.eq(Mux(Cat(forwarded).any(), _FORWARDING, _ANSWERING)),
                kept.eq(access.as_value()),
                error.eq(~allowed),
                answer.eq(reads),
                sent.eq(0),
                Cat(to).eq(Cat(forwarded)),
                *(a.eq(b) for a, b in zip(kept_index, index, strict=True)),
                *(a.eq(b) for a, b in zip(kept_byte, first, strict=True)),
            ]
        with m.If((phase == _ANSWERING) & response.ready):
            m.d.sync += phase.eq(_IDLE)
        asked = RegisterRequest(kept)
        for number, place in enumerate(owned):
            port = place.ports
            mine = (phase == _FORWARDING) & to[number]
            with m.If(mine & port.request.ready):
                m.d.sync += sent.eq(1)
            with m.If(mine & port.response.valid & port.response.ready):
                m.d.sync += [
                    phase.eq(_ANSWERING),
                    error.eq(port.response.payload.error),
                    answer.eq(port.response.payload.data << (kept_byte[number] << 3)),
                ]
            payload = port.request.payload
            p.always(port.request.valid == (mine & ~sent), "its owner is asked once, nobody else")
            p.always(
                ~mine | (payload.index == kept_index[number][: len(payload.index)]),
                "for the element meant",
            )
            shift = kept_byte[number]
            p.always(
                ~mine
                | (
                    (payload.write == asked.write)
                    & (payload.mask == (asked.mask >> shift)[: place.size])
                    & (payload.data == (asked.data >> (shift << 3))[: 8 * place.size])
                ),
                "with the bytes meant",
            )
            p.always(
                port.response.ready == (mine & (sent | port.request.ready)),
                "its answer is taken when it was asked",
            )
        p.always(request.ready == (phase == _IDLE), "one access at a time")
        p.always(response.valid == (phase == _ANSWERING), "every access is answered once")
        answering = phase == _ANSWERING
        p.always(~answering | (response.payload.error == error), "with an error where it is wrong")
        asked_bits = Cat(byte.replicate(8) for byte in asked.mask)
        p.always(
            ~answering
            | asked.write
            | error
            | (((response.payload.data ^ answer) & asked_bits) == 0),
            "with what stands there",
        )

        p.invariant(phase <= _ANSWERING, "phases of an access")
        p.invariant((phase != _FORWARDING) | (sum(to, C(0)) == 1), "one owner")
        forwarding = phase == _FORWARDING
        p.invariant(~forwarding | (inside["sent"] == sent), "the owner was asked")
        p.invariant(~forwarding | (inside["kept_access"].as_value() == kept), "the access is kept")
        for number, place in enumerate(owned):
            chosen = inside["kept"]
            p.invariant(
                ~(forwarding & to[number])
                | (
                    (chosen.port == number)
                    & (chosen.index == kept_index[number][: len(chosen.index)])
                    & (chosen.byte == kept_byte[number])
                ),
                "the owner asked is the one meant",
            )
            bytes_ = [byte for byte, _, _ in place.elements(word)]
            p.invariant(
                ~(forwarding & to[number])
                | Cat(kept_byte[number] == byte for byte in bytes_).any(),
                "it begins where an element can",
            )

    return properties


def _any(masks) -> Value:
    result = C(0, 8)
    for mask in masks:
        result |= mask
    return result


_NOT_ALL_BYTES = Fault(
    "a byte of a register answers for its word",
    "held.any() & ~(mask & ~held).any()",
    "held.any()",
)
_FAULTS = {
    "clint": (
        _NOT_ALL_BYTES,
        Fault(
            "all bytes are written",
            "bits = Cat(byte.replicate(8) for byte in access.mask)",
            "bits = C(-1, 64)",
        ),
    ),
    "finisher": (
        Fault("the owner is asked again", "request.valid.eq(~sent)", "request.valid.eq(1)"),
        Fault(
            "its error is lost",
            "answer.payload.error.eq(response.payload.error)",
            "answer.payload.error.eq(0)",
        ),
    ),
    "host_port": (
        Fault(
            "the next word is written too",
            "touched = acting & (word == leaf.offset // _WORD_BYTES)",
            "touched = acting & (word[1:] == leaf.offset // _WORD_BYTES >> 1)",
        ),
        Fault("busy guards nothing", "m.Elif(busy & guarded)", "m.Elif(C(0) & guarded)"),
        Fault(
            "what is refused acts",
            "acting.eq(allowed & internal.hit)",
            "acting.eq(internal.hit)",
        ),
        Fault(
            "an array has an element more",
            "number < first + self.count",
            "number <= first + self.count",
        ),
        Fault(
            "what can only be read is written",
            "Mux(access.write, part.writable, part.readable)",
            "part.readable",
        ),
    ),
    "plic": (
        Fault(
            "the owner's bytes are not shifted",
            "narrow = any(byte for external in externals for byte in external.lanes)",
            "narrow = False",
        ),
        _NOT_ALL_BYTES,
    ),
    "uart": (
        Fault(
            "addresses outside are not looked at",
            "inside.eq(access.address[low:] == self._base >> low)",
            "inside.eq(1)",
        ),
    ),
}
PROOFS = tuple(
    Proof(
        f"registers of {name}",
        "rtl.lib.register_block:RegisterBlock",
        _block(name),
        _FAULTS[name],
        fault_depth=6,
    )
    for name in MAPS
)

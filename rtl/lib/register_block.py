"""A register block made from SystemRDL: bus slave, storage and decoding of one ``addrmap``."""

from dataclasses import dataclass
from pathlib import Path

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2, exact_log2

from rtl.arch.memory_map import BUS_ADDRESS_BITS
from rtl.bus.register_bus import RegisterBus
from rtl.lib.layouts import enum_of
from rtl.lib.rdl.model import Field, Group, Item, Memory, Register, RegisterMap
from rtl.lib.rdl.source import MapError, load_map
from rtl.lib.register_field import build_field, field_signature

__all__ = ["ExternalPort", "MapError", "Refusal", "RegisterBlock"]

_WORD_BYTES = 8


class Refusal(enum.Enum, shape=2):
    """Why an access was answered with an error."""

    NONE = 0
    NO_SUCH_REGISTER = 1
    BUSY = 2
    EXTERNAL = 3


class ExternalPort(wiring.Signature):
    """Accesses to registers or memory that the block's owner holds; one at a time, in order.

    Parameters
    ----------
    width : int
        Width of an element in bits.
    count : int
        Number of elements.

    Members
    -------
    request : stream
        ``index`` is the element; ``data`` and ``mask`` (a bit per byte) begin at its first byte.
    response : stream
        ``data`` from the element's first byte on; ``error`` answers the access with an error.
    """

    def __init__(self, *, width, count):
        request = {
            "index": max(1, bits_for(count - 1)),
            "write": 1,
            "mask": width // 8,
            "data": width,
        }
        super().__init__(
            {
                "request": Out(stream.Signature(data.StructLayout(request))),
                "response": In(stream.Signature(data.StructLayout({"data": width, "error": 1}))),
            }
        )


@dataclass(frozen=True, eq=False)
class _Leaf:
    """One internal register, arrays unrolled, with its ports (None if it has none)."""

    register: Register
    offset: int
    ports: object

    @property
    def byte(self) -> int:
        return self.offset % _WORD_BYTES

    @property
    def byte_mask(self) -> int:
        return (1 << self.register.width // 8) - 1 << self.byte


@dataclass(frozen=True, eq=False)
class _External:
    """One external port and where its elements are."""

    offset: int
    width: int
    count: int
    readable: bool
    writable: bool
    idle_only: bool
    port: object

    @classmethod
    def of(cls, item: Item, offset: int, port) -> "_External":
        readable = writable = True
        match item:
            case Register(width=width):
                count, readable, writable = item.count or 1, item.sw_read, item.sw_write
            case Memory(width=width, entries=count):
                readable, writable = item.sw_read, item.sw_write
            case Group():
                width, count = 64, (item.offsets[-1] - item.offset + item.size) // _WORD_BYTES
        return cls(offset, width, count, readable, writable, item.idle_only, port)

    @property
    def lanes(self) -> range:
        """Where in a word an element can begin."""
        if self.count == 1:
            return range(self.offset % _WORD_BYTES, _WORD_BYTES, _WORD_BYTES)
        return range(0, _WORD_BYTES, self.width // 8)

    def element(self, word: Value, byte: int) -> tuple[Value, Value]:
        """Whether an element begins at that byte of that word, and its index."""
        if self.count == 1:
            return word == self.offset // _WORD_BYTES, C(0, 1)
        scale = exact_log2(self.width // 8)
        number, first = Cat(C(byte >> scale, 3 - scale), word), self.offset >> scale
        inside = (number >= first) & (number < first + self.count)
        return inside, (number - first)[: bits_for(self.count - 1)]


class RegisterBlock(wiring.Component):
    """The registers of one SystemRDL ``addrmap``, behind a register bus.

    An access is answered with an error when a byte it asks for holds nothing, when it touches an
    external element and anything else, or when the register is ``idle_only`` (a property from
    ``rtl/maps/properties.rdl``) and ``busy`` is 1; it then has no effect. Otherwise it acts on
    exactly the bytes in its mask, of all registers in the word at once. A read of what can only
    be written gives 0, a write of what can only be read has no effect; neither reaches the owner
    of an external register. Internal registers answer in the cycle after the request.

    Parameters
    ----------
    source : Path or RegisterMap
        The SystemRDL file, or what ``load_map`` made of it.
    base : int
        Bus address of the block, a multiple of its size rounded up to a power of two.

    Members
    -------
    bus : In(RegisterBus())
        Addresses outside the map are answered with an error, too.
    busy : In(1)
        There only if something in the map is ``idle_only``.
    refused : Out(Refusal)
        In the cycle in which an error response appears: why. In all others ``Refusal.NONE``.
    asking : Out(1)
        One of the external ports has a request.
    one member per register, named like it
        Its members are the fields, and theirs are, with the meaning SystemRDL gives the words:
        ``value`` (out, if hw reads), ``next`` (in, if hw writes), ``we`` or ``wel``, ``hwset``,
        ``hwclr``, ``swwe`` (in, if the property is set), ``swmod``, ``swacc`` (out, if the
        property is set; 1 in the cycle after the access, when ``value`` is already the new one).
        A field with an enumeration has it as its shape. Register files nest; arrays are arrays of
        members: ``block.target[3].enable.value``. Registers without such ports have no member.
    one member per external register, external array, external register file and memory
        An ``ExternalPort``. The elements of a register file are its 8-byte words, those of an
        array of register files count through from the first file's start to the last one's end.

    When software and hardware write one bit in one cycle, ``precedence`` decides (default sw);
    bits that software leaves alone take the hardware's value. Where hw writes a field that has no
    ``we`` or ``wel``, ``next`` is loaded in every cycle. A field that software only reads and
    hardware only writes, without any of ``we wel hwset hwclr onread``, is a wire.

    Raises MapError for a source that is wrong or says what the block cannot do, ValueError for a
    base that is not aligned.
    """

    def __init__(self, source, *, base=0):
        register_map = source if isinstance(source, RegisterMap) else load_map(Path(source))
        span = 1 << max(3, ceil_log2(register_map.size))
        if base % span or not 0 <= base <= (1 << BUS_ADDRESS_BITS) - span:
            raise ValueError(f"base {base:#x} is not a bus address that is a multiple of {span:#x}")
        self._map, self._base, self._span = register_map, base, span
        self._enums = {
            name: enum_of(enumeration.as_enum(), width=enumeration.width)
            for name, enumeration in register_map.enumerations.items()
        }
        self._guarded = any(item.idle_only for item in register_map.walk())
        members = {"bus": In(RegisterBus()), "refused": Out(Refusal), "asking": Out(1)}
        if self._guarded:
            members["busy"] = In(1)
        for name, member in self._members(register_map.items).items():
            if name in ("bus", "refused", "busy", "asking") or hasattr(type(self), name):
                raise MapError(f"{register_map.name}.{name}: the block itself uses this name")
            members[name] = member
        super().__init__(members)

    @property
    def map(self) -> RegisterMap:
        return self._map

    @property
    def base(self) -> int:
        return self._base

    @property
    def enums(self) -> dict[str, type[enum.Enum]]:
        """The map's enumerations as Amaranth enums, by their SystemRDL names."""
        return dict(self._enums)

    def layout(self, path: str) -> data.FlexibleLayout:
        """The fields of a register, for the owner of an external one to read its payloads by.

        ``path`` names the register, with the register files around it and without indices:
        "target.enable". Raises KeyError if there is none.
        """
        items = self._map.items
        for name in path.split("."):
            found = {item.name: item for item in items}[name]
            items = found.items if isinstance(found, Group) else ()
        if not isinstance(found, Register):
            raise KeyError(f"{path} is not a register")
        return data.FlexibleLayout(
            found.width,
            {
                field.name: data.Field(
                    self._enums[field.enumeration.name] if field.enumeration else field.width,
                    field.lsb,
                )
                for field in found.fields
            },
        )

    def _members(self, items):
        members = {}
        for item in items:
            if item.external:
                external = _External.of(item, 0, None)
                port = ExternalPort(width=external.width, count=external.count)
                members[item.name] = Out(port)
                continue
            if isinstance(item, Group):
                inner = self._members(item.items)
            else:
                signatures = ((field.name, self._signature(field)) for field in item.fields)
                inner = {
                    name: Out(signature) for name, signature in signatures if signature.members
                }
            if inner:
                member = Out(wiring.Signature(inner))
                members[item.name] = member if item.count is None else member.array(item.count)
        return members

    def _signature(self, field: Field):
        enumeration = field.enumeration
        return field_signature(field, self._enums[enumeration.name] if enumeration else None)

    def _parts(self):
        """All internal registers and all external ports, with their absolute offsets."""
        leaves, externals = [], []

        def visit(items, base, ports):
            for item in items:
                port = getattr(ports, item.name, None)
                if item.external:
                    externals.append(_External.of(item, base + item.offset, port))
                    continue
                for index, offset in enumerate(item.offsets):
                    element = port if item.count is None or port is None else port[index]
                    if isinstance(item, Group):
                        visit(item.items, base + offset, element)
                    else:
                        leaves.append(_Leaf(item, base + offset, element))

        visit(self._map.items, 0, self)
        return leaves, externals

    def elaborate(self, platform):
        m = Module()
        leaves, externals = self._parts()
        access, answer = self.bus.request.payload, self.bus.response
        low = ceil_log2(self._span)
        word, inside = Signal(max(1, low - 3)), Signal()
        m.d.comb += [
            word.eq(access.address[3:low]),
            inside.eq(access.address[low:] == self._base >> low),
        ]
        busy = self.busy if self._guarded else C(0, 1)

        acting = Signal()
        current = self._build_registers(m, leaves, word, acting)
        internal = self._decode_internal(m, leaves, word, current)
        external = self._decode_external(m, externals, word)
        kept, kept_access, sent = Signal.like(external), Signal.like(access), Signal()
        # No barrel shifters for maps whose external elements all start at a word's first byte.
        narrow = any(byte for external in externals for byte in external.lanes)
        shift = kept.byte << 3 if narrow else C(0, 1)

        refusal = Signal(Refusal)
        guarded = internal.hit & internal.guarded | external.hit & external.guarded
        with m.If(self.bus.request.valid):
            with m.If(~inside | ~(internal.hit | external.hit)):
                m.d.comb += refusal.eq(Refusal.NO_SUCH_REGISTER)
            with m.Elif(busy & guarded):
                m.d.comb += refusal.eq(Refusal.BUSY)
        allowed = refusal == Refusal.NONE
        # What goes to the external element asked, from its first byte on.
        mask, written = Signal(8), Signal(64)

        m.d.sync += self.refused.eq(Refusal.NONE)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.bus.request.ready.eq(1)
                with m.If(self.bus.request.valid):
                    m.d.comb += acting.eq(allowed & internal.hit)
                    m.d.sync += [
                        kept.eq(external),
                        kept_access.eq(access),
                        sent.eq(0),
                        answer.payload.data.eq(Mux(allowed & internal.hit, internal.data, 0)),
                        answer.payload.error.eq(~allowed),
                        self.refused.eq(refusal),
                    ]
                    with m.If(allowed & external.forwarded):
                        m.next = "FORWARD"
                    with m.Else():
                        m.next = "ANSWER"
            with m.State("FORWARD"):
                m.d.comb += [
                    self.asking.eq(~sent),
                    mask.eq(kept_access.mask >> (kept.byte if narrow else 0)),
                    written.eq(kept_access.data >> shift),
                ]
                for number, part in enumerate(externals):
                    request, response = part.port.request, part.port.response
                    with m.If(kept.port == number):
                        m.d.comb += [
                            request.valid.eq(~sent),
                            response.ready.eq(sent | request.ready),
                        ]
                        m.d.sync += sent.eq(sent | request.ready)
                        with m.If(response.valid & response.ready):
                            m.d.sync += [
                                answer.payload.data.eq(response.payload.data << shift),
                                answer.payload.error.eq(response.payload.error),
                            ]
                            with m.If(response.payload.error):
                                m.d.sync += self.refused.eq(Refusal.EXTERNAL)
                            m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += answer.valid.eq(1)
                with m.If(answer.ready):
                    m.next = "IDLE"

        for part in externals:
            payload = part.port.request.payload
            m.d.comb += [
                payload.index.eq(kept.index),
                payload.write.eq(kept_access.write),
                payload.mask.eq(mask),
                payload.data.eq(written),
            ]
        return m

    def _build_registers(self, m, leaves, word, acting):
        """Fields with their logic; gives what software reads from each."""
        access = self.bus.request.payload
        bits = Cat(byte.replicate(8) for byte in access.mask)
        current = {}
        for leaf in leaves:
            touched = acting & (word == leaf.offset // _WORD_BYTES)
            for field in leaf.register.fields:
                place = slice(8 * leaf.byte + field.lsb, 8 * leaf.byte + field.lsb + field.width)
                current[leaf, field] = build_field(
                    m,
                    field,
                    getattr(leaf.ports, field.name, None),
                    place=place.start,
                    acting=acting,
                    written=Mux(touched & access.write, bits[place], 0),
                    data=access.data[place],
                    read=Mux(touched & ~access.write, bits[place], 0),
                )
        return current

    def _decode_internal(self, m, leaves, word, current):
        mask = self.bus.request.payload.mask
        decoded = Signal(data.StructLayout({"hit": 1, "guarded": 1, "data": 64}))
        held, guarded = Signal(8), Signal(8)
        words = {}
        for leaf in leaves:
            words.setdefault(leaf.offset // _WORD_BYTES, []).append(leaf)
        # Nothing is decoded while nobody asks: simulation would do little else in most blocks.
        with m.If(self.bus.request.valid):
            m.d.comb += [
                decoded.hit.eq(held.any() & ~(mask & ~held).any()),
                decoded.guarded.eq((mask & guarded).any()),
            ]
        with m.If(self.bus.request.valid), m.Switch(word):
            for number, inhabitants in sorted(words.items()):
                with m.Case(number):
                    for leaf in inhabitants:
                        bytes_of_leaf = slice(leaf.byte, leaf.byte + leaf.register.width // 8)
                        m.d.comb += held[bytes_of_leaf].eq(-1)
                        if leaf.register.idle_only:
                            m.d.comb += guarded[bytes_of_leaf].eq(-1)
                        for field in leaf.register.fields:
                            if field.sw_read:
                                lsb = 8 * leaf.byte + field.lsb
                                target = decoded.data[lsb : lsb + field.width]
                                m.d.comb += target.eq(current[leaf, field])
        return decoded

    def _decode_external(self, m, externals, word):
        access = self.bus.request.payload
        decoded = Signal(
            data.StructLayout(
                {
                    "hit": 1,
                    "guarded": 1,
                    "forwarded": 1,
                    "port": max(1, bits_for(len(externals))),
                    "index": max([1, *(bits_for(part.count - 1) for part in externals)]),
                    "byte": 3,
                }
            )
        )
        for number, part in enumerate(externals):
            for byte in part.lanes:
                in_lane = ((1 << part.width // 8) - 1) << byte
                inside, index = part.element(word, byte)
                hit = Signal(name=f"hit_{number}_{byte}")
                with m.If(self.bus.request.valid):
                    m.d.comb += hit.eq(inside & access.mask.any() & ~(access.mask & ~in_lane).any())
                with m.If(hit):
                    m.d.comb += [decoded.hit.eq(1), decoded.guarded.eq(part.idle_only)]
                    # A read-only and a write-only element may share an address.
                    with m.If(Mux(access.write, part.writable, part.readable)):
                        m.d.comb += [
                            decoded.forwarded.eq(1),
                            decoded.port.eq(number),
                            decoded.index.eq(index),
                            decoded.byte.eq(byte),
                        ]
        return decoded

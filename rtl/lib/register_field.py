"""One field of a register block: its ports, its flip-flops, and who may change them."""

from itertools import pairwise

from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from rtl.lib.rdl.model import Field, OnRead, OnWrite

__all__ = ["build_field", "field_signature"]

_BYTE = 8


def field_signature(field: Field, enumeration: type[enum.Enum] | None) -> wiring.Signature:
    """The field's ports, seen from the block; ``enumeration`` becomes their shape."""
    shape, initial = field.width, field.reset
    if enumeration is not None:
        # A port whose shape is an enum has to start at one of its members.
        values = [member.value for member in enumeration]
        shape, initial = enumeration, enumeration(initial if initial in values else values[0])
    members = {}
    if field.hw_read:
        members["value"] = Out(shape, init=initial)
    if field.hw_write:
        members["next"] = In(shape, init=initial)
    if field.write_enable:
        members[field.write_enable] = In(1)
    for name, flow, there in (
        ("hwset", In, field.hw_set),
        ("hwclr", In, field.hw_clear),
        ("swwe", In, field.sw_write_enable),
        ("swmod", Out, field.sw_modified),
        ("swacc", Out, field.sw_accessed),
    ):
        if there:
            members[name] = flow(1)
    return wiring.Signature(members)


def build_field(
    m: Module,
    field: Field,
    ports,
    *,
    place: int,
    acting: Value,
    written: Value,
    data: Value,
    read: Value,
):
    """Add the field's logic to ``m`` and return the value that software reads.

    Only with ``acting`` does software do anything; simulation need not look further without.
    ``written`` and ``read`` have a 1 for every bit of the field that software writes or reads in
    this cycle, the same for all bits of a byte of the bus; ``data`` is what it writes. ``place``
    is the field's lowest bit on the bus. ``ports`` may be None if the field has none.
    """
    if field.sw_modified or field.sw_accessed:
        modified = written.any() if field.sw_write else C(0)
        if field.on_read is not None:
            modified |= read.any()
        for there, name, event in (
            (field.sw_modified, "swmod", modified),
            (field.sw_accessed, "swacc", written.any() | read.any()),
        ):
            if there:
                m.d.sync += getattr(ports, name).eq(0)
                with m.If(acting):
                    m.d.sync += getattr(ports, name).eq(event)
    if not field.storage:
        current = Value.cast(ports.next) if field.hw_write else C(field.reset, field.width)
    else:
        current = _build_storage(
            m, field, ports, place=place, acting=acting, written=written, data=data, read=read
        )
    if field.hw_read:
        m.d.comb += Value.cast(ports.value).eq(current)
    return current


def _build_storage(m, field, ports, *, place, acting, written, data, read):
    stored = Signal(field.width, init=field.reset, name=field.name)
    by_software, to = _software(field, ports, stored, written=written, data=data, read=read)
    by_hardware, hardware = _hardware(field, ports, stored)
    if field.single_pulse:
        m.d.sync += stored.eq(field.reset)

    def change_by_software():
        # In runs of bits that change together, and without a multiplexer that keeps the old value:
        # these become clock enables.
        if field.sw_write or field.on_read is not None:
            with m.If(acting):
                for run in _runs(field, place):
                    with m.If(by_software[run][0]):
                        m.d.sync += stored[run].eq(to[run])

    def change_by_hardware():
        with m.If(by_hardware):
            m.d.sync += stored.eq(hardware)

    # Who comes last has his way.
    changes = [change_by_hardware, change_by_software]
    for change in reversed(changes) if field.hw_precedence else changes:
        change()
    return stored


def _runs(field, place):
    """Slices of the field whose bits software changes together."""
    if not field.sw_write and field.on_read is None:
        return [slice(field.width)]
    by_byte = field.on_write in (None, OnWrite.ANY_CLEARS, OnWrite.ANY_SETS)
    step = _BYTE if by_byte else 1
    ends = [end for end in range(1, field.width) if (place + end) % step == 0]
    return [slice(start, end) for start, end in pairwise([0, *ends, field.width])]


def _software(field, ports, stored, *, written, data, read):
    """The bits software changes in this cycle, and what to."""
    ones, zeros = Const(-1, field.width), Const(0, field.width)
    bits, to = zeros, zeros
    if field.sw_write:
        if field.sw_write_enable:
            written = Mux(ports.swwe, written, 0)
        match field.on_write:
            case None:
                bits, to = written, data
            case OnWrite.ONE_SETS:
                bits, to = written & data, ones
            case OnWrite.ONE_CLEARS:
                bits, to = written & data, zeros
            case OnWrite.ONE_TOGGLES:
                bits, to = written & data, ~stored
            case OnWrite.ZERO_SETS:
                bits, to = written & ~data, ones
            case OnWrite.ZERO_CLEARS:
                bits, to = written & ~data, zeros
            case OnWrite.ZERO_TOGGLES:
                bits, to = written & ~data, ~stored
            case OnWrite.ANY_CLEARS:
                bits, to = written, zeros
            case OnWrite.ANY_SETS:
                bits, to = written, ones
    if field.on_read is not None:
        after_read = zeros if field.on_read is OnRead.CLEAR else ones
        bits, to = bits | read, Mux(read.any(), after_read, to)
    return bits, to


def _hardware(field, ports, stored):
    """Whether hardware changes the field in this cycle, and what to."""
    acts, value = C(0), stored
    if field.hw_write:
        match field.write_enable:
            case "we":
                acts = ports.we
            case "wel":
                acts = ~ports.wel
            case None:
                acts = C(1)
        value = Value.cast(ports.next)
    if field.hw_set:
        acts, value = acts | ports.hwset, Mux(ports.hwset, Const(-1, field.width), value)
    if field.hw_clear:
        acts, value = acts | ports.hwclr, Mux(ports.hwclr, Const(0, field.width), value)
    return acts, value

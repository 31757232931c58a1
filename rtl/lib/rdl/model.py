"""What a register map says, once the SystemRDL is compiled and checked: plain data."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum

__all__ = [
    "Enumeration",
    "Field",
    "Group",
    "Item",
    "Memory",
    "OnRead",
    "OnWrite",
    "Register",
    "RegisterMap",
]


class OnRead(Enum):
    """What a read by software does to the field."""

    CLEAR = "rclr"
    SET = "rset"


class OnWrite(Enum):
    """What a write by software does to the field, when it does not simply store the value."""

    ONE_SETS = "woset"
    ONE_CLEARS = "woclr"
    ONE_TOGGLES = "wot"
    ZERO_SETS = "wzs"
    ZERO_CLEARS = "wzc"
    ZERO_TOGGLES = "wzt"
    ANY_CLEARS = "wclr"
    ANY_SETS = "wset"


@dataclass(frozen=True)
class Enumeration:
    """Named values of a field of ``width`` bits: rows of name, value and text."""

    name: str
    width: int
    members: tuple[tuple[str, int, str], ...]

    def as_enum(self) -> type[IntEnum]:
        return IntEnum(self.name, {name: value for name, value, _text in self.members})


@dataclass(frozen=True, kw_only=True)
class Field:
    """``width`` bits from bit ``lsb`` of a register; the members are SystemRDL's properties.

    ``storage`` says that the field has flip-flops; without, it is a wire from the hardware or a
    constant. ``write_enable`` is None, "we" or "wel".
    """

    name: str
    text: str
    lsb: int
    width: int
    sw_read: bool
    sw_write: bool
    hw_read: bool
    hw_write: bool
    storage: bool
    reset: int
    enumeration: Enumeration | None
    on_read: OnRead | None
    on_write: OnWrite | None
    single_pulse: bool
    sw_modified: bool
    sw_accessed: bool
    sw_write_enable: bool
    hw_set: bool
    hw_clear: bool
    write_enable: str | None
    hw_precedence: bool

    @property
    def mask(self) -> int:
        return ((1 << self.width) - 1) << self.lsb


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something at an address. ``offset`` is relative to what holds it.

    ``count`` is None for a single item, otherwise the items are an array, ``stride`` bytes apart.
    """

    name: str
    text: str
    offset: int
    count: int | None
    stride: int
    external: bool
    idle_only: bool

    @property
    def offsets(self) -> tuple[int, ...]:
        """Offset of every element."""
        return tuple(self.offset + self.stride * index for index in range(self.count or 1))


@dataclass(frozen=True, kw_only=True)
class Register(Item):
    """A register of ``width`` bits (8, 16, 32 or 64); ``access_width``: the narrowest access."""

    width: int
    access_width: int
    fields: tuple[Field, ...]

    @property
    def sw_read(self) -> bool:
        return any(field.sw_read for field in self.fields)

    @property
    def sw_write(self) -> bool:
        return any(field.sw_write for field in self.fields)


@dataclass(frozen=True, kw_only=True)
class Memory(Item):
    """``entries`` words of ``width`` bits held by the block's owner."""

    width: int
    entries: int
    sw_read: bool
    sw_write: bool


@dataclass(frozen=True, kw_only=True)
class Group(Item):
    """A register file: items that stand together, ``size`` bytes."""

    size: int
    items: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class RegisterMap:
    """One ``addrmap``."""

    name: str
    text: str
    size: int
    items: tuple[Item, ...]

    def walk(self) -> Iterator[Item]:
        """Every item, outer ones first; arrays are not unrolled."""

        def visit(items):
            for item in items:
                yield item
                if isinstance(item, Group):
                    yield from visit(item.items)

        yield from visit(self.items)

    @property
    def enumerations(self) -> dict[str, Enumeration]:
        """All enumerations used, by name."""
        found = {}
        for item in self.walk():
            for field in item.fields if isinstance(item, Register) else ():
                if field.enumeration is not None:
                    found.setdefault(field.enumeration.name, field.enumeration)
        return found

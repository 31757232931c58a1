"""What generated bindings share; every generated module begins with a copy of this one."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum  # noqa: F401 - for the enumerations that follow
from typing import Generic, NamedTuple, TypeVar, overload

#: Read ``size`` bytes (1, 2, 4 or 8) at an address; little-endian.
Read = Callable[[int, int], int]
#: Write ``size`` bytes: address, value, size.
Write = Callable[[int, int, int], None]
Value = TypeVar("Value", bound=int)
Element = TypeVar("Element", bound="Node")


class RegisterAccessError(Exception):
    """An access the register map does not allow; nothing was sent."""


class Transport(NamedTuple):
    """How registers are reached."""

    read: Read
    write: Write


def check(value: int, width: int, what: str) -> int:
    """``value`` as a plain int. Raises ValueError if it does not fit, TypeError if not a number."""
    number = operator.index(value)
    if not 0 <= number < 1 << width:
        raise ValueError(f"{number:#x} does not fit {what}, which has {width} bits")
    return number


class Node:
    """Something at an address."""

    __slots__ = ("_address", "_path", "_transport")

    def __init__(self, transport: Transport, address: int, path: str):
        self._transport = transport
        self._address = address
        self._path = path

    def __repr__(self) -> str:
        return f"<{self._path} at {self._address:#x}>"


def address_of(node: Node) -> int:
    """Where it is; a function, so that a register may be called address."""
    return node._address


class Field(Generic[Value]):
    """A field of a register, as an attribute: reading it reads the register.

    Assigning writes the register once. The other fields keep their values: the register is read
    first if they are plain storage. Where that cannot be had without side effects, assigning is
    refused; ``Register.write`` then says what every field gets.
    """

    def __init__(
        self,
        name: str,
        lsb: int,
        width: int,
        kind: type[Value],
        *,
        reads: bool,
        writes: bool,
        neutral: int | None,
        keeps: bool,
        changes_on_read: bool,
    ):
        self.name, self.lsb, self.width, self.kind = name, lsb, width, kind
        self.reads, self.writes = reads, writes
        #: What a write gives the field to leave it alone: a value, or None = what it holds.
        self.neutral = neutral
        #: Whether a write can leave the field alone at all.
        self.keeps = keeps
        self.changes_on_read = changes_on_read

    def extract(self, word: int) -> Value:
        return self.kind(word >> self.lsb & (1 << self.width) - 1)

    def place(self, value: int, path: str) -> int:
        """The value in its place. Raises RegisterAccessError if software cannot write it."""
        if not self.writes:
            raise RegisterAccessError(f"{path}.{self.name} is read-only")
        return check(value, self.width, f"{path}.{self.name}") << self.lsb

    @overload
    def __get__(self, register: None, owner: type) -> "Field[Value]": ...
    @overload
    def __get__(self, register: "Register", owner: type) -> Value: ...
    def __get__(self, register, owner):
        if register is None:
            return self
        if not self.reads:
            raise RegisterAccessError(f"{register._path}.{self.name} is write-only")
        return self.extract(register._read())

    def __set__(self, register: "Register", value: Value) -> None:
        placed = self.place(value, register._path)
        register._write(placed | register._others(frozenset((self.name,))))


class Register(Node):
    """A register: its fields are its attributes, one bus access each time."""

    __slots__ = ()
    _fields: Mapping[str, Field] = {}
    _width = 64
    _access_width = 64
    _reads = True
    _writes = True

    @property
    def raw(self) -> int:
        """The whole register, undecoded."""
        return self._read()

    @raw.setter
    def raw(self, value: int) -> None:
        self._write(check(value, self._width, self._path))

    def write(self, **fields: int) -> None:
        """Write the register once. Fields not named get what leaves them alone, or 0."""
        word = self._place(fields)
        for name, field in self._fields.items():
            if name not in fields and field.writes:
                word |= (field.neutral or 0) << field.lsb
        self._write(word)

    def modify(self, **fields: int) -> None:
        """Like assigning several fields at once."""
        word = self._place(fields)
        self._write(word | self._others(frozenset(fields)))

    def read_bytes(self, size: int) -> int:
        """Read the register's first ``size`` bytes."""
        return self._read(size)

    def write_bytes(self, value: int, size: int) -> None:
        """Write the register's first ``size`` bytes."""
        self._write(check(value, 8 * size, self._path), size)

    def _place(self, fields: Mapping[str, int]) -> int:
        word = 0
        for name, value in fields.items():
            if name not in self._fields:
                raise AttributeError(f"{self._path} has no field {name}")
            word |= self._fields[name].place(value, self._path)
        return word

    def _others(self, named: frozenset[str]) -> int:
        """What a write gives all fields but ``named``, so that they stay as they are."""
        others = [field for name, field in self._fields.items() if name not in named]
        for field in others:
            if not field.keeps:
                raise RegisterAccessError(
                    f"a write would also change {self._path}.{field.name}: use write()"
                )
        word = 0
        for field in others:
            word |= (field.neutral or 0) << field.lsb if field.writes else 0
        kept = [field for field in others if field.writes and field.neutral is None]
        if kept:
            for field in self._fields.values():
                if field.changes_on_read:
                    raise RegisterAccessError(
                        f"reading {self._path} changes {field.name}: use write()"
                    )
            now = self._read()
            for field in kept:
                word |= now & ((1 << field.width) - 1 << field.lsb)
        return word

    def _size(self, size: int | None) -> int:
        if size is None:
            return self._width // 8
        if size not in (1, 2, 4, 8) or not self._access_width <= 8 * size <= self._width:
            raise RegisterAccessError(f"{self._path} has no access of {size} bytes")
        return size

    def _read(self, size: int | None = None) -> int:
        if not self._reads:
            raise RegisterAccessError(f"{self._path} is write-only")
        return self._transport.read(self._address, self._size(size))

    def _write(self, word: int, size: int | None = None) -> None:
        if not self._writes:
            raise RegisterAccessError(f"{self._path} is read-only")
        self._transport.write(self._address, word, self._size(size))


class Array(Node, Generic[Element]):
    """Elements of one kind, ``stride`` bytes apart."""

    __slots__ = ("_kind", "_length", "_stride")

    def __init__(
        self,
        kind: type[Element],
        length: int,
        stride: int,
        transport: Transport,
        address: int,
        path: str,
    ):
        super().__init__(transport, address, path)
        self._kind, self._length, self._stride = kind, length, stride

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Element:
        number = operator.index(index)
        if not 0 <= number < self._length:
            raise IndexError(f"{self._path} has elements 0 to {self._length - 1}, not {number}")
        address = self._address + number * self._stride
        return self._kind(self._transport, address, f"{self._path}[{number}]")

    def __iter__(self) -> Iterator[Element]:
        return (self[index] for index in range(self._length))

    def _span(self, start: int, count: int) -> range:
        if start < 0 or count < 0 or start + count > self._length:
            raise IndexError(
                f"{self._path} has elements 0 to {self._length - 1}, not {count} from {start}"
            )
        return range(start, start + count)


class RegisterArray(Array[Element]):
    """An array of registers, to be read and written in bulk."""

    __slots__ = ()

    def read(self, start: int = 0, count: int | None = None) -> list[int]:
        """The undecoded registers from ``start`` on; all of them if ``count`` is not given."""
        span = self._span(start, self._length - start if count is None else count)
        return [self[index].raw for index in span]

    def write(self, values: Sequence[int], start: int = 0) -> None:
        """Write whole registers from ``start`` on. Nothing is written if one does not fit."""
        span = self._span(start, len(values))
        for index, value in zip(span, values, strict=True):
            check(value, self._kind._width, f"{self._path}[{index}]")
        for index, value in zip(span, values, strict=True):
            self[index].raw = value

"""Bit layouts as facts: what every register, record and table entry of the machine looks like."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Field", "Layout"]


@dataclass(frozen=True)
class Field:
    """One field: ``width`` bits from bit ``lsb`` upwards, and the sentence the manual prints."""

    name: str
    lsb: int
    width: int
    text: str

    @property
    def msb(self) -> int:
        return self.lsb + self.width - 1

    @property
    def mask(self) -> int:
        """The field's bits, in place."""
        return ((1 << self.width) - 1) << self.lsb

    def extract(self, word: int) -> int:
        return (word & self.mask) >> self.lsb

    def insert(self, word: int, value: int) -> int:
        """``word`` with this field replaced. Raises ValueError when ``value`` does not fit."""
        if not 0 <= value < 1 << self.width:
            raise ValueError(f"{value:#x} does not fit field {self.name} of {self.width} bits")
        return word & ~self.mask | value << self.lsb


@dataclass(frozen=True)
class Layout:
    """A word of ``width`` bits; bits named by no field are reserved.

    Raises ValueError when fields overlap, repeat a name or leave the word.
    """

    name: str
    width: int
    fields: tuple[Field, ...]

    def __post_init__(self):
        taken = 0
        for field in self.fields:
            if field.lsb < 0 or field.msb >= self.width:
                raise ValueError(f"{self.name}.{field.name} lies outside {self.width} bits")
            if taken & field.mask:
                raise ValueError(f"{self.name}.{field.name} overlaps another field")
            taken |= field.mask
        if len({field.name for field in self.fields}) != len(self.fields):
            raise ValueError(f"{self.name} has two fields of one name")

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"{self.name} has no field {name}")

    def encode(self, **values: int) -> int:
        """The word with the named fields set and every other bit zero."""
        word = 0
        for name, value in values.items():
            word = self[name].insert(word, int(value))
        return word

    def decode(self, word: int) -> Mapping[str, int]:
        return {field.name: field.extract(word) for field in self.fields}

    def mask(self, *names: str) -> int:
        """The bits of the named fields, or of all fields when none is named."""
        word = 0
        for name in names or [field.name for field in self.fields]:
            word |= self[name].mask
        return word

    @classmethod
    def packed(cls, name: str, *rows: tuple[str, int, str]) -> "Layout":
        """A layout whose fields (name, width, text) follow each other from bit 0 without gaps."""
        fields, lsb = [], 0
        for field_name, width, text in rows:
            fields.append(Field(field_name, lsb, width, text))
            lsb += width
        return cls(name, lsb, tuple(fields))

"""Gateware types made from the facts in ``rtl.arch``."""

import types
from enum import IntEnum

from amaranth.lib import data, enum

from rtl.arch.layout import Layout

__all__ = ["enum_of", "struct_of"]


def struct_of(layout: Layout) -> data.FlexibleLayout:
    """The Amaranth layout of a fact: same fields, same places, same width."""
    shape = data.FlexibleLayout(
        layout.width,
        {field.name: data.Field(field.width, field.lsb) for field in layout.fields},
    )
    if shape.size != layout.width:
        raise AssertionError(f"{layout.name}: {shape.size} bits instead of {layout.width}")
    return shape


def enum_of(source: type[IntEnum], *, width: int) -> type[enum.Enum]:
    """An Amaranth enum of ``width`` bits with the members of a standard one."""

    def fill(namespace):
        for member in source:
            namespace[member.name] = member.value

    return types.new_class(source.__name__, (enum.Enum,), {"shape": width}, fill)

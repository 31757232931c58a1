"""The top's ports for the C++ harness: accessors and the places of their fields, as a header."""

from collections.abc import Iterator

from amaranth.hdl import Shape
from amaranth.lib import data
from amaranth.lib.wiring import Component

from rtl.arch.layout import Field, Layout

__all__ = ["layout_of", "ports_header"]


def _leaves(component: Component) -> Iterator[tuple[str, str, object]]:
    """Name in Verilog, name in C++ and shape of every port."""
    for path, member, _ in component.signature.flatten(component):
        name = "__".join(str(part) for part in path)
        yield name, "_".join(str(part) for part in path), member.shape


def _fields(shape, prefix: str = "", offset: int = 0) -> Iterator[tuple[str, int, int]]:
    """Name, place and width of every field, nested ones as ``outer_inner``."""
    try:
        layout = data.Layout.cast(shape)
    except TypeError:
        return
    for name, field in layout:
        yield f"{prefix}{name}", offset + field.offset, Shape.cast(field.shape).width
        yield from _fields(field.shape, f"{prefix}{name}_", offset + field.offset)


def layout_of(name: str, shape) -> Layout:
    """The places of a struct's fields, to encode and decode a port's value."""
    layout = data.Layout.cast(shape)
    fields = (Field(key, field.offset, Shape.cast(field.shape).width, "") for key, field in layout)
    return Layout(name, Shape.cast(layout).width, tuple(fields))


def ports_header(component: Component, model: str) -> str:
    """The header ``ports.h``, for the Verilated class ``model`` of ``component``."""
    lines = [
        "// Made by sim/ports.py from the top's signature.",
        "#pragma once",
        f'#include "{model}.h"',
        '#include "bits.h"',
        "namespace vmxlab {",
        f"using Top = {model};",
        "namespace ports {",
    ]
    for name, nick, shape in _leaves(component):
        # Verilator writes the second of two underscores as ___05F.
        member = name.replace("__", "___05F")
        fields = list(_fields(shape))
        lines.append(f"inline auto &{nick}(Top &top) {{ return top.{member}; }}")
        lines.append(f"constexpr unsigned {nick}_width = {Shape.cast(shape).width};")
        for field, lsb, width in fields:
            lines.append(f"constexpr Field {nick}_{field}{{{lsb}, {width}}};")
    return "\n".join([*lines, "}  // namespace ports", "}  // namespace vmxlab", ""])

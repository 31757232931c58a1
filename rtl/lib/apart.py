"""Structs whose fields are signals of their own.

A simulator that keeps a struct in machine words has to pick the bits of a field out of it at every use; where
all fields are looked at in every cycle, that is most of the work.
"""

from collections.abc import Collection
from types import SimpleNamespace

from amaranth import *
from amaranth.lib import data

__all__ = ["apart", "set_apart"]


def apart(layout, name: str, *, but: Collection[str] = ()) -> SimpleNamespace:
    """A signal for each field of a layout ``but`` some, called ``name`` and the field's name."""
    return SimpleNamespace(
        **{
            field: Signal(inner.shape, name=f"{name}_{field}")
            for field, inner in data.Layout.cast(layout)
            if field not in but
        }
    )


def set_apart(fields: SimpleNamespace, struct) -> list:
    """Assignments of all fields there are from a struct of the same layout."""
    return [signal.eq(struct[name]) for name, signal in vars(fields).items()]

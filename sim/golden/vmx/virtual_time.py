"""The guest's time (docs/isa/vmx.md#time)."""

from collections.abc import Mapping

from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.fields import TIME_SCALE_FRACTION

__all__ = ["machine_ticks", "virtual_ticks"]

_MODULUS = 1 << 64
_SCALED = CONTROL_WORDS["execution_controls"].layout["use_time_scale"]
_UNIT = 1 << TIME_SCALE_FRACTION


def _scale(fields: Mapping[str, int]) -> int:
    scaled = _SCALED.extract(fields["execution_controls"])
    return fields["time_scale"] if scaled else _UNIT


def virtual_ticks(fields: Mapping[str, int], ticks: int) -> int:
    """What the guest's time is when the machine's is ``ticks``."""
    return (ticks * _scale(fields) // _UNIT + fields["time_offset"]) % _MODULUS


def machine_ticks(fields: Mapping[str, int], value: int, since: int) -> int | None:
    """The first machine time from ``since`` on at which the guest's is ``value``; None for never."""
    scale = _scale(fields)
    scaled = (value - fields["time_offset"]) % _MODULUS
    turns = since * scale // _UNIT // _MODULUS
    # Within a turn the product only grows; the turn that ``since`` is in may have passed the value.
    for turn in (turns, turns + 1):
        first = -(-(scaled + turn * _MODULUS) * _UNIT // scale)
        ticks = max(first, since)
        if ticks < _MODULUS and virtual_ticks(fields, ticks) == value:
            return ticks
    return None

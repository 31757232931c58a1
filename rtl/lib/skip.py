"""Time that passes in one step."""

from amaranth.lib import data

__all__ = ["Skip"]


class Skip(data.Struct):
    """Time passes in one step while the hart is parked.

    In the cycle with ``valid`` the cycle counters grow by ``cycles``, mtime by ``ticks``, and
    the cycle within the tick becomes ``phase``.
    """

    valid: 1
    cycles: 32
    ticks: 32
    phase: 16

"""Numbers with one bit set."""

from amaranth import *

__all__ = ["number_of"]


def number_of(one_hot):
    """Which bit is set; 0 for none."""
    width = (len(one_hot) - 1).bit_length()
    return Cat(Cat(bit for i, bit in enumerate(one_hot) if i >> k & 1).any() for k in range(width))

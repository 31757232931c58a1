"""Which device of the register bus answers."""

import itertools
from collections.abc import Iterable

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from rtl.arch.memory_map import Region
from rtl.bus.register_bus import RegisterBus

__all__ = ["RegisterDecoder"]


def _inside(address: Value, base: int, end: int) -> Value:
    """Whether the address is in [base, end): by the bits above the aligned blocks of the range."""
    blocks = []
    while base < end:
        # The largest block that starts here and does not reach beyond the end.
        largest = (base & -base or 1 << len(address)).bit_length() - 1
        bits = min(largest, (end - base).bit_length() - 1)
        blocks.append(address[bits:] == base >> bits)
        base += 1 << bits
    return Cat(*blocks).any()


def _relative(address: Value, region: Region) -> Value:
    """An address in the region, relative to its base."""
    same = (region.base & -region.base or 1 << len(address)).bit_length() - 1
    width = ceil_log2(region.size)
    if width <= same:
        return address[:width]
    return Cat(address[:same], (address[same:width] - (region.base >> same))[: width - same])


class RegisterDecoder(wiring.Component):
    """Route every access to the target in whose region its address lies.

    A target sees the address relative to the base of its region. Addresses in no region are
    answered with an error. A request is passed on in the cycle it comes; the next one waits until
    the response has been taken.

    Parameters
    ----------
    regions : iterable of Region
        One target each; they start and end at multiples of 8.

    Members
    -------
    bus : In(RegisterBus())
        The initiator.
    <region's name> : Out(RegisterBus())
        The target of that region.

    Raises ValueError when regions overlap, share a name, or are not made of whole words.
    """

    def __init__(self, regions: Iterable[Region]):
        self._regions = tuple(regions)
        for region in self._regions:
            if region.base % 8 or region.size % 8:
                raise ValueError(f"region {region.name} is not made of whole 64-bit words")
        ordered = sorted(self._regions, key=lambda region: region.base)
        for first, second in itertools.pairwise(ordered):
            if second.base < first.end:
                raise ValueError(f"regions {first.name} and {second.name} overlap")
        if len({region.name for region in self._regions} | {"bus"}) != len(self._regions) + 1:
            raise ValueError("regions must have names of their own, other than bus")
        super().__init__(
            {
                "bus": In(RegisterBus()),
                **{region.name: Out(RegisterBus()) for region in self._regions},
            }
        )

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._regions

    def elaborate(self, platform):
        m = Module()
        nobody = len(self._regions)
        chosen = Signal(range(nobody + 1), init=nobody)
        owner = Signal.like(chosen)
        waiting = Signal()
        request = self.bus.request
        response = self.bus.response

        for number, region in enumerate(self._regions):
            target = getattr(self, region.name)
            in_region = _inside(request.p.address, region.base, region.end)
            m.d.comb += [
                target.request.p.eq(request.p),
                target.request.p.address.eq(_relative(request.p.address, region)),
            ]
            with m.If(request.valid), m.If(in_region):
                m.d.comb += [
                    chosen.eq(number),
                    target.request.valid.eq(~waiting),
                    request.ready.eq(~waiting & target.request.ready),
                ]
            with m.If(waiting & (owner == number)):
                m.d.comb += [
                    response.p.eq(target.response.p),
                    response.valid.eq(target.response.valid),
                    target.response.ready.eq(response.ready),
                ]
        with m.If(chosen == nobody):
            m.d.comb += request.ready.eq(~waiting)
        with m.If(waiting & (owner == nobody)):
            m.d.comb += [response.p.error.eq(1), response.valid.eq(1)]

        with m.If(request.valid & request.ready):
            m.d.sync += [waiting.eq(1), owner.eq(chosen)]
        with m.If(response.valid & response.ready):
            m.d.sync += waiting.eq(0)
        return m

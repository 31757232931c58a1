"""Core-local interruptor: the hart's software interrupt and timer."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.register_bus import RegisterBus
from rtl.lib.register_block import RegisterBlock
from rtl.lib.skip import Skip
from rtl.maps import map_path

__all__ = ["Clint"]


class Clint(wiring.Component):
    """msip, mtimecmp and mtime of ``rtl/maps/clint.rdl``.

    The cycle within the tick is always the number of cycles with ``advance`` = 1 since reset,
    modulo ``cycles_per_tick``: mtime ticks when it begins anew, whatever software has written.

    Parameters
    ----------
    cycles_per_tick : int
        Cycles per tick of mtime, at most 65536.

    Members
    -------
    bus : In(RegisterBus())
        Addresses relative to the region.
    advance : In(1)
    skip : In(Skip)
        Time that passes in one step, in cycles with ``advance`` = 0.
    time : Out(64)
        mtime.
    msi, mti : Out(1)
        Interrupt lines, levels.

    Raises ValueError when ``cycles_per_tick`` is out of range.
    """

    bus: In(RegisterBus())
    advance: In(1)
    skip: In(Skip)
    time: Out(64)
    msi: Out(1)
    mti: Out(1)

    def __init__(self, *, cycles_per_tick: int):
        most = 1 << Skip.as_shape()["phase"].width
        if not isinstance(cycles_per_tick, int) or not 1 <= cycles_per_tick <= most:
            raise ValueError(f"cycles_per_tick must be from 1 to {most}, not {cycles_per_tick!r}")
        self._cycles_per_tick = cycles_per_tick
        super().__init__()

    @property
    def cycles_per_tick(self) -> int:
        return self._cycles_per_tick

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = RegisterBlock(map_path("clint"))
        connect(m, flipped(self.bus), registers.bus)

        phase = Signal(range(self._cycles_per_tick))
        last = phase == self._cycles_per_tick - 1
        ticks = Signal(self.skip.ticks.shape())
        with m.If(self.skip.valid):
            m.d.comb += ticks.eq(self.skip.ticks)
            m.d.sync += phase.eq(self.skip.phase)
        with m.Elif(self.advance):
            m.d.comb += ticks.eq(last)
            m.d.sync += phase.eq(Mux(last, 0, phase + 1))

        mtime = registers.mtime.ticks
        m.d.comb += [
            mtime.next.eq(mtime.value + ticks),
            self.time.eq(mtime.value),
            self.msi.eq(registers.msip.pending.value),
            self.mti.eq(mtime.value >= registers.mtimecmp.ticks.value),
        ]
        return m

"""Queues keep everything, in order."""

import itertools

from amaranth import *
from amaranth.hdl import ValueLike

from tests.proofs.properties import Fault, Proof, Properties

__all__ = ["PROOFS"]

_WIDTH = 8


def _ordered(p: Properties, unit, *, depth: int, clear: ValueLike = 0) -> tuple[Signal, Array]:
    """Compare a queue with a line of ``depth`` places: the level it must have, and the payloads."""
    line = [Signal(_WIDTH, name=f"line_{n}") for n in range(depth)]
    level = Signal(range(depth + 1), name="line_level")
    put, take = unit.i.valid & unit.i.ready, unit.o.valid & unit.o.ready
    with p.m.If(take):
        p.m.d.sync += [here.eq(behind) for here, behind in itertools.pairwise(line)]
    for place in range(depth):
        with p.m.If(put & (level - take == place)):
            p.m.d.sync += line[place].eq(unit.i.payload)
    p.m.d.sync += level.eq(level + put - take)
    with p.m.If(clear):
        p.m.d.sync += level.eq(0)
    p.invariant(level <= depth, "it holds no more than fits")
    p.always(unit.o.valid == (level != 0), "it offers a payload exactly when it holds one")
    p.always(~unit.o.valid | (unit.o.payload == line[0]), "it offers the oldest payload")
    return level, line


def _queue(depth: int):
    def properties(p, unit_class):
        queue = unit_class(shape=_WIDTH, depth=depth)
        inside = p.unit("queue", queue)
        words = [inside.memory_word("payloads", n) for n in range(depth)]
        level, line = _ordered(p, queue, depth=depth, clear=queue.clear)
        p.always(queue.level == level, "level counts the payloads")
        full = level == depth
        p.always(
            queue.i.ready == (~full | queue.o.ready), "it takes one unless it is full and stays so"
        )
        # The ring holds the line, from the place read next on.
        memory = inside.memory("payloads")
        read, write = memory.read_ports[0].addr, memory.write_ports[0].addr
        for place in range(depth):
            with p.m.Switch(read):
                for first in range(depth):
                    with p.m.Case(first):
                        p.invariant(
                            (level <= place) | (words[(first + place) % depth] == line[place]),
                            "the ring holds what the line holds",
                        )
        p.invariant(read < depth, "places of the ring")
        behind = Signal(range(2 * depth))
        p.m.d.comb += behind.eq(read + level)
        p.invariant(
            write == Mux(behind >= depth, behind - depth, behind), "it writes behind the newest"
        )

    return properties


def _slice(p, unit_class):
    register = unit_class(shape=_WIDTH)
    p.unit("register", register)
    level, _ = _ordered(p, register, depth=1)
    p.always(register.i.ready == (level == 0), "it takes one when it is empty")


PROOFS = (
    *(
        Proof(
            f"queue of {depth}",
            "rtl.lib.queue:Queue",
            _queue(depth),
            (
                Fault(
                    "a full queue takes one more",
                    "self.level != self._depth)",
                    "self.level != self._depth + 1)",
                ),
                Fault(
                    "the ring wraps early",
                    "place == self._depth - 1",
                    "place == self._depth - 2",
                ),
                Fault(
                    "clear keeps what comes",
                    "[write.addr.eq(0), read.addr.eq(0), self.level.eq(0)]",
                    "[write.addr.eq(0), read.addr.eq(0), self.level.eq(put)]",
                ),
            ),
        )
        for depth in (2, 3)
    ),
    Proof(
        "register slice",
        "rtl.lib.register_slice:RegisterSlice",
        _slice,
        (
            Fault(
                "it takes while it holds",
                "self.i.ready.eq(~self.o.valid)",
                "self.i.ready.eq(~self.o.valid | self.o.ready)",
            ),
            Fault("it forgets", "m.Elif(self.o.ready)", "m.Else()"),
        ),
    ),
)

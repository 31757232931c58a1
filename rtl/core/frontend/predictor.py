"""Branch prediction: where the packet after this one is."""

from amaranth import *
from amaranth.lib import data, enum, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.core.frontend.direction import HISTORY_BITS, Direction, DirectionPredictor
from rtl.lib.collisions import COLLISIONS_UNDEFINED

__all__ = [
    "CALL_DEPTH",
    "TARGET_BITS",
    "BranchKind",
    "BranchUpdate",
    "Prediction",
    "Predictor",
    "Repair",
]

#: Targets are sign-extended from this bit count: all of Sv39, and all physical addresses used.
TARGET_BITS = 39
_TAG_BITS = 12
#: Bits of a target that go into the history, in an order in which twice a distance is not that distance
#: one step later.
_PLACE = (3, 6, 2, 5, 1, 4)
#: Entries of the return stack.
CALL_DEPTH = 8
#: Packets are eight bytes.
_PACKET_BITS = 3


class BranchKind(enum.Enum, shape=3):
    """What the entry's instruction does, as far as prediction cares.

    INDIRECT jumps through a register, neither calling nor returning.
    """

    BRANCH = 0
    JUMP = 1
    CALL = 2
    RETURN = 3
    INDIRECT = 4


class Prediction(data.Struct):
    """What was predicted for a packet, and what is needed to take it back.

    ``known``: an instruction ending at halfword ``last`` changes control; ``taken``: the packet
    ends there and the next instruction is at ``target``. ``looked_up`` is the history the tables
    were read under, ``direction`` what they said. ``history`` and ``calls``
    are the predictor's state before this packet.
    """

    known: 1
    taken: 1
    last: 2
    target: TARGET_BITS
    looked_up: HISTORY_BITS
    direction: Direction
    history: HISTORY_BITS
    calls: range(CALL_DEPTH)


class BranchUpdate(data.Struct):
    """What an instruction that ends in the packet of ``pc`` turned out to do.

    ``learn`` makes it the packet's entry; ``forget`` drops the packet's entry. ``count`` says
    that it was a branch, predicted by ``direction`` under ``looked_up``.
    """

    learn: 1
    forget: 1
    count: 1
    pc: 64
    kind: BranchKind
    target: TARGET_BITS
    taken: 1
    looked_up: HISTORY_BITS
    direction: Direction


class Repair(data.Struct):
    """With ``valid`` the speculative state becomes that behind the redirecting instruction.

    ``history`` and ``calls`` are those of its prediction; a conditional branch that is ``taken`` or an
    indirect jump then adds its ``target``, a call pushes ``link``, a return pops.
    """

    valid: 1
    history: HISTORY_BITS
    calls: range(CALL_DEPTH)
    taken: 1
    kind: BranchKind
    target: TARGET_BITS
    link: TARGET_BITS


def _extended(history, kind, taken, target):
    """The history behind an instruction of ``kind``.

    It is a path: where branches that were taken and indirect jumps led. Those that were not taken
    show in the address of the next one that was.
    """
    moves = (kind == BranchKind.INDIRECT) | (kind == BranchKind.BRANCH) & taken
    place = Cat(target[bit] for bit in _PLACE)
    return Mux(moves, Cat(Const(0, 1), history) ^ place, history)[:HISTORY_BITS]


class Predictor(wiring.Component):
    """Predict the control flow of packets.

    A target buffer knows what ends a packet; branches take their direction from counters chosen
    by address and history, indirect jumps their target likewise, returns theirs from a stack.

    The tables are read at the end of a cycle with ``read`` at the packet of ``pc`` and answer in
    the next, for the address given there as ``current``. Every table is swept after reset, so that
    two runs are identical; ``ready`` tells when that is done.

    Parameters
    ----------
    target_count, indirect_count : int
        Entries of the target buffer and of the table of indirect targets; powers of two.
    counter_count : int
        See DirectionPredictor.

    Members
    -------
    pc, read, follows : In
        Address being issued; ``follows`` says that its predecessor is in phase 1.
    current : In(64)
        Address in phase 1; instructions before it in its packet do not count.
    prediction : Out(Prediction)
        For ``current``.
    accept : In(1)
        The packet of ``current`` goes on its way: history and return stack move on.
    update : In(BranchUpdate)
    repair : In(Repair)
        Takes precedence over ``accept``. In its cycle the packet being issued is the one behind
        the redirecting instruction.
    """

    pc: In(64)
    read: In(1)
    follows: In(1)
    current: In(64)
    prediction: Out(Prediction)
    accept: In(1)
    update: In(BranchUpdate)
    repair: In(Repair)
    ready: Out(1)

    def __init__(self, *, target_count, counter_count, indirect_count):
        self._target_count = target_count
        self._counter_count = counter_count
        self._indirect_count = indirect_count
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        entry_shape = data.StructLayout(
            {"valid": 1, "tag": _TAG_BITS, "last": 2, "kind": BranchKind, "target": TARGET_BITS - 1}
        )
        index_bits = exact_log2(self._target_count)
        indirect_bits = exact_log2(self._indirect_count)

        def index_of(pc):
            return pc[_PACKET_BITS : _PACKET_BITS + index_bits]

        def tag_of(pc):
            return pc[_PACKET_BITS + index_bits :][:_TAG_BITS]

        def indirect_index(pc, history):
            return (pc[_PACKET_BITS:] ^ history)[:indirect_bits]

        m.submodules.targets = targets = memory.Memory(
            shape=unsigned(entry_shape.size),
            depth=self._target_count,
            init=[],
            attrs=COLLISIONS_UNDEFINED,
        )
        m.submodules.direction = direction = DirectionPredictor(counter_count=self._counter_count)
        m.submodules.indirects = indirects = memory.Memory(
            shape=TARGET_BITS - 1,
            depth=self._indirect_count,
            init=[],
            attrs=COLLISIONS_UNDEFINED,
        )
        indirect_read, indirect_write = indirects.read_port(), indirects.write_port()
        target_read, target_write = targets.read_port(), targets.write_port()

        # A packet is looked up under the history before its predecessor, which in the fastest
        # case is not known any better then: the same path must always give the same history.
        history, lagging = Signal(HISTORY_BITS), Signal(HISTORY_BITS)
        looked_up = Signal(HISTORY_BITS)
        m.d.comb += looked_up.eq(
            Mux(self.repair.valid, self.repair.history, Mux(self.follows, history, lagging))
        )
        calls = Signal(range(CALL_DEPTH))
        m.submodules.stack = stack = memory.Memory(
            shape=unsigned(TARGET_BITS), depth=CALL_DEPTH, init=[]
        )
        top, push_port = stack.read_port(domain="comb"), stack.write_port()
        # After reset the tables are swept.
        largest = max(self._target_count, self._counter_count, self._indirect_count)
        sweeping, swept = Signal(init=1), Signal(range(largest))
        with m.If(sweeping):
            m.d.sync += [swept.eq(swept + 1), sweeping.eq(~swept.all())]

        m.d.comb += self.ready.eq(~sweeping)

        # Reading.
        read_history = Signal(HISTORY_BITS)
        entry = Signal(entry_shape)
        prediction = self.prediction
        m.d.comb += [
            target_read.addr.eq(index_of(self.pc)),
            target_read.en.eq(self.read),
            direction.pc.eq(self.pc),
            direction.history.eq(looked_up),
            direction.read.eq(self.read),
            indirect_read.addr.eq(indirect_index(self.pc, looked_up)),
            indirect_read.en.eq(self.read),
            entry.as_value().eq(target_read.data),
        ]
        with m.If(self.read):
            m.d.sync += read_history.eq(looked_up)
        known = (
            entry.valid
            & (entry.tag == tag_of(self.current))
            & (entry.last >= self.current[1:_PACKET_BITS])
            & ~sweeping
        )
        returns = entry.kind == BranchKind.RETURN
        is_branch = entry.kind == BranchKind.BRANCH
        m.d.comb += [
            top.addr.eq(calls),
            prediction.known.eq(known),
            prediction.taken.eq(known & (~is_branch | direction.taken)),
            prediction.last.eq(entry.last),
            prediction.target.eq(
                Mux(
                    returns,
                    top.data,
                    Cat(
                        Const(0, 1),
                        Mux(entry.kind == BranchKind.INDIRECT, indirect_read.data, entry.target),
                    ),
                )
            ),
            prediction.looked_up.eq(read_history),
            prediction.history.eq(history),
            prediction.direction.eq(direction.direction),
            prediction.calls.eq(calls),
        ]

        # Moving on.
        push = Signal()
        link = Signal(TARGET_BITS)
        base = Signal(range(CALL_DEPTH))
        m.d.comb += [
            base.eq(calls),
            link.eq(Cat(Const(0, 1), entry.last, self.current[_PACKET_BITS:TARGET_BITS]) + 2),
        ]
        repair, accepts = self.repair, Signal()
        pushes, pops = Signal(), Signal()
        next_history = Signal(HISTORY_BITS)
        m.d.comb += accepts.eq(repair.valid | self.accept)
        with m.If(repair.valid):
            m.d.comb += [
                base.eq(repair.calls),
                link.eq(repair.link),
                pushes.eq(repair.kind == BranchKind.CALL),
                pops.eq(repair.kind == BranchKind.RETURN),
                next_history.eq(
                    _extended(repair.history, repair.kind, repair.taken, repair.target)
                ),
            ]
        with m.Else():
            extended = _extended(history, entry.kind, prediction.taken, prediction.target)
            m.d.comb += [
                pushes.eq(known & (entry.kind == BranchKind.CALL)),
                pops.eq(known & returns),
                next_history.eq(Mux(known, extended, history)),
            ]
        m.d.comb += push.eq(pushes & accepts)
        # Whether the packet goes on its way is known last.
        with m.If(accepts):
            m.d.sync += [
                lagging.eq(Mux(repair.valid, repair.history, history)),
                history.eq(next_history),
                calls.eq(base + pushes - pops),
            ]
        m.d.comb += [
            push_port.en.eq(push),
            push_port.addr.eq(base + 1),
            push_port.data.eq(link),
        ]

        # Learning.
        update = self.update
        learned = Signal(entry_shape)
        m.d.comb += [
            learned.valid.eq(update.learn),
            learned.tag.eq(tag_of(update.pc)),
            learned.last.eq(update.pc[1:_PACKET_BITS]),
            learned.kind.eq(update.kind),
            learned.target.eq(update.target[1:]),
            target_write.addr.eq(index_of(update.pc)),
            target_write.data.eq(learned.as_value()),
            target_write.en.eq(update.learn | update.forget),
            direction.update.valid.eq(update.count),
            direction.update.pc.eq(update.pc),
            direction.update.history.eq(update.looked_up),
            direction.update.direction.eq(update.direction),
            direction.update.taken.eq(update.taken),
            direction.sweep.eq(sweeping),
            direction.swept.eq(swept),
            indirect_write.addr.eq(indirect_index(update.pc, update.looked_up)),
            indirect_write.data.eq(update.target[1:]),
            indirect_write.en.eq(update.learn & (update.kind == BranchKind.INDIRECT)),
        ]
        with m.If(sweeping):
            m.d.comb += [
                target_write.addr.eq(swept),
                target_write.data.eq(0),
                target_write.en.eq(1),
                indirect_write.addr.eq(swept),
                indirect_write.data.eq(0),
                indirect_write.en.eq(1),
                push_port.addr.eq(swept),
                push_port.data.eq(0),
                push_port.en.eq(1),
            ]
        return m

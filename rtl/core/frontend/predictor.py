"""Branch prediction: where the packet after this one is."""

from amaranth import *
from amaranth.lib import data, enum, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

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
_HISTORY_BITS = 10
_TARGET_ENTRIES = 256
_TAG_BITS = 12
#: Entries of the return stack.
CALL_DEPTH = 8
#: Packets are eight bytes.
_PACKET_BITS = 3


class BranchKind(enum.Enum, shape=2):
    """What the entry's instruction does, as far as prediction cares."""

    BRANCH = 0
    JUMP = 1
    CALL = 2
    RETURN = 3


class Prediction(data.Struct):
    """What was predicted for a packet, and what is needed to take it back.

    ``known``: an instruction ending at halfword ``last`` changes control; ``taken``: the packet
    ends there and the next instruction is at ``target``. ``history``, ``counter`` and ``calls``
    are the predictor's state before this packet.
    """

    known: 1
    taken: 1
    last: 2
    target: TARGET_BITS
    history: _HISTORY_BITS
    counter: 2
    calls: range(CALL_DEPTH)


class BranchUpdate(data.Struct):
    """What an instruction that ends in the packet of ``pc`` turned out to do.

    ``learn`` makes it the packet's entry; ``forget`` drops the packet's entry. ``count`` moves the
    direction counter found in ``counter`` under ``history`` towards ``taken``.
    """

    learn: 1
    forget: 1
    count: 1
    pc: 64
    kind: BranchKind
    target: TARGET_BITS
    taken: 1
    history: _HISTORY_BITS
    counter: 2


class Repair(data.Struct):
    """With ``valid`` the speculative state becomes that behind the redirecting instruction.

    ``history`` and ``calls`` are those of its prediction; a conditional branch (``branch``) then
    adds ``taken``, a call pushes ``link``, a return pops.
    """

    valid: 1
    history: _HISTORY_BITS
    calls: range(CALL_DEPTH)
    branch: 1
    taken: 1
    kind: BranchKind
    link: TARGET_BITS


class Predictor(wiring.Component):
    """Predict the control flow of packets: target buffer, gshare direction, return stack.

    The tables are read at the end of a cycle with ``read`` at the packet of ``pc`` and answer in
    the next, for the address given there as ``current``. Every table forgets everything on
    reset, in some hundred cycles without ``hold`` in which nothing is predicted: two runs are
    identical, however long the hart was parked.

    Members
    -------
    pc, read : In
        Address being issued.
    current : In(64)
        Address in phase 1; instructions before it in its packet do not count.
    prediction : Out(Prediction)
        For ``current``.
    accept : In(1)
        The packet of ``current`` goes on its way: history and return stack move on.
    update : In(BranchUpdate)
    repair : In(Repair)
        Takes precedence over ``accept``.
    hold : In(1)
        The hart is parked: this cycle is no machine time, or may be skipped.
    """

    pc: In(64)
    read: In(1)
    current: In(64)
    prediction: Out(Prediction)
    accept: In(1)
    update: In(BranchUpdate)
    repair: In(Repair)
    hold: In(1)

    def elaborate(self, platform):
        m = Module()
        entry_shape = data.StructLayout(
            {"valid": 1, "tag": _TAG_BITS, "last": 2, "kind": BranchKind, "target": TARGET_BITS - 1}
        )
        index_bits = exact_log2(_TARGET_ENTRIES)

        def index_of(pc):
            return pc[_PACKET_BITS : _PACKET_BITS + index_bits]

        def tag_of(pc):
            return pc[_PACKET_BITS + index_bits :][:_TAG_BITS]

        def counter_index(pc, history):
            return pc[_PACKET_BITS : _PACKET_BITS + _HISTORY_BITS] ^ history

        m.submodules.targets = targets = memory.Memory(
            shape=unsigned(entry_shape.size), depth=_TARGET_ENTRIES, init=[]
        )
        m.submodules.counters = counters = memory.Memory(shape=2, depth=1 << _HISTORY_BITS, init=[])
        target_read, target_write = targets.read_port(), targets.write_port()
        counter_read, counter_write = counters.read_port(), counters.write_port()

        history = Signal(_HISTORY_BITS)
        calls = Signal(range(CALL_DEPTH))
        stack = [Signal(TARGET_BITS, name=f"call{n}") for n in range(CALL_DEPTH)]
        # After reset the tables are swept.
        sweeping, swept = Signal(init=1), Signal(_HISTORY_BITS)
        with m.If(sweeping & ~self.hold):
            m.d.sync += [swept.eq(swept + 1), sweeping.eq(~swept.all())]

        # Reading.
        read_history = Signal(_HISTORY_BITS)
        entry = Signal(entry_shape)
        prediction = self.prediction
        m.d.comb += [
            target_read.addr.eq(index_of(self.pc)),
            target_read.en.eq(self.read),
            counter_read.addr.eq(counter_index(self.pc, history)),
            counter_read.en.eq(self.read),
            entry.as_value().eq(target_read.data),
        ]
        with m.If(self.read):
            m.d.sync += read_history.eq(history)
        known = (
            entry.valid
            & (entry.tag == tag_of(self.current))
            & (entry.last >= self.current[1:_PACKET_BITS])
            & ~sweeping
        )
        returns = entry.kind == BranchKind.RETURN
        is_branch = entry.kind == BranchKind.BRANCH
        top = Signal(TARGET_BITS)
        with m.Switch(calls):
            for n in range(CALL_DEPTH):
                with m.Case(n):
                    m.d.comb += top.eq(stack[n])
        m.d.comb += [
            prediction.known.eq(known),
            prediction.taken.eq(known & (~is_branch | counter_read.data[1])),
            prediction.last.eq(entry.last),
            prediction.target.eq(Mux(returns, top, Cat(Const(0, 1), entry.target))),
            prediction.history.eq(read_history),
            prediction.counter.eq(counter_read.data),
            prediction.calls.eq(calls),
        ]

        # Moving on.
        push, pop = Signal(), Signal()
        link = Signal(TARGET_BITS)
        base = Signal(range(CALL_DEPTH))
        m.d.comb += [
            base.eq(calls),
            link.eq(Cat(Const(0, 1), entry.last, self.current[_PACKET_BITS:TARGET_BITS]) + 2),
        ]
        repair = self.repair
        with m.If(repair.valid):
            m.d.comb += [
                base.eq(repair.calls),
                link.eq(repair.link),
                push.eq(repair.kind == BranchKind.CALL),
                pop.eq(repair.kind == BranchKind.RETURN),
            ]
            m.d.sync += history.eq(
                Mux(repair.branch, Cat(repair.taken, repair.history), repair.history)
            )
        with m.Elif(self.accept & known):
            m.d.comb += [push.eq(entry.kind == BranchKind.CALL), pop.eq(returns)]
            with m.If(is_branch):
                m.d.sync += history.eq(Cat(prediction.taken, history))
        with m.If(repair.valid | self.accept):
            m.d.sync += calls.eq(base + push - pop)
        with m.If(push):
            with m.Switch((base + 1)[: len(calls)]):
                for n in range(CALL_DEPTH):
                    with m.Case(n):
                        m.d.sync += stack[n].eq(link)

        # Learning.
        update = self.update
        learned = Signal(entry_shape)
        step = Mux(
            update.taken,
            Mux(update.counter == 3, 3, update.counter + 1),
            Mux(update.counter == 0, 0, update.counter - 1),
        )
        m.d.comb += [
            learned.valid.eq(update.learn),
            learned.tag.eq(tag_of(update.pc)),
            learned.last.eq(update.pc[1:_PACKET_BITS]),
            learned.kind.eq(update.kind),
            learned.target.eq(update.target[1:]),
            target_write.addr.eq(index_of(update.pc)),
            target_write.data.eq(learned.as_value()),
            target_write.en.eq(update.learn | update.forget),
            counter_write.addr.eq(counter_index(update.pc, update.history)),
            counter_write.data.eq(step),
            counter_write.en.eq(update.count),
        ]
        with m.If(sweeping):
            m.d.comb += [
                target_write.addr.eq(swept),
                target_write.data.eq(0),
                target_write.en.eq(1),
                counter_write.addr.eq(swept),
                # Weakly taken: a branch gets its entry when it is taken for the first time.
                counter_write.data.eq(2),
                counter_write.en.eq(1),
            ]
        return m

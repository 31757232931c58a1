"""Fetch aligned eight-byte packets along the predicted path."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS
from rtl.arch.paging import PAGE_BITS
from rtl.bus.register_bus import RegisterBus
from rtl.core.frontend.instruction_cache import FetchAccess, FetchResult
from rtl.core.frontend.next_packet import NextPacket
from rtl.core.frontend.predictor import TARGET_BITS, BranchUpdate, Prediction, Predictor, Repair
from rtl.core.physical import fits_bus, is_ram, is_rom
from rtl.mmu.context import (
    Access,
    Fault,
    TranslationContext,
    TranslationQuery,
)
from rtl.mmu.ports import TranslationPort

__all__ = ["FetchPacket", "FetchUnit", "Redirect"]


class Redirect(data.Struct):
    """With ``valid``, everything younger is dropped and fetching goes on at ``pc``.

    The fetch unit issues ``pc`` in the very cycle, so it should come from a register.
    """

    valid: 1
    pc: 64


class FetchPacket(data.Struct):
    """Eight aligned bytes of code, or the fault met instead; the prediction made for them."""

    data: 64
    fault: Fault
    prediction: Prediction


class _State(enum.Enum, shape=4):
    RUN = 0
    WALK = 1
    WALKED = 2
    CACHE = 3
    BUS_WAIT = 4
    BUS_REQUEST = 5
    BUS_RESPONSE = 6
    STOPPED = 7
    WALK_WAIT = 8


class FetchUnit(wiring.Component):
    """Turn a sequence of addresses into packets, one per cycle when cache and TLB hit.

    A packet follows two cycles after its address was issued. After a fault the unit waits for a
    redirect. After a packet predicted to end in a taken branch comes the one at its target, at
    once where NextPacket knows it, else one cycle later. Tables are walked only while ``alone`` says
    that no older instruction is under way: what a wrong path asks for is often refused, which takes
    longest, and keeps the right path waiting. Code in ROM is fetched over the register bus, and
    likewise never on speculation. No other place holds code: it gives an access fault, and no
    device sees the fetch.

    Parameters
    ----------
    target_count, counter_count, indirect_count : int
        See Predictor.

    Members
    -------
    redirect : In(Redirect)
    repair, update : In(Repair), In(BranchUpdate)
        To the predictor; a repair comes with a redirect.
    context : In(TranslationContext)
        Stable except together with a redirect.
    hold : In(1)
        Start nothing new; ``idle`` follows.
    alone : In(1)
    room : In(1)
        The consumer can take two more packets; it never refuses one that was let through.
    index, open, access, result :
        To the instruction cache.
    """

    redirect: In(Redirect)
    repair: In(Repair)
    update: In(BranchUpdate)
    context: In(TranslationContext)
    hold: In(1)
    alone: In(1)
    room: In(1)
    translation: Out(TranslationPort())
    index: Out(stream.Signature(PAGE_BITS))
    open: In(1)
    access: Out(FetchAccess)
    result: In(FetchResult)
    peripheral: Out(RegisterBus())
    o: Out(stream.Signature(FetchPacket))
    walk_stb: Out(1)
    idle: Out(1)

    def __init__(self, *, target_count, counter_count, indirect_count):
        self._predictor = {
            "target_count": target_count,
            "counter_count": counter_count,
            "indirect_count": indirect_count,
        }
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        state = Signal(_State)
        # The address in phase 0: that of a redirect; the one that turned out to follow what was in
        # phase 1 in the cycle before; else the one it stands at.
        pc, place = Signal(64), Signal(64)
        turned, follower_before = Signal(), Signal(64)
        redirected = self.redirect.valid
        # What is in phase 1 should never have been issued.
        drops = redirected | turned
        # The address in phase 1, whether there is one, and the packet behind it in memory.
        current, current_valid = Signal(64), Signal()
        behind = Signal(64 - 3)
        # A redirect made the awaited answer worthless.
        stale = Signal()
        walk_query = Signal(TranslationQuery)
        bus_address = Signal(BUS_ADDRESS_BITS)

        m.submodules.predictor = predictor = Predictor(**self._predictor)
        prediction = predictor.prediction
        m.submodules.next_packet = next_packet = NextPacket()
        # The packet after the one in phase 1 as first guessed, and as predicted.
        guessed, turns, elsewhere = Signal(), Signal(), Signal()
        in_line, follower, learnt_pc = Signal(64), Signal(64), Signal(64)
        # What missed the cache is answered now, and fetching has long stopped behind it.
        resumes = Signal()

        # Translation goes along with phase 0 of the cache; its answer is there in phase 1. Whatever
        # makes it stale by then comes with a redirect.
        query = self.translation.query
        hit, translation = self.translation.hit, self.translation.translation
        in_ram = is_ram(translation.frame)
        # Nothing in the answer of the cache may stand before this one.
        serves = (translation.fault == Fault.NONE) & fits_bus(translation.frame) & in_ram
        wanted = ~stale & ~redirected
        packet = self.o.payload
        advance = Signal()  # phase 1 is empty, or is answered in this cycle
        issued = Signal()

        m.d.comb += [
            pc.eq(Mux(redirected, self.redirect.pc, Mux(turned, follower_before, place))),
            query.gva.eq(pc),
            query.access.eq(Access.FETCH),
            query.context.eq(self.context),
            self.translation.walk.payload.eq(walk_query),
            self.translation.walk.valid.eq(state == _State.WALK),
            self.translation.walked.ready.eq(state == _State.WALKED),
            self.walk_stb.eq(self.translation.walk.valid & self.translation.walk.ready),
            self.access.frame.eq(translation.frame),
            packet.data.eq(self.result.data),
            self.peripheral.request.payload.address.eq(bus_address),
            self.peripheral.request.payload.mask.eq(0xFF),
            self.peripheral.request.valid.eq(state == _State.BUS_REQUEST),
            self.peripheral.response.ready.eq(1),
            self.index.payload.eq(pc[:PAGE_BITS]),
            # A redirect empties the queue behind this unit.
            self.index.valid.eq(
                ((state == _State.RUN) | ((state == _State.STOPPED) & redirected))
                & ~self.hold
                & (self.room | redirected)
            ),
            issued.eq(self.index.valid & self.index.ready & advance),
            predictor.pc.eq(pc),
            predictor.read.eq(self.index.valid & self.index.ready),
            predictor.follows.eq(current_valid & ~drops),
            predictor.current.eq(current),
            predictor.update.eq(self.update),
            predictor.repair.eq(self.repair),
            next_packet.pc.eq(pc),
            next_packet.learnt_pc.eq(learnt_pc),
            next_packet.learnt_target.eq(follower_before),
            in_line.eq(Cat(Const(0, 3), behind)),
            follower.eq(in_line),
            # A guess is a target, so the bits of one are enough.
            elsewhere.eq(place[:TARGET_BITS] != prediction.target),
            turns.eq(
                predictor.accept
                & ~resumes
                & Mux(guessed, ~prediction.taken | elsewhere, prediction.taken)
            ),
            self.idle.eq(
                predictor.ready
                & (((state == _State.RUN) & ~current_valid) | (state == _State.STOPPED))
            ),
        ]
        m.d.sync += [
            place.eq(pc),
            turned.eq(turns | resumes),
            follower_before.eq(follower),
            learnt_pc.eq(current),
            next_packet.learn.eq((turns | resumes) & prediction.taken),
            next_packet.forget.eq((turns | (resumes & guessed)) & ~prediction.taken),
        ]
        # It goes on even where phase 1 is not answered: whatever is done about that also says
        # where to go on.
        with m.If(self.index.valid & self.open):
            m.d.sync += place.eq(Cat(Const(0, 3), pc[3:] + 1))
            with m.If(next_packet.hit):
                m.d.sync += place.eq(next_packet.target.as_signed())
        with m.If(issued):
            m.d.sync += [current.eq(pc), guessed.eq(next_packet.hit), behind.eq(pc[3:] + 1)]
        with m.If(prediction.taken):
            m.d.comb += follower.eq(prediction.target.as_signed())
        # Only what comes from the cache has been predicted.
        with m.If(((state == _State.RUN) & serves) | (state == _State.CACHE)):
            m.d.comb += packet.prediction.eq(prediction)

        with m.Switch(state):
            with m.Case(_State.RUN):
                m.d.sync += current_valid.eq(issued)
                m.d.sync += bus_address.eq(Cat(current[:PAGE_BITS], translation.frame))
                m.d.sync += bus_address[:3].eq(0)
                with m.If(~current_valid | drops):
                    m.d.comb += advance.eq(1)
                with m.Elif(~hit):
                    m.d.sync += [
                        state.eq(_State.WALK_WAIT),
                        walk_query.eq(query),
                        walk_query.gva.eq(current),
                    ]
                with m.Elif(translation.fault != Fault.NONE):
                    m.d.comb += [self.o.valid.eq(1), packet.fault.eq(translation.fault)]
                    m.d.sync += state.eq(_State.STOPPED)
                with m.Elif(~fits_bus(translation.frame) | ~(in_ram | is_rom(translation.frame))):
                    m.d.comb += [self.o.valid.eq(1), packet.fault.eq(Fault.ACCESS)]
                    m.d.sync += state.eq(_State.STOPPED)
                with m.Elif(~in_ram):
                    m.d.sync += state.eq(_State.BUS_WAIT)
                with m.Else():
                    m.d.comb += self.access.valid.eq(1)
                    with m.If(self.result.valid):
                        m.d.comb += [
                            self.o.valid.eq(1),
                            advance.eq(1),
                            predictor.accept.eq(1),
                        ]
                        with m.If(self.result.error):
                            m.d.comb += packet.fault.eq(Fault.ACCESS)
                            m.d.sync += state.eq(_State.STOPPED)
                    with m.Else():
                        m.d.sync += state.eq(_State.CACHE)
            with m.Case(_State.WALK_WAIT, _State.BUS_WAIT):
                walks = state == _State.WALK_WAIT
                with m.If(redirected):
                    m.d.sync += state.eq(_State.RUN)
                with m.Elif(self.hold):
                    m.d.sync += [state.eq(_State.RUN), place.eq(current)]
                with m.Elif(self.alone):
                    m.d.sync += state.eq(Mux(walks, _State.WALK, _State.BUS_REQUEST))
            with m.Case(_State.WALK):
                with m.If(self.translation.walk.ready):
                    m.d.sync += state.eq(_State.WALKED)
            with m.Case(_State.WALKED):
                with m.If(self.translation.walked.valid):
                    m.d.sync += [state.eq(_State.RUN), place.eq(current)]
                    with m.If(self.translation.walked.payload != Fault.NONE):
                        m.d.comb += [
                            self.o.valid.eq(wanted),
                            packet.fault.eq(self.translation.walked.payload),
                        ]
                        m.d.sync += state.eq(_State.STOPPED)
            with m.Case(_State.CACHE):
                with m.If(self.result.refilled):
                    m.d.comb += [
                        self.o.valid.eq(wanted),
                        predictor.accept.eq(wanted),
                        resumes.eq(wanted),
                    ]
                    m.d.sync += state.eq(_State.RUN)
                    with m.If(self.result.error):
                        m.d.comb += packet.fault.eq(Fault.ACCESS)
                        m.d.sync += state.eq(_State.STOPPED)
            with m.Case(_State.BUS_REQUEST):
                with m.If(self.peripheral.request.ready):
                    m.d.sync += state.eq(_State.BUS_RESPONSE)
            with m.Case(_State.BUS_RESPONSE):
                m.d.comb += packet.data.eq(self.peripheral.response.payload.data)
                with m.If(self.peripheral.response.valid):
                    m.d.comb += self.o.valid.eq(wanted)
                    m.d.sync += [state.eq(_State.RUN), place.eq(in_line)]
                    with m.If(self.peripheral.response.payload.error):
                        m.d.comb += packet.fault.eq(Fault.ACCESS)
                        m.d.sync += state.eq(_State.STOPPED)

            with m.Case(_State.STOPPED):
                with m.If(redirected):
                    m.d.comb += advance.eq(1)
                    m.d.sync += [state.eq(_State.RUN), current_valid.eq(issued)]

        answering = (
            (state == _State.WALKED) & self.translation.walked.valid
            | (state == _State.CACHE) & self.result.refilled
            | (state == _State.BUS_RESPONSE) & self.peripheral.response.valid
        )
        waiting = (
            (state == _State.WALK)
            | (state == _State.WALKED)
            | (state == _State.CACHE)
            | (state == _State.BUS_REQUEST)
            | (state == _State.BUS_RESPONSE)
        )
        with m.If(answering):
            m.d.sync += stale.eq(0)
            with m.If(~wanted):
                m.d.sync += [state.eq(_State.RUN), place.eq(pc)]
        with m.Elif(redirected & waiting):
            m.d.sync += stale.eq(1)
        return m

"""Loads, stores and atomics of the instruction in the commit stage."""

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS
from rtl.arch.paging import PAGE_BITS
from rtl.arch.traps import Exception_
from rtl.bus.register_bus import RegisterBus
from rtl.core.decode import MemoryOperation
from rtl.core.lsu.atomic import AtomicAlu
from rtl.core.lsu.data_cache import DataAccess, DataResult
from rtl.core.physical import fits_bus, is_ram
from rtl.core.ports import WaitingAccess, Written
from rtl.mmu.context import (
    Access,
    Fault,
    TranslationContext,
    TranslationQuery,
)
from rtl.mmu.ports import TranslationPort

__all__ = ["Alignment", "LoadStoreUnit", "MemoryInstruction", "alignment_of"]

#: Reservations cover the cache line.
_LINE_BITS = 6


class Alignment(data.Struct):
    """``misaligned``: the address is no multiple of the size; ``crosses``: eight bytes that are
    aligned do not hold all of it.
    """

    misaligned: 1
    crosses: 1


class MemoryInstruction(data.Struct):
    """A memory instruction; ``funct3`` gives width and extension, ``data`` the value stored;
    ``alignment`` is that of ``address``.
    """

    operation: MemoryOperation
    funct3: 3
    funct5: 5
    address: 64
    alignment: Alignment
    data: 64


def alignment_of(size, offset):
    """The Alignment of an access of ``1 << size`` bytes (2 bits) at ``offset`` (3 bits)."""
    last = Array(Const((1 << log) - 1, 3) for log in range(4))[size]
    crossing = (offset + last)[3]
    return Cat((offset & last).any(), crossing)


class _State(enum.Enum, shape=4):
    READY = 0
    INDEX = 1
    ACCESS = 2
    CACHE = 3
    WALK = 4
    WALKED = 5
    BUS_REQUEST = 6
    BUS_RESPONSE = 7
    COMPUTE = 8
    #: What cannot be done ends here: from registers, for a fault stops everybody.
    FAULT = 9


class _Step(enum.Enum, shape=3):
    """What the access under way is for."""

    ONLY = 0  # the whole of an access inside eight bytes
    LOAD_LOW = 1  # the halves of an access that crosses eight bytes
    LOAD_HIGH = 2
    PROBE_LOW = 3  # a store's low half: translation alone, so that no half is stored in vain
    STORE_HIGH = 4
    STORE_LOW = 5
    AMO_STORE = 6


def _rotate_left(value, lanes):
    """``value`` (64 bits) rotated left by ``lanes`` (3 bits) bytes."""
    for bit in range(3):
        value = Mux(lanes[bit], value.rotate_left(8 << bit), value)
    return value


class LoadStoreUnit(wiring.Component):
    """Carry out one memory instruction; it is in the commit stage, so never on speculation.

    A load that hits TLB and cache and was ``indexed`` in the cycle before is done in the cycle
    it starts. An access crossing eight bytes takes two. Misaligned accesses work in RAM; outside
    they are access faults, as are atomics there. Misaligned atomics are misaligned exceptions.

    Members
    -------
    start : In(1)
        First cycle of ``instruction``, which then holds still until ``done``.
    indexed : In(1)
        With ``start``: its page offset went to the data cache in the cycle before, and its address was
        ``next_address``.
    next_valid, next_address, next_reads : In
        The memory instruction in the execute stage, if there is one: it is translated there.
    held : In(1)
        ``instruction`` has taken a cycle already: ``waiting`` may come next, not that one.
    waiting : In(WaitingAccess)
    done, value, fault, cause, fault_address :
        In the cycle with ``done``: the value for rd, or the exception and its mtval. ``done`` and
        ``value`` come late; ``fault`` and what goes with it from registers.
    clear_reservation, written : In
    refusal : Out(Fault)
        With ``fault``: which one of the EPT it was; otherwise not an EPT_* one.
    physical, stored :
        Bus address of the access (its first byte), and whether memory was written; valid with
        ``done``.
    """

    instruction: In(MemoryInstruction)
    start: In(1)
    indexed: In(1)
    next_valid: In(1)
    next_address: In(64)
    next_reads: In(1)
    held: In(1)
    waiting: In(WaitingAccess)
    context: In(TranslationContext)
    done: Out(1)
    value: Out(64)
    fault: Out(1)
    cause: Out(6)
    fault_address: Out(64)
    refusal: Out(Fault)
    physical: Out(BUS_ADDRESS_BITS)
    stored: Out(1)
    clear_reservation: In(1)
    written: In(Written)

    translation: Out(TranslationPort())
    index: Out(stream.Signature(PAGE_BITS))
    access: Out(DataAccess)
    result: In(DataResult)
    lock: Out(1)
    peripheral: Out(RegisterBus())
    walk_stb: Out(1)
    idle: Out(1)

    def elaborate(self, platform):
        m = Module()
        instruction = self.instruction
        operation, size = instruction.operation, instruction.funct3[:2]
        offset = instruction.address[:3]
        is_load = operation == MemoryOperation.LOAD
        is_amo = operation == MemoryOperation.AMO
        is_lr = operation == MemoryOperation.LOAD_RESERVED
        is_sc = operation == MemoryOperation.STORE_CONDITIONAL
        atomic = is_amo | is_lr | is_sc
        reads = is_load | is_lr

        state = Signal(_State)
        # ``step`` as it stands, and as it is in the first cycle.
        step_register, step = Signal(_Step), Signal(_Step)
        crosses, misaligned = instruction.alignment.crosses, instruction.alignment.misaligned
        first_step = Mux(crosses, Mux(is_load, _Step.LOAD_LOW, _Step.PROBE_LOW), _Step.ONLY)
        m.d.comb += step.eq(Mux(self.start, first_step, step_register))
        high = (step == _Step.LOAD_HIGH) | (step == _Step.STORE_HIGH)

        # The second word is never accessed in the first cycle.
        gva, next_word = Signal(64), Signal(61)
        m.d.sync += next_word.eq(instruction.address[3:] + 1)
        m.d.comb += gva.eq(instruction.address)
        with m.If(high):
            m.d.comb += gva.eq(Cat(Const(0, 3), next_word))

        # Store data: one rotation serves both words an access may touch, the masks tell them apart.
        saved, computed = Signal(64), Signal(64)
        source = Mux(step == _Step.AMO_STORE, computed, instruction.data)
        rotated = Signal(64)
        mask = Signal(16)
        m.d.comb += [
            rotated.eq(_rotate_left(source, offset)),
            mask.eq(Mux(size == 3, 0xFF, Mux(size == 2, 0xF, Mux(size == 1, 3, 1))) << offset),
        ]

        # Loaded data: rotated down, the lanes of an access that crosses eight bytes from both words.
        # An AMO finds all that it has read in ``saved``.
        bus = (state == _State.BUS_REQUEST) | (state == _State.BUS_RESPONSE)
        word = Mux(bus, self.peripheral.response.payload.data, self.result.data)
        raw, loaded = Signal(64), Signal(64)
        m.d.comb += raw.eq(_rotate_left(word, (-offset)[:3]))
        # The sign is taken from where it stands before the rotation; it fills all lanes above.
        sign_lane, sign, sc_failed = Signal(3), Signal(), Signal()
        signs = [word.word_select(lane, 8)[7] for lane in range(8)]
        for bit in range(3):
            pairs = zip(signs[::2], signs[1::2], strict=True)
            signs = [Mux(sign_lane[bit], upper, lower) for lower, upper in pairs]
        m.d.comb += [
            sign_lane.eq(offset + Cat(size.any(), size[1], size.all())),
            sign.eq(Mux(is_amo, saved[31], signs[0]) & ~instruction.funct3[2] & ~is_sc),
        ]
        lanes = []
        for lane in range(8):
            is_saved = is_amo | ((step == _Step.LOAD_HIGH) & (offset < 8 - lane))
            chosen = Mux(is_saved, saved.word_select(lane, 8), raw.word_select(lane, 8))
            # SC has loaded nothing: its value is whether it failed.
            there = ~is_sc & (size >= (lane > 0) + (lane > 1) + (lane > 3))
            lanes.append(Mux(there, chosen, sign.replicate(8)))
        m.d.comb += loaded.eq(Cat(*lanes) | sc_failed)

        m.submodules.atomic = atomic_alu = AtomicAlu()
        m.d.comb += [
            atomic_alu.function.eq(instruction.funct5),
            atomic_alu.double.eq(size == 3),
            atomic_alu.memory.eq(saved),
            atomic_alu.register.eq(instruction.data),
        ]

        # Translation goes along with phase 0 of the cache; its answer is there in phase 1. Whatever
        # makes it stale by then also drops the instruction.
        query = self.translation.query
        walk_query = Signal(TranslationQuery)
        access_kind = Signal(Access)
        hit, translation = self.translation.hit, self.translation.translation
        with m.If(self.held | ~self.next_valid):
            m.d.comb += [
                query.gva.eq(self.waiting.address),
                query.access.eq(Mux(self.waiting.reads, Access.READ, Access.WRITE)),
            ]
            with m.If(state == _State.INDEX):
                m.d.comb += [query.gva.eq(gva), query.access.eq(access_kind)]
        with m.Else():
            m.d.comb += [
                query.gva.eq(self.next_address),
                query.access.eq(Mux(self.next_reads, Access.READ, Access.WRITE)),
            ]
        m.d.comb += [
            access_kind.eq(Mux(reads, Access.READ, Access.WRITE)),
            query.context.eq(self.context),
            self.translation.walk.payload.eq(walk_query),
            self.translation.walk.valid.eq(state == _State.WALK),
            self.translation.walked.ready.eq(state == _State.WALKED),
            self.walk_stb.eq(self.translation.walk.valid & self.translation.walk.ready),
        ]

        # Exceptions.
        def fail(kind):
            load, store = {
                "page": (Exception_.LOAD_PAGE_FAULT, Exception_.STORE_PAGE_FAULT),
                "access": (Exception_.LOAD_ACCESS_FAULT, Exception_.STORE_ACCESS_FAULT),
                "misaligned": (
                    Exception_.LOAD_ADDRESS_MISALIGNED,
                    Exception_.STORE_ADDRESS_MISALIGNED,
                ),
            }[kind]
            m.d.sync += [
                state.eq(_State.FAULT),
                self.cause.eq(Mux(reads, load, store)),
                self.refusal.eq(Fault.NONE),
            ]

        def fail_translation(fault):
            with m.If(fault == Fault.PAGE):
                fail("page")
            with m.Else():
                fail("access")
            m.d.sync += self.refusal.eq(fault)

        # The reservation, a line of RAM.
        reserved = Signal()
        reserved_line = Signal(BUS_ADDRESS_BITS - _LINE_BITS)
        physical = Signal(BUS_ADDRESS_BITS)
        physical_register = Signal(BUS_ADDRESS_BITS)
        m.d.comb += physical.eq(Cat(gva[:PAGE_BITS], translation.frame))
        first = self.start | (state == _State.ACCESS)
        sc_fails = ~reserved | (reserved_line != physical[_LINE_BITS:])

        writes_now = (
            ((step == _Step.ONLY) & ((operation == MemoryOperation.STORE) | is_sc))
            | (step == _Step.STORE_HIGH)
            | (step == _Step.STORE_LOW)
            | (step == _Step.AMO_STORE)
        )
        m.d.comb += [
            self.fault_address.eq(gva),
            self.physical.eq(Mux(first & ~high, physical, physical_register)),
            self.access.frame.eq(translation.frame),
            self.access.write.eq(writes_now),
            self.access.mask.eq(Mux(high, mask[8:], mask[:8])),
            self.access.data.eq(rotated),
            self.index.payload.eq(gva[:PAGE_BITS]),
            self.index.valid.eq(state == _State.INDEX),
            # From the read of an AMO to its write; a walk for it must not be locked out.
            self.lock.eq(
                is_amo
                & (self.start | (state != _State.READY))
                & (state != _State.WALK)
                & (state != _State.WALKED)
            ),
            self.peripheral.request.payload.address.eq(Cat(Const(0, 3), physical_register[3:])),
            self.peripheral.request.payload.write.eq(~reads),
            self.peripheral.request.payload.mask.eq(mask[:8]),
            self.peripheral.request.payload.data.eq(rotated),
            self.peripheral.request.valid.eq(state == _State.BUS_REQUEST),
            self.peripheral.response.ready.eq(1),
            self.value.eq(loaded),
            self.idle.eq((state == _State.READY) & ~self.start),
        ]

        def answered():
            """The access under way is done: go on with the next step, or finish."""
            with m.If(self.result.error):
                fail("access")
            with m.Else(), m.Switch(step):
                with m.Case(_Step.LOAD_LOW):
                    m.d.sync += [
                        saved.eq(raw),
                        step_register.eq(_Step.LOAD_HIGH),
                        state.eq(_State.INDEX),
                    ]
                with m.Case(_Step.STORE_HIGH):
                    m.d.sync += [step_register.eq(_Step.STORE_LOW), state.eq(_State.INDEX)]
                with m.Case(_Step.ONLY):
                    with m.If(is_amo):
                        m.d.sync += [
                            saved.eq(raw),
                            step_register.eq(_Step.AMO_STORE),
                            state.eq(_State.COMPUTE),
                        ]
                    with m.Else():
                        m.d.comb += [self.done.eq(1), self.stored.eq(~reads)]
                with m.Default():
                    m.d.comb += [self.done.eq(1), self.stored.eq(~reads)]

        with m.If(self.start & atomic & misaligned):
            m.d.sync += step_register.eq(step)
            fail("misaligned")
        with m.Elif(self.start & ~self.indexed):
            m.d.sync += [state.eq(_State.INDEX), step_register.eq(step)]
        with m.Elif(first):
            m.d.sync += step_register.eq(step)
            with m.If(~high):
                m.d.sync += physical_register.eq(physical)
            with m.If(~hit):
                m.d.sync += [
                    state.eq(_State.WALK),
                    walk_query.gva.eq(gva),
                    walk_query.access.eq(access_kind),
                    walk_query.context.eq(self.context),
                ]
            with m.Elif(translation.fault != Fault.NONE):
                fail_translation(translation.fault)
            with m.Elif(~fits_bus(translation.frame)):
                fail("access")
            with m.Elif(~is_ram(translation.frame)):
                with m.If(misaligned | atomic):
                    fail("access")
                with m.Else():
                    m.d.sync += state.eq(_State.BUS_REQUEST)
            with m.Elif(step == _Step.PROBE_LOW):
                m.d.sync += [step_register.eq(_Step.STORE_HIGH), state.eq(_State.INDEX)]
            with m.Elif(is_sc & sc_fails):
                m.d.comb += [self.done.eq(1), sc_failed.eq(1)]
            with m.Else():
                m.d.comb += self.access.valid.eq(1)
                with m.If(self.result.valid):
                    answered()
                with m.Else():
                    m.d.sync += state.eq(_State.CACHE)
        # Apart from the chain above: answers of the cache may follow from what it decides.
        with m.Switch(state):
            with m.Case(_State.INDEX):
                with m.If(self.index.ready):
                    m.d.sync += state.eq(_State.ACCESS)
            with m.Case(_State.CACHE):
                with m.If(self.result.valid):
                    answered()
            with m.Case(_State.COMPUTE):
                m.d.sync += [computed.eq(atomic_alu.result), state.eq(_State.INDEX)]
            with m.Case(_State.WALK):
                with m.If(self.translation.walk.ready):
                    m.d.sync += state.eq(_State.WALKED)
            with m.Case(_State.WALKED):
                with m.If(self.translation.walked.valid):
                    m.d.sync += state.eq(_State.INDEX)
                    with m.If(self.translation.walked.payload != Fault.NONE):
                        fail_translation(self.translation.walked.payload)
                    with m.Elif(step_register == _Step.STORE_HIGH):
                        # The other half's translation may have had to make room.
                        m.d.sync += step_register.eq(_Step.PROBE_LOW)
            with m.Case(_State.BUS_REQUEST):
                with m.If(self.peripheral.request.ready):
                    m.d.sync += state.eq(_State.BUS_RESPONSE)
            with m.Case(_State.BUS_RESPONSE):
                with m.If(self.peripheral.response.valid):
                    with m.If(self.peripheral.response.payload.error):
                        fail("access")
                    with m.Else():
                        m.d.comb += [self.done.eq(1), self.stored.eq(~reads)]
            with m.Case(_State.FAULT):
                m.d.comb += [self.done.eq(1), self.fault.eq(1)]

        with m.If(self.done):
            m.d.sync += state.eq(_State.READY)
        with m.If(self.done & is_lr & ~self.fault):
            m.d.sync += [reserved.eq(1), reserved_line.eq(self.physical[_LINE_BITS:])]
        with m.Elif(self.done & is_sc):
            m.d.sync += reserved.eq(0)
        with m.If(
            self.clear_reservation
            | (self.written.valid & (self.written.address[_LINE_BITS:] == reserved_line))
        ):
            m.d.sync += reserved.eq(0)
        return m

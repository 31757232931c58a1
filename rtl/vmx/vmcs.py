"""The current VMCS on the hart, and its way from and to memory (docs/isa/vmx.md#vmptrld)."""

from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS, MEMORY_MAP
from rtl.arch.vmx import instructions
from rtl.arch.vmx.fields import (
    GUEST_CSRS,
    VMCS_FIELD_BY_NUMBER,
    VMCS_FIELDS,
    VMCS_HEADER,
    VMCS_LAUNCH_STATE,
    VMCS_NUMBER_BITS,
    VMCS_REGION_BITS,
    VMCS_REVISION,
    LaunchState,
    VmcsArea,
)
from rtl.bus.snoop import SnoopPort
from rtl.lib.layouts import enum_of, struct_of
from rtl.vmx.entry_checks import FieldWrite

__all__ = [
    "InformationWrite",
    "VmInstructionError",
    "Vmcs",
    "VmcsAnswer",
    "VmcsCommand",
    "VmcsOperation",
]

_ERROR_BITS = 6
VmInstructionError = enum_of(instructions.VmInstructionError, width=_ERROR_BITS)
_Header = struct_of(VMCS_HEADER)
_NUMBERS = sorted(VMCS_FIELD_BY_NUMBER)
#: What no entry looks at is loaded last, when VMPTRLD has ended. Nothing of it lies at a higher
#: address than the rest: that memory is there is known by then.
_LOADED_LATE = [n for n in _NUMBERS if VMCS_FIELD_BY_NUMBER[n].area is VmcsArea.INFORMATION]
_LOADED_FIRST = [n for n in _NUMBERS if n not in _LOADED_LATE]
if max(_LOADED_LATE) > max(_LOADED_FIRST):
    raise AssertionError("the information area must not end behind everything else")
_NUMBER_BITS = max(_NUMBERS).bit_length()
_ERROR = VMCS_FIELDS["instruction_error"].number
#: Fields whose value the guest changes in its own CSRs.
_GUEST_CSRS = [VMCS_FIELDS[f"guest_{name}"].number for name in GUEST_CSRS]
_RAM = MEMORY_MAP["ram"]


class VmcsOperation(enum.Enum, shape=3):
    """What is asked of the unit; the VMX instructions of these names."""

    VMXON = 0
    VMXOFF = 1
    VMCLEAR = 2
    VMPTRLD = 3
    VMREAD = 4
    VMWRITE = 5
    #: VMfailValid, or VMfailInvalid without a current VMCS; ``operand`` is the error.
    FAIL = 6


class VmcsCommand(data.Struct):
    """``operand`` is the hpa of a region or the number of a field."""

    operation: VmcsOperation
    operand: 64
    value: 64


class VmcsAnswer(data.Struct):
    """``status`` is what rd gets of an instruction that gives a status."""

    status: signed(64)
    value: 64


class InformationWrite(data.Struct):
    """A field of the information area, as the hart writes it."""

    number: VMCS_NUMBER_BITS
    value: 64


class _State(enum.Enum, shape=4):
    IDLE = 0
    LOOK_UP = 1
    FIELD = 2
    FAIL = 3
    HEADER = 4
    WRITE_BACK = 5
    LAUNCH_STATE = 6
    LOAD = 7
    CLEAR = 8
    ANSWER = 9


def _any_of(values):
    return reduce(or_, values)


class Vmcs(wiring.Component):
    """Hold the fields of the current VMCS; read it from memory, write what has changed back.

    Members
    -------
    command : In(stream.Signature(VmcsCommand))
        One at a time, answered on ``answer``; taken when ``idle``.
    answer : Out(stream.Signature(VmcsAnswer))
    information : In(stream.Signature(InformationWrite))
        Taken between commands only.
    memory : Out(SnoopPort())
        Reads of a load are requested as fast as the port takes them.
    written : Out(FieldWrite)
        Every field that gets a value by VMWRITE or VMPTRLD, for whoever keeps a copy.
    guest_read, guest_number, guest_value : Out(1), Out(9), In(64)
        A field is asked for, and which; in the next cycle, if it is a guest CSR's, what that CSR holds. From
        ``entered`` until it is written the field is what the CSR is, but for its reserved bits.
    on : Out(1)
        In VMX operation.
    pointer, current : Out(32), Out(1)
        Whether there is a current VMCS, and where its region is.
    launched : Out(1)
        The launch state of the current VMCS.
    idle : Out(1)
        Neither a command is under way nor what a load has left for later.
    entered : In(1)
        The guest is entered, which makes the VMCS launched. Strobed in no cycle in which a command
        is carried out.
    """

    command: In(stream.Signature(VmcsCommand))
    answer: Out(stream.Signature(VmcsAnswer))
    information: In(stream.Signature(InformationWrite))
    memory: Out(SnoopPort())
    written: Out(FieldWrite)
    guest_read: Out(1)
    guest_number: Out(VMCS_NUMBER_BITS)
    guest_value: In(64)
    on: Out(1)
    pointer: Out(BUS_ADDRESS_BITS)
    current: Out(1)
    launched: Out(1)
    idle: Out(1)
    entered: In(1)

    def elaborate(self, platform):
        m = Module()
        self._state = state = Signal(_State)
        self._command = command = Signal(VmcsCommand)
        self._result = Signal(VmcsAnswer)
        self._error = Signal(_ERROR_BITS)
        # By the place of a field in ``_NUMBERS``: memory is behind; the CSR is what counts.
        self._dirty, self._live = Signal(len(_NUMBERS)), Signal(len(_NUMBERS))
        self._changed = Signal()  # the launch state
        self._store(m)

        operand = command.operand
        # A region lies in RAM and is aligned; whether RAM is there, memory says.
        self._is_region = Signal()
        m.d.comb += self._is_region.eq(
            (operand[:VMCS_REGION_BITS] == 0)
            & (operand >= _RAM.base)
            & (operand <= _RAM.end - (1 << VMCS_REGION_BITS))
        )
        with m.Switch(state):
            with m.Case(_State.IDLE):
                m.d.comb += [self.command.ready.eq(1), self.information.ready.eq(1)]
                m.d.sync += self._result.eq(0)
                with m.If(self.command.valid):
                    m.d.sync += [command.eq(self.command.payload), state.eq(_State.LOOK_UP)]
            with m.Case(_State.LOOK_UP):
                self._begin(m)
            with m.Case(_State.FIELD):
                self._field(m)
            with m.Case(_State.FAIL):
                self._fail(m)
            with m.Case(_State.HEADER):
                self._header(m)
            with m.Case(_State.WRITE_BACK):
                self._write_back(m)
            with m.Case(_State.LAUNCH_STATE):
                self._store_launch_state(m)
            with m.Case(_State.LOAD):
                self._load(m)
            with m.Case(_State.CLEAR):
                self._clear(m)
            with m.Case(_State.ANSWER):
                m.d.comb += [
                    self.answer.valid.eq(1),
                    self.answer.payload.eq(self._result),
                ]
                with m.If(self.answer.ready):
                    m.d.sync += state.eq(Mux(self._late, _State.LOAD, _State.IDLE))
        m.d.comb += self.idle.eq(state == _State.IDLE)
        with m.If(self.entered):
            m.d.sync += [
                self.launched.eq(1),
                self._changed.eq(self._changed | ~self.launched),
                self._live.eq(sum(1 << _NUMBERS.index(number) for number in _GUEST_CSRS)),
            ]
        return m

    def _store(self, m):
        """The fields, one read and one write per cycle."""
        m.submodules.fields = fields = Memory(shape=64, depth=1 << _NUMBER_BITS, init=[])
        self._read, self._write = fields.read_port(), fields.write_port()
        #: The field that was read in the last cycle, and whether its CSR is what counts.
        self._number, self._is_live = Signal(_NUMBER_BITS), Signal()
        self._is_dirty = Signal()
        self._index = Signal(range(len(_NUMBERS) + 1))
        #: What may have to be written back: fields left, the next, whether one has been read.
        self._left = Signal(len(_NUMBERS))
        self._next, self._next_valid, self._held = Signal(_NUMBER_BITS), Signal(), Signal()
        #: What is loaded late is still to come.
        self._late = Signal()
        reserved = Signal(64)
        with m.Switch(self._number):
            for number, field in VMCS_FIELD_BY_NUMBER.items():
                if field.reserved:
                    with m.Case(number):
                        m.d.comb += reserved.eq(field.reserved)
        # What the field holds, a cycle after it was asked for.
        self._value = Signal(64)
        kept = self._read.data
        m.d.comb += [
            self.guest_number.eq(self._read.addr),
            self._value.eq(
                Mux(self._is_live, self.guest_value & ~reserved | kept & reserved, kept)
            ),
        ]
        m.d.comb += self._read.en.eq(self.guest_read)
        self._mark = Signal()
        with m.If(self.guest_read):
            m.d.sync += [
                self._number.eq(self._read.addr),
                self._is_live.eq(0),
                self._is_dirty.eq(0),
            ]
            with m.Switch(self._read.addr):
                for place, number in enumerate(_NUMBERS):
                    with m.Case(number):
                        m.d.sync += self._is_dirty.eq(self._dirty[place])
                        if number in _GUEST_CSRS:
                            m.d.sync += self._is_live.eq(self._live[place])
        with m.If(self._write.en), m.Switch(self._write.addr):
            for place, number in enumerate(_NUMBERS):
                with m.Case(number):
                    m.d.sync += [self._dirty[place].eq(self._mark), self._live[place].eq(0)]
        payload = self.information.payload
        with m.If(self.information.valid & self.information.ready):
            self._put(m, payload.number, payload.value)

    def _put(self, m, number, value):
        """Write a field here; memory is behind from now on."""
        m.d.comb += [
            self._write.addr.eq(number),
            self._write.data.eq(value),
            self._write.en.eq(1),
            self._mark.eq(1),
        ]

    def _ask(self, m, number):
        """Read a field; it is in ``_value`` in the next cycle."""
        m.d.comb += [self._read.addr.eq(number), self.guest_read.eq(1)]

    def _fails(self, m, error):
        m.d.sync += [self._error.eq(error), self._state.eq(_State.FAIL)]

    def _begin(self, m):
        command, state = self._command, self._state
        number = command.operand[:_NUMBER_BITS]
        exists = command.operand.matches(*_NUMBERS)
        with m.Switch(command.operation):
            with m.Case(VmcsOperation.VMXON):
                with m.If(self.on):
                    self._fails(m, VmInstructionError.VMXON_IN_ROOT)
                with m.Else():
                    m.d.sync += [self.on.eq(1), self.current.eq(0), state.eq(_State.ANSWER)]
            with m.Case(VmcsOperation.VMXOFF):
                m.d.sync += [self.on.eq(0), self.current.eq(0), state.eq(_State.ANSWER)]
            with m.Case(VmcsOperation.VMREAD, VmcsOperation.VMWRITE):
                self._ask(m, number)
                with m.If(exists):
                    m.d.sync += state.eq(_State.FIELD)
                with m.Else():
                    self._fails(m, VmInstructionError.UNSUPPORTED_FIELD)
            with m.Case(VmcsOperation.VMPTRLD):
                with m.If(~self._is_region):
                    self._fails(m, VmInstructionError.VMPTRLD_INVALID_ADDRESS)
                with m.Elif(self.current & (command.operand == self.pointer)):
                    m.d.sync += state.eq(_State.ANSWER)
                with m.Else():
                    self._request(m, command.operand)
                    with m.If(self.memory.request.ready):
                        m.d.sync += state.eq(_State.HEADER)
            with m.Case(VmcsOperation.VMCLEAR):
                with m.If(~self._is_region):
                    self._fails(m, VmInstructionError.VMCLEAR_INVALID_ADDRESS)
                with m.Elif(self.current & (command.operand == self.pointer)):
                    self._start_write_back(m)
                with m.Else():
                    launch = command.operand | 8 * VMCS_LAUNCH_STATE
                    self._request(m, launch, write=LaunchState.CLEAR.value)
                    with m.If(self.memory.request.ready):
                        m.d.sync += state.eq(_State.CLEAR)
            with m.Default():
                self._fails(m, command.operand[:_ERROR_BITS])

    def _request(self, m, address, *, write=None):
        request = self.memory.request
        m.d.comb += [
            request.valid.eq(1),
            request.payload.address.eq(address),
            request.payload.forward.eq(1),
        ]
        if write is not None:
            m.d.comb += [
                request.payload.write.eq(1),
                request.payload.mask.eq(~0),
                request.payload.data.eq(write),
            ]

    def _field(self, m):
        """VMREAD or VMWRITE of a field that exists, whose value has been read."""
        command = self._command
        read_only = self._number.matches(
            *(number for number, field in VMCS_FIELD_BY_NUMBER.items() if field.read_only)
        )
        m.d.sync += self._state.eq(_State.ANSWER)
        with m.If(~self.current):
            m.d.sync += self._result.status.eq(-1)
        with m.Elif(command.operation == VmcsOperation.VMREAD):
            m.d.sync += self._result.value.eq(self._value)
        with m.Elif(read_only):
            self._fails(m, VmInstructionError.VMWRITE_READ_ONLY_FIELD)
        with m.Else():
            self._put(m, self._number, command.value)
            self._tell(m, self._number, command.value)

    def _tell(self, m, number, value):
        m.d.comb += [
            self.written.valid.eq(1),
            self.written.number.eq(number),
            self.written.value.eq(value),
        ]

    def _fail(self, m):
        m.d.sync += self._state.eq(_State.ANSWER)
        with m.If(self.current):
            m.d.sync += self._result.status.eq(self._error)
            self._put(m, Const(_ERROR, VMCS_NUMBER_BITS), self._error)
        with m.Else():
            m.d.sync += self._result.status.eq(-1)

    def _header(self, m):
        response = self.memory.response
        header = data.View(_Header, response.payload.data)
        m.d.comb += response.ready.eq(1)
        with m.If(response.valid):
            with m.If(response.payload.error):
                self._fails(m, VmInstructionError.VMPTRLD_INVALID_ADDRESS)
            with m.Elif((header.revision != VMCS_REVISION) | header.shadow):
                self._fails(m, VmInstructionError.VMPTRLD_WRONG_REVISION)
            with m.Elif(self.current):
                self._start_write_back(m)
            with m.Else():
                self._start_load(m)

    def _start_write_back(self, m):
        m.d.sync += [
            self._left.eq(self._dirty | self._live),
            self._next_valid.eq(0),
            self._held.eq(0),
            self._state.eq(_State.WRITE_BACK),
        ]

    def _write_back(self, m):
        """One cycle for each field that may have changed, and what memory takes if it has."""
        request, response = self.memory.request, self.memory.response
        waiting, done = Signal(), Signal()
        m.d.comb += response.ready.eq(1)
        changed = self._is_dirty | (self._is_live & (self._value != self._read.data))
        with m.If(waiting):
            m.d.comb += done.eq(response.valid)
            with m.If(response.valid):
                m.d.sync += waiting.eq(0)
        with m.Elif(self._held & changed):
            self._request(m, self.pointer | self._number << 3, write=self._value)
            with m.If(request.ready):
                m.d.sync += waiting.eq(1)
        with m.Else():
            m.d.comb += done.eq(1)
        # The field under way is read again and again, so that its value stays.
        self._ask(m, Mux(done, self._next, self._number))
        first = Signal(len(_NUMBERS))
        m.d.comb += first.eq(self._left & -self._left)
        with m.If(done):
            m.d.sync += [
                self._held.eq(self._next_valid),
                self._left.eq(self._left & ~first),
                self._next_valid.eq(self._left.any()),
                self._next.eq(
                    _any_of(
                        Mux(chosen, number, 0)
                        for chosen, number in zip(first, _NUMBERS, strict=True)
                    )
                ),
            ]
            with m.If(~self._next_valid & ~self._left.any()):
                m.d.sync += self._state.eq(_State.LAUNCH_STATE)

    def _store_launch_state(self, m):
        """The last part of writing back; VMCLEAR writes the launch state itself."""
        request, response = self.memory.request, self.memory.response
        waiting = Signal()
        m.d.comb += response.ready.eq(1)
        clear = self._command.operation == VmcsOperation.VMCLEAR
        launch = self.pointer | 8 * VMCS_LAUNCH_STATE
        with m.If(waiting):
            with m.If(response.valid):
                m.d.sync += waiting.eq(0)
                self._after_write_back(m, clear)
        with m.Elif(self._changed | clear):
            self._request(m, launch, write=self.launched & ~clear)
            with m.If(request.ready):
                m.d.sync += waiting.eq(1)
        with m.Else():
            self._after_write_back(m, clear)

    def _after_write_back(self, m, clear):
        m.d.sync += self.current.eq(0)
        with m.If(clear):
            m.d.sync += self._state.eq(_State.ANSWER)
        with m.Else():
            self._start_load(m)

    def _start_load(self, m):
        m.d.sync += [
            self._state.eq(_State.LOAD),
            self._index.eq(0),
            self._dirty.eq(0),
            self._changed.eq(0),
        ]

    def _load(self, m):
        """The launch state, then the fields, in two parts; requests run ahead of the responses."""
        request, response = self.memory.request, self.memory.response
        asked, failed = Signal(range(len(_NUMBERS) + 2)), Signal()
        order = [VMCS_LAUNCH_STATE, *_LOADED_FIRST, *_LOADED_LATE]
        numbers = Array(Const(number, _NUMBER_BITS) for number in order)
        end = Mux(self._late, len(order), 1 + len(_LOADED_FIRST))
        with m.If(asked != end):
            self._request(m, self._command.operand | numbers[asked] << 3)
            with m.If(request.ready):
                m.d.sync += asked.eq(asked + 1)
        m.d.comb += response.ready.eq(1)
        number = numbers[self._index]
        value = response.payload.data
        with m.If(response.valid):
            m.d.sync += [
                self._index.eq(self._index + 1),
                failed.eq(failed | response.payload.error),
            ]
            with m.If(self._index == 0):
                m.d.sync += self.launched.eq(value == LaunchState.LAUNCHED.value)
            with m.Else():
                m.d.comb += [
                    self._write.addr.eq(number),
                    self._write.data.eq(value),
                    self._write.en.eq(1),
                ]
                self._tell(m, number, value)
            with m.If(self._index == len(order) - 1):
                m.d.sync += [asked.eq(0), self._late.eq(0), self._state.eq(_State.IDLE)]
            with m.Elif(self._index == len(_LOADED_FIRST)):
                m.d.sync += failed.eq(0)
                with m.If(failed | response.payload.error):
                    m.d.sync += asked.eq(0)
                    self._fails(m, VmInstructionError.VMPTRLD_INVALID_ADDRESS)
                with m.Else():
                    m.d.sync += [
                        self.current.eq(1),
                        self.pointer.eq(self._command.operand),
                        self._late.eq(1),
                        self._state.eq(_State.ANSWER),
                    ]

    def _clear(self, m):
        response = self.memory.response
        m.d.comb += response.ready.eq(1)
        with m.If(response.valid):
            m.d.sync += self._state.eq(_State.ANSWER)
            with m.If(response.payload.error):
                self._fails(m, VmInstructionError.VMCLEAR_INVALID_ADDRESS)

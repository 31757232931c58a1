"""UART 16550 with 16-byte FIFOs, timed in machine cycles, its input tied to its output."""

from collections import deque
from collections.abc import Callable

from sw_vmm import bindings
from sw_vmm.devices.keyboard import Keyboard
from sw_vmm.devices.register_file import RegisterFile, mask_of, place_of

__all__ = ["Uart"]

_FIFO_DEPTH = 16
#: Byte times without a read or an arrival after which waiting bytes interrupt.
_TIMEOUT_BYTES = 4

_map = bindings.load("uart")
_port = _map.Uart(None, None).port
_NAMES = ("rbr", "thr", "ier", "iir", "fcr", "lcr", "mcr", "lsr", "msr", "scr")
_PLACES = {name: place_of(_map, getattr(_port, name)) for name in _NAMES}
_RBR, _IER, _IIR, _LCR, _MCR, _LSR, _MSR, _SCR = (
    _PLACES[name].offset for name in ("rbr", "ier", "iir", "lcr", "mcr", "lsr", "msr", "scr")
)
_THR, _FCR = _PLACES["thr"].offset, _PLACES["fcr"].offset

_DLAB = mask_of(_port.lcr, "dlab")
_IER_ALL = mask_of(_port.ier)
_IER_RECEIVED = mask_of(_port.ier, "received")
_IER_EMPTY = mask_of(_port.ier, "transmitter_empty")
_IER_LINE = mask_of(_port.ier, "line_status")
_IER_MODEM = mask_of(_port.ier, "modem_status")
_FIFOS = mask_of(_port.iir, "fifos")
_FCR_ENABLE = mask_of(_port.fcr, "enable")
_FCR_RECEIVE = mask_of(_port.fcr, "clear_receive")
_FCR_TRANSMIT = mask_of(_port.fcr, "clear_transmit")
_FCR_TRIGGER = _port.fcr._fields["trigger"]
_TRIGGER_BYTES = {"ONE": 1, "FOUR": 4, "EIGHT": 8, "FOURTEEN": 14}
_TRIGGERS = {int(member): _TRIGGER_BYTES[member.name] for member in _map.trigger_level}
_MCR_ALL = mask_of(_port.mcr)
_LOOPBACK = mask_of(_port.mcr, "loopback")
_READY = mask_of(_port.lsr, "data_ready")
_OVERRUN = mask_of(_port.lsr, "overrun")
_THR_EMPTY = mask_of(_port.lsr, "thr_empty")
_IDLE = mask_of(_port.lsr, "transmitter_empty")
_CHANGES = mask_of(_port.msr, "cts_changed", "dsr_changed", "ri_ended", "dcd_changed")
_RI = mask_of(_port.msr, "ri")
#: Modem inputs: (its bit, the change bit, the output that drives it in loopback).
_MODEM = (
    (mask_of(_port.msr, "cts"), mask_of(_port.msr, "cts_changed"), mask_of(_port.mcr, "rts")),
    (mask_of(_port.msr, "dsr"), mask_of(_port.msr, "dsr_changed"), mask_of(_port.mcr, "dtr")),
    (_RI, mask_of(_port.msr, "ri_ended"), mask_of(_port.mcr, "out1")),
    (mask_of(_port.msr, "dcd"), mask_of(_port.msr, "dcd_changed"), mask_of(_port.mcr, "out2")),
)
_MODEM_ON = mask_of(_port.msr, "cts", "dsr", "dcd")
_Source = _map.interrupt_source


def _modem_inputs(mcr: int) -> int:
    """The levels in msr under an mcr."""
    if not mcr & _LOOPBACK:
        return _MODEM_ON
    return sum(level for level, _, output in _MODEM if mcr & output)


class Uart:
    """The serial port of the RTL, in software: same registers, same times.

    ``output`` holds the bytes whose transmission is complete. Bytes of one access act together, on
    the state before it.

    Parameters
    ----------
    cycles_per_byte : int
        Cycles a byte takes, in both directions.
    line : callable
        Told the level of the interrupt line when it changes; it begins low.
    """

    _registers = RegisterFile(_PLACES.values())

    def __init__(self, *, cycles_per_byte: int, line: Callable[[bool], None] = lambda level: None):
        self._cycles_per_byte = cycles_per_byte
        self._line = line
        self._level = False
        self.output = bytearray()
        self._keyboard = Keyboard(self.output)
        self._stop_text = b""
        self._text_seen = False
        self._ier = self._lcr = self._mcr = self._scr = self._changes = 0
        self._divisor = [0, 0]
        self._fifos = False
        self._trigger = 1
        self._transmit: deque[int] = deque()
        self._sending: int | None = None
        self._sending_looped = False
        self._sent_at = 0
        self._thr_interrupt = False
        self._receive: deque[int] = deque()
        self._receiving: int | None = None
        self._received_at = 0
        self._timeout_at: int | None = None
        self._overrun = False
        self._now = 0

    # -- what stands at the other end of the line --------------------------------------------------

    def type_after(self, text: bytes, keys: bytes) -> None:
        """Deliver ``keys``, one whenever the receive FIFO is empty, once ``text`` has appeared.

        Several calls take effect in turn: the next text is looked for behind the one before.
        """
        self._keyboard.type_after(text, keys)

    def stop_at_text(self, text: bytes) -> None:
        self._stop_text = text
        self._text_seen = bool(text) and text in self.output

    @property
    def text_seen(self) -> bool:
        """The text to stop at has appeared."""
        return self._text_seen

    # -- time --------------------------------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Let everything happen that is due by ``now``."""
        self._start()
        while (at := self._due()) is not None and at <= now:
            self._now = at
            if self._receiving is not None and self._received_at == at:
                key, self._receiving = self._receiving, None
                self._arrive(key)
            if self._sending is not None and self._sent_at == at:
                self._sent()
            self._start()
        self._now = max(self._now, now)
        self._start()
        self._drive()

    def _due(self) -> int | None:
        """When the next byte ends, in either direction."""
        sent = None if self._sending is None else self._sent_at
        if self._receiving is None:
            return sent
        return self._received_at if sent is None else min(sent, self._received_at)

    def _start(self) -> None:
        """Let bytes set out that can."""
        looped = bool(self._mcr & _LOOPBACK)
        if (
            self._sending is None
            and self._transmit
            and not (looped and self._receiving is not None)
        ):
            self._sending = self._transmit.popleft()
            self._sending_looped = looped
            self._sent_at = self._now + self._cycles_per_byte
            if not self._transmit:
                self._thr_interrupt = True
        looping = looped or (self._sending is not None and self._sending_looped)
        if self._receiving is None and not self._receive and not looping:
            key = self._keyboard.next_key()
            if key is not None:
                self._receiving = key
                self._received_at = self._now + self._cycles_per_byte

    def _sent(self) -> None:
        byte, self._sending = self._sending, None
        if self._sending_looped:
            self._arrive(byte)
            return
        self.output.append(byte)
        if self._stop_text and self.output.endswith(self._stop_text):
            self._text_seen = True

    def _arrive(self, byte: int) -> None:
        if len(self._receive) >= (_FIFO_DEPTH if self._fifos else 1):
            self._overrun = True
            if self._fifos:
                return
            # Without FIFOs the byte that waits makes way for the one that comes.
            self._receive.clear()
        self._receive.append(byte)
        if not self._timed_out():
            self._start_timeout()

    def _start_timeout(self) -> None:
        waiting = self._fifos and self._receive
        wait = _TIMEOUT_BYTES * self._cycles_per_byte
        self._timeout_at = self._now + wait if waiting else None

    def _timed_out(self) -> bool:
        return self._timeout_at is not None and self._now >= self._timeout_at

    def _source(self) -> int:
        """What interrupts, by priority."""
        ier = self._ier
        if ier & _IER_LINE and self._overrun:
            return _Source.LINE_STATUS
        if ier & _IER_RECEIVED:
            if len(self._receive) >= (self._trigger if self._fifos else 1):
                return _Source.RECEIVED
            if self._timed_out():
                return _Source.TIMEOUT
        if ier & _IER_EMPTY and self._thr_interrupt:
            return _Source.TRANSMITTER_EMPTY
        if ier & _IER_MODEM and self._changes:
            return _Source.MODEM_STATUS
        return _Source.NONE

    def _drive(self) -> None:
        level = self._source() != _Source.NONE
        if level != self._level:
            self._level = level
            self._line(level)

    def next_event(self, now: int) -> int | None:
        """A future cycle at or before the next one at which the line changes by itself."""
        self.advance(now)
        due = []
        ier = self._ier
        if self._sending is not None and (
            ier & _IER_EMPTY or self._sending_looped or (ier and self._keyboard.waits)
        ):
            # The text that lets a key go may be complete with any byte.
            due.append(self._sent_at)
        if ier & (_IER_RECEIVED | _IER_LINE):
            if self._receiving is not None:
                due.append(self._received_at)
            if self._timeout_at is not None:
                due.append(self._timeout_at)
        return min((at for at in due if at > now), default=None)

    def text_due(self) -> int | None:
        """When the text to stop at has been sent, if its end is among the bytes on their way."""
        text = self._stop_text
        if not text or self._sending is None or self._sending_looped:
            return None
        sent = bytes(self.output[-(len(text) - 1) :]) if len(text) > 1 else b""
        at = (sent + bytes((self._sending, *self._transmit))).find(text)
        if at < 0:
            return None
        return self._sent_at + (at + len(text) - 1 - len(sent)) * self._cycles_per_byte

    # -- for a monitor that answers console calls --------------------------------------------------

    def say(self, data: bytes, now: int) -> int:
        """Put bytes on the line at once, behind those on their way; how many were taken: all."""
        self.advance(now)
        self.settle()
        for byte in data:
            self.output.append(byte)
            if self._stop_text and self.output.endswith(self._stop_text):
                self._text_seen = True
        self._start()
        return len(data)

    def hear(self, limit: int, now: int) -> bytes:
        """At most ``limit`` bytes that have been received, which are gone then."""
        self.advance(now)
        count = min(limit, len(self._receive))
        heard = bytes(self._receive.popleft() for _ in range(count))
        if heard:
            self._start_timeout()
            self._start()
            self._drive()
        return heard

    def settle(self) -> None:
        """Let the bytes still to be sent leave; for the end of a run."""
        while self._sending is not None:
            self.advance(self._sent_at)

    # -- registers ---------------------------------------------------------------------------------

    def read(self, offset: int, size: int, now: int) -> int:
        parts = self._registers.parts(offset, size)
        self.advance(now)
        # Bytes of one access are read from the state before it.
        value = 0
        for part in parts:
            value |= part.read(self._peek(part.register))
        source = self._source()
        for part in parts:
            self._after_read(part.register, source)
        self._start()
        self._drive()
        return value

    def _peek(self, register: int) -> int:
        """What a read gives."""
        if register == _RBR:
            if self._lcr & _DLAB:
                return self._divisor[0]
            return self._receive[0] if self._receive else 0
        if register == _IER:
            return self._divisor[1] if self._lcr & _DLAB else self._ier
        if register == _IIR:
            return self._source() | (_FIFOS if self._fifos else 0)
        if register == _LSR:
            return self._line_status()
        if register == _MSR:
            return _modem_inputs(self._mcr) | self._changes
        return {_LCR: self._lcr, _MCR: self._mcr, _SCR: self._scr}[register]

    def _line_status(self) -> int:
        status = _READY if self._receive else 0
        if self._overrun:
            status |= _OVERRUN
        if not self._transmit:
            status |= _THR_EMPTY
            if self._sending is None:
                status |= _IDLE
        return status

    def _after_read(self, register: int, source: int) -> None:
        """What a read changes."""
        if register == _RBR and not self._lcr & _DLAB:
            if self._receive:
                self._receive.popleft()
            self._start_timeout()
        elif register == _IIR and source == _Source.TRANSMITTER_EMPTY:
            self._thr_interrupt = False
        elif register == _LSR:
            self._overrun = False
        elif register == _MSR:
            self._changes = 0

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        parts = self._registers.parts(offset, size)
        self.advance(now)
        dlab = bool(self._lcr & _DLAB)
        for part in parts:
            self._write_register(part.register, part.write(0, data), dlab)
        self._start()
        self._drive()

    def _write_register(self, register: int, data: int, dlab: bool) -> None:
        if register == _THR and not dlab:
            self._thr_interrupt = False
            if len(self._transmit) < (_FIFO_DEPTH if self._fifos else 1):
                self._transmit.append(data)
        elif register in (_THR, _IER) and dlab:
            self._divisor[register == _IER] = data
        elif register == _IER:
            if data & ~self._ier & _IER_EMPTY and not self._transmit:
                self._thr_interrupt = True
            self._ier = data & _IER_ALL
        elif register == _FCR:
            self._control_fifos(data)
        elif register == _LCR:
            self._lcr = data
        elif register == _MCR:
            before, after = _modem_inputs(self._mcr), _modem_inputs(data)
            self._mcr = data & _MCR_ALL
            for level, change, _ in _MODEM:
                fell, rose = before & ~after & level, after & ~before & level
                if fell or (rose and level != _RI):
                    self._changes |= change
        elif register == _SCR:
            self._scr = data

    def _control_fifos(self, data: int) -> None:
        enable = bool(data & _FCR_ENABLE)
        toggled = enable != self._fifos
        self._fifos = enable
        if toggled or (enable and data & _FCR_RECEIVE):
            self._receive.clear()
            self._start_timeout()
        if toggled or (enable and data & _FCR_TRANSMIT):
            self._transmit.clear()
            self._thr_interrupt = True
        if enable:
            self._trigger = _TRIGGERS[_FCR_TRIGGER.extract(data)]

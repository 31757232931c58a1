"""UART 16550 with 16-byte FIFOs, timed in machine cycles, its input tied to its output."""

from collections import deque
from collections.abc import Callable
from enum import IntEnum, IntFlag

__all__ = ["Uart"]

_FIFO_DEPTH = 16
_FIFO_TRIGGERS = (1, 4, 8, 14)
#: Character times without a read or an arrival after which a FIFO below its trigger interrupts.
_TIMEOUT_CHARACTERS = 4


class Register(IntEnum):
    """Byte offsets; DLL and DLM stand in place of the first two while LCR.DLAB is set."""

    RBR_THR = 0
    IER = 1
    IIR_FCR = 2
    LCR = 3
    MCR = 4
    LSR = 5
    MSR = 6
    SCR = 7


class Ier(IntFlag):
    """Interrupt enables."""

    RECEIVED = 1
    THR_EMPTY = 2
    LINE_STATUS = 4
    MODEM_STATUS = 8


class Iir(IntEnum):
    """Interrupt identification, first served first."""

    RECEIVED = 4
    TIMEOUT = 12
    THR_EMPTY = 2
    NONE = 1


class Lsr(IntFlag):
    """Line status."""

    DATA_READY = 0x01
    OVERRUN = 0x02
    THR_EMPTY = 0x20
    IDLE = 0x40


_FIFOS_ENABLED = 0xC0
_DLAB = 0x80
_LOOPBACK = 0x10
_MODEM_LINES = 0xB0  # DCD, DSR and CTS: somebody listens


class Uart:
    """One serial port; ``output`` holds the bytes whose transmission is complete.

    Parameters
    ----------
    cycles_per_byte : int
        Cycles a byte takes, in both directions.
    line : callable
        Told the level of the interrupt line whenever it may have changed.
    """

    def __init__(self, *, cycles_per_byte: int, line: Callable[[bool], None] = lambda level: None):
        self._line = line
        self._cycles_per_byte = cycles_per_byte
        self.output = bytearray()
        self._stop_text = b""
        self._text_seen = False
        self._ier = self._lcr = self._mcr = self._scr = self._dll = self._dlm = 0
        self._fifos = False
        self._trigger = 1
        self._transmit: deque[int] = deque()
        self._shifting: int | None = None
        self._shifted_at = 0
        self._thr_interrupt = False
        self._receive: deque[int] = deque()
        self._receive_touched = 0
        self._overrun = False
        #: What is still to be typed, as [trigger text, remaining bytes], in order.
        self._keys: list[tuple[bytes, deque[int]]] = []
        #: Where in the output the text of the first of them is looked for; None: it was found.
        self._listening_from: int | None = 0
        self._heard = 0
        self._arrives_at: int | None = None
        self._now = 0

    # -- what stands at the other end of the line --------------------------------------------------

    def type_after(self, text: bytes, keys: bytes) -> None:
        """Deliver ``keys``, one whenever the receive FIFO is empty, once ``text`` has appeared.

        Several calls take effect in turn: the next text is looked for behind the one before.
        """
        if keys:
            self._keys.append((text, deque(keys)))

    def stop_at_text(self, text: bytes) -> None:
        self._stop_text = text
        self._text_seen = bool(text) and text in self.output

    @property
    def text_seen(self) -> bool:
        return self._text_seen

    def _listen(self) -> None:
        """Start the next key on its way if it may go."""
        if self._arrives_at is not None or not self._keys or self._receive:
            return
        if self._listening_from is not None:
            text, _ = self._keys[0]
            at = self.output.find(text, self._listening_from)
            if at < 0:
                # Only the tail can become part of the text.
                self._listening_from = max(self._heard, len(self.output) - len(text) + 1)
                return
            self._heard, self._listening_from = at + len(text), None
        self._arrives_at = self._now + self._cycles_per_byte

    # -- time --------------------------------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Let everything happen that is due by ``now``."""
        while True:
            due = [at for at in (self._shift_due(), self._arrives_at) if at is not None]
            at = min(due, default=None)
            if at is None or at > now:
                break
            self._now = at
            if at == self._arrives_at:
                self._arrive()
            if at == self._shift_due():
                self._sent()
            self._listen()
        self._now = max(self._now, now)
        self._listen()
        self._drive()

    def _shift_due(self) -> int | None:
        return None if self._shifting is None else self._shifted_at

    def _sent(self) -> None:
        self.output.append(self._shifting)
        if self._stop_text and self.output.endswith(self._stop_text):
            self._text_seen = True
        self._shifting = None
        self._start_shifting()

    def _start_shifting(self) -> None:
        if self._shifting is None and self._transmit:
            self._shifting = self._transmit.popleft()
            self._shifted_at = self._now + self._cycles_per_byte
            if not self._transmit:
                self._thr_interrupt = True

    def _arrive(self) -> None:
        _, keys = self._keys[0]
        key = keys.popleft()
        if not keys:
            del self._keys[0]
            self._listening_from = self._heard
        self._arrives_at = None
        if len(self._receive) == (_FIFO_DEPTH if self._fifos else 1):
            self._overrun = True
        else:
            self._receive.append(key)
        self._receive_touched = self._now

    def _timeout_at(self) -> int | None:
        if self._fifos and self._receive and len(self._receive) < self._trigger:
            return self._receive_touched + _TIMEOUT_CHARACTERS * self._cycles_per_byte
        return None

    def _identification(self) -> Iir:
        timeout = self._timeout_at()
        if self._ier & Ier.RECEIVED:
            if len(self._receive) >= (self._trigger if self._fifos else 1):
                return Iir.RECEIVED
            if timeout is not None and self._now >= timeout:
                return Iir.TIMEOUT
        if self._ier & Ier.THR_EMPTY and self._thr_interrupt:
            return Iir.THR_EMPTY
        return Iir.NONE

    def _drive(self) -> None:
        self._line(self._identification() is not Iir.NONE)

    def next_event(self, now: int) -> int | None:
        """A future cycle at or before the next one at which the line changes by itself."""
        self.advance(now)
        due = []
        if self._ier & Ier.THR_EMPTY and self._shifting is not None:
            due.append(self._shifted_at)
        if self._ier & Ier.RECEIVED:
            if self._arrives_at is not None:
                due.append(self._arrives_at)
            elif self._keys and self._shifting is not None:
                # The text that lets a key go may be complete with any byte.
                due.append(self._shifted_at)
            if (timeout := self._timeout_at()) is not None:
                due.append(timeout)
        return min((at for at in due if at > now), default=None)

    def settle(self) -> None:
        """Let the bytes still to be sent leave; for the end of a run."""
        while self._shifting is not None:
            self.advance(self._shifted_at)

    # -- registers ---------------------------------------------------------------------------------

    def read(self, offset: int, size: int, now: int) -> int:
        self.advance(now)
        value = 0
        for lane in range(size):
            if offset + lane < len(Register):
                value |= self._read_register(Register(offset + lane)) << 8 * lane
        self._drive()
        return value

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        self.advance(now)
        for lane in range(size):
            if offset + lane < len(Register):
                self._write_register(Register(offset + lane), data >> 8 * lane & 0xFF)
        self._drive()

    def _read_register(self, register: Register) -> int:
        match register:
            case Register.RBR_THR:
                return self._dll if self._lcr & _DLAB else self._take_received()
            case Register.IER:
                return self._dlm if self._lcr & _DLAB else self._ier
            case Register.IIR_FCR:
                identification = self._identification()
                if identification is Iir.THR_EMPTY:
                    self._thr_interrupt = False
                return identification | (_FIFOS_ENABLED if self._fifos else 0)
            case Register.LCR:
                return self._lcr
            case Register.MCR:
                return self._mcr
            case Register.LSR:
                return self._line_status()
            case Register.MSR:
                if self._mcr & _LOOPBACK:
                    dtr, rts, outs = self._mcr & 1, self._mcr >> 1 & 1, self._mcr >> 2 & 3
                    return rts << 4 | dtr << 5 | outs << 6
                return _MODEM_LINES
            case Register.SCR:
                return self._scr

    def _take_received(self) -> int:
        if not self._receive:
            return 0
        key = self._receive.popleft()
        self._receive_touched = self._now
        self._listen()
        return key

    def _line_status(self) -> int:
        status = Lsr(0)
        if self._receive:
            status |= Lsr.DATA_READY
        if self._overrun:
            status |= Lsr.OVERRUN
            self._overrun = False
        if not self._transmit:
            status |= Lsr.THR_EMPTY
            if self._shifting is None:
                status |= Lsr.IDLE
        return int(status)

    def _write_register(self, register: Register, data: int) -> None:
        match register:
            case Register.RBR_THR if self._lcr & _DLAB:
                self._dll = data
            case Register.RBR_THR:
                self._thr_interrupt = False
                if len(self._transmit) < (_FIFO_DEPTH if self._fifos else 1):
                    self._transmit.append(data)
                self._start_shifting()
            case Register.IER if self._lcr & _DLAB:
                self._dlm = data
            case Register.IER:
                if data & ~self._ier & Ier.THR_EMPTY and not self._transmit:
                    self._thr_interrupt = True
                self._ier = data & 0x0F
            case Register.IIR_FCR:
                self._control_fifos(data)
            case Register.LCR:
                self._lcr = data
            case Register.MCR:
                self._mcr = data & 0x1F
            case Register.SCR:
                self._scr = data

    def _control_fifos(self, data: int) -> None:
        enabled = bool(data & 1)
        if data & 2 or enabled != self._fifos:
            self._receive.clear()
            self._listen()
        if data & 4 or enabled != self._fifos:
            self._transmit.clear()
            self._thr_interrupt = True
        self._fifos = enabled
        if enabled:
            self._trigger = _FIFO_TRIGGERS[data >> 6]

"""A 16550 written from the PC16550D data sheet, one call per clock cycle, to judge the UART by.

Where the data sheet leaves open what happens when two things fall into one cycle, the UART's
docstring decides.
"""

from collections import deque

__all__ = ["Model16550"]

RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR = range(8)
DEPTH = 16
TRIGGERS = (1, 4, 8, 14)


class Model16550:
    """``outputs`` tells what is seen in a cycle, ``cycle`` lets it pass."""

    def __init__(self, cycles_per_byte):
        self.cycles_per_byte = cycles_per_byte
        # Machine time, in cycles with advance.
        self.now = 0
        self.ier = self.lcr = self.mcr = self.scr = self.dll = self.dlm = 0
        self.fifos = False
        self.trigger = 1
        self.overrun = self.thr_interrupt = False
        self.modem_changes = 0
        self.to_send, self.received = deque(), deque()
        # (byte, cycle in which it ends), and for the sender whether it is looped back.
        self.sending = self.receiving = None
        self.offered = None
        self.waited = 0

    def modem_lines(self, mcr):
        if not mcr & 0x10:
            return 0xB0
        dtr, rts, out1, out2 = (mcr >> bit & 1 for bit in range(4))
        return rts << 4 | dtr << 5 | out1 << 6 | out2 << 7

    @property
    def timed_out(self):
        return self.waited >= 4 * self.cycles_per_byte

    @property
    def capacity(self):
        return DEPTH if self.fifos else 1

    def interrupt_source(self):
        if self.ier & 4 and self.overrun:
            return 0b0110
        if self.ier & 1 and len(self.received) >= (self.trigger if self.fifos else 1):
            return 0b0100
        if self.ier & 1 and self.timed_out:
            return 0b1100
        if self.ier & 2 and self.thr_interrupt:
            return 0b0010
        if self.ier & 8 and self.modem_changes:
            return 0b0000
        return 0b0001

    def peek(self, register):
        match register:
            case 0 if self.lcr & 0x80:
                return self.dll
            case 0:
                return self.received[0] if self.received else 0
            case 1 if self.lcr & 0x80:
                return self.dlm
            case 1:
                return self.ier
            case 2:
                return self.interrupt_source() | (0xC0 if self.fifos else 0)
            case 3:
                return self.lcr
            case 4:
                return self.mcr
            case 5:
                status = 0x20 * (not self.to_send)
                status |= 0x40 * (not self.to_send and self.sending is None)
                return status | bool(self.received) | 2 * self.overrun
            case 6:
                return self.modem_lines(self.mcr) | self.modem_changes
            case 7:
                return self.scr

    def outputs(self, advance, rx):
        timer_runs = self.fifos and self.received and not self.timed_out
        looped = self.sending is not None and self.sending[2]
        return {
            "interrupt": self.interrupt_source() != 1,
            "rx_empty": not self.received and self.receiving is None,
            "rx_ready": bool(advance)
            and self.receiving is None
            and not self.mcr & 0x10
            and not looped,
            "idle": not self.to_send
            and self.sending is None
            and self.receiving is None
            and self.offered is None
            and rx is None
            and not timer_runs,
            "tx": self.offered,
        }

    def cycle(self, *, advance, reads=(), writes=None, rx=None):
        """Let one cycle pass and return the values of the registers in ``reads``.

        ``writes`` maps registers to bytes; ``rx`` is the byte on offer, or None.
        """
        writes = writes or {}
        values = {register: self.peek(register) for register in reads}
        dlab = bool(self.lcr & 0x80)
        source, timed_out = self.interrupt_source(), self.timed_out
        was_empty, had_room = not self.received, len(self.to_send) < self.capacity
        thr_was_empty, fifos_before = not self.to_send, self.fifos
        taken_by_software = RBR_THR in reads and not dlab
        if taken_by_software and self.received:
            self.received.popleft()

        arrived, took = self._line(advance, rx)
        if arrived is not None:
            if len(self.received) < self.capacity:
                self.received.append(arrived)
                lost = False
            else:
                lost = True
                if not self.fifos:
                    self.received[0] = arrived
        cleared = self._write_fcr(writes[IIR_FCR]) if IIR_FCR in writes else set()

        if LSR in reads:
            self.overrun = False
        if arrived is not None and lost and "receive" not in cleared:
            self.overrun = True

        wrote_thr = RBR_THR in writes and not dlab
        if wrote_thr and had_room and "transmit" not in cleared:
            self.to_send.append(writes[RBR_THR])
        if wrote_thr or (IIR_FCR in reads and source == 0b0010):
            self.thr_interrupt = False
        enables = IER in writes and not dlab and writes[IER] & ~self.ier & 2
        if (took and not self.to_send) or "transmit" in cleared or (enables and thr_was_empty):
            self.thr_interrupt = True

        restart = was_empty or taken_by_software or "receive" in cleared or not fifos_before
        if restart or (arrived is not None and not timed_out):
            self.waited = 0
        elif advance and not timed_out:
            self.waited += 1

        self._write_the_rest(writes, dlab, reads)
        return values

    def _line(self, advance, rx):
        """The byte that arrives, and whether the sender takes one."""
        self.offered = None
        if not advance:
            return None, False
        arrived, took = None, False
        loopback, receiving, sending = self.mcr & 0x10, self.receiving, self.sending
        end = self.now + self.cycles_per_byte
        if receiving and receiving[1] == self.now:
            arrived, self.receiving = receiving[0], None
        if sending and sending[1] == self.now:
            self.sending = None
            if sending[2]:
                arrived = sending[0]
            else:
                self.offered = sending[0]
        if self.to_send and self.sending is None and not (loopback and receiving):
            self.sending, took = (self.to_send.popleft(), end, bool(loopback)), True
        looped = sending is not None and sending[2]
        if rx is not None and receiving is None and not loopback and not looped:
            self.receiving = (rx, end)
        self.now += 1
        return arrived, took

    def _write_fcr(self, value):
        cleared = set()
        if bool(value & 1) != self.fifos:
            cleared = {"receive", "transmit"}
        elif value & 1:
            cleared |= {"receive"} if value & 2 else set()
            cleared |= {"transmit"} if value & 4 else set()
        if "receive" in cleared:
            self.received.clear()
        if "transmit" in cleared:
            self.to_send.clear()
        self.fifos = bool(value & 1)
        if self.fifos:
            self.trigger = TRIGGERS[value >> 6]
        return cleared

    def _write_the_rest(self, writes, dlab, reads):
        if dlab:
            self.dll = writes.get(RBR_THR, self.dll)
            self.dlm = writes.get(IER, self.dlm)
        elif IER in writes:
            self.ier = writes[IER] & 0x0F
        if MSR in reads:
            self.modem_changes = 0
        if MCR in writes:
            was, self.mcr = self.modem_lines(self.mcr), writes[MCR] & 0x1F
            now = self.modem_lines(self.mcr)
            ring_ended = was & ~now & 0x40
            self.modem_changes |= ((was ^ now) & 0xB0 | ring_ended) >> 4
        self.lcr = writes.get(LCR, self.lcr)
        self.scr = writes.get(SCR, self.scr)

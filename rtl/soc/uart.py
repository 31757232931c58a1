"""UART 16550: a serial port whose line is a pair of byte streams."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.register_bus import RegisterBus
from rtl.lib.queue import Queue
from rtl.lib.register_block import RegisterBlock
from rtl.maps import map_path

__all__ = ["Uart"]

_FIFO_DEPTH = 16
#: Byte times without a read or an arrival after which waiting bytes interrupt.
_TIMEOUT_BYTES = 4
_TRIGGER_BYTES = {"ONE": 1, "FOUR": 4, "EIGHT": 8, "FOURTEEN": 14}
#: Modem inputs: the output that drives each in loopback, and its level otherwise.
_MODEM_INPUTS = {"cts": ("rts", 1), "dsr": ("dtr", 1), "ri": ("out1", 0), "dcd": ("out2", 1)}


class Uart(wiring.Component):
    """The 16550 of ``rtl/maps/uart.rdl`` (PC16550D), one byte of address per register.

    Sending or receiving a byte takes ``cycles_per_byte`` cycles with ``advance`` = 1, whatever
    the divisor latch and the line control register say: there is no line, and bytes have 8 bits.
    Register accesses act in any cycle, all bytes of one together, on the state before it.

    A byte that arrives at a full receive FIFO is lost; without FIFOs it replaces the one before.
    Either sets lsr.overrun, the only line error there is. A byte written to a full transmit FIFO
    is lost. The interrupt for an empty transmitter comes at once, not a byte time late as the
    data sheet has it for single bytes. Break is not sent.

    Parameters
    ----------
    cycles_per_byte : int

    Members
    -------
    bus : In(RegisterBus())
        Addresses relative to the region.
    advance : In(1)
    tx : Out(stream.Signature(8))
        Bytes sent, each offered when its time is over. Time in the UART does not depend on when
        it is taken, as long as that is before the next one is offered; then the UART waits.
    rx : In(stream.Signature(8))
        Bytes to receive; one is taken when none is being received and ``advance`` is 1, not in
        loopback. It is received in the ``cycles_per_byte`` cycles after that.
    interrupt : Out(1)
        Level.
    rx_empty : Out(1)
        The receive FIFO is empty and nothing is being received.
    idle : Out(1)
        Nothing is being sent or received or offered on ``rx``, and no receive timeout is
        running: without an access, time changes nothing.

    Raises ValueError when ``cycles_per_byte`` is not positive.
    """

    bus: In(RegisterBus())
    advance: In(1)
    tx: Out(stream.Signature(8))
    rx: In(stream.Signature(8))
    interrupt: Out(1)
    rx_empty: Out(1)
    idle: Out(1)

    def __init__(self, *, cycles_per_byte: int):
        if not isinstance(cycles_per_byte, int) or cycles_per_byte < 1:
            raise ValueError(f"cycles_per_byte must be positive, not {cycles_per_byte!r}")
        self._cycles_per_byte = cycles_per_byte
        super().__init__()

    @property
    def cycles_per_byte(self) -> int:
        return self._cycles_per_byte

    def elaborate(self, platform):
        m = Module()
        m.submodules.block = block = RegisterBlock(map_path("uart"))
        connect(m, flipped(self.bus), block.bus)
        registers = _Registers(block)
        m.submodules.line = line = _Line(cycles_per_byte=self._cycles_per_byte)
        connect(m, flipped(self.tx), line.tx)
        connect(m, flipped(self.rx), line.rx)
        m.submodules.transmit = transmit = Queue(shape=8, depth=_FIFO_DEPTH)
        m.submodules.receive = receive = Queue(shape=8, depth=_FIFO_DEPTH)
        ier, lcr, mcr, lsr, msr, iir = (
            Signal(registers.layout(name), name=name)
            for name in ("ier", "lcr", "mcr", "lsr", "msr", "iir")
        )
        fcr, new_ier, new_mcr = (registers.written_value(name) for name in ("fcr", "ier", "mcr"))
        scr, divisor = Signal(8), Signal(16)
        dlab = lcr.dlab
        rbr_read = registers.is_read("rbr") & ~dlab
        thr_written = registers.is_written("thr") & ~dlab
        ier_written = registers.is_written("ier") & ~dlab
        mcr_written = registers.is_written("mcr")

        # Registers that only hold what is written, and what is read from each.
        with m.If(registers.is_written("thr") & dlab):
            m.d.sync += divisor[:8].eq(registers.byte("thr"))
        with m.If(registers.is_written("ier") & dlab):
            m.d.sync += divisor[8:].eq(registers.byte("ier"))
        with m.If(ier_written):
            m.d.sync += registers.assign(ier, new_ier)
        with m.If(registers.is_written("lcr")):
            m.d.sync += registers.assign(lcr, registers.written_value("lcr"))
        with m.If(mcr_written):
            m.d.sync += registers.assign(mcr, new_mcr)
        with m.If(registers.is_written("scr")):
            m.d.sync += scr.eq(registers.byte("scr"))
        received = Mux(lsr.data_ready, receive.o.payload, 0)
        m.d.comb += registers.answer(
            rbr=Mux(dlab, divisor[:8], received),
            ier=Mux(dlab, divisor[8:], ier.as_value()),
            iir=iir,
            lcr=lcr,
            mcr=mcr,
            lsr=lsr,
            msr=msr,
            scr=scr,
        )

        # FIFO control: the other bits count only together with enable.
        fifos = Signal()
        trigger = Signal.like(fcr.trigger)
        with m.If(registers.is_written("fcr")):
            toggled = fcr.enable != fifos
            m.d.sync += fifos.eq(fcr.enable)
            m.d.comb += [
                receive.clear.eq(toggled | fcr.enable & fcr.clear_receive),
                transmit.clear.eq(toggled | fcr.enable & fcr.clear_transmit),
            ]
            with m.If(fcr.enable):
                m.d.sync += trigger.eq(fcr.trigger)
        capacity = Mux(fifos, _FIFO_DEPTH, 1)

        # Transmitter.
        drained = Signal()
        m.d.comb += [
            transmit.i.valid.eq(thr_written & (transmit.level < capacity)),
            transmit.i.payload.eq(registers.byte("thr")),
            drained.eq(transmit.o.valid & transmit.o.ready & (transmit.level == 1)),
            line.advance.eq(self.advance),
            line.loopback.eq(mcr.loopback),
        ]
        connect(m, transmit.o, line.i)

        # Receiver. Without FIFOs the byte that waits makes way for the one that comes.
        lost, overrun = Signal(), Signal()
        m.d.comb += [
            lost.eq(line.arrived & (receive.level == capacity) & ~rbr_read & ~receive.clear),
            receive.i.valid.eq(line.arrived & ~(lost & fifos)),
            receive.i.payload.eq(line.arrival),
            receive.o.ready.eq(rbr_read | lost),
        ]
        with m.If(lost & fifos):
            m.d.comb += receive.o.ready.eq(0)
        with m.If(registers.is_read("lsr")):
            m.d.sync += overrun.eq(0)
        with m.If(lost):
            m.d.sync += overrun.eq(1)

        # Receive timeout: every byte that comes or is read starts it anew; once it is over, only
        # reading or clearing ends it.
        most = _TIMEOUT_BYTES * self._cycles_per_byte
        remaining = Signal(range(most + 1), init=most)
        timed_out = remaining == 0
        timing = fifos & lsr.data_ready & ~timed_out
        with m.If(timing & self.advance):
            m.d.sync += remaining.eq(remaining - 1)
        with m.If(~fifos | ~lsr.data_ready | rbr_read | receive.clear | line.arrived & ~timed_out):
            m.d.sync += remaining.eq(most)

        # Modem lines.
        for line_name, (output, level) in _MODEM_INPUTS.items():
            now = Mux(mcr.loopback, mcr[output], level)
            then = Mux(new_mcr.loopback, new_mcr[output], level)
            ring = line_name == "ri"
            changed = Signal(name=f"{line_name}_changed")
            with m.If(registers.is_read("msr")):
                m.d.sync += changed.eq(0)
            with m.If(mcr_written & (now & ~then if ring else now ^ then)):
                m.d.sync += changed.eq(1)
            m.d.comb += [
                msr[line_name].eq(now),
                msr["ri_ended" if ring else f"{line_name}_changed"].eq(changed),
            ]

        # Line status and interrupts; the last of the conditions has the highest priority.
        source, triggers = block.enums["interrupt_source"], block.enums["trigger_level"]
        enough, thr_pending = Signal(), Signal()
        with m.Switch(trigger):
            for name, count in _TRIGGER_BYTES.items():
                with m.Case(triggers[name]):
                    m.d.comb += enough.eq(receive.level >= Mux(fifos, count, 1))
        m.d.comb += [
            lsr.data_ready.eq(receive.level != 0),
            lsr.overrun.eq(overrun),
            lsr.thr_empty.eq(transmit.level == 0),
            lsr.transmitter_empty.eq((transmit.level == 0) & ~line.sending),
            iir.fifos.eq(fifos.replicate(len(iir.fifos))),
            iir.source.eq(source.NONE),
        ]
        modem_changed = msr.cts_changed | msr.dsr_changed | msr.ri_ended | msr.dcd_changed
        for condition, member in (
            (ier.modem_status & modem_changed, source.MODEM_STATUS),
            (ier.transmitter_empty & thr_pending, source.TRANSMITTER_EMPTY),
            (ier.received & timed_out, source.TIMEOUT),
            (ier.received & enough, source.RECEIVED),
            (ier.line_status & overrun, source.LINE_STATUS),
        ):
            with m.If(condition):
                m.d.comb += iir.source.eq(member)
        reported = registers.is_read("iir") & (iir.source == source.TRANSMITTER_EMPTY)
        enabling = ier_written & new_ier.transmitter_empty & ~ier.transmitter_empty
        with m.If(thr_written | reported):
            m.d.sync += thr_pending.eq(0)
        with m.If(drained & ~transmit.i.valid | transmit.clear | enabling & lsr.thr_empty):
            m.d.sync += thr_pending.eq(1)

        m.d.comb += [
            self.interrupt.eq(iir.source != source.NONE),
            self.rx_empty.eq(~lsr.data_ready & ~line.receiving),
            self.idle.eq(
                lsr.thr_empty
                & ~(line.sending | line.receiving | self.tx.valid | self.rx.valid | timing)
            ),
        ]
        return m


class _Registers:
    """The register file of the map by the names of its registers, and its port."""

    def __init__(self, block: RegisterBlock):
        (group,) = block.map.items
        self._by_name = {register.name: register for register in group.items}
        self._port, self._enums = getattr(block, group.name), block.enums

    def layout(self, name: str) -> data.FlexibleLayout:
        """The register's fields, in eight bits."""
        return data.FlexibleLayout(
            8,
            {
                field.name: data.Field(
                    self._enums[field.enumeration.name] if field.enumeration else field.width,
                    field.lsb,
                )
                for field in self._by_name[name].fields
            },
        )

    def byte(self, name: str) -> Value:
        """The byte that is written to the register."""
        return self._port.request.payload.data.word_select(self._by_name[name].offset, 8)

    def written_value(self, name: str) -> data.View:
        return data.View(self.layout(name), self.byte(name))

    def assign(self, register: data.View, value: data.View) -> list:
        """Copy the fields; other bits stay 0."""
        return [register[name].eq(value[name]) for name, _ in register.shape()]

    def is_written(self, name: str) -> Value:
        return self._touched(name) & self._port.request.payload.write

    def is_read(self, name: str) -> Value:
        return self._touched(name) & ~self._port.request.payload.write

    def _touched(self, name):
        return (
            self._port.request.valid & self._port.request.payload.mask[self._by_name[name].offset]
        )

    def answer(self, **values) -> list:
        """Answer every access at once, with the given bytes by register."""
        request, response = self._port.request, self._port.response
        return [
            request.ready.eq(1),
            response.valid.eq(request.valid),
            *(
                response.payload.data.word_select(self._by_name[name].offset, 8).eq(value)
                for name, value in values.items()
            ),
        ]


class _Line(wiring.Component):
    """Both directions of the serial line, one byte at a time in each.

    Members
    -------
    advance : In(1)
    loopback : In(1)
        What is sent from now on is received, and nothing from ``rx``.
    i : In(stream.Signature(8))
        Bytes to send; one is taken when the one before has ended.
    arrived, arrival : Out(1), Out(8)
        Strobe with a byte whose reception ends in this cycle.
    sending, receiving : Out(1)
        A byte is on its way out, or in from ``rx``.
    tx, rx
        As in ``Uart``.
    """

    advance: In(1)
    loopback: In(1)
    i: In(stream.Signature(8))
    arrived: Out(1)
    arrival: Out(8)
    sending: Out(1)
    receiving: Out(1)
    tx: Out(stream.Signature(8))
    rx: In(stream.Signature(8))

    def __init__(self, *, cycles_per_byte):
        self._cycles_per_byte = cycles_per_byte
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        sent, looped, send_ends = Signal(8), Signal(), Signal()
        received, receive_ends = Signal(8), Signal()
        send_remaining = Signal(range(self._cycles_per_byte))
        receive_remaining = Signal(range(self._cycles_per_byte))
        # What has been sent waits apart, so that the time of the taker changes nothing here.
        room = looped | ~self.tx.valid | self.tx.ready
        m.d.comb += [
            send_ends.eq(self.advance & self.sending & (send_remaining == 0) & room),
            receive_ends.eq(self.advance & self.receiving & (receive_remaining == 0)),
            # A byte from rx and one in loopback never end together: neither starts during the
            # other.
            self.i.ready.eq(
                self.advance & (~self.sending | send_ends) & ~(self.loopback & self.receiving)
            ),
            self.rx.ready.eq(
                self.advance & ~self.receiving & ~self.loopback & ~(self.sending & looped)
            ),
            self.arrived.eq(receive_ends | send_ends & looped),
            self.arrival.eq(Mux(receive_ends, received, sent)),
        ]
        with m.If(self.tx.ready):
            m.d.sync += self.tx.valid.eq(0)
        with m.If(self.advance):
            with m.If(send_remaining != 0):
                m.d.sync += send_remaining.eq(send_remaining - 1)
            with m.If(receive_remaining != 0):
                m.d.sync += receive_remaining.eq(receive_remaining - 1)
        with m.If(send_ends):
            m.d.sync += self.sending.eq(0)
            with m.If(~looped):
                m.d.sync += [self.tx.valid.eq(1), self.tx.payload.eq(sent)]
        with m.If(receive_ends):
            m.d.sync += self.receiving.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.sending.eq(1),
                looped.eq(self.loopback),
                sent.eq(self.i.payload),
                send_remaining.eq(self._cycles_per_byte - 1),
            ]
        with m.If(self.rx.valid & self.rx.ready):
            m.d.sync += [
                self.receiving.eq(1),
                received.eq(self.rx.payload),
                receive_remaining.eq(self._cycles_per_byte - 1),
            ]
        return m

"""The UART against a model of the data sheet, and as the drivers of stock software use it."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.soc.uart import Uart
from tests.rtl.soc.model_16550 import IER, IIR_FCR, LCR, LSR, MCR, MSR, RBR_THR, SCR, Model16550
from tests.streams import Answer, access, refusal, simulate, wait

bytes_ = st.integers(0, 255)
#: What drivers write, and now and then anything.
values = {
    RBR_THR: bytes_,
    IER: st.integers(0, 15) | bytes_,
    IIR_FCR: st.sampled_from([1, 0x41, 0x81, 0xC1, 1, 7, 0]) | bytes_,
    LCR: st.sampled_from([3, 3, 3, 0x83]) | st.integers(0, 127),
    MCR: st.sampled_from([0, 0x0B, 0x1A, 0x1F]) | bytes_,
    LSR: bytes_,
    MSR: bytes_,
    SCR: bytes_,
}
registers = st.sampled_from([RBR_THR] * 6 + [IER, IIR_FCR, LCR, MCR, LSR, LSR, MSR, SCR])
advances = st.integers(0, 7)
plain = st.one_of(
    st.tuples(st.just("read"), st.sets(registers, min_size=1, max_size=1), advances),
    st.tuples(st.just("read"), st.sets(registers, min_size=2), advances),
    st.tuples(
        st.just("write"),
        registers.flatmap(lambda register: st.fixed_dictionaries({register: values[register]})),
        advances,
    ),
    st.tuples(st.just("write"), st.fixed_dictionaries({}, optional=values).filter(bool), advances),
    st.tuples(st.just("receive"), st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("send"), st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("run"), st.integers(1, 40)),
    st.tuples(st.just("freeze"), st.integers(1, 10)),
)
#: What chance alone would seldom bring about, each with a delay in cycles.
situations = st.one_of(
    st.tuples(
        st.sampled_from(["brim with FIFOs", "brim without FIFOs"]),
        st.integers(0, 8),
        st.sampled_from([{RBR_THR}, 0x02, 0xC3, 0x01, 0x00]),
    ),
    st.tuples(st.just("last byte out"), st.integers(0, 8)),
    st.tuples(st.just("timeout"), st.integers(0, 8), st.sets(st.just(RBR_THR))),
    st.tuples(st.just("loopback ends"), st.integers(0, 8), st.integers(0, 8)),
)
steps = plain | situations
starts = st.fixed_dictionaries({}, optional={IER: values[IER], IIR_FCR: values[IIR_FCR]})


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([1, 2, 5]),
    starts.filter(bool),
    st.lists(steps, min_size=15, max_size=60),
)
def test_every_cycle_agrees_with_the_data_sheet(cycles_per_byte, start, traffic):
    dut = Uart(cycles_per_byte=cycles_per_byte)
    model = Model16550(cycles_per_byte)
    incoming = deque()

    async def cycle(ctx, *, advance, reads=(), writes=None):
        """Let a cycle pass in both and compare all that can be seen."""
        ctx.set(dut.advance, advance)
        ctx.set(dut.rx.valid, bool(incoming))
        ctx.set(dut.rx.payload, incoming[0] if incoming else 0)
        rx = incoming[0] if incoming else None
        expected = model.outputs(advance, rx)
        _, _, interrupt, rx_empty, rx_ready, idle, tx_valid, tx = await ctx.tick().sample(
            dut.interrupt, dut.rx_empty, dut.rx.ready, dut.idle, dut.tx.valid, dut.tx.payload
        )
        seen = {
            "interrupt": interrupt,
            "rx_empty": rx_empty,
            "rx_ready": rx_ready,
            "idle": idle,
            "tx": tx if tx_valid else None,
        }
        assert seen == expected
        answer = model.cycle(advance=advance, reads=reads, writes=writes, rx=rx)
        if incoming and rx_ready:
            incoming.popleft()
        return answer

    async def register_access(ctx, advances, *, reads=(), writes=None):
        """Three cycles: the request is taken, the access acts, the response is taken."""
        writes = writes or {}
        request = {
            "address": 0,
            "write": bool(writes),
            "mask": sum(1 << register for register in (writes or reads)),
            "data": sum(value << 8 * register for register, value in writes.items()),
        }
        ctx.set(dut.bus.request.payload, request)
        ctx.set(dut.bus.request.valid, 1)
        assert ctx.get(dut.bus.request.ready)
        await cycle(ctx, advance=advances & 1)
        ctx.set(dut.bus.request.valid, 0)
        expected = await cycle(ctx, advance=advances >> 1 & 1, reads=reads, writes=writes)
        ctx.set(dut.bus.response.ready, 1)
        assert ctx.get(dut.bus.response.valid)
        response = ctx.get(dut.bus.response.payload)
        await cycle(ctx, advance=advances >> 2 & 1)
        ctx.set(dut.bus.response.ready, 0)
        assert not response.error
        read = {register: response.data >> 8 * register & 0xFF for register in reads}
        assert read == expected

    async def run(ctx, cycles, until=lambda: False):
        for _ in range(cycles):
            if until():
                break
            await cycle(ctx, advance=1)

    async def write(ctx, **writes):
        """One register after the other, in no time."""
        for name, value in writes.items():
            await register_access(ctx, 0, writes={globals()[name]: value})

    async def situation(ctx, kind, delay, *rest):
        await write(ctx, LCR=3, MCR=0, IER=15)
        if kind.startswith("brim"):
            (action,) = rest
            incoming.extend(range(20))
            await write(ctx, IIR_FCR=0xC1 if kind == "brim with FIFOs" else 0)
            await run(ctx, 400, until=lambda: len(model.received) == model.capacity)
            await register_access(ctx, 0, reads=[LSR])
            await run(ctx, delay)
            if isinstance(action, set):
                await register_access(ctx, 7, reads=sorted(action))
            else:
                await register_access(ctx, 7, writes={IIR_FCR: action})
        elif kind == "last byte out":
            await write(ctx, IIR_FCR=5, RBR_THR=1)
            await register_access(ctx, 0, writes={RBR_THR: 2})
            await run(ctx, 100, until=lambda: len(model.to_send) == 1)
            await register_access(ctx, 0, reads=[IIR_FCR])
            await run(ctx, delay)
            await register_access(ctx, 7, writes={RBR_THR: 3})
        elif kind == "timeout":
            (reads,) = rest
            await write(ctx, IIR_FCR=0xC3)
            incoming.extend(range(3))
            await run(ctx, 200, until=lambda: model.timed_out)
            incoming.append(3)
            await run(ctx, delay)
            if reads:
                await register_access(ctx, 7, reads=sorted(reads))
            await run(ctx, 6 * cycles_per_byte)
        else:
            (longer,) = rest
            await write(ctx, MCR=0x10, RBR_THR=4)
            await run(ctx, delay)
            incoming.extend(range(2))
            await write(ctx, MCR=0)
            await run(ctx, longer)
            await write(ctx, RBR_THR=5, MCR=0x10)

    async def play(ctx):
        ctx.set(dut.tx.ready, 1)
        await register_access(ctx, 7, writes=start)
        for kind, what, *rest in traffic:
            match kind:
                case "read":
                    await register_access(ctx, *rest, reads=sorted(what))
                case "write":
                    await register_access(ctx, *rest, writes=what)
                case "receive":
                    incoming.extend(what)
                case "send":
                    for byte in what:
                        await register_access(ctx, 0, writes={RBR_THR: byte})
                case "run":
                    await run(ctx, what)
                case "freeze":
                    for _ in range(what):
                        await cycle(ctx, advance=0)
                case _:
                    await situation(ctx, kind, what, *rest)

    simulate(dut, play)


class Driver:
    """Register accesses as drivers make them, while machine time runs."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut

    async def read(self, register):
        answer = await access(self.ctx, self.dut.bus, 0, mask=1 << register)
        return answer.data >> 8 * register & 0xFF

    async def write(self, register, value):
        mask, data = 1 << register, value << 8 * register
        await access(self.ctx, self.dut.bus, 0, write=1, mask=mask, data=data)

    async def until(self, register, bits):
        while not await self.read(register) & bits:
            pass


def run_driver(program, *, cycles_per_byte=16):
    """Run ``program(driver)`` and return the bytes that were sent."""
    dut = Uart(cycles_per_byte=cycles_per_byte)
    sent = bytearray()

    async def terminal(ctx):
        ctx.set(dut.tx.ready, 1)
        while True:
            _, _, valid, byte = await ctx.tick().sample(dut.tx.valid, dut.tx.payload)
            if valid:
                sent.append(byte)

    async def play(ctx):
        ctx.set(dut.advance, 1)
        await program(Driver(ctx, dut))

    simulate(dut, play, background=[terminal])
    return bytes(sent)


TEXT = b"OpenSBI v1.1, U-Boot 2023.01\r\n"


def test_a_polling_driver_prints():
    """uart8250_init and uart8250_putc of OpenSBI, ns16550_init and ns16550_putc of U-Boot."""

    async def program(driver):
        for register, value in (
            (IER, 0), (LCR, 0x80), (RBR_THR, 2), (IER, 0), (LCR, 3), (IIR_FCR, 1), (MCR, 0),
        ):  # fmt: skip
            await driver.write(register, value)
        for register in (LSR, RBR_THR):
            await driver.read(register)
        await driver.write(SCR, 0)
        for byte in TEXT:
            await driver.until(LSR, 0x20)
            await driver.write(RBR_THR, byte)
        await driver.until(LSR, 0x40)
        for register, value in (
            (IER, 0), (MCR, 3), (IIR_FCR, 7), (LCR, 0x83), (RBR_THR, 1), (IER, 0), (LCR, 3),
        ):  # fmt: skip
            await driver.write(register, value)
        for byte in TEXT:
            await driver.until(LSR, 0x20)
            await driver.write(RBR_THR, byte)
        await driver.until(LSR, 0x40)
        await wait(driver.ctx, 2)

    assert run_driver(program) == 2 * TEXT


def test_a_polling_driver_that_fills_the_fifo_loses_nothing():
    async def program(driver):
        await driver.write(IIR_FCR, 7)
        for start in range(0, len(TEXT), 16):
            await driver.until(LSR, 0x20)
            for byte in TEXT[start : start + 16]:
                await driver.write(RBR_THR, byte)
        await driver.until(LSR, 0x40)
        await wait(driver.ctx, 2)

    assert run_driver(program) == TEXT


def test_linux_finds_a_sound_16550():
    """serial8250 autoconfig's loopback test, its size tests, and its test for a lost THRE."""

    async def program(driver):
        await driver.write(IER, 0)
        assert await driver.read(IER) == 0
        await driver.write(IER, 0x0F)
        assert await driver.read(IER) & 0x0F == 0x0F
        await driver.write(IER, 0)
        await driver.write(MCR, 0x1A)
        assert await driver.read(MSR) & 0xF0 == 0x90
        await driver.write(MCR, 0x08)
        await driver.write(IIR_FCR, 1)
        assert await driver.read(IIR_FCR) >> 6 == 3
        await driver.write(IIR_FCR, 0)
        assert await driver.read(IIR_FCR) & 0xC0 == 0
        await driver.read(MSR)
        for _ in range(2):
            await driver.write(IER, 2)
            assert await driver.read(IIR_FCR) & 0x0F == 2
            assert await driver.read(IIR_FCR) & 0x0F == 1
            await driver.write(IER, 0)

    assert run_driver(program) == b""


@pytest.mark.parametrize("count", [1, 7, 8, 15, 16])
def test_loopback_gives_back_what_an_interrupt_handler_reads(count):
    async def program(driver):
        await driver.write(IIR_FCR, 0x87)
        await driver.write(MCR, 0x10)
        await driver.write(IER, 1)
        for byte in range(count):
            await driver.write(RBR_THR, byte)
        read = []
        while len(read) < count:
            while not driver.ctx.get(driver.dut.interrupt):
                await driver.ctx.tick()
            assert await driver.read(IIR_FCR) & 0x0F == (4 if count - len(read) >= 8 else 12)
            while await driver.read(LSR) & 1:
                read.append(await driver.read(RBR_THR))
        assert read == list(range(count))
        assert not driver.ctx.get(driver.dut.interrupt)

    assert run_driver(program) == b""


def test_a_terminal_that_does_not_listen_stops_the_line_and_loses_nothing():
    dut = Uart(cycles_per_byte=3)

    async def play(ctx):
        ctx.set(dut.advance, 1)
        driver = Driver(ctx, dut)
        await driver.write(IIR_FCR, 1)
        for byte in TEXT[:16]:
            await driver.write(RBR_THR, byte)
        await wait(ctx, 200)
        assert not await driver.read(LSR) & 0x40
        assert not ctx.get(dut.idle)
        ctx.set(dut.tx.ready, 1)
        seen = bytearray()
        while len(seen) < 16:
            _, _, valid, byte = await ctx.tick().sample(dut.tx.valid, dut.tx.payload)
            if valid:
                seen.append(byte)
        assert seen == TEXT[:16]
        await wait(ctx, 2)
        assert ctx.get(dut.idle)

    simulate(dut, play)


def test_a_byte_takes_its_time_and_there_is_nothing_behind_the_registers():
    dut = Uart(cycles_per_byte=16)

    async def play(ctx):
        ctx.set(dut.advance, 1)
        ctx.set(dut.tx.ready, 1)
        driver = Driver(ctx, dut)
        await driver.write(IIR_FCR, 1)
        # Both wait in the FIFO until time goes on.
        ctx.set(dut.advance, 0)
        await driver.write(RBR_THR, 0x41)
        await driver.write(RBR_THR, 0x42)
        ctx.set(dut.advance, 1)
        starts = []
        for cycle in range(60):
            _, _, valid = await ctx.tick().sample(dut.tx.valid)
            if valid:
                starts.append(cycle)
        assert starts[1] - starts[0] == 16
        assert await access(ctx, dut.bus, 8) == Answer(0, 1)

    simulate(dut, play)


def test_a_byte_time_that_cannot_be_built_is_refused():
    assert "positive" in refusal(lambda: Uart(cycles_per_byte=0))

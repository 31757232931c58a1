"""The VMM's devices: the UART against the data sheet's model, the others against their texts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.memory_map import MEMORY_MAP, UART_INTERRUPT
from sw_vmm.bus import Bus
from sw_vmm.devices import Clint, DeviceWindow, Finisher, Plic, Rom, Uart
from sw_vmm.devices.keyboard import Keyboard
from sw_vmm.errors import BadImage, BusError, GuestTooLarge
from tests.rtl.soc.model_16550 import Model16550
from tests.sw_vmm.machines import GUEST_RAM, RAM, make_vm

CYCLES_PER_BYTE = 64
MTI, MSI, MEI, SEI = 1 << 7, 1 << 3, 1 << 11, 1 << 9

# -- UART ------------------------------------------------------------------------------------------

_VALUES = {
    0: st.integers(0, 255),
    1: st.integers(0, 15),
    2: st.sampled_from([1, 1, 0x41, 0x81, 0xC1, 7, 3, 0]),
    3: st.sampled_from([3, 3, 3, 0x83]),
    4: st.sampled_from([0, 0, 0x0B, 0x10, 0x14, 0x1A, 0x1F]),
    7: st.integers(0, 255),
}
_OPERATIONS = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("read"), st.sampled_from([0, 2, 5, 6]), st.just(0)),
    st.sampled_from(sorted(_VALUES)).flatmap(
        lambda register: st.tuples(st.just("write"), st.just(register), _VALUES[register])
    ),
    st.tuples(st.just("write"), st.just(0), st.integers(0, 255)),
    st.tuples(st.just("write"), st.just(0), st.integers(0, 255)),
)
#: Short gaps fill FIFOs, long ones let timeouts pass.
_GAPS = st.one_of(st.integers(1, 20), st.integers(1, 6 * CYCLES_PER_BYTE))
_SETUP = st.fixed_dictionaries(
    {1: st.sampled_from([0, 1, 2, 4, 8, 15]), 2: _VALUES[2], 4: _VALUES[4]}
)


@settings(max_examples=250, deadline=None)
@given(
    _SETUP, st.lists(st.tuples(_OPERATIONS, _GAPS), min_size=5, max_size=50), st.binary(max_size=8)
)
def test_uart_agrees_with_the_data_sheets_model(setup, steps, keys):
    """Same registers, line and output whenever nothing is about to happen in the next cycles."""
    levels = [False]
    uart = Uart(cycles_per_byte=CYCLES_PER_BYTE, line=lambda level: levels.append(level))
    model = Model16550(CYCLES_PER_BYTE)
    uart.type_after(b"", keys)
    pending, sent = list(keys), bytearray()
    now = 0

    def cycle(**access):
        state = model.outputs(1, None)
        rx = pending[0] if pending and state["rx_empty"] else None
        if rx is not None and state["rx_ready"]:
            pending.pop(0)
        values = model.cycle(advance=1, rx=rx, **access)
        if model.offered is not None:
            sent.append(model.offered)
        return values

    begin = [(("write", register, value), 1) for register, value in setup.items()]
    for (kind, register, value), gap in begin + steps:
        target = now + gap
        uart.advance(now)
        while True:
            # The models differ by a cycle or two in when a byte sets out.
            uart.advance(target - 8)
            events = [uart._sent_at, uart._received_at, uart._timeout_at or 0]
            if all(abs(at - target) > 8 for at in events):
                break
            target += 17
        while now < target:
            cycle()
            now += 1
        uart.advance(now)
        assert levels[-1] == model.outputs(1, None)["interrupt"]
        if kind == "read":
            assert uart.read(register, 1, now) == cycle(reads=(register,))[register]
        else:
            uart.write(register, 1, value, now)
            cycle(writes={register: value})
        now += 1
        assert uart.output == sent


def test_bytes_take_their_time_and_the_fifo_holds_sixteen():
    uart = Uart(cycles_per_byte=10)
    uart.write(2, 1, 1, 0)
    for letter in b"0123456789abcdefXY":
        uart.write(0, 1, letter, 0)
    assert uart.read(5, 1, 5) & 0x60 == 0
    uart.advance(9)
    assert uart.output == b""
    uart.advance(35)
    assert uart.output == b"012"
    uart.settle()
    # One is being sent, sixteen wait, the last is lost.
    assert uart.output == b"0123456789abcdefX"
    assert uart.read(5, 1, 1000) & 0x60 == 0x60


def test_input_waits_for_its_text_and_for_an_empty_fifo():
    uart = Uart(cycles_per_byte=10)
    uart.type_after(b"name? ", b"Al")
    uart.type_after(b"ok", b"!")
    now = 0
    for letter in b"name?":
        uart.write(0, 1, letter, now)
        now += 10
    assert uart.read(5, 1, 1000) & 1 == 0
    uart.write(0, 1, ord(" "), 1000)
    assert uart.read(5, 1, 1019) & 1 == 0
    assert uart.read(5, 1, 1020) & 1 == 1
    assert uart.read(5, 1, 2000) & 3 == 1
    assert uart.read(0, 1, 2000) == ord("A")
    assert uart.read(5, 1, 2009) & 1 == 0
    assert uart.read(0, 1, 2010) == ord("l")
    for at, letter in enumerate(b"ok"):
        uart.write(0, 1, letter, 3000 + 10 * at)
    assert uart.read(0, 1, 3030) == ord("!")
    assert uart.read(5, 1, 9000) & 1 == 0


@given(
    st.lists(st.tuples(st.text("ab", min_size=1, max_size=3), st.integers(1, 3)), max_size=4),
    st.text("ab", max_size=30),
)
def test_keys_come_behind_their_texts_in_turn(rows, output):
    buffer = bytearray()
    keyboard = Keyboard(buffer)
    expected, place = [], 0
    for number, (text, count) in enumerate(rows):
        keyboard.type_after(text.encode(), bytes([number] * count))
    whole = True
    for number, (text, count) in enumerate(rows):
        at = output.find(text, place) if whole else -1
        whole = at >= 0
        if whole:
            place = at + len(text)
            expected += [(number, place)] * count
    seen = []
    for length in range(len(output) + 1):
        buffer[:] = output[:length].encode()
        while (key := keyboard.next_key()) is not None:
            seen.append((key, length))
    assert [key for key, _ in seen] == [key for key, _ in expected]
    assert all(when >= place for (_, when), (_, place) in zip(seen, expected, strict=True))


# -- CLINT -----------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(0, 10**6), st.integers(0, 10**5), st.integers(0, 10**5))
def test_clint_interrupts_from_the_tick_it_names(cycles_per_tick, now, offset, deadline):
    clint = Clint(cycles_per_tick=cycles_per_tick, offset=offset)
    clint.write(0x4000, 8, deadline, now)
    due = now // cycles_per_tick + offset >= deadline
    assert bool(clint.lines(now) & MTI) == due
    event = clint.next_event(now)
    later = now + 1
    assert later <= clint.cycle_of(clint.tick_of(later), 0) < later + cycles_per_tick
    if due:
        assert event is None
    else:
        assert clint.lines(event) & MTI and not clint.lines(event - 1) & MTI
        assert clint.mtime(event) == clint.tick_of(event) == deadline


def test_clint_registers_are_read_and_written_in_parts():
    clint = Clint(cycles_per_tick=10)
    assert clint.read(0x4000, 8, 0) == (1 << 64) - 1
    assert clint.next_event(0) is None
    clint.write(0x4004, 4, 0x12, 0)
    clint.write(0x4000, 4, 0x3456_789A, 0)
    assert clint.read(0x4000, 8, 0) == 0x12_3456_789A
    assert clint.read(0x4002, 2, 0) == 0x3456
    clint.write(0, 4, 0xFFFF_FFFF, 0)
    assert clint.read(0, 4, 0) == 1 and clint.lines(0) & MSI
    clint.write(0xBFF8, 8, 1000, 55)
    assert [clint.read(0xBFF8, 8, now) for now in (55, 59, 60)] == [1000, 1000, 1001]
    for offset, size in ((4, 4), (0, 8), (0x4008, 1), (0x8000, 4)):
        with pytest.raises(BusError):
            clint.read(offset, size, 0)


# -- PLIC ------------------------------------------------------------------------------------------


def plic_with(*enabled, priority=1):
    plic = Plic()
    for source in enabled:
        plic.write(4 * source, 4, priority, 0)
    plic.write(0x2000, 4, sum(1 << source for source in enabled), 0)
    return plic


def test_plic_claims_and_completes():
    plic = plic_with(3, 10)
    plic.drive(10, True)
    assert plic.lines() == MEI
    assert plic.read(0x1000, 4, 0) == 1 << 10
    assert plic.read(0x20_0004, 4, 0) == 10
    assert plic.lines() == 0
    # In service: the level does not count again before completion.
    plic.drive(10, True)
    assert plic.read(0x20_0004, 4, 0) == 0
    plic.write(0x20_0004, 4, 10, 0)
    assert plic.lines() == MEI
    # What was forwarded stays pending when the level falls.
    plic.drive(10, False)
    assert plic.read(0x20_0004, 4, 0) == 10
    plic.write(0x20_0004, 4, 10, 0)
    assert plic.lines() == 0


def test_plic_completes_only_what_was_claimed_and_is_enabled():
    plic = plic_with(5)
    plic.drive(5, True)
    plic.drive(5, False)
    plic.write(0x20_0004, 4, 5, 0)
    assert plic.read(0x20_0004, 4, 0) == 5
    plic.drive(5, True)
    assert plic.lines() == 0
    plic.write(0x20_1004, 4, 5, 0)
    assert plic.read(0x20_0004, 4, 0) == 0
    plic.write(0x20_0004, 4, 5, 0)
    assert plic.read(0x20_0004, 4, 0) == 5


@given(
    st.dictionaries(st.integers(1, 31), st.integers(0, 7)),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, 7),
)
def test_plic_serves_the_highest_priority_above_the_threshold(
    priorities, enabled, pending, threshold
):
    plic = Plic()
    for source, priority in priorities.items():
        plic.write(4 * source, 4, priority, 0)
    plic.write(0x2080, 4, enabled, 0)
    plic.write(0x20_1000, 4, threshold, 0)
    for source in range(1, 32):
        plic.drive(source, bool(pending >> source & 1))
    ready = [
        (-priority, source)
        for source, priority in priorities.items()
        if priority and enabled >> source & 1 and pending >> source & 1
    ]
    best = min(ready, default=(0, 0))
    assert plic.lines() == (SEI if -best[0] > threshold else 0)
    assert plic.read(0x20_1004, 4, 0) == best[1]


def test_plic_answers_only_where_registers_are():
    plic = Plic()
    for offset, size in ((0, 4), (0x80, 4), (0x20_0000, 8), (0x2004, 4), (0x20_2000, 4)):
        with pytest.raises(BusError):
            plic.read(offset, size, 0)
    plic.write(4, 8, 0x5_0000_0003, 0)
    assert (plic.read(4, 4, 0), plic.read(8, 4, 0), plic.read(4, 8, 0)) == (3, 5, 0x5_0000_0003)


# -- finisher, ROM, bus, VM ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "word", "code"),
    [
        (4, 0x5555, 0),
        (4, 0x7777, 0),
        (4, 0x2A_3333, 0x2A),
        (2, 0x3333, 0),
        (4, 0x1234, None),
        (1, 0x55, None),
    ],
)
def test_finisher_words(size, word, code):
    finisher = Finisher()
    finisher.write(0, size, word, 0)
    assert finisher.exit_code == code


def test_the_first_end_counts():
    finisher = Finisher()
    finisher.write(0, 4, 0x1_3333, 0)
    finisher.write(0, 4, 0x5555, 0)
    assert finisher.exit_code == 1


def test_rom_is_read_only_and_has_a_size():
    rom = Rom(b"\x11\x22\x33\x44", base=0x1000, size=64)
    assert rom.read(0, 8, 0) == 0x4433_2211
    with pytest.raises(BusError):
        rom.write(0, 4, 1, 0)
    with pytest.raises(BadImage):
        Rom(bytes(65), base=0x1000, size=64)


def test_bus_answers_aligned_accesses_inside_regions():
    bus = Bus()
    bus.attach(MEMORY_MAP["uart"], DeviceWindow())
    base = MEMORY_MAP["uart"].base
    assert bus.read(base, 4, 0) == 0
    for gpa, size in ((base + 2, 4), (base + MEMORY_MAP["uart"].size, 1), (base - 1, 1), (0, 8)):
        with pytest.raises(BusError):
            bus.read(gpa, size, 0)
        with pytest.raises(BusError):
            bus.write(gpa, size, 0, 0)
    with pytest.raises(ValueError, match="overlaps"):
        bus.attach(MEMORY_MAP["uart"], DeviceWindow())


def test_the_uarts_line_reaches_the_hart_through_the_plic():
    vm = make_vm()
    uart, plic = (MEMORY_MAP[name].base for name in ("uart", "plic"))
    vm.bus.write(plic + 4 * UART_INTERRUPT, 4, 1, 0)
    vm.bus.write(plic + 0x2000, 4, 1 << UART_INTERRUPT, 0)
    vm.type_after(b"?", b"y")
    vm.bus.write(uart + 1, 1, 1, 0)
    vm.bus.write(uart, 1, ord("?"), 100)
    assert vm.lines(100) == 0
    # One byte time out, one in.
    due = vm.next_event(100, MEI)
    assert vm.lines(due - 1) == 0
    due = vm.next_event(due, MEI)
    assert due == 100 + 2 * 16
    assert vm.lines(due - 1) == 0 and vm.lines(due) == MEI
    assert vm.next_event(100_000, MTI) is None


def test_images_must_fit_the_guests_memory():
    vm = make_vm()
    with pytest.raises(GuestTooLarge, match="beyond the end of guest memory"):
        vm.load(RAM + GUEST_RAM - 4, b"12345", "kernel")
    with pytest.raises(BadImage, match="below guest memory"):
        vm.load(0x1000, b"1")
    vm.load(RAM + GUEST_RAM - 4, b"1234")
    assert vm.machine.read_memory(RAM + GUEST_RAM - 4, 4) == b"1234"

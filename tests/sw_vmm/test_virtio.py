"""virtio devices against a driver written from the specification, and against bad drivers."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sw_vmm.devices import DeviceWindow, VirtioBlock, VirtioConsole
from sw_vmm.memory import LocalMemory

RAM, SIZE = 0x8000_0000, 1 << 20
SECTORS = 16
IN, OUT, FLUSH, GET_ID = 0, 1, 4, 8
NEXT, WRITE, INDIRECT = 1, 2, 4
TABLE, AVAILABLE, USED, BUFFERS = RAM, RAM + 0x1000, RAM + 0x2000, RAM + 0x4000
NEEDS_RESET = 0x40


class GuardedMemory(LocalMemory):
    """Guest RAM that notices every access outside itself."""

    def read(self, gpa, size):
        return int.from_bytes(self.read_bytes(gpa, size), "little")

    def write(self, gpa, size, value):
        self.write_bytes(gpa, value.to_bytes(size, "little"))

    def read_bytes(self, gpa, length):
        assert length >= 0 and self.base <= gpa and gpa + length <= self.end
        return super().read_bytes(gpa, length)

    def write_bytes(self, gpa, data):
        assert self.base <= gpa and gpa + len(data) <= self.end
        super().write_bytes(gpa, data)


class Driver:
    """One queue of one device, in slot 1 of the window."""

    def __init__(self, device, queue=0, size=8):
        self.memory = GuardedMemory(RAM, SIZE)
        self.window = DeviceWindow([VirtioConsole(), device])
        self.window.connect(self.memory)
        self.device, self.queue, self.size, self.now = device, queue, size, 1000
        self.made = self.seen = 0

    def get(self, offset, size=4):
        return self.window.read(0x1000 + offset, size, self.now)

    def set(self, offset, value, size=4):
        self.window.write(0x1000 + offset, size, value, self.now)

    def agree(self, features=1 << 32):
        for status in (0, 1, 3):
            self.set(0x70, status)
        for word in (0, 1):
            self.set(0x24, word)
            self.set(0x20, features >> 32 * word & 0xFFFF_FFFF)
        self.set(0x70, 0xB)
        return bool(self.get(0x70) & 8)

    def place(self, table=TABLE, available=AVAILABLE, used=USED, size=None):
        self.set(0x30, self.queue)
        self.set(0x38, self.size if size is None else size)
        for offset, address in ((0x80, table), (0x90, available), (0xA0, used)):
            self.set(offset, address & 0xFFFF_FFFF)
            self.set(offset + 4, address >> 32)
        self.set(0x44, 1)
        return self.get(0x44)

    def start(self):
        assert self.agree()
        assert self.place()
        self.set(0x70, 0xF)
        return self

    def describe(self, index, address, length, flags, following):
        row = struct.pack("<QIHH", address, length, flags, following)
        self.memory.write_bytes(TABLE + 16 * index, row)

    def offer(self, head=0):
        self.memory.write(AVAILABLE + 4 + 2 * (self.made % self.size), 2, head)
        self.made = self.made + 1 & 0xFFFF
        self.memory.write(AVAILABLE + 2, 2, self.made)
        self.set(0x50, self.queue)

    def wait(self):
        while (due := self.window.next_event(self.now)) is not None:
            self.now = max(self.now, due)
            self.window.advance(self.now)

    def request(self, *pieces):
        """Pieces are bytes to send or numbers of bytes to get; the value is what was got."""
        address = BUFFERS
        places = []
        for index, piece in enumerate(pieces):
            length = piece if isinstance(piece, int) else len(piece)
            if not isinstance(piece, int):
                self.memory.write_bytes(address, piece)
            more = index + 1 < len(pieces)
            flags = (WRITE if isinstance(piece, int) else 0) | (NEXT if more else 0)
            self.describe(index, address, length, flags, index + 1)
            places.append((address, length, isinstance(piece, int)))
            address += length + 3
        self.offer()
        self.wait()
        assert self.memory.read(USED + 2, 2) == self.made
        head, written = struct.unpack(
            "<II", self.memory.read_bytes(USED + 4 + 8 * ((self.made - 1) % self.size), 8)
        )
        assert head == 0
        got = b"".join(
            self.memory.read_bytes(place, length) for place, length, written_ in places if written_
        )
        return got, written

    @property
    def broken(self):
        return bool(self.get(0x70) & NEEDS_RESET)


def disk(**options):
    image = bytearray((place * 7 + place // 512) & 0xFF for place in range(512 * SECTORS))
    return VirtioBlock(image, **options)


def block_driver(*, size=8, **options):
    return Driver(disk(**options), size=size).start()


def header(kind, sector):
    return struct.pack("<IIQ", kind, 0, sector)


# -- what a driver sees first ----------------------------------------------------------------------


@pytest.mark.parametrize(("device", "number"), [(disk(), 2), (VirtioConsole(), 3)])
def test_device_says_what_it_is(device, number):
    driver = Driver(device)
    assert driver.get(0).to_bytes(4, "little") == b"virt"
    assert (driver.get(4), driver.get(8)) == (2, number)
    driver.set(0x14, 1)
    assert driver.get(0x10) == 1
    assert driver.window.read(0x2000, 4, 0) == 0
    assert driver.window.read(0, 4, 0) == driver.get(0)


def test_capacity_is_in_sectors_at_any_width():
    driver = Driver(disk())
    assert driver.get(0x100, 8) == driver.get(0x100, 4) == driver.get(0x100, 1) == SECTORS
    assert driver.get(0x104) == driver.get(0x1000 - 4) == 0
    assert driver.get(0x70, 1) == driver.get(0x70, 8) == 0


@pytest.mark.parametrize(
    ("features", "agreed"),
    [(1 << 32, True), (1 << 32 | 1 << 9, True), (0, False), (1 << 32 | 1 << 5, False)],
)
def test_features_are_agreed_on_or_not(features, agreed):
    assert Driver(disk()).agree(features) == agreed


def test_reset_forgets_everything():
    driver = block_driver()
    driver.request(header(IN, 0), 512, 1)
    driver.set(0x70, 0)
    assert (driver.get(0x70), driver.get(0x44), driver.get(0x60)) == (0, 0, 0)
    assert driver.window.interrupts == 0


# -- disks -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([IN, OUT]),
            st.integers(0, SECTORS + 1),
            st.integers(1, 3),
            st.integers(0, 1 << 30),
        ),
        max_size=12,
    ),
    st.data(),
)
def test_disk_keeps_what_is_written_however_it_is_cut_into_buffers(requests, data):
    driver = block_driver(size=16)
    model = bytearray(driver.device.image)
    for kind, sector, count, seed in requests:
        length = 512 * count
        fits = sector * 512 + length <= len(model)
        payload = bytes((seed >> place % 24) + place & 0xFF for place in range(length))
        cuts = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=3)))
        edges = list(zip([0, *cuts], [*cuts, length], strict=True))
        if kind == IN:
            got, written = driver.request(header(IN, sector), *(b - a for a, b in edges), 1)
            assert got[-1] == (0 if fits else 1)
            if fits:
                assert got[:-1] == model[sector * 512 : sector * 512 + length]
            assert written == (length + 1 if fits else 1)
        else:
            got, written = driver.request(header(OUT, sector), *(payload[a:b] for a, b in edges), 1)
            assert (got, written) == (b"\0" if fits else b"\1", 1)
            if fits:
                model[sector * 512 : sector * 512 + length] = payload
        assert driver.device.image == model


def test_other_requests():
    driver = block_driver()
    assert driver.request(header(FLUSH, 0), 1)[0] == b"\0"
    assert driver.request(header(GET_ID, 0), 20, 1)[0] == b"vmxlab".ljust(20, b"\0") + b"\0"
    assert driver.request(header(77, 0), 1)[0] == b"\2"
    assert driver.request(header(IN, 0), 100, 1)[0][-1] == 1
    assert driver.request(header(IN, 1 << 63), 512, 1)[0][-1] == 1


@pytest.mark.parametrize("length", [0, 511, 513])
def test_image_of_no_whole_sectors_is_refused(length):
    with pytest.raises(ValueError, match="sectors"):
        VirtioBlock(bytearray(length))


# -- time and interrupts ---------------------------------------------------------------------------


def test_work_is_done_after_its_latency_and_not_before():
    driver = block_driver(latency=300, cycles_per_byte=2)
    driver.describe(0, BUFFERS, 16, NEXT, 1)
    driver.describe(1, BUFFERS + 64, 513, WRITE, 0)
    driver.memory.write_bytes(BUFFERS, header(IN, 0))
    start = driver.now
    driver.offer()
    driver.offer()
    assert driver.window.next_event(driver.now) == start + 300
    driver.window.advance(start + 299)
    assert driver.memory.read(USED + 2, 2) == 0 and driver.window.interrupts == 0
    driver.window.advance(start + 300)
    assert driver.memory.read(USED + 2, 2) == 1 and driver.window.interrupts == 2
    second = start + 300 + 300 + 2 * (16 + 513)
    assert driver.window.next_event(driver.now) == second
    driver.window.advance(second - 1)
    assert driver.memory.read(USED + 2, 2) == 1
    driver.window.advance(second)
    assert driver.memory.read(USED + 2, 2) == 2


def test_interrupt_is_acknowledged():
    driver = block_driver()
    driver.request(header(IN, 0), 512, 1)
    assert driver.window.interrupts == 2 and driver.get(0x60) == 1
    driver.set(0x64, 1)
    assert driver.window.interrupts == 0 and driver.get(0x60) == 0
    driver.memory.write(AVAILABLE, 2, 1)
    driver.request(header(IN, 0), 512, 1)
    assert driver.window.interrupts == 0


def test_nothing_happens_before_the_driver_is_ready():
    driver = Driver(disk())
    driver.agree()
    driver.place()
    driver.offer()
    assert driver.window.next_event(driver.now) is None


# -- consoles --------------------------------------------------------------------------------------


def test_console_keeps_what_it_is_told():
    driver = Driver(VirtioConsole(), queue=1).start()
    driver.request(b"one ", b"line\n")
    driver.request(b"another\n")
    assert driver.window.console == b"one line\nanother\n"


def test_buffers_for_input_stay_with_the_device():
    driver = Driver(VirtioConsole(), queue=0).start()
    driver.describe(0, BUFFERS, 64, WRITE, 0)
    driver.offer()
    driver.wait()
    assert driver.memory.read(USED + 2, 2) == 0 and not driver.broken


def test_ring_indices_wrap():
    driver = Driver(VirtioConsole(latency=1, cycles_per_byte=0), queue=1, size=128).start()
    driver.describe(0, BUFFERS, 1, 0, 0)
    for _ in range(513):
        for _ in range(128):
            driver.offer()
        driver.wait()
    assert driver.memory.read(USED + 2, 2) == 128
    assert len(driver.window.console) == 513 * 128


# -- bad drivers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setup",
    [
        {"size": 0},
        {"size": 3},
        {"size": 256},
        {"size": 0xFFFF_FFFF},
        {"table": RAM + 8},
        {"available": RAM + 1},
        {"used": RAM + 2},
        {"table": RAM - 16},
        {"table": RAM + SIZE - 16},
        {"used": RAM + SIZE - 64},
        {"available": 0x1000_0000},
        {"table": 1 << 63},
    ],
)
def test_queue_that_cannot_be_needs_a_reset(setup):
    driver = Driver(disk())
    driver.agree()
    assert driver.place(**setup) == 0
    assert driver.broken
    assert driver.agree() and driver.place() and not driver.broken


BAD_CHAINS = {
    "below RAM": [(RAM - 1, 16, 0, 0)],
    "above RAM": [(RAM + SIZE - 15, 16, 0, 0)],
    "at a device": [(0x1000_1000, 16, 0, 0)],
    "wraps": [((1 << 64) - 8, 16, 0, 0)],
    "empty": [(BUFFERS, 0, 0, 0)],
    "longer than allowed": [(RAM, SIZE, NEXT, 1), (RAM, SIZE, NEXT, 0)],
    "loop": [(BUFFERS, 16, NEXT, 0)],
    "loop of two": [(BUFFERS, 16, NEXT, 1), (BUFFERS, 16, NEXT, 0)],
    "next beyond the table": [(BUFFERS, 16, NEXT, 8)],
    "indirect": [(BUFFERS, 16, INDIRECT, 0)],
    "read behind write": [(BUFFERS, 16, NEXT | WRITE, 1), (BUFFERS, 16, 0, 0)],
    "no status": [(BUFFERS, 16, 0, 0)],
    "no header": [(BUFFERS, 16, WRITE, 0)],
}


@pytest.mark.parametrize("name", BAD_CHAINS)
def test_chain_that_cannot_be_needs_a_reset_and_touches_nothing(name):
    driver = block_driver()
    for index, row in enumerate(BAD_CHAINS[name]):
        driver.describe(index, *row)
    driver.offer()
    before = driver.memory.read_bytes(RAM, SIZE)
    driver.wait()
    assert driver.broken and driver.device.complaint
    assert driver.get(0x60) == 2 and driver.window.interrupts == 2
    assert driver.memory.read_bytes(RAM, SIZE) == before
    driver.set(0x50, 0)
    assert driver.window.next_event(driver.now) is None
    driver.made = 0
    driver.memory.write(AVAILABLE + 2, 2, 0)
    driver.memory.write(USED + 2, 2, 0)
    driver.start()
    assert driver.request(header(IN, 1), 512, 1)[0][-1] == 0


@pytest.mark.parametrize(("head", "count"), [(8, 1), (0xFFFF, 1), (0, 9), (0, 0xFFFF)])
def test_available_ring_that_cannot_be_needs_a_reset(head, count):
    driver = block_driver()
    driver.describe(0, BUFFERS, 16, NEXT, 1)
    driver.describe(1, BUFFERS, 513, WRITE, 1)
    driver.memory.write(AVAILABLE + 4, 2, head)
    driver.memory.write(AVAILABLE + 2, 2, count)
    driver.set(0x50, 0)
    driver.wait()
    assert driver.broken


_REGISTERS = st.sampled_from(
    [
        0x14,
        0x20,
        0x24,
        0x30,
        0x38,
        0x44,
        0x50,
        0x50,
        0x50,
        0x64,
        0x70,
        0x80,
        0x84,
        0x90,
        0xA0,
        0x100,
    ]
)
_WORDS = st.one_of(
    st.sampled_from([0, 1, 3, 7, 8, 0xB, 0xF, TABLE, AVAILABLE, USED]), st.integers(0, 2**32 - 1)
)
_STEPS = st.one_of(
    st.tuples(st.just("set"), _REGISTERS, _WORDS, st.sampled_from([4, 4, 4, 4, 1, 2, 8])),
    st.tuples(
        st.just("memory"),
        st.integers(0, 0x2100 // 8),
        st.integers(0, 2**64 - 1),
        st.just(8),
    ),
    st.tuples(st.just("wait"), st.just(0), st.just(0), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.booleans(), st.lists(_STEPS, max_size=40))
def test_hostile_driver_crashes_nothing(console, started, steps):
    device = VirtioConsole() if console else disk()
    driver = Driver(device, queue=int(console))
    if started:
        driver.start()
    for kind, place, value, size in steps:
        if kind == "set":
            driver.set(place, value & (1 << 8 * size) - 1, size)
            driver.get(place, size)
        elif kind == "memory":
            driver.memory.write(RAM + 8 * place, 8, value)
        else:
            driver.now += 10_000
            driver.window.advance(driver.now)
    # However much there is to do, a bounded time holds a bounded number of bytes.
    assert len(driver.window.console) <= driver.now

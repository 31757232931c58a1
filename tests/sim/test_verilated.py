"""The clock loop: events, budgets, console and keyboard, the device window, observers."""

import os
import signal
import threading
import time

import pytest

from rtl.arch.records import RETIREMENT
from sim.verilated import RETIREMENT_BYTES, Verilated
from sw_vmm.machine import BusError, Event, ParkRecord
from tests.sim.conftest import RAM_SIZE

SEND, FINISH, WINDOW, ANSWER, STORE = 0x38, 0x40, 0x48, 0x50, 0x58
FOREVER = 1 << 62


def send(machine, text):
    for byte in text:
        machine.write(SEND, byte)


def store(machine, address, value):
    machine.write(STORE, address << 32 | value)


def test_a_budget_ends_a_run_after_exactly_its_cycles(machine):
    assert machine.resume_and_run(0x1000, FOREVER, 0, 0, 1000) == Event.BUDGET
    assert machine.cycles == 1000
    assert machine.run(234) == Event.BUDGET
    assert machine.cycles == 1234
    assert not machine.parked


def test_parking_ends_a_run_and_shows_the_record(machine):
    assert machine.resume_and_run(0x8000_0123, 77, 0, 0, 1000) == Event.PARKED
    assert machine.parked
    assert machine.cycles == 77
    record = ParkRecord.from_bytes(machine.park)
    assert (record.pc, record.cycle) == (0x8000_0123, 77)


def test_a_parked_machine_reports_itself_without_a_cycle(machine):
    assert machine.run(1000) == Event.PARKED
    assert machine.cycles == 0


def test_a_budget_longer_than_a_slice_is_kept(machine):
    assert machine.resume_and_run(0, FOREVER, 0, 0, 500_001) == Event.BUDGET
    assert machine.cycles == 500_001


def test_control_c_ends_a_run(machine):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.get_ident()
    timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    try:
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            machine.resume_and_run(0, FOREVER, 0, 0, 1 << 40)
        assert time.monotonic() - start < 10
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_an_access_nobody_answers_raises(machine):
    with pytest.raises(BusError, match="0xff8"):
        machine.read(0xFF8)
    with pytest.raises(BusError, match="0xff8"):
        machine.write(0xFF8, 1)


def test_console_bytes_come_in_order_and_a_text_stops_the_run(machine):
    machine.stop_at_text(b"two\n")
    send(machine, b"one\ntwo\nthree\n")
    assert machine.console() == b"one\ntwo\nthree\n"
    assert machine.resume_and_run(0, 50, 0, 0, 1000) & Event.CONSOLE
    assert machine.run(1000) == Event.PARKED, "a text stops only once"


def test_a_text_that_is_there_already_stops_at_once(machine):
    send(machine, b"hello")
    machine.stop_at_text(b"ell")
    assert machine.run(0) & Event.CONSOLE


def test_keys_wait_for_their_text_and_come_one_by_one(machine):
    machine.type_after(b"key", b"abc")
    machine.type_after(b"d", b"xy")
    send(machine, b"Hit any ")
    machine.resume_and_run(0, 100, 0, 0, 1000)
    assert machine.console() == b"Hit any "
    send(machine, b"key")
    machine.resume_and_run(0, 100, 0, 0, 1000)
    # The stand-in echoes every key plus one; the echo "d" sets off the second text.
    assert machine.console() == b"Hit any keybcdyz"


def test_a_text_that_appeared_before_types_at_once(machine):
    send(machine, b"login:")
    machine.type_after(b"login:", b"a")
    machine.resume_and_run(0, 100, 0, 0, 1000)
    assert machine.console() == b"login:b"


def test_the_finisher_is_reported_with_its_code(machine):
    machine.write(FINISH, 0x5555)
    assert machine.run(0) & Event.FINISHED
    assert machine.finisher == 0x5555


def test_a_window_access_waits_for_its_answer(machine):
    machine.write(WINDOW, 0x1000_1040)
    machine.resume_and_run(0, 100, 0, 0, 0)
    assert machine.run(1000) == Event.WINDOW
    assert machine.window_request() == (0x1000_1040, False, 0xFF, 0)
    before = machine.cycles
    assert machine.run(1000) == Event.WINDOW, "not answered yet"
    assert machine.cycles == before
    machine.answer_window(0xCAFE)
    machine.window_interrupts(0x81)
    assert machine.run(1000) == Event.PARKED
    assert machine.read(ANSWER) == 0x8100_0000_0000_CAFE


def test_tohost_is_seen_where_and_when_it_is_written(machine):
    machine.stop_at_tohost(0x8000_1000)
    store(machine, 0x8000_1008, 1)
    store(machine, 0x8000_1000, 0)
    assert machine.run(0) == Event.PARKED
    store(machine, 0x8000_1000, 0x539)
    assert machine.run(0) == Event.PARKED | Event.TOHOST
    assert machine.tohost == 0x539
    machine.stop_at_tohost(None)
    store(machine, 0x8000_1000, 7)
    assert machine.run(0) == Event.PARKED


def records(machine, most=100):
    data = machine.drain(most)
    for place in range(0, len(data), RETIREMENT_BYTES):
        word = int.from_bytes(data[place : place + RETIREMENT_BYTES], "little")
        yield RETIREMENT.decode(word)


def test_retired_instructions_are_kept_when_asked_for(machine):
    store(machine, 1, 1)
    assert list(records(machine)) == []
    machine.observe(4)
    for number in range(3):
        store(machine, 0x100 + number, number)
    kept = list(records(machine))
    assert [(row["address"], row["data"]) for row in kept] == [(0x100, 0), (0x101, 1), (0x102, 2)]
    assert all(row["store"] and not row["load"] and row["size"] == 2 for row in kept)
    assert list(records(machine)) == [], "draining forgets"


def test_the_newest_records_stay(machine):
    machine.observe(4)
    for number in range(10):
        store(machine, number, 0)
    assert machine.lost == 6
    assert [row["address"] for row in records(machine, 3)] == [6, 7, 8]
    store(machine, 10, 0)
    assert [row["address"] for row in records(machine)] == [9, 10]


def test_retired_instructions_go_to_a_file(machine, tmp_path):
    file = tmp_path / "trace"
    machine.observe_to_file(file)
    for number in range(100):
        store(machine, number, 0)
    machine.observe_to_file(None)
    store(machine, 999, 0)
    assert file.stat().st_size == 100 * RETIREMENT_BYTES
    last = int.from_bytes(file.read_bytes()[-RETIREMENT_BYTES:], "little")
    assert RETIREMENT.decode(last)["address"] == 99


def test_skipped_cycles_count_like_clocked_ones(machine):
    assert machine.skip(12345)
    assert machine.cycles == 12345
    machine.set_skipping(False)
    assert not machine.skip(1)
    machine.set_skipping(True)
    machine.resume_and_run(0, 5, 0, 1000, 10_000)
    skipped = machine.cycles
    machine.set_skipping(False)
    machine.resume_and_run(0, 5, 0, 1000, 10_000)
    assert machine.cycles - skipped == skipped - 12345


def test_reset_forgets_everything(machine):
    send(machine, b"old")
    machine.type_after(b"never", b"x")
    machine.stop_at_text(b"old again")
    machine.resume_and_run(0, FOREVER, 0, 0, 10)
    machine.reset()
    assert (machine.console(), machine.cycles, machine.parked) == (b"", 0, True)
    send(machine, b"never")
    assert machine.resume_and_run(0, 100, 0, 0, 1000) == Event.PARKED
    assert machine.console() == b"never"


def test_a_simple_exit_costs_microseconds(machine):
    """Resume, run a few cycles, decode the record: the part of it that is Python."""
    count = 2000
    start = time.perf_counter()
    for _ in range(count):
        machine.resume_and_run(0x8000_0000, 4, 0, 0, 1000)
        ParkRecord.from_bytes(machine.park)
    # Generous: other processes share the cores. What matters is that it is not a millisecond.
    assert (time.perf_counter() - start) / count < 100e-6


def test_a_fork_may_let_go_of_a_machine(library):
    """The mutation run forks beside machines; a thread of theirs would not be there to be joined."""
    machine = Verilated(library, ram_size=RAM_SIZE, cycles_per_tick=10)
    machine.run(10)
    child = os.fork()
    if not child:
        del machine
        os._exit(0)
    for _ in range(200):
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError("the fork hangs")

"""Snapshots: a machine saved in one process goes on in another as if nothing had happened."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import pytest

from rtl.soc.config import SocConfig
from sim.device_tree import boot_rom
from sim.elf import load_elf
from sim.guests import hello_elf
from sim.library import LibraryMachine
from sim.snapshot import SnapshotError, read_snapshot, write_snapshot
from sim.verilated import RETIREMENT_BYTES
from sw_vmm.machine import Event

SIZE = 8 << 20
#: Cycles of hello to its end, with some to spare.
END = 40_000
TRACED = 100_000


def started(debug=True):
    """A machine with the guest hello, about to run."""
    machine = LibraryMachine(SocConfig(), ram_size=SIZE, debug=debug)
    image = load_elf(hello_elf(), ram_size=SIZE)
    machine.reset()
    rom = boot_rom(SocConfig(), ram_size=SIZE, bootargs="", entry=image.entry)
    machine.write_memory(0x1000, rom)
    for place, data in image.segments:
        machine.write_memory(place, data)
    machine.park_on(0, 0)
    machine.type_after(b"hello", b"keys")
    machine.stop_at_text(b"no such text")
    machine.trace(TRACED)
    machine.resume(0x1000)
    return machine


def to_the_end(machine):
    """Everything there is to see of the rest of the run."""
    events, left = [], END - machine.cycles
    while left > 0:
        event = machine.run(left)
        events.append((int(event), machine.cycles))
        if event & Event.FINISHED:
            break
        left = END - machine.cycles
    machine.stop()
    while not machine.parked:
        machine.run(10_000)
    record = machine.park
    trace = machine.traced(TRACED)
    machine.clean()
    return {
        "events": events,
        "park": tuple(record),
        "counters": machine.counters(),
        "console": machine.console(),
        "gprs": [machine.read_gpr(number) for number in range(32)],
        "trace": trace,
        "ram": hashlib.sha256(machine.read_memory(0x8000_0000, SIZE)).hexdigest(),
    }


def restored(path, queue):
    """In a process of its own: the rest of the run, of a machine that had other memory and did other things."""
    machine = LibraryMachine(SocConfig(), ram_size=SIZE, debug=True)
    machine.write_memory(0x8000_0000, b"\xa5" * SIZE)
    machine.resume(0x8000_0000)
    machine.run(777)
    machine.restore_snapshot(path)
    machine.trace(TRACED)
    queue.put(to_the_end(machine))


@pytest.fixture(scope="module")
def uninterrupted():
    return to_the_end(started())


def in_another_process(path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=restored, args=(path, queue))
    process.start()
    try:
        return queue.get(timeout=120)
    finally:
        process.join(10)


def test_the_library_for_debugging_behaves_alike(uninterrupted):
    assert to_the_end(started(debug=False)) == uninterrupted


@pytest.mark.parametrize("cycle", [0, 1, 1234, 9_999, 25_000])
def test_a_restored_machine_goes_on_exactly(tmp_path, uninterrupted, cycle):
    path = tmp_path / "snapshot"
    machine = started()
    if cycle:
        assert machine.run(cycle) == Event.BUDGET
    retired = len(machine.traced(TRACED))
    machine.save_snapshot(path, {"any": "note"})
    after = in_another_process(path)
    assert uninterrupted["trace"][retired:] == after["trace"]
    assert after == uninterrupted | {"trace": after["trace"]}
    # Nor has saving disturbed the machine that was saved.
    rest = to_the_end(machine)
    assert rest == after
    assert retired % RETIREMENT_BYTES == 0


def test_a_parked_machine_is_saved_with_what_it_was_told(tmp_path):
    path = tmp_path / "snapshot"
    machine = started()
    machine.save_snapshot(path, [1, 2])
    other = LibraryMachine(SocConfig(), ram_size=SIZE, debug=True)
    assert other.restore_snapshot(path) == [1, 2]
    assert other.parked
    assert other.run(5_000) == machine.run(5_000)
    assert other.cycles == machine.cycles


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "snapshot"
    machine = started()
    machine.run(2_000)
    machine.save_snapshot(path)
    return path


def refusal(path, *, config=None, size=SIZE):
    """The one line, and the machine that has refused is as it was."""
    machine = LibraryMachine(config or SocConfig(), ram_size=size, debug=True)
    with pytest.raises(SnapshotError) as refused:
        machine.restore_snapshot(path)
    assert (machine.parked, machine.cycles) == (True, 0)
    message = str(refused.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_every_truncation_is_refused(saved, tmp_path):
    data = saved.read_bytes()
    path = tmp_path / "cut"
    for length in (0, 5, 18, 20, 26, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(SnapshotError, match=r"cut short|no snapshot"):
            read_snapshot(path)
    path.write_bytes(data + b"x")
    assert "damaged" in refusal(path)


def test_a_flipped_bit_is_refused(saved, tmp_path):
    data = bytearray(saved.read_bytes())
    data[-100] ^= 4
    path = tmp_path / "flipped"
    path.write_bytes(data)
    assert "damaged" in refusal(path)


def test_other_memory_is_refused(saved):
    assert f"ram_size = {SIZE}" in refusal(saved, size=2 * SIZE)


def changed(saved, path, **changes):
    header, state, ram = read_snapshot(saved)
    write_snapshot(path, header | changes, state, ram)
    return path


def test_another_configuration_is_refused(saved, tmp_path):
    header, _, _ = read_snapshot(saved)
    config = header["config"] | {"ram_latency": 99}
    message = refusal(changed(saved, tmp_path / "other", config=config))
    assert "ram_latency = 99" in message


def test_another_build_is_refused(saved, tmp_path):
    assert "another build" in refusal(changed(saved, tmp_path / "other", build="0"))


def test_a_missing_file_is_one_line(tmp_path):
    assert "cannot read" in refusal(tmp_path / "none")


def test_an_unwritable_place_is_one_line(saved, tmp_path):
    with pytest.raises(SnapshotError, match="cannot write"):
        write_snapshot(tmp_path / "no" / "folder", {}, b"", b"")


def test_a_failed_save_leaves_the_old_snapshot(saved, tmp_path, monkeypatch):
    path = tmp_path / "snapshot"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sim.snapshot.os.replace", full)
    with pytest.raises(SnapshotError, match="No space left"):
        write_snapshot(path, {}, b"", b"")
    assert [file.name for file in Path(tmp_path).iterdir()] == ["snapshot"]
    assert path.read_bytes() == b"old"


def test_a_header_that_is_no_object_is_refused(tmp_path):
    path = tmp_path / "odd"
    text = json.dumps([1]).encode()
    path.write_bytes(b"vmxlab snapshot 1\n" + len(text).to_bytes(8, "little") + text)
    with pytest.raises(SnapshotError, match="damaged"):
        read_snapshot(path)

"""Waves and pipeline traces of a window of cycles."""

import struct

import pytest

from rtl.arch.records import RETIREMENT
from rtl.soc.config import SocConfig
from sim.errors import VmxlabError
from sim.konata import STAGE_RECORD_BYTES, kanata, stage_records
from sim.library import LibraryMachine
from sw_vmm.machine import Event
from tests.machine.board import RAM, RAM_SIZE, Board
from tests.machine.words import encode, li

#: A loop with a divide, a store, a load that is used at once, and a branch; it ends after 50 rounds.
ROUNDS = 50
LOOP = [
    *li(6, 0x1234),
    *li(7, 7),
    encode("addi", rd=8, imm=ROUNDS),
    encode("auipc", rd=9, imm=0x1000),
    encode("div", rd=10, rs1=6, rs2=7),
    encode("sd", rs1=9, rs2=10, imm=0),
    encode("ld", rd=11, rs1=9, imm=0),
    encode("add", rd=12, rs1=11, rs2=12),
    encode("addi", rd=8, rs1=8, imm=-1),
    encode("bne", rs1=8, imm=-20),
    encode("ebreak"),
]


@pytest.fixture(scope="module")
def board():
    return Board(LibraryMachine(SocConfig(), ram_size=RAM_SIZE, debug=True))


@pytest.fixture
def ready(board):
    board.reset()
    board.put(RAM, *LOOP)
    board.machine.trace(100_000)
    return board


# The pipeline.


def parsed(lines):
    """Instructions by number: label, stages as (cycle, name), and (cycle, retired or flushed)."""
    lines = list(lines)
    assert lines[0] == "Kanata\t0004"
    kind, start = lines[1].split("\t")
    assert kind == "C="
    now, instructions, order = int(start), {}, []
    for line in lines[2:]:
        kind, *words = line.split("\t")
        if kind == "C":
            assert int(words[0]) > 0
            now += int(words[0])
            continue
        number = int(words[0])
        match kind:
            case "I":
                assert number == len(instructions)
                instructions[number] = {"stages": [], "end": None, "label": ""}
            case "L":
                instructions[number]["label"] = words[2]
            case "S":
                assert instructions[number]["end"] is None
                instructions[number]["stages"].append((now, words[2]))
            case "R":
                assert instructions[number]["end"] is None
                instructions[number]["end"] = (now, words[2] == "0")
                if words[2] == "0":
                    assert int(words[1]) == len(order)
                    order.append(number)
            case _:
                raise AssertionError(line)
    return instructions, order


def traced(ready, path, first, end):
    ready.machine.dump_stages(path, first, end)
    ready.run(RAM)
    ready.machine.dump_stages(None)
    return path.read_bytes()


def test_retired_instructions_are_those_of_the_retirement_trace(ready, tmp_path):
    data = traced(ready, tmp_path / "stages", 0, 1 << 40)
    instructions, order = parsed(kanata(stage_records(data)))
    rows = [row for row in ready.retired() if not row["trap"]]
    assert [instructions[n]["label"].split(":")[0] for n in order] == [
        f"{row['pc']:016x}" for row in rows
    ]
    assert order == sorted(order)
    for number in order:
        stages = instructions[number]["stages"]
        assert [name for _, name in stages] == ["Is", "Ex", "Cm"]
        cycles = [cycle for cycle, _ in stages]
        assert cycles == sorted(set(cycles))
        assert instructions[number]["end"][0] > cycles[-1]


def test_what_did_not_retire_is_flushed(ready, tmp_path):
    """The ebreak traps, what follows it and the wrong paths never retire."""
    data = traced(ready, tmp_path / "stages", 0, 1 << 40)
    instructions, order = parsed(kanata(stage_records(data)))
    ebreak = f"{RAM + 4 * (len(LOOP) - 1):016x}"
    seen = [n for n, row in instructions.items() if row["label"].startswith(ebreak)]
    assert any([name for _, name in instructions[n]["stages"]] == ["Is", "Ex", "Cm"] for n in seen)
    assert not set(seen) & set(order)
    assert all(instructions[n]["end"] and not instructions[n]["end"][1] for n in seen[:-1])


def test_stages_take_the_time_they_do(ready, tmp_path):
    """A divide stays in Ex for long; its cycles add up with what retires."""
    data = traced(ready, tmp_path / "stages", 0, 1 << 40)
    instructions, order = parsed(kanata(stage_records(data)))

    def time_in_execute(number):
        (_, (start, _), (end, _)) = instructions[number]["stages"]
        return end - start

    divides = [time_in_execute(n) for n in order if " div " in instructions[n]["label"]]
    adds = [time_in_execute(n) for n in order if " addi s0, s0" in instructions[n]["label"]]
    assert (len(divides), len(adds)) == (ROUNDS, ROUNDS)
    assert min(divides) > 3
    assert set(adds) == {1}


def test_a_window_holds_exactly_its_cycles(ready, tmp_path):
    whole = traced(ready, tmp_path / "whole", 0, 1 << 40)
    ready.reset()
    ready.put(RAM, *LOOP)
    part = traced(ready, tmp_path / "part", 300, 400)
    size = STAGE_RECORD_BYTES
    rows = [whole[place : place + size] for place in range(0, len(whole), size)]
    wanted = [row for row in rows if 300 <= struct.unpack_from("<Q", row)[0] < 400]
    assert len(wanted) == 100
    assert part == b"".join(wanted)
    # A trace that begins in the middle is well formed.
    parsed(kanata(stage_records(part)))


def test_an_empty_trace_has_its_header():
    assert list(kanata(())) == ["Kanata\t0004"]


# Waves.


def waves_of(path):
    """Values of signals by name as (time, value), read by an independent library."""
    pylibfst = pytest.importorskip("pylibfst", reason="pylibfst reads the FST files")
    lib, ffi = pylibfst.lib, pylibfst.ffi
    context = lib.fstReaderOpen(str(path).encode())
    assert context != ffi.NULL
    _, signals = pylibfst.get_scopes_signals2(context)
    names = {signal.handle: name for name, signal in signals.by_name.items()}
    changes = {}

    def changed(_, time, facility, value):
        name = names.get(facility)
        if name is not None:
            changes.setdefault(name, []).append((time, pylibfst.helpers.string(value)))

    lib.fstReaderSetFacProcessMaskAll(context)
    pylibfst.fstReaderIterBlocks(context, changed)
    first, last = lib.fstReaderGetStartTime(context), lib.fstReaderGetEndTime(context)
    lib.fstReaderClose(context)
    return changes, first, last


def value_at(changes, time):
    return next(value for at, value in reversed(changes) if at <= time)


def test_waves_show_what_retires(ready, tmp_path):
    """Time is the machine cycle; the retirement port in the waves gives the retirement trace."""
    path = tmp_path / "waves.fst"
    ready.machine.dump_waves(path, 0, 1 << 40)
    ready.run(RAM)
    ready.machine.dump_waves(None)
    changes, first, last = waves_of(path)
    valid = next(rows for name, rows in changes.items() if name.endswith("retirement__valid"))
    record = next(
        rows
        for name, rows in changes.items()
        if name.endswith("retirement__record[303:0]")
        or name.split(" ")[0].endswith("retirement__record")
    )
    seen = [
        RETIREMENT.decode(int(value_at(record, time), 2))["pc"]
        for time in range(first, last + 1)
        if value_at(valid, time) == "1"
    ]
    assert seen == [row["pc"] for row in ready.retired()]


def test_a_window_of_waves_ends_by_itself(ready, tmp_path):
    path = tmp_path / "waves.fst"
    ready.machine.dump_waves(path, 200, 300)
    ready.run(RAM)
    _, first, last = waves_of(path)
    assert (first, last) == (200, 299)


def test_waves_do_not_change_the_run(ready, tmp_path):
    ready.run(RAM)
    before = ready.machine.traced(), ready.machine.counters()
    ready.reset()
    ready.put(RAM, *LOOP)
    ready.machine.trace(100_000)
    ready.machine.dump_waves(tmp_path / "waves.fst", 100, 400)
    ready.machine.dump_stages(tmp_path / "stages", 100, 400)
    ready.run(RAM)
    assert (ready.machine.traced(), ready.machine.counters()) == before


def test_unwritable_files_are_one_line(ready, tmp_path):
    for dump in (ready.machine.dump_waves, ready.machine.dump_stages):
        with pytest.raises(VmxlabError, match=r"^cannot write the [^\n]+$"):
            dump(tmp_path / "no" / "folder", 0, 10)
    ready.machine.resume(RAM)
    assert ready.machine.run(100) == Event.BUDGET

"""The RAM model as an AXI4 master sees it."""

import functools
import operator
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtl.arch.memory_map import MEMORY_MAP
from rtl.bus.axi4 import Response
from sim.verilated import Verilated
from tests.sim.conftest import RAM_SIZE, stand_in_library

BASE = MEMORY_MAP["ram"].base
READ, LATENCY, STREAMING, TOTAL, WORST, WRITE_DATA, WRITE = 0, 8, 16, 24, 32, 40, 48

# One machine serves all examples: every example writes the bytes it looks at.
examples = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_burst(machine, address, beats):
    machine.write(READ, address | beats - 1 << 32)


def write_beat(machine, address, data, strobe):
    machine.write(WRITE_DATA, data)
    machine.write(WRITE, address | strobe << 32)


@pytest.mark.parametrize("ram_latency", [1, 2, 12])
@pytest.mark.parametrize("beats", [1, 2, 8])
def test_first_beat_comes_after_the_latency_and_then_one_per_cycle(ram_latency, beats):
    machine = Verilated(stand_in_library(ram_latency), ram_size=RAM_SIZE, cycles_per_tick=10)
    read_burst(machine, BASE, beats)
    assert machine.read(LATENCY) == ram_latency
    assert machine.read(STREAMING) == beats - 1


@examples
@given(
    words=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=16),
    place=st.integers(0, RAM_SIZE // 8 - 16),
)
def test_bursts_read_consecutive_words(machine, words, place):
    machine.ram[8 * place : 8 * (place + len(words))] = struct.pack(f"<{len(words)}Q", *words)
    read_burst(machine, BASE + 8 * place, len(words))
    assert machine.read(TOTAL) == functools.reduce(operator.xor, words)
    assert machine.read(WORST) == Response.OKAY.value


@examples
@given(
    old=st.binary(min_size=8, max_size=8),
    new=st.binary(min_size=8, max_size=8),
    strobe=st.integers(0, 255),
    place=st.integers(0, RAM_SIZE // 8 - 1),
)
def test_writes_change_the_bytes_of_the_strobe_only(machine, old, new, strobe, place):
    here = slice(8 * place, 8 * place + 8)
    machine.ram[here] = old
    write_beat(machine, BASE + 8 * place, int.from_bytes(new, "little"), strobe)
    expected = bytes(new[i] if strobe >> i & 1 else old[i] for i in range(8))
    assert bytes(machine.ram[here]) == expected
    assert machine.read(WORST) == Response.OKAY.value


@pytest.mark.parametrize(
    ("offset", "response"),
    [
        (0, Response.OKAY),
        (RAM_SIZE - 8, Response.OKAY),
        (RAM_SIZE, Response.DECERR),
        (0x7FFF_FFF8, Response.DECERR),
    ],
)
def test_accesses_behind_the_fitted_ram_are_decode_errors(machine, offset, response):
    read_burst(machine, BASE + offset, 1)
    assert machine.read(WORST) == response.value
    write_beat(machine, BASE + offset, 0x1234, 0xFF)
    assert machine.read(WORST) == response.value


def test_a_burst_across_the_end_of_ram_is_in_error_there_only(machine):
    machine.ram[RAM_SIZE - 8 :] = struct.pack("<Q", 0xABCD)
    read_burst(machine, BASE + RAM_SIZE - 8, 2)
    assert machine.read(WORST) == Response.DECERR.value
    assert machine.read(TOTAL) == 0xABCD


def test_machines_side_by_side_have_their_own_ram(library):
    one, other = (Verilated(library, ram_size=RAM_SIZE, cycles_per_tick=10) for _ in range(2))
    write_beat(one, BASE, 1, 0xFF)
    write_beat(other, BASE, 2, 0xFF)
    assert (one.ram[0], other.ram[0]) == (1, 2)


def test_reset_empties_the_ram(machine):
    write_beat(machine, BASE + 64, 5, 0xFF)
    machine.reset()
    assert bytes(machine.ram[:128]) == bytes(128)

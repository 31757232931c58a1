"""The ELF loader, against files put together here byte by byte."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtl.arch.memory_map import MEMORY_MAP
from sim.elf import ElfError, format_signature, load_elf, load_raw

RAM = MEMORY_MAP["ram"].base
RAM_SIZE = 1 << 20
RISCV = 243


def elf_bytes(
    segments=((RAM, b"\x13\0\0\0", 4),),
    *,
    entry=RAM,
    machine=RISCV,
    elf_class=2,
    endian=1,
    kind=2,
    flags=0,
    symbols=(),
):
    """An ELF64 file; segments are (address, bytes, size in memory)."""
    names, table = b"\0", struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    for name, value in symbols:
        table += struct.pack("<IBBHQQ", len(names), 0x10, 0, 1, value, 0)
        names += name.encode() + b"\0"
    body, headers = b"", []
    start = 64 + 56 * len(segments)
    for address, data, size in segments:
        headers.append(
            struct.pack("<IIQQQQQQ", 1, 7, start + len(body), address, address, len(data), size, 1)
        )
        body += data
    symbols_at = start + len(body)
    names_at = symbols_at + len(table)
    sections_at = names_at + len(names)
    sections = b"".join(
        struct.pack("<IIQQQQIIQQ", 0, type_, 0, 0, at, size, link, 0, 0, 0)
        for type_, at, size, link in (
            (0, 0, 0, 0),
            (2, symbols_at, len(table), 2),
            (3, names_at, len(names), 0),
        )
    )
    ident = b"\x7fELF" + bytes([elf_class, endian, 1]) + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(ident, kind, machine, 1, entry, 64, sections_at, flags, 64, 56, len(segments), 64, 3, 0),
    )
    return header + b"".join(headers) + body + table + names + sections


@pytest.fixture
def load(tmp_path):
    def load(data):
        path = tmp_path / "program.elf"
        path.write_bytes(data)
        return load_elf(path, ram_size=RAM_SIZE)

    return load


segment_lists = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), st.integers(0, 30), st.integers(0, 50)),
    min_size=1,
    max_size=4,
)


@given(segment_lists, st.randoms())
def test_segments_arrive_where_they_belong(tmp_path_factory, pieces, random):
    address, segments = RAM, []
    for data, padding, gap in pieces:
        address += gap
        segments.append((address, data, len(data) + padding))
        address += len(data) + padding
    shuffled = list(segments)
    random.shuffle(shuffled)
    path = tmp_path_factory.mktemp("elf") / "program.elf"
    path.write_bytes(elf_bytes(tuple(shuffled), entry=segments[0][0]))
    image = load_elf(path, ram_size=RAM_SIZE)
    expected, got = bytearray(RAM_SIZE), bytearray(b"\xee" * RAM_SIZE)
    for place, data, size in segments:
        expected[place - RAM : place - RAM + size] = data.ljust(size, b"\0")
    for place, data in image.segments:
        got[place - RAM : place - RAM + len(data)] = data
    for place, _, size in segments:
        assert got[place - RAM : place - RAM + size] == expected[place - RAM : place - RAM + size]
    assert image.end == address


def test_symbols_are_found(load):
    image = load(
        elf_bytes(
            symbols=(
                ("tohost", RAM + 8),
                ("begin_signature", RAM + 16),
                ("end_signature", RAM + 32),
            )
        )
    )
    assert image.symbols["tohost"] == RAM + 8
    assert image.signature == (RAM + 16, RAM + 32)
    assert load(elf_bytes()).signature is None


def test_segment_may_end_with_ram_and_not_behind_it(load):
    load(elf_bytes(((RAM, b"abcd", RAM_SIZE),)))
    with pytest.raises(ElfError, match="does not lie within RAM"):
        load(elf_bytes(((RAM, b"abcd", RAM_SIZE + 1),)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"", "not an ELF file"),
        (elf_bytes()[:40], "ends within its header"),
        (elf_bytes()[:100], "ends within its headers"),
        (elf_bytes(machine=62), "for x86-64, not for RISC-V"),
        (elf_bytes(machine=183), "for AArch64, not for RISC-V"),
        (elf_bytes(machine=9999), "for machine 9999"),
        (elf_bytes(elf_class=1), "32-bit"),
        (elf_bytes(endian=2), "big-endian"),
        (elf_bytes(kind=1), "not linked"),
        (elf_bytes(flags=4), "floating point"),
        (elf_bytes(()), "no segment"),
        (elf_bytes(((RAM - 4096, b"x", 1),), entry=RAM - 4096), "does not lie within RAM"),
        (elf_bytes(((RAM, b"abcd", 2),)), "beyond the end of the file"),
        (elf_bytes(((RAM, b"abcd", 4), (RAM + 3, b"x", 1))), "segments overlap"),
        (elf_bytes(entry=RAM + 4), "entry point"),
    ],
)
def test_what_cannot_be_loaded_is_named(load, data, message):
    with pytest.raises(ElfError, match=message) as caught:
        load(data)
    assert "\n" not in str(caught.value)


@given(st.data())
def test_damage_is_refused_or_loaded_never_a_crash(tmp_path_factory, data):
    whole = bytearray(elf_bytes(symbols=(("tohost", RAM),)))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("elf") / "program.elf"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        image = load_elf(path, ram_size=RAM_SIZE)
    except ElfError:
        return
    assert RAM <= image.entry < image.end <= RAM + RAM_SIZE


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(ElfError, match="No such file"):
        load_elf(tmp_path / "none.elf", ram_size=RAM_SIZE)


def test_raw_image_fits_or_is_refused(tmp_path):
    path = tmp_path / "image.bin"
    path.write_bytes(bytes(range(16)))
    image = load_raw(path, RAM + RAM_SIZE - 16, ram_size=RAM_SIZE)
    assert image.segments == ((RAM + RAM_SIZE - 16, bytes(range(16))),)
    with pytest.raises(ElfError, match="do not fit into RAM"):
        load_raw(path, RAM + RAM_SIZE - 15, ram_size=RAM_SIZE)
    path.write_bytes(b"")
    with pytest.raises(ElfError, match="empty"):
        load_raw(path, RAM, ram_size=RAM_SIZE)


@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=12))
def test_signature_has_a_word_per_line(words):
    data = struct.pack(f"<{len(words)}I", *words)
    lines = format_signature(data).splitlines()
    assert [int(line, 16) for line in lines] == words
    assert all(len(line) == 8 and line == line.lower() for line in lines)


def test_signature_must_be_whole_words():
    with pytest.raises(ValueError, match="whole number"):
        format_signature(b"abc")

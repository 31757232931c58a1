"""Loading bare RISC-V programs: ELF64 files, their symbols, raw images, signatures."""

import itertools
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rtl.arch.memory_map import MEMORY_MAP
from sim.errors import VmxlabError

__all__ = ["ElfError", "Image", "format_signature", "load_elf", "load_raw"]

_RAM = MEMORY_MAP["ram"].base
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")

_MACHINES = {3: "x86", 40: "Arm", 62: "x86-64", 183: "AArch64", 243: "RISC-V"}
_RISCV, _CLASS_64, _LITTLE_ENDIAN, _EXECUTABLE, _SHARED = 243, 2, 1, 2, 3
_FLOAT_ABI = 0x0006
_PT_LOAD, _SHT_SYMTAB = 1, 2


class ElfError(VmxlabError):
    """The file cannot be loaded; the message names it and says why."""


@dataclass(frozen=True)
class Image:
    """What is put into RAM before the hart starts.

    ``segments`` are (physical address, bytes) and do not overlap; bytes of a segment that the
    file does not hold are zero. ``end`` is the first address behind the last segment.
    """

    entry: int
    segments: tuple[tuple[int, bytes], ...]
    symbols: Mapping[str, int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return max((address + len(data) for address, data in self.segments), default=self.entry)

    @property
    def signature(self) -> tuple[int, int] | None:
        """First and end address of the range the guest declares, or None when it is empty."""
        return self._range("begin_signature", "end_signature")

    @property
    def programs(self) -> tuple[int, int] | None:
        """First and end address of the table of user programs (``sim.program_costs``), or None."""
        return self._range("begin_programs", "end_programs")

    def _range(self, *names: str) -> tuple[int, int] | None:
        first, end = (self.symbols.get(name, 0) for name in names)
        return (first, end) if first < end else None


def load_elf(path: Path | str, *, ram_size: int) -> Image:
    """The loadable segments and symbols of an ELF64 RISC-V executable.

    Raises ElfError when the file is no such thing, when a segment does not lie within the
    ``ram_size`` bytes of RAM, when segments overlap, or when the entry point is in no segment.
    """
    path = Path(path)
    data = _read(path)
    entry, program_headers, section_headers = _parse_headers(path, data)
    segments = []
    for row in program_headers:
        kind, _, offset, _, address, file_size, memory_size, _ = row
        if kind != _PT_LOAD or not memory_size:
            continue
        if file_size > memory_size or offset + file_size > len(data):
            raise ElfError(f"{path}: not loadable: a segment reaches beyond the end of the file")
        if not (address >= _RAM and address + memory_size <= _RAM + ram_size):
            raise ElfError(
                f"{path}: segment {address:#x} to {address + memory_size:#x} does not lie within "
                f"RAM, {_RAM:#x} to {_RAM + ram_size:#x} (see --mem)"
            )
        content = data[offset : offset + file_size]
        segments.append((address, content + bytes(memory_size - file_size)))
    segments.sort()
    if not segments:
        raise ElfError(f"{path}: not loadable: no segment to load")
    for (first, content), (second, _) in itertools.pairwise(segments):
        if first + len(content) > second:
            raise ElfError(f"{path}: not loadable: segments overlap at {second:#x}")
    if not any(base <= entry < base + len(content) for base, content in segments):
        raise ElfError(f"{path}: not loadable: entry point {entry:#x} lies in no segment")
    return Image(entry, tuple(segments), _symbols(path, data, section_headers))


def load_raw(path: Path | str, address: int, *, ram_size: int) -> Image:
    """A file put into RAM as it is. Raises ElfError when it is empty or larger than RAM."""
    path = Path(path)
    data = _read(path)
    if not data:
        raise ElfError(f"{path}: the file is empty")
    if not (address >= _RAM and address + len(data) <= _RAM + ram_size):
        raise ElfError(
            f"{path}: {len(data)} bytes at {address:#x} do not fit into RAM, {_RAM:#x} to "
            f"{_RAM + ram_size:#x} (see --mem)"
        )
    return Image(address, ((address, data),))


def format_signature(data: bytes, *, granularity: int = 4) -> str:
    """The signature file of the architecture tests: one word per line, hexadecimal, lower case."""
    if granularity not in (1, 2, 4, 8) or len(data) % granularity:
        raise ValueError(f"{len(data)} bytes are no whole number of {granularity}-byte words")
    words = (data[place : place + granularity] for place in range(0, len(data), granularity))
    return "".join(f"{int.from_bytes(word, 'little'):0{2 * granularity}x}\n" for word in words)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ElfError(f"{path}: {error.strerror}") from error


def _parse_headers(path, data):
    if data[:4] != b"\x7fELF":
        raise ElfError(f"{path}: not an ELF file")
    if len(data) < _HEADER.size:
        raise ElfError(f"{path}: not loadable: the file ends within its header")
    (
        ident, kind, machine, _, entry, program_offset, section_offset, flags,
        _, program_size, program_count, section_size, section_count, _,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    if machine != _RISCV:
        name = _MACHINES.get(machine, f"machine {machine}")
        raise ElfError(f"{path}: an ELF file for {name}, not for RISC-V")
    if ident[4] != _CLASS_64:
        raise ElfError(f"{path}: a 32-bit ELF file; the hart is RV64")
    if ident[5] != _LITTLE_ENDIAN:
        raise ElfError(f"{path}: a big-endian ELF file; the hart is little-endian")
    if kind not in (_EXECUTABLE, _SHARED):
        raise ElfError(f"{path}: not loadable: not linked (ELF type {kind})")
    if flags & _FLOAT_ABI:
        raise ElfError(f"{path}: built for a hart with floating point; use -mabi=lp64")
    return (
        entry,
        _table(path, data, _PROGRAM_HEADER, program_offset, program_size, program_count),
        _table(path, data, _SECTION_HEADER, section_offset, section_size, section_count),
    )


def _table(path, data, row, offset, size, count):
    if not count or not offset:
        return []
    if size != row.size or offset + size * count > len(data):
        raise ElfError(f"{path}: not loadable: the file ends within its headers")
    return [row.unpack_from(data, offset + size * index) for index in range(count)]


def _symbols(path, data, sections):
    symbols = {}
    for _, kind, _, _, offset, size, link, _, _, _ in sections:
        if kind != _SHT_SYMTAB:
            continue
        if link >= len(sections) or offset + size > len(data):
            raise ElfError(f"{path}: not loadable: damaged symbol table")
        _, _, _, _, strings, strings_size, *_ = sections[link]
        names = data[strings : strings + strings_size]
        for place in range(offset, offset + size - size % _SYMBOL.size, _SYMBOL.size):
            name, _, _, section, value, _ = _SYMBOL.unpack_from(data, place)
            if section:
                text = names[name : names.find(b"\0", name)]
                symbols[text.decode("utf-8", "replace")] = value
    symbols.pop("", None)
    return symbols

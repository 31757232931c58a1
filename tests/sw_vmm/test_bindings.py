"""The loader of the generated bindings: cache, damage, races, and what the VMM must not load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sw_vmm import bindings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def build(tmp_path, monkeypatch):
    """An empty folder for build products."""
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path))
    bindings.load.cache_clear()
    yield tmp_path / "bindings"
    bindings.load.cache_clear()


def reload(name="host_port"):
    bindings.load.cache_clear()
    return bindings.load(name)


def only_file(folder):
    (file,) = folder.iterdir()
    return file


def test_second_load_generates_nothing(build, monkeypatch):
    bindings.load("host_port")
    before = only_file(build).stat().st_mtime_ns

    def refuse(*_arguments, **_options):
        raise AssertionError("the generator was started again")

    monkeypatch.setattr(bindings.subprocess, "run", refuse)
    assert reload().HostPort.__name__ == "HostPort"
    assert only_file(build).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace("0x200", "0x208", 1),
        lambda text: text[:-1],
    ],
    ids=["half", "empty", "changed", "unsealed"],
)
def test_damaged_entry_is_made_again(build, damage):
    bindings.load("host_port")
    file = only_file(build)
    whole = file.read_text()
    assert damage(whole) != whole
    file.write_text(damage(whole))
    assert reload().HostPort(None, None).gpr[0]._address == 0x200
    assert file.read_text() == whole


def test_changed_source_makes_another_entry(build, tmp_path, monkeypatch):
    bindings.load("host_port")
    maps = tmp_path / "maps"
    maps.mkdir()
    for path in bindings._MAPS.glob("*.rdl"):
        (maps / path.name).write_text(path.read_text())
    source = maps / "host_port.rdl"
    source.write_text(source.read_text().replace("gpr[32] @ 0x200", "gpr[32] @ 0x300"))
    monkeypatch.setattr(bindings, "_MAPS", maps)
    assert reload().HostPort(None, None).gpr[1]._address == 0x308
    assert len(list(build.iterdir())) == 2


def test_failure_is_one_line_and_leaves_nothing(build, tmp_path, monkeypatch):
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "broken.rdl").write_text("addrmap broken { reg { field {} f; } r;")
    monkeypatch.setattr(bindings, "_MAPS", maps)
    with pytest.raises(bindings.BindingsError) as caught:
        bindings.load("broken")
    assert "broken.rdl" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(build.iterdir()) == []


@pytest.mark.parametrize("name", ["nothing", "../host_port", "properties/..", ""])
def test_unknown_map_is_refused(build, name):
    with pytest.raises(bindings.BindingsError, match="no register map named"):
        bindings.load(name)


def test_processes_that_load_at_once_agree(build):
    program = "from sw_vmm import bindings; print(bindings.load('host_port').HostPort.SIZE)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    printed = {racer.communicate()[0] for racer in racers}
    assert printed == {"65536\n"}
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    only_file(build)


def test_the_vmm_loads_no_gateware(build):
    program = (
        "import sys; from sw_vmm import bindings; bindings.load('host_port');"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'amaranth', 'systemrdl'}),"
        "sorted(name for name in sys.modules if name.startswith('rtl.lib')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] []\n"

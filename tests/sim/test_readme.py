"""The VMM of the README, run as it stands there."""

import re
from pathlib import Path

import pytest

import sim.library
from tests.sw_vmm.golden_machine import GoldenMachine

README = Path(__file__).resolve().parents[2] / "README.md"


def vmm():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return code


@pytest.mark.parametrize("machine", ["golden", "library"])
def test_the_vmm_of_the_readme_runs_its_guest(monkeypatch, capsys, machine):
    if machine == "golden":
        monkeypatch.setattr(
            sim.library,
            "LibraryMachine",
            lambda config, ram_size: GoldenMachine(ram_size, **config.as_dict()),
        )
    exec(compile(vmm(), str(README), "exec"), {})
    assert capsys.readouterr().out == "hi\n"


def test_it_has_thirty_lines():
    assert len([line for line in vmm().splitlines() if line.strip()]) <= 30

"""Configurations: what is refused, what the manual says, and what has a name."""

import inspect
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtl.core.hart import Hart
from rtl.soc.config import CONFIGURATIONS, SocConfig, configurations_markdown
from sim.host_machine import MachineConfig

MANUAL = Path(__file__).parents[3] / "docs/configurations.md"
NUMBERS = [member.name for member in fields(SocConfig) if member.type is int]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [0, -1, 1 << 20, "4", 4.0, True, None])
def test_bad_values_are_refused_in_one_line_that_names_them(name, value):
    with pytest.raises(ValueError) as refused:
        SocConfig(**{name: value})
    message = str(refused.value)
    assert message.startswith(f"{name} must be ") and "\n" not in message


@pytest.mark.parametrize(
    "name", ["branch_targets", "branch_counters", "indirect_targets", "shared_tlb_entries"]
)
@given(value=st.integers(256, 4096))
def test_tables_have_a_power_of_two_of_rows(name, value):
    if value in (256, 512, 1024, 2048, 4096):
        assert getattr(SocConfig(**{name: value}), name) == value
    else:
        with pytest.raises(ValueError, match=f"{name} must be a power of two"):
            SocConfig(**{name: value})


@given(ways=st.integers(1, 16), way=st.integers(64, 8192))
def test_a_way_is_a_power_of_two_and_at_most_a_page(ways, way):
    good = way in (128, 256, 512, 1024, 2048, 4096)
    if good:
        SocConfig(cache_size=ways * way, cache_ways=ways)
    else:
        with pytest.raises(ValueError, match="cache_size"):
            SocConfig(cache_size=ways * way, cache_ways=ways)


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_switches_are_true_or_false(value):
    with pytest.raises(ValueError, match="bit_manipulation must be of type bool"):
        SocConfig(bit_manipulation=value)


def test_unknown_members_are_refused():
    with pytest.raises(TypeError):
        SocConfig(color=3)


def test_named_configurations_know_their_names():
    assert list(CONFIGURATIONS) == ["full", "small", "vmx"]
    for name, config in CONFIGURATIONS.items():
        assert config.name == name
        assert MachineConfig(**config.as_dict(), ram_size=1 << 20).name == name
    assert SocConfig() == CONFIGURATIONS["full"]
    assert SocConfig(tlb_entries=3).name is None


def test_small_is_nowhere_larger():
    full, small = (CONFIGURATIONS[name].as_dict() for name in ("full", "small"))
    assert all(small[name] <= full[name] for name in full)
    outside = set(full) - set(CONFIGURATIONS["full"].hart)
    assert all(small[name] == full[name] for name in outside)


def test_the_hart_takes_its_part():
    assert list(inspect.signature(Hart).parameters) == list(SocConfig().hart)


def test_the_manual_holds_the_table():
    assert configurations_markdown() in MANUAL.read_text()

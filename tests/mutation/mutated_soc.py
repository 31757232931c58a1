"""The SoC with every drawn mutant in it; a number, 0 for none, says which is alive."""

import json
from pathlib import Path

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped

from rtl.soc.config import SocConfig
from rtl.soc.soc import Soc
from sim.cache import build_folder, hash_of
from sim.model import library_file
from tests.mutation.conditions import Condition, conditions, flip

__all__ = ["NUMBER_WIDTH", "MutatedSoc", "mutated_library", "soc_conditions"]

NUMBER_WIDTH = 12
_HERE = Path(__file__).parent


def soc_conditions(config: SocConfig) -> list[Condition]:
    """Every condition of the SoC."""
    return conditions(Fragment.get(Soc(config), None))


class MutatedSoc(wiring.Component):
    """The SoC, and the member ``mutant``: the condition of that name, counted from 1, is flipped.

    Parameters
    ----------
    config : SocConfig
    names : list of str
        Names of conditions. Raises ValueError when the SoC has no such condition.
    """

    def __init__(self, config, names):
        self._soc = Soc(config)
        self._names = {name: number for number, name in enumerate(names, 1)}
        super().__init__({**self._soc.signature.members, "mutant": In(NUMBER_WIDTH)})

    def elaborate(self, platform):
        m = Module()
        soc = self._soc
        # From a register, for the simulation's sake: see sim.top.
        number = Signal(NUMBER_WIDTH, reset_less=True)
        m.d.sync += number.eq(self.mutant)
        fragment = Fragment.get(soc, platform)
        missing = set(self._names)

        def flag(condition):
            missing.discard(condition.name)
            mine = self._names.get(condition.name)
            return None if mine is None else number == mine

        flip(fragment, flag)
        if missing:
            raise ValueError(f"the SoC has no condition {min(missing)}")
        m.submodules.soc = fragment
        for name, member in soc.signature.members.items():
            inner, outer = getattr(soc, name), getattr(self, name)
            if member.is_signature:
                connect(m, inner, flipped(outer))
            elif member.flow is wiring.Out:
                m.d.comb += outer.eq(inner)
            else:
                m.d.comb += inner.eq(outer)
        return m


def mutated_library(config: SocConfig, names: list[str]) -> Path:
    """The library with these mutants; ``$VMXLAB_MUTANT`` is read at each reset."""
    text = json.dumps(names)
    drawn = build_folder() / "mutation" / f"{hash_of(text)}.json"
    drawn.parent.mkdir(parents=True, exist_ok=True)
    drawn.write_text(text)

    def mutated_soc(config: SocConfig) -> MutatedSoc:
        return MutatedSoc(config, names)

    return library_file(
        config,
        mutated_soc,
        # What the library is made from besides rtl.
        sources=(drawn, _HERE / "conditions.py", _HERE / "mutated_soc.py"),
        compiling=("-DVMXLAB_MUTANTS",),
    )

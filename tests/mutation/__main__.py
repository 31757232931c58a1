"""make mutate: how many flipped conditions of the RTL some test notices."""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rtl.soc.config import SocConfig
from sim.cache import build_folder, hash_of, sources_hash
from sim.errors import VmxlabError
from sim.results import git_revision
from tests.mutation.conditions import Condition
from tests.mutation.equivalence import proved_equivalent
from tests.mutation.mutated_soc import mutated_library, soc_conditions
from tests.mutation.record import MUTATION_FILE, Mutant, document, summary
from tests.mutation.stages import (
    QUICK_STAGES,
    THOROUGH_STAGES,
    Stage,
    block_stage,
    in_simulator,
    on_library,
    run_stage,
)

#: Where the conditions of each part of the hart are written.
GROUPS = {
    "decode": ("rtl/core/decode.py", "rtl/core/expand.py"),
    "csr": ("rtl/core/csr.py", "rtl/core/csr_base.py", "rtl/core/performance_counters.py"),
    "trap": ("rtl/core/traps.py", "rtl/core/commit.py", "rtl/core/parking.py"),
    "mmu": ("rtl/mmu/", "rtl/core/physical.py"),
}
#: A stage may take so many times what it takes without a mutant, and so many seconds at least.
_PATIENCE, _LEAST, _BLOCK_LIMIT = 8, 120, 1200
_PROJECT = Path(__file__).resolve().parents[2]


def draw(found: Sequence[Condition], seed: int, count: int) -> list[Mutant]:
    """``count`` mutants, an equal share from each group, in an order that the seed decides."""
    drawn = []
    for group, files in GROUPS.items():
        mine = [condition for condition in found if condition.file.startswith(files)]
        sample = random.Random(f"{seed} {group}").sample(mine, min(count // len(GROUPS), len(mine)))
        drawn += [Mutant(condition, group) for condition in sample]
    return drawn


class Run:
    """One run over drawn mutants on one library.

    What is known of a mutant of this library is kept in a file, so that a run can be broken off
    and taken up again; which test noticed a mutant of that name in another library is a hint
    what to try first.
    """

    def __init__(self, mutants: Sequence[Mutant], library: Path, folder: Path):
        self._mutants = mutants
        self._library = library
        self._folder = folder
        self._sources = _sources()
        key = hash_of(library.parent.name, sources_hash(_tests()))
        self._known_file = folder / f"{key}.json"
        self._known = _read(self._known_file)
        self._hints_file = folder / "hints.json"
        self._hints = _read(self._hints_file)
        self._seconds = self._known.setdefault("", {})

    def _check(self, stage: Stage, prepare: Callable[[], None]) -> None:
        """Run a stage with no mutant alive, once, to see it hold and how long it takes."""
        if stage.name in self._seconds:
            return
        result = run_stage(stage, prepare, 3600, self._log("none"))
        if result.test:
            raise VmxlabError(f"{result.test} fails without any mutant")
        self._seconds[stage.name] = result.seconds
        self._keep()

    def judge(self, number: int, *, thorough: bool) -> Mutant:
        """What comes of mutant ``number``, counted from 1; ``thorough`` spends minutes on it.

        Raises VmxlabError when a test fails with no mutant alive, or sources have changed.
        """
        mutant = self._mutants[number - 1]
        name = mutant.condition.name
        known = self._known.setdefault(name, {})
        for step, run in self._steps(number, mutant.condition, thorough):
            if "noticed" in known or "equivalent" in known:
                break
            if step not in known:
                found = run()
                if _sources() != self._sources:
                    raise VmxlabError("the sources have changed under the run; start it again")
                known |= found
                self._keep()
        if "noticed" in known:
            self._hints[name] = known["noticed"]
            self._hints_file.write_text(json.dumps(self._hints))
        return replace(mutant, noticed=known.get("noticed"), equivalent=known.get("equivalent"))

    def _steps(self, number, condition, thorough):
        """What to try, by name, in order; each gives what to know about the mutant from then on."""

        def notices(stage, prepare, limit):
            result = run_stage(stage, prepare, limit, self._log(number))
            return {"noticed" if result.test else stage.name: result.test}

        def on_machine(stage):
            self._check(stage, on_library(self._library, 0))
            limit = max(_LEAST, _PATIENCE * self._seconds[stage.name])
            return notices(stage, on_library(self._library, number), limit)

        def on_blocks(stage):
            found = notices(stage, in_simulator(condition), _BLOCK_LIMIT)
            # Only the test that notices must be seen to hold: all of them would take long.
            test = found.get("noticed", "")
            if "::" in test:
                self._check(Stage(test, (test,)), lambda: None)
            return found

        def prove(step, around):
            instance = proved_equivalent(condition, around=around)
            return {"equivalent" if instance else step: instance}

        hint = self._hints.get(condition.name, "")
        if "::" in hint:
            kind = on_blocks if hint.startswith("tests/rtl/") else on_machine
            yield f"hint {hint}", partial(kind, Stage(f"hint {hint}", (hint,)))
        for stage in QUICK_STAGES:
            yield stage.name, partial(on_machine, stage)
        block = block_stage(condition)
        if block:
            yield block.name, partial(on_blocks, block)
        yield "proof", partial(prove, "proof", False)
        for stage in THOROUGH_STAGES if thorough else ():
            yield stage.name, partial(on_machine, stage)
        if thorough:
            yield "wider proof", partial(prove, "wider proof", True)

    def _log(self, name):
        return self._folder / f"{name}.log"

    def _keep(self):
        self._known_file.write_text(json.dumps(self._known))


def _read(file):
    return json.loads(file.read_text()) if file.exists() else {}


def _sources():
    """What forks read while a run goes on."""
    folders = ("rtl", "sim", "sw_vmm", "tests")
    return sources_hash(
        file
        for folder in folders
        for file in (_PROJECT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )


def _tests():
    """What decides whether a mutant is noticed, besides the RTL."""
    for folder in ("tests", "sim/golden", "sim/random_programs", "sw_vmm"):
        for file in sorted((_PROJECT / folder).rglob("*")):
            if file.is_file() and not {"__pycache__", "mutation"} & set(file.parts):
                yield file


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when the tests do not hold without a mutant."""
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--record", action="store_true", help=f"write {MUTATION_FILE.name}")
    chosen = parser.parse_args(arguments)
    config = SocConfig()
    try:
        found = soc_conditions(config)
        mutants = draw(found, chosen.seed, chosen.count)
        library = mutated_library(config, [mutant.condition.name for mutant in mutants])
        folder = build_folder() / "mutation"
        run = Run(mutants, library, folder)
        judged = dict(enumerate(mutants, 1))
        for thorough in (False, True):
            for number, mutant in judged.items():
                if not mutant.survived:
                    continue
                started = time.monotonic()
                judged[number] = mutant = run.judge(number, thorough=thorough)
                verdict = mutant.noticed or mutant.equivalent or "not noticed"
                seconds = time.monotonic() - started
                name = mutant.condition.name
                print(f"{number:4} {seconds:6.1f} s  {name}: {verdict}", flush=True)
    except VmxlabError as error:
        print(f"vmxlab: {error}", file=sys.stderr)
        return 1
    counts = {
        group: sum(condition.file.startswith(files) for condition in found)
        for group, files in GROUPS.items()
    }
    result = document(
        list(judged.values()),
        counts,
        command=f"make mutate MUTATE_FLAGS='--seed {chosen.seed} --count {chosen.count}'",
        seed=chosen.seed,
        revision=git_revision(),
    )
    print(summary(result))
    if chosen.record:
        MUTATION_FILE.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

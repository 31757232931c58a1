"""Running tests of the project on one mutant, in a process of its own."""

import json
import os
import re
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import Phase, settings

import sim.library
from rtl.soc.config import SocConfig
from tests.mutation.conditions import Condition, conditions, flip

__all__ = [
    "QUICK_STAGES",
    "THOROUGH_STAGES",
    "Result",
    "Stage",
    "block_stage",
    "in_simulator",
    "on_library",
    "run_stage",
]

_PROJECT = Path(__file__).resolve().parents[2]


# Tests that build a simulator, in which nothing is flipped.
_ON_MACHINE = re.compile(r"^from (sim|tests)\.\w*(library|session|cocotb\w*|board) import", re.M)
_RANDOM = "tests/random/test_random_programs.py"


@dataclass(frozen=True)
class Stage:
    """Some of the project's tests; ``arguments`` selects them."""

    name: str
    arguments: tuple[str, ...]


#: On the Verilated SoC, in the order of what notices most in the least time.
QUICK_STAGES = (
    Stage("programs", ("tests/programs", "-k", "test_program_holds_natively")),
    Stage("some random programs", (f"{_RANDOM}::test_programs[25]",)),
)
THOROUGH_STAGES = (
    Stage("machine", ("tests/machine", "tests/rtl/core/test_performance_counters.py")),
    Stage("lockstep", ("tests/golden/test_lockstep.py",)),
    Stage("cycles", ("tests/sim/test_bench.py", "-k", "as_recorded or has_its_cause")),
    Stage("random programs", (_RANDOM,)),
)


@dataclass(frozen=True)
class Result:
    """How a stage ended: ``test`` is the first that failed, or None."""

    test: str | None
    seconds: float


class _First:
    """Remembers the first test that fails, or cannot be collected."""

    def __init__(self):
        self.failed = None
        self.passed = 0

    def pytest_configure(self, config):
        # The same examples in every run. What fails need not be made small, nor be remembered.
        phases = [Phase.explicit, Phase.generate]
        settings.register_profile("mutant", derandomize=True, phases=phases, database=None)
        settings.load_profile("mutant")

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed = self.failed or report.nodeid
        elif report.when == "call":
            self.passed += report.passed

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed = self.failed or report.nodeid


def block_stage(condition: Condition) -> Stage | None:
    """The block tests of the file the condition is written in, and of the files that import it.

    Its own come first. None if there are none.
    """
    written = Path(condition.file)
    users = [file for file in _PROJECT.glob("rtl/**/*.py") if _imports(file, [written])]
    modules = [written, *(file.relative_to(_PROJECT) for file in users)]
    files = [
        file
        for file in sorted(_PROJECT.glob(f"tests/rtl/{written.parts[1]}/**/test_*.py"))
        if _imports(file, modules) and not _ON_MACHINE.search(file.read_text())
    ]
    files.sort(key=lambda file: not file.stem.startswith(f"test_{written.stem}"))
    names = tuple(str(file.relative_to(_PROJECT)) for file in files)
    return Stage("block", names) if names else None


def _imports(file, modules):
    names = "|".join(re.escape(".".join(module.with_suffix("").parts)) for module in modules)
    return re.search(rf"^from ({names}) import", file.read_text(), re.MULTILINE)


def run_stage(stage: Stage, prepare: Callable[[], None], limit: float, log: Path) -> Result:
    """Run the stage's tests in a fork that has called ``prepare``, until the first failure.

    A run that takes longer than ``limit`` seconds, or dies, has failed. What pytest says goes to
    ``log``. Raises RuntimeError when no test has run.
    """
    started = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _in_child(stage, prepare, writer, log)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        if not select.select([answers], [], [], limit)[0]:
            os.kill(child, signal.SIGKILL)
            answer = {"failed": f"{stage.name}: not over in {limit:.0f} s", "passed": 0}
        else:
            text = answers.read()
            answer = json.loads(text) if text else {"failed": f"{stage.name}: died", "passed": 0}
    os.waitpid(child, 0)
    if answer["failed"] is None and not answer["passed"]:
        raise RuntimeError(f"stage {stage.name} runs no test, see {log}")
    return Result(answer["failed"], time.monotonic() - started)


def _in_child(stage, prepare, writer, log):
    """Never returns."""
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        prepare()
        first = _First()
        # Plain asserts: rewriting them takes longer than most tests.
        options = ("-x", "-q", "--tb=line", "--assert=plain", "-pno:cacheprovider", "-pno:xdist")
        pytest.main([*options, f"--rootdir={_PROJECT}", *stage.arguments], plugins=[first])
        os.write(writer, json.dumps({"failed": first.failed, "passed": first.passed}).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def on_library(library: Path, number: int) -> Callable[[], None]:
    """Prepare for tests on this library of the default configuration, with one mutant alive."""

    def prepare():
        os.environ["VMXLAB_MUTANT"] = str(number)
        default, build = SocConfig(), sim.library.library_file

        def library_file(config, *arguments, **options):
            if config == default:
                return library
            return build(config, *arguments, **options)

        sim.library.library_file = library_file

    return prepare


def in_simulator(condition: Condition) -> Callable[[], None]:
    """Prepare for block tests with the condition flipped in every instance of its unit.

    A block test may have fewer of what a loop makes: the one with the same remainder is taken.
    """

    def prepare():
        # Imported here: only block tests need them.
        from amaranth.hdl import Const, Fragment
        from amaranth.sim import Simulator

        def alike(other):
            return (other.unit, other.file, other.line) == (
                condition.unit,
                condition.file,
                condition.line,
            )

        def mutate(fragment):
            counts = Counter(found.path for found in conditions(fragment) if alike(found))

            def flag(found):
                if alike(found) and found.ordinal == condition.ordinal % counts[found.path]:
                    return Const(1)
                return None

            flip(fragment, flag)
            return fragment

        make = Simulator.__init__

        def mutated(self, toplevel, **options):
            make(self, mutate(Fragment.get(toplevel, None)), **options)

        Simulator.__init__ = mutated

    return prepare

"""The mutation run: what is drawn, how tests notice, what is recorded."""

import json

import pytest

from sim.errors import VmxlabError
from sim.results import violations
from tests.mutation.__main__ import GROUPS, Run, draw
from tests.mutation.conditions import Condition
from tests.mutation.record import MUTATION_FILE, MUTATION_SCHEMA, Mutant, document, summary
from tests.mutation.stages import Stage, block_stage, in_simulator, run_stage


def made_up(file, count):
    return [Condition("hart.x", "X", file, line, "==", 0) for line in range(count)]


FOUND = [condition for files in GROUPS.values() for condition in made_up(files[0], 100)]


def test_draws_are_equal_shares_and_repeat():
    drawn = draw(FOUND, 7, 40)
    assert draw(FOUND, 7, 40) == drawn != draw(FOUND, 8, 40)
    assert len({mutant.condition for mutant in drawn}) == 40
    for group, files in GROUPS.items():
        mine = [mutant.condition.file for mutant in drawn if mutant.group == group]
        assert len(mine) == 10 and all(file.startswith(files) for file in mine)


@pytest.mark.parametrize(
    ("body", "noticed"),
    [
        ("assert True", None),
        ("assert False", "::test_it"),
        ("os.abort()", "stage: died"),
        ("time.sleep(60)", "stage: not over in 5 s"),
        ("assert os.environ['PREPARED'] == 'yes'", None),
    ],
)
def test_a_stage_notices_failures_deaths_and_hangs(tmp_path, monkeypatch, body, noticed):
    monkeypatch.setenv("PREPARED", "no")
    file = tmp_path / "test_it.py"
    file.write_text(f"import os, time\ndef test_it():\n    {body}\n")
    prepare = "import os; os.environ['PREPARED'] = 'yes'"
    result = run_stage(Stage("stage", (str(file),)), lambda: exec(prepare), 5, tmp_path / "log")
    assert (result.test or "").endswith(noticed or "") and bool(result.test) == bool(noticed)


def test_a_stage_without_tests_is_an_error(tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text("")
    with pytest.raises(RuntimeError, match="runs no test"):
        run_stage(Stage("stage", (str(file),)), lambda: None, 60, tmp_path / "log")


BLOCK_TEST = """
from amaranth.sim import Simulator
from rtl.mmu.permissions import PteCheck, PteKind

def test_an_invalid_entry_faults():
    dut = PteCheck()
    async def bench(ctx):
        ctx.set(dut.pte.r, 1)
        await ctx.delay(1e-9)
        assert ctx.get(dut.kind) == PteKind.INVALID
    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
"""


def test_block_tests_see_the_flip(tmp_path):
    from amaranth.hdl import Fragment

    from rtl.mmu.permissions import PteCheck
    from tests.mutation.conditions import conditions

    file = tmp_path / "test_block.py"
    file.write_text(BLOCK_TEST)
    stage = Stage("stage", (str(file),))
    seen = {}
    for condition in conditions(Fragment.get(PteCheck(), None)):
        result = run_stage(stage, in_simulator(condition), 60, tmp_path / "log")
        seen[condition.name] = bool(result.test)
    # An invalid entry says nothing about the others' conditions.
    assert set(seen.values()) == {True, False}


def test_blocks_have_their_tests():
    tests = block_stage(
        Condition("hart.mmu.walker", "PageWalker", "rtl/mmu/page_walker.py", 1, "==", 0)
    )
    assert tests.arguments[0] == "tests/rtl/mmu/test_page_walker.py"
    assert "tests/rtl/mmu/test_mmu.py" in tests.arguments
    assert block_stage(Condition("x", "X", "rtl/core/nobody_tests.py", 1, "==", 0)) is None


MUTANTS = [
    Mutant(FOUND[0], "decode", noticed="tests/a.py::b"),
    Mutant(FOUND[1], "decode", equivalent="hart.x"),
    Mutant(FOUND[2], "decode"),
    Mutant(FOUND[100], "csr", noticed="tests/a.py::c"),
]


def recorded():
    counts = dict.fromkeys(GROUPS, 100)
    return document(MUTANTS, counts, command="make mutate", seed=1, revision=None)


def test_what_is_recorded():
    found = recorded()
    assert violations(found, MUTATION_SCHEMA) == []
    assert found["share"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["groups"]["decode"] == {
        "conditions": 100,
        "drawn": 3,
        "equivalent": 1,
        "noticed": 1,
    }
    assert [row["place"] for row in found["survivors"]] == ["rtl/core/decode.py:2#0"]
    assert "66.7%" in summary(found) and "survivor: hart.x rtl/core/decode.py:2#0" in summary(found)


def test_the_record_holds_what_the_issue_asks_for():
    found = json.loads(MUTATION_FILE.read_text())
    assert violations(found, MUTATION_SCHEMA) == []
    assert len(found["mutants"]) >= 200 and found["share"] >= 0.9
    survivors = [row for row in found["mutants"] if not (row["noticed"] or row["equivalent"])]
    assert [row["place"] for row in survivors] == [row["place"] for row in found["survivors"]]


def test_a_run_goes_on_where_it_was_broken_off(tmp_path, monkeypatch):
    """Each stage is tried once for each mutant, until one notices; a proof ends it too."""
    import tests.mutation.__main__ as under_test
    from tests.mutation.stages import Result

    tried = []

    def notices(stage, prepare, limit, log):
        tried.append((log.stem, stage.name))
        return Result("tests/x.py::y" if tried[-1] == ("1", "machine") else None, 1.0)

    monkeypatch.setattr(under_test, "run_stage", notices)
    monkeypatch.setattr(
        under_test, "proved_equivalent", lambda found, around: {FOUND[1]: "hart"}.get(found)
    )
    library = tmp_path / "library" / "machine.so"
    drawn = [Mutant(FOUND[number], "decode") for number in range(3)]
    first = Run(drawn, library, tmp_path)
    judged = [first.judge(number, thorough=True) for number in (1, 2, 3)]
    assert [mutant.noticed for mutant in judged] == ["tests/x.py::y", None, None]
    assert [mutant.equivalent for mutant in judged] == [None, "hart", None]
    assert [mutant.survived for mutant in judged] == [False, False, True]
    assert len(set(tried)) == len(tried)
    stages = [stage for log, stage in tried if log == "3"]
    assert stages[-1] == "random programs" and "machine" in stages
    assert ("2", "machine") not in tried and ("none", "machine") in tried

    tried.clear()
    again = Run(drawn, library, tmp_path)
    assert [again.judge(number, thorough=True) for number in (1, 2, 3)] == judged
    assert tried == []


def test_a_run_ends_when_its_sources_change(tmp_path, monkeypatch):
    """A fork would load new modules beside old ones, and fail for that."""
    import tests.mutation.__main__ as under_test
    from tests.mutation.stages import Result

    states = iter("aab")
    monkeypatch.setattr(under_test, "_sources", lambda: next(states))
    monkeypatch.setattr(under_test, "run_stage", lambda *_: Result(None, 1.0))
    run = Run([Mutant(FOUND[0], "decode")], tmp_path / "library" / "machine.so", tmp_path)
    with pytest.raises(VmxlabError, match="sources have changed"):
        run.judge(1, thorough=False)

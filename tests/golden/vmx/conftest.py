"""The same cases on the golden model, and on the RTL in lockstep with it."""

import pytest

from rtl.arch.vmx.exits import EXIT_REASONS, ExitReason
from tests.golden.vmx.world import ModelBench, World
from tests.machine.vmx.machine_hart import Bench

#: What tests tell of themselves, in their reports.
_CHECK, _WHERE, _EXITS = "directed VMX check", "VMX on", "VM exits"


@pytest.fixture(scope="session")
def machine_bench():
    return Bench()


@pytest.fixture
def directed(request):
    """Notes a directed check: a distinct rule, state and expected outcome."""
    return lambda *check: request.node.user_properties.append((_CHECK, [*map(str, check)]))


@pytest.fixture(params=["model", "machine"], autouse=True)
def bench(request, monkeypatch):
    """Where the worlds of a test come from; ``model_only`` says why some make no sense on the RTL."""
    properties = request.node.user_properties
    properties.append((_WHERE, request.param))
    if request.param == "model":
        yield monkeypatch.setattr(World, "bench", ModelBench())
        return
    bench = request.getfixturevalue("machine_bench")
    monkeypatch.setattr(World, "bench", bench)
    yield
    bench.finish()
    properties.append((_EXITS, sorted(bench.exits)))
    bench.exits.clear()


def pytest_collection_modifyitems(config, items):
    left = [item for item in items if _on_machine(item) and item.get_closest_marker("model_only")]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)


def _on_machine(item):
    return getattr(item, "callspec", None) and item.callspec.params.get("bench") == "machine"


def pytest_terminal_summary(terminalreporter):
    """The directed checks there were on the RTL, and the exit reasons reached.

    A test that notes none is one itself.
    """
    checks, reached = set(), set()
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("")):
        properties = getattr(report, "user_properties", ())
        if (_WHERE, "machine") not in map(tuple, properties):
            continue
        noted = [tuple(value) for name, value in properties if name == _CHECK]
        place = report.nodeid.split("[")[0]
        checks.update((place, *check) for check in noted or [(report.nodeid,)])
        for name, value in properties:
            if name == _EXITS:
                reached.update(value)
    if checks:
        reachable = {int(reason) for reason, row in EXIT_REASONS.items() if row.reachable}
        missing = ", ".join(EXIT_REASONS[ExitReason(n)].name for n in sorted(reachable - reached))
        terminalreporter.write_line(
            f"VMX on the RTL: {len(checks)} directed checks; {len(reached)} of {len(reachable)} "
            f"exit reasons reached{f', not {missing}' if missing else ''}"
        )

"""Results: statistics of exits and their JSON."""

import json
import statistics
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sw_vmm.result import Cycles, ExitStatistics, Outcome, Result, Spread


@given(st.lists(st.integers(0, 50), min_size=1, max_size=300))
def test_spread_matches_the_sorted_samples(samples):
    spread = Spread.of(Counter(samples))
    ordered = sorted(samples)
    assert (spread.min, spread.max) == (ordered[0], ordered[-1])
    assert abs(spread.mean - statistics.fmean(samples)) < 1e-9
    for value, percent in ((spread.p50, 50), (spread.p99, 99)):
        # Nearest rank: at least that share of the samples is no larger, and with less it is not.
        assert sum(sample <= value for sample in samples) * 100 >= percent * len(samples)
        assert sum(sample < value for sample in samples) * 100 < percent * len(samples)


def test_a_result_is_json_with_the_schemas_names():
    result = Result(
        technique="trap-emulate",
        outcome=Outcome(True, 3, b"hello"),
        cycles=Cycles(10, 4, 3, 1, 3),
        instructions=4,
        exits={"csr_read": ExitStatistics(1, Spread(3, 3.0, 3, 3, 3), 2)},
        counters={"cycles": 10},
    )
    data = json.loads(json.dumps(result.as_dict()))
    assert data["outcome"] == {
        "finished": True,
        "exit_code": 3,
        "console_sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }
    assert {"total", "guest", "transition", "walk", "charged"} <= set(data["cycles"])
    assert data["exits"]["csr_read"] == {
        "count": 1,
        "cycles": {"min": 3, "mean": 3.0, "p50": 3, "p99": 3, "max": 3},
        "charged": 2,
    }

"""The proofs that take seconds, and their faults; `make prove` has them all."""

import pytest
from amaranth import *

from tests.proofs.all_proofs import PROOFS
from tests.proofs.properties import Fault, Proof, load_unit
from tests.proofs.runner import prove

#: Half a minute each, or faults that take as long: only in `make prove`.
SLOW = (
    "aligner",
    "divider",
    "registers of host_port",
    "second-level TLB",
    "checks of an entry",
    "CSRs of two worlds",
)
FAST = [proof for proof in PROOFS if not proof.name.startswith(SLOW)]


def explained(outcome):
    return f"{outcome.status}: {outcome.broken or 'no property is broken'} (see {outcome.folder})"


@pytest.mark.parametrize("proof", FAST, ids=lambda proof: proof.name)
def test_proved(proof):
    outcome = prove(proof)
    assert outcome.status == "PASS", explained(outcome)


@pytest.mark.parametrize(
    ("proof", "fault"),
    [
        pytest.param(proof, fault, id=f"{proof.name}-{fault.name}")
        for proof in FAST
        for fault in proof.faults
    ],
)
def test_fault_is_refuted(proof, fault):
    outcome = prove(proof, fault)
    assert outcome.status == "FAIL", explained(outcome)
    assert outcome.broken


def test_every_proof_can_fail():
    assert all(proof.faults for proof in PROOFS)
    names = [proof.name for proof in PROOFS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_faults_fit_the_source(proof):
    for fault in proof.faults:
        assert load_unit(proof.unit, fault) is not load_unit(proof.unit)


def test_a_fault_that_fits_nowhere_is_an_error():
    with pytest.raises(LookupError, match="0 times the text of the fault 'gone'"):
        load_unit("rtl.lib.queue:Queue", Fault("gone", "no such line", ""))


def _counter(limit):
    """A proof that a counter of cycles stays below ``limit``."""

    def properties(p, unit_class):
        count = Signal(4)
        p.m.d.sync += count.eq(count + 1)
        p.unit("queue", unit_class(shape=8, depth=2))
        p.always(count < limit, "time stands still")

    return properties


def test_what_is_false_in_the_first_cycles_is_refuted():
    outcome = prove(Proof("false", "rtl.lib.queue:Queue", _counter(1), (), depth=4))
    assert (outcome.status, outcome.broken) == ("FAIL", "time stands still")


def test_what_is_false_later_is_not_proved():
    outcome = prove(Proof("false later", "rtl.lib.queue:Queue", _counter(12), (), depth=4))
    assert outcome.status == "UNKNOWN"


def test_a_bounded_proof_looks_no_further():
    for limit, status in ((4, "PASS"), (3, "FAIL")):
        proof = Proof(
            f"below {limit}", "rtl.lib.queue:Queue", _counter(limit), (), depth=4, bounded=True
        )
        assert prove(proof).status == status

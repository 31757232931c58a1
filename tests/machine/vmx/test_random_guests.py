"""Random VMCSs and guests, and guests of random bytes, in lockstep (more: ``make guests``)."""

import pytest

from rtl.arch.records import RETIREMENT
from rtl.arch.vmx.exits import ExitReason
from rtl.soc.config import SocConfig
from sim.library import LibraryMachine
from sim.lockstep import Divergence, Lockstep
from tests.golden.vmx.world import RAM_SIZE
from tests.machine.vmx.differential import GuestDifferential
from tests.machine.vmx.random_guests import generate

PART = 25


@pytest.fixture(scope="module")
def differential():
    return GuestDifferential(LibraryMachine(SocConfig(vmx=True), ram_size=RAM_SIZE))


@pytest.mark.parametrize("first", range(0, 200, PART))
def test_random_guests(differential, first):
    before = dict(differential.exits)
    for seed in range(first, first + PART):
        differential.run(generate(seed))
    reached = {reason for reason, count in differential.exits.items() if count > before[reason]}
    # Of each kind there is: asked for by the guest, refused to it, come from outside, never entered.
    assert len(reached) > 10
    assert {
        ExitReason.EPT_VIOLATION,
        ExitReason.PREEMPTION_TIMER,
        ExitReason.EXTERNAL_INTERRUPT,
        ExitReason.BAD_GUEST_STATE,
    } <= reached


@pytest.mark.parametrize("first", range(0, 50, PART))
def test_hostile_guests(differential, first):
    """They end by the budget at the latest."""
    before = differential.checked
    for seed in range(first, first + PART):
        differential.run(generate(seed, hostile=True))
    assert differential.checked - before > 10 * PART


def test_a_seed_gives_the_same_guest_again():
    assert generate(5) == generate(5) != generate(6)
    assert generate(5, hostile=True).image != generate(5).image


@pytest.mark.parametrize("name", ["pc", "value", "instruction"])
def test_a_wrong_record_of_a_guest_is_noticed(differential, monkeypatch, name):
    """What the machine tells is compared, in the guest as well."""
    check = Lockstep.check

    def wrong(lockstep, records):
        size = 8 * -(-RETIREMENT.width // 64)
        changed = bytearray(records)
        for place in range(0, len(records), size):
            record = RETIREMENT.decode(int.from_bytes(records[place : place + size], "little"))
            if record["world"] and record["trap"]:
                word = RETIREMENT.encode(**record | {name: record[name] ^ 2})
                changed[place : place + size] = word.to_bytes(size, "little")
                break
        check(lockstep, bytes(changed))

    monkeypatch.setattr(Lockstep, "check", wrong)
    with pytest.raises(Divergence):
        for seed in range(5):
            differential.run(generate(seed))

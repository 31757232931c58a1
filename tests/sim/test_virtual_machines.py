"""VM exits, EPT violations and injections under the VMM, on the library and in cocotb."""

import json
from itertools import pairwise

import pytest

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import Access
from rtl.soc.config import CONFIGURATIONS
from sim.library import LibraryMachine
from tests.sim.virtual_machines import (
    CHARGE,
    EXIT_CASES,
    INJECTIONS,
    PAGES,
    RAM_SIZE,
    ROUNDS,
    STORIES,
    TABLES,
    TEXT,
    page_of,
)
from tests.sw_vmm.machines import GUEST_RAM
from tests.sw_vmm.programs import DATA, UART
from tests.sw_vmm.vmx_machine import RAM, vmx_word

VMX = CONFIGURATIONS["vmx"]
#: Of the line status register: both bits of an empty transmitter.
TRANSMITTER_EMPTY = 0x60
FINISHER = MEMORY_MAP["finisher"].base


@pytest.fixture(scope="module")
def library_machine():
    return LibraryMachine(VMX, ram_size=RAM_SIZE)


@pytest.fixture(scope="module")
def story(library_machine):
    """What a story tells on the library; each is told once."""
    told = {}

    def tell(name):
        if name not in told:
            told[name] = json.loads(json.dumps(STORIES[name](library_machine)))
        return told[name]

    return tell


@pytest.mark.parametrize("name", list(STORIES))
def test_cocotb_tells_the_same_in_the_same_cycles(story, soc_with, name):
    soc = soc_with(**VMX.as_dict())
    file = soc.folder / "told.json"
    soc.run("tests.sim.bench_virtual_machines", STORY=name, TOLD=str(file))
    assert json.loads(file.read_text()) == story(name)


@pytest.mark.parametrize("name", list(EXIT_CASES))
def test_an_exit_is_what_the_manual_says(story, name):
    case = EXIT_CASES[name]
    told = story("exits_of_instructions")[name]
    assert len(told["exits"]) == ROUNDS
    for exit_ in told["exits"]:
        record, vmcs = exit_["record"], exit_["vmcs"]
        expected = {
            "reason": case.reason,
            "qualification": case.qualification,
            "pc": RAM + 4,
            "length": case.length,
            "rs1": case.rs1,
            "rs2": case.rs2,
        }
        assert {key: record[key] for key in expected} == expected
        assert (vmcs["exit_reason"], vmcs["exit_qualification"]) == (
            case.reason,
            case.qualification,
        )
        assert (vmcs["exit_pc"], vmcs["exit_instruction_length"]) == (RAM + 4, case.length)
        assert (vmcs["exit_rs1"], vmcs["exit_rs2"]) == (case.rs1, case.rs2)
        assert vmcs["exit_interruption"] == case.interruption
    cycles = [exit_["cycles"] for exit_ in told["exits"]]
    costs = [after - before for before, after in pairwise(cycles)]
    # Once everything is in the caches every round takes the same.
    assert costs[-1] == costs[-2] > CHARGE
    counters = told["counters"]
    assert counters["cycles"] == cycles[-1]
    assert counters["cycles"] == sum(counters[key] for key in ("guest", "transition", "charged"))
    assert counters["charged"] == (ROUNDS - 1) * CHARGE
    assert told["registers"][7] == ROUNDS
    assert told["registers"][9] == sum(range(100, 99 + ROUNDS))


@pytest.mark.parametrize("place", ["in place", "scrambled"])
def test_what_is_missed_is_entered_and_devices_answer(story, place):
    told = story("violations")[place]
    seen = [
        (row["gpa"], row["access"], row["final"])
        for row in told["rows"]
        if row["reason"] == "ept_violation"
    ]
    assert seen == [
        (RAM, Access.FETCH, True),
        (TABLES + 8 * (RAM >> 30), Access.READ, False),
        (TABLES + 0x1000, Access.READ, False),
        (TABLES + 0x2000, Access.READ, False),
        *((page_of(index), Access.WRITE, True) for index in range(PAGES)),
        (DATA, Access.WRITE, True),
    ]
    assert told["pages"] == [3 << index for index in range(PAGES)]
    assert told["data"][0] == 3 << PAGES
    assert told["console"] == TEXT.decode()
    assert told["result"]["outcome"]["exit_code"] == 0
    written = [
        (row["gpa"], row["data"] & 0xFF) for row in told["rows"] if row["reason"] == "mmio_write"
    ]
    assert written == [*((UART, letter) for letter in TEXT), (FINISHER, 0x33)]
    assert [row["gpa"] for row in told["rows"] if row["reason"] == "mmio_read"] == [UART + 5]
    assert told["data"][1] == TRANSMITTER_EMPTY
    exits = told["result"]["exits"]
    assert sum(row["cycles"] for row in told["rows"]) == sum(
        round(row["count"] * row["cycles"]["mean"]) for row in exits.values()
    )


@pytest.mark.parametrize("name", list(INJECTIONS))
def test_the_guest_sees_what_is_injected(story, name):
    case = INJECTIONS[name]
    first, between, second, after = story("injections")["entries"][name]
    for exit_, pc in ((first, RAM), (second, RAM + 8)):
        assert exit_["exit"] == "Hypercall()"
        registers = exit_["registers"]
        assert registers["20"] == case.seen_cause
        assert registers["21"] == pc
        assert registers["22"] == case.seen_value
        # The way the handler was reached by.
        assert registers["1"] == case.vector + 4
    for count, exit_ in enumerate((between, after), start=1):
        assert exit_["record"]["pc"] == RAM + 4
        assert exit_["registers"]["7"] == count
        assert exit_["record"]["privilege"] == case.privilege


def test_the_vmm_raises_what_the_virtual_hart_would(story):
    raised = story("injections")["raised"]
    told = {
        name: (story_["result"]["outcome"]["exit_code"], *story_["data"][:2])
        for name, story_ in raised.items()
    }
    start = RAM + 9 * 4
    assert told == {
        "illegal instruction": (2, start, vmx_word("vmptrst", rd=7)),
        "access fault": (5, start + 16, RAM + GUEST_RAM + 8),
        # The exit code has 16 bits of the cause.
        "software interrupt": (3, start + 32, 0),
    }
    assert raised["software interrupt"]["data"][2] == 0

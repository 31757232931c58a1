"""The generator itself: what it draws, and that a wrong machine or a wrong model is noticed."""

import collections
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.csrs import CSR_BY_NUMBER
from rtl.arch.instructions import COMPRESSED, INSTRUCTIONS, Format, decode
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.records import RETIREMENT
from rtl.arch.traps import INTERRUPT_BIT, Exception_, Interrupt, Privilege
from rtl.soc.config import SocConfig
from sim.library import LibraryMachine
from sim.lockstep import Divergence
from sim.random_programs import PROFILES, generate
from sim.random_programs.differential import Differential, listing, shrink
from sim.random_programs.program import RAM_SIZE, RandomProgram
from sim.verilated import RETIREMENT_BYTES

RAM = MEMORY_MAP["ram"]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1 << 64))
def test_a_seed_is_a_program(seed):
    program = generate(seed)
    assert program == generate(seed)
    assert program.image != generate(seed + 1).image
    assert len(program.image) <= RAM_SIZE


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1 << 64), profile=st.sampled_from(sorted(PROFILES)))
def test_profiles_can_be_chosen(seed, profile):
    assert generate(seed, profile).profile == profile


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1 << 32), drawn=st.data())
def test_spans_are_whole_pieces_of_the_image(seed, drawn):
    program = generate(seed)
    span = drawn.draw(st.sampled_from(program.spans))
    assert 0 <= span.start <= span.end <= len(program.image)
    smaller = program.without([span])
    assert smaller.image[: span.start] == program.image[: span.start]
    assert smaller.image[span.end :] == program.image[span.end :]
    assert smaller.without([span]) == smaller


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1 << 32), profile=st.sampled_from(["mixed", "bus-master"]))
def test_programs_can_be_stored(seed, profile):
    program = generate(seed, profile)
    stored = json.loads(json.dumps(program.as_json()))
    assert RandomProgram.from_json(stored) == replace(program, spans=())


class Tap:
    """Passes everything on to a machine, and counts what retires there."""

    def __init__(self, machine):
        self._machine = machine
        self.instructions = collections.Counter()
        self.traps = collections.Counter()
        self.csrs = collections.Counter()
        self.spoil = None

    def __getattr__(self, name):
        return getattr(self._machine, name)

    def traced(self, most):
        records = self._machine.traced(most)
        for place in range(0, len(records), RETIREMENT_BYTES):
            record = int.from_bytes(records[place : place + RETIREMENT_BYTES], "little")
            fields = RETIREMENT.decode(record)
            if fields["trap"]:
                self.traps[fields["value"], Privilege(fields["privilege"])] += 1
                continue
            row = decode(fields["instruction"])
            self.instructions[row.name] += 1
            if row.format in (Format.CSR, Format.CSR_IMMEDIATE):
                number = fields["instruction"] >> 20
                self.csrs[number, Privilege(fields["privilege"])] += 1
            if row.name == self.spoil:
                wrong = record ^ 1 << RETIREMENT["value"].lsb
                records = (
                    records[:place]
                    + wrong.to_bytes(RETIREMENT_BYTES, "little")
                    + records[place + RETIREMENT_BYTES :]
                )
        return records


@pytest.fixture(scope="module")
def tap():
    return Tap(LibraryMachine(SocConfig(), ram_size=RAM_SIZE))


def test_programs_reach_everything(tap):
    """Every instruction retires, every exception and interrupt is taken at every level it can be."""
    tap.spoil = None
    differential = Differential(tap)
    # CSRs are many: some programs are about nothing else.
    for profile, count in ((None, 80), ("privileged", 15)):
        for seed in range(count):
            differential.run(generate(seed, profile))
    never = {"ecall", "ebreak", "c.ebreak"}  # they trap
    assert (INSTRUCTIONS | COMPRESSED).keys() - tap.instructions.keys() == never
    expected = {(cause, privilege) for cause in Exception_ for privilege in Privilege}
    # With compressed instructions no jump is misaligned; M-mode fetches are not translated.
    expected -= {(Exception_.INSTRUCTION_ADDRESS_MISALIGNED, privilege) for privilege in Privilege}
    expected.remove((Exception_.INSTRUCTION_PAGE_FAULT, Privilege.MACHINE))
    for level in (Privilege.USER, Privilege.SUPERVISOR, Privilege.MACHINE):
        ecall = Exception_.ECALL_FROM_USER + level
        expected -= {(ecall, privilege) for privilege in Privilege if privilege != level}
    # No device interrupts M through the PLIC here.
    expected |= {
        (interrupt | 1 << INTERRUPT_BIT, privilege)
        for interrupt in set(Interrupt) - {Interrupt.MACHINE_EXTERNAL}
        for privilege in (Privilege.USER, Privilege.SUPERVISOR)
    }
    assert not expected - tap.traps.keys()
    writable = {csr.number for csr in CSR_BY_NUMBER.values() if csr.writable}
    assert not writable - {number for number, _ in tap.csrs}
    # Most programs come to their end.
    assert differential.finished >= 75


@pytest.mark.parametrize("spoiled", ["mulhsu", "sh2add.uw", "c.subw", "amomaxu.w", "csrrc"])
def test_wrong_results_are_found_and_shrunk(tap, spoiled):
    tap.spoil = spoiled
    differential = Differential(tap)

    def diverges(program):
        try:
            differential.run(program)
        except Divergence:
            return True
        return False

    program = next(p for p in map(generate, range(1000)) if diverges(p))
    small = shrink(program, diverges, most=150)
    lines = listing(small).splitlines()
    assert diverges(small)
    name = COMPRESSED[spoiled].expansion if spoiled in COMPRESSED else spoiled
    assert any(name in line for line in lines) or spoiled == "csrrc"
    assert len(lines) < len(listing(program).splitlines()) / 4

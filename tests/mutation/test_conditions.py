"""Flipping conditions: each is found once, and flipping it changes just what it decides."""

import itertools

import pytest
from amaranth import *
from amaranth.hdl import Fragment

from rtl.core.traps import InterruptSelect
from rtl.mmu.permissions import LeafPermission, PteCheck
from tests.mutation import conditions as under_test
from tests.mutation.conditions import conditions, flip
from tests.mutation.equivalence import differing_outputs, module_smt2


class Block(Elaboratable):
    """Three inputs, and what the kinds of conditions make of them."""

    def __init__(self):
        self.a, self.b, self.c = Signal(), Signal(), Signal(2)
        self.operators, self.ifs, self.cases, self.muxes = (Signal(4, name=n) for n in "oicm")

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.operators.eq(Cat(self.a & ~self.b, self.c == 2, self.c.any()))
        with m.If(self.a):
            m.d.comb += self.ifs.eq(1)
        with m.Elif(self.c):
            m.d.comb += self.ifs.eq(2)
        with m.Else():
            m.d.comb += self.ifs.eq(3)
        with m.Switch(self.c):
            with m.Case(0, 3):
                m.d.comb += self.cases.eq(1)
            with m.Case("1-"):
                m.d.comb += self.cases.eq(2)
            with m.Default():
                m.d.comb += self.cases.eq(3)
        m.d.comb += self.muxes.eq(Mux(self.c, 5, 6))
        return m


def expected(a, b, c, kind=None):
    """The outputs in plain Python; ``kind`` names the condition that is flipped."""

    def is_(name, value):
        return bool(value) ^ (kind == name)

    operators = is_("&", a and is_("~", not b)) | is_("==", c == 2) << 1 | is_("r|", c) << 2
    ifs = 1 if is_("if a", a) else 3 - is_("if c", c)
    cases = 1 if is_("case 00 11", c in (0, 3)) else 3 - is_("case 1-", c >= 2)
    return operators, ifs, cases, 5 if is_("mux", c) else 6


@pytest.fixture
def here(monkeypatch):
    """Conditions of this file count as those of rtl do."""
    monkeypatch.setattr(under_test, "_RTL", under_test._PROJECT)


KINDS = ["&", "~", "==", "r|", "if a", "if c", "case 00 11", "case 1-", "mux"]


def outputs(wanted):
    """The outputs of the block for all inputs, with the wanted conditions flipped."""
    from amaranth.sim import Simulator

    block, seen = Block(), []
    fragment = Fragment.get(block, None)
    ifs = iter(("if a", "if c"))
    names = []

    def flag(condition):
        names.append(next(ifs) if condition.kind == "if" else condition.kind)
        return Const(names[-1] in wanted)

    flip(fragment, flag)

    async def all_inputs(ctx):
        for a, b, c in itertools.product((0, 1), (0, 1), range(4)):
            ctx.set(block.a, a)
            ctx.set(block.b, b)
            ctx.set(block.c, c)
            ports = (block.operators, block.ifs, block.cases, block.muxes)
            seen.append(tuple(ctx.get(port) for port in ports))

    simulator = Simulator(fragment)
    simulator.add_testbench(all_inputs)
    simulator.run()
    return seen, names


def in_python(kind=None):
    inputs = itertools.product((0, 1), (0, 1), range(4))
    return [expected(a, b, c, kind) for a, b, c in inputs]


@pytest.mark.usefixtures("here")
def test_every_condition_is_found_once():
    seen, names = outputs(())
    assert sorted(names) == sorted(KINDS)
    assert seen == in_python()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("here")
def test_a_flip_changes_what_the_condition_decides(kind):
    seen, _ = outputs((kind,))
    assert seen == in_python(kind) != in_python()


def test_names_are_unique_and_say_where():
    found = conditions(Fragment.get(InterruptSelect(), None))
    assert len({condition.name for condition in found}) == len(found) > 40
    assert {condition.file for condition in found} == {"rtl/core/traps.py"}
    assert all(condition.unit == "InterruptSelect" for condition in found)
    assert any("== Privilege.USER" in condition.text for condition in found)


def flipped(component, chosen):
    """The component with one condition flipped, None for none."""
    fragment = Fragment.get(component, None)
    flip(fragment, lambda condition: Const(1) if condition.name == chosen else None)
    return fragment, component


@pytest.mark.parametrize("make", [LeafPermission, PteCheck])
def test_proofs_tell_equal_from_different(make):
    gold = module_smt2(*flipped(make(), None), "gold")
    assert differing_outputs(gold, module_smt2(*flipped(make(), None), "gate")) == set()
    condition = conditions(Fragment.get(make(), None))[0].name
    assert differing_outputs(gold, module_smt2(*flipped(make(), condition), "gate"))


class Latch(Elaboratable):
    """Holds what came with ``take``; shows it while ``taken``, which follows by a cycle."""

    def __init__(self):
        self.take, self.value, self.shown = Signal(), Signal(8), Signal(8)

    def elaborate(self, platform):
        m = Module()
        taken, held = Signal(), Signal(8)
        m.d.sync += taken.eq(self.take)
        with m.If(self.take):
            m.d.sync += held.eq(self.value)
        with m.Else():
            m.d.sync += held.eq(Mux(taken, 1, 2))
        with m.If(taken):
            m.d.comb += self.shown.eq(held)
        return m


@pytest.mark.usefixtures("here")
def test_a_register_nobody_reads_may_differ():
    """The Mux decides what is held while nothing is shown; the Ifs are seen."""
    found = conditions(Fragment.get(Latch(), None))
    assert [condition.kind for condition in found] == ["if", "mux", "if"]
    ports = ("take", "value"), ("shown",)
    gold = module_smt2(*flipped(Latch(), None), "gold", ports)
    seen = [
        bool(differing_outputs(gold, module_smt2(*flipped(Latch(), one.name), "gate", ports)))
        for one in found
    ]
    assert seen == [True, False, True]

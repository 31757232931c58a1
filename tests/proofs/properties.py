"""What a proof is made of: a unit, assertions around it, and faults they must notice."""

import importlib
import inspect
import itertools
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unittest import mock

from amaranth import *
from amaranth.asserts import AnyConst, AnySeq
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, ShapeLike, ValueLike
from amaranth.lib import wiring
from amaranth.lib.memory import Memory

__all__ = ["Fault", "Inside", "Proof", "Properties", "load_unit", "truth"]


class Properties(Elaboratable):
    """A top module whose assertions say what the units in it must do.

    There is no reset: the registers begin with their initial values.

    Parameters
    ----------
    invariants : bool
        Without, only what the unit promises is asserted: for finding faults.

    Members
    -------
    m : Module
        Where models and invariants go.
    """

    def __init__(self, *, invariants: bool = True):
        self._invariants = invariants
        self.m = Module()
        self.m.domains.sync = sync = ClockDomain(reset_less=True)
        self._clock = sync.clk

    def elaborate(self, platform):
        return self.m

    def rtlil(self, name: str) -> str:
        """All of it as the module ``name``, clocked from outside."""
        return rtlil.convert(self, name=name, ports=[self._clock], emit_src=False)

    def always(self, condition: ValueLike, says: str) -> None:
        """In every cycle ``condition`` holds; ``says`` is printed when it does not."""
        self.m.d.comb += Assert(truth(condition), says)

    def invariant(self, condition: ValueLike, says: str) -> None:
        """It holds in every cycle, and is there to help the induction."""
        if self._invariants:
            self.always(condition, says)

    def assume(self, condition: ValueLike) -> None:
        """The world outside keeps to ``condition`` in every cycle."""
        self.m.d.comb += Assume(truth(condition))

    def any_value(self, shape: ShapeLike, name: str) -> Signal:
        """Something else in each cycle."""
        return self._solved(AnySeq, shape, name)

    def any_constant(self, shape: ShapeLike, name: str) -> Signal:
        """Something that stays."""
        return self._solved(AnyConst, shape, name)

    def before(self, value: ValueLike) -> Signal:
        """What ``value`` was one cycle ago; 0 in the first cycle."""
        value = Value.cast(value)
        past = Signal(len(value), reset_less=True)
        self.m.d.sync += past.eq(value)
        return past

    def unit(self, name: str, unit: wiring.Component, *, inputs: Sequence[Value] = ()) -> "Inside":
        """Put ``unit`` in. Its inputs have any value, but for ``inputs``, which others drive."""
        for path, member, port in unit.signature.flatten(unit):
            if member.flow is wiring.In and all(port is not other for other in inputs):
                free = self.any_value(len(Value.cast(port)), "__".join(map(str, path)))
                self.m.d.comb += Value.cast(port).eq(free)
        return Inside(self, name, unit)

    def _solved(self, kind, shape, name):
        result = Signal(shape, name=name)
        cast = Value.cast(result)
        self.m.d.comb += cast.eq(kind(len(cast)))
        return result


class Inside:
    """The inside of a unit, for invariants that connect its state with what was seen outside.

    Memories get their additional ports before the first signal is asked for.
    """

    def __init__(self, properties: Properties, name: str, unit: wiring.Component):
        self._properties, self._name = properties, name
        self._module, self._locals = module, _ = _elaborated(unit)
        # Elaborated once, so that what is added to the memories stays.
        unit.elaborate = lambda platform: module
        self._unit, self._fragment = unit, None
        properties.m.submodules[name] = _Late(self)

    def memory(self, name: str) -> Memory:
        """A memory of the unit, with its ports."""
        return getattr(self._module.submodules, name)

    def memory_word(self, name: str, index: ValueLike) -> Value:
        """What the word ``index`` of a memory of the unit holds now."""
        if self._fragment is not None:
            raise ValueError("the unit is elaborated already")
        port = self.memory(name).read_port(domain="comb")
        self._properties.m.d.comb += port.addr.eq(index)
        return port.data

    def __getitem__(self, name: str) -> Signal:
        """A local variable of the unit's ``elaborate``, or else the signal it drives of that name.

        ``part.name`` is a signal that its submodule ``part`` drives. Raises KeyError when there is
        not exactly one.
        """
        if name in self._locals:
            return self._locals[name]
        *parts, name = name.split(".")
        fragment = self.fragment()
        for part in parts:
            (fragment,) = (inner for inner, called, _ in fragment.subfragments if called == part)
        driven = itertools.chain(*(each._lhs_signals() for each in fragment.statements.values()))
        found = {id(signal): signal for signal in driven if signal.name == name}
        if len(found) != 1:
            raise KeyError(f"{self._name} has {len(found)} signals {name!r}")
        return next(iter(found.values()))

    def fragment(self) -> Fragment:
        """The unit, elaborated."""
        if self._fragment is None:
            self._fragment = Fragment.get(self._unit, None)
        return self._fragment


def _elaborated(unit: wiring.Component) -> tuple[Module, dict[str, object]]:
    """The unit's module, and the local variables of ``elaborate`` when it ended."""
    variables = {}

    def watch(frame, event, argument):
        if event == "return" and frame.f_code is type(unit).elaborate.__code__:
            variables.update(frame.f_locals)

    # Signals that are made several at a time have no names of their own.
    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        return unit.elaborate(None), variables
    finally:
        sys.setprofile(before)


class _Late(Elaboratable):
    def __init__(self, inside):
        self._inside = inside

    def elaborate(self, platform):
        return self._inside.fragment()


def truth(condition: ValueLike) -> Value:
    """One bit."""
    value = Value.cast(condition)
    return value if len(value) == 1 else value.bool()


@dataclass(frozen=True)
class Fault:
    """A mistake in a unit's source: ``old``, which stands there once, becomes ``new``.

    ``module`` is the unit's own by default, or one it imports from.
    """

    name: str
    old: str
    new: str
    module: str | None = None


@dataclass(frozen=True)
class Proof:
    """``properties`` of a unit (``module:Class``) hold for ever, shown by k-induction.

    ``properties`` adds unit and assertions. ``depth`` is k. With ``bounded`` they are shown for
    the first ``depth`` cycles after reset only. Each of ``faults`` must be refuted within
    ``fault_depth`` cycles after reset.
    """

    name: str
    unit: str
    properties: Callable[[Properties, type], None]
    faults: tuple[Fault, ...]
    depth: int = 2
    fault_depth: int = 8
    bounded: bool = False


def load_unit(unit: str, fault: Fault | None = None) -> type:
    """The class ``module:Class``, as it is or with a fault.

    Raises LookupError when the text to replace does not stand in the source exactly once.
    """
    module_name, _, class_name = unit.partition(":")
    module = importlib.import_module(module_name)
    if fault is None:
        return getattr(module, class_name)
    faulty_name = fault.module or module_name
    faulty = importlib.import_module(faulty_name)
    source = inspect.getsource(faulty)
    if source.count(fault.old) != 1:
        raise LookupError(
            f"{faulty_name} has {source.count(fault.old)} times the text of the fault "
            f"{fault.name!r}: {fault.old}"
        )
    changed = _executed(faulty, source.replace(fault.old, fault.new))
    if faulty is not module:
        with mock.patch.dict(sys.modules, {faulty_name: changed}):
            changed = _executed(module, inspect.getsource(module))
    return getattr(changed, class_name)


def _executed(module: types.ModuleType, source: str) -> types.ModuleType:
    made = types.ModuleType(module.__name__)
    made.__file__ = module.__file__
    exec(compile(source, module.__file__, "exec"), vars(made))
    return made

"""The single-bit conditions of elaborated hardware, by name, and how to flip one.

A condition is what one bit decides: the result of a comparison or of a logic operator one bit
wide, the test of an If or a Mux, and each case of a Switch. Flipping works on Amaranth's fragments,
so that one mutant can be put into the Verilog of the SoC and into a block's own tests.
"""

import linecache
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amaranth.hdl import Cat, Fragment, Mux, Value
from amaranth.hdl._ast import Assign, Concat, Operator, Switch, _StatementList
from amaranth.hdl._xfrm import StatementTransformer, ValueTransformer

__all__ = ["Condition", "conditions", "flip"]

_PROJECT = Path(__file__).resolve().parents[2]
_RTL = _PROJECT / "rtl"
_LOGIC = {"~", "&", "|", "^", "==", "!=", "<", "<=", ">", ">=", "b", "r|", "r&", "r^"}
# Of one bit, these only pass on or negate a condition that is one already.
_UNARY = {"~", "b", "r|", "r&", "r^"}


@dataclass(frozen=True)
class Condition:
    """One condition of one instance.

    Members
    -------
    path : str
        Names of the submodules down to the instance.
    unit : str
        The instance's class.
    file, line : where it is written, relative to the project
    kind : str
        An operator, ``if``, ``mux``, or ``case`` with its patterns.
    ordinal : int
        Counts the conditions of the instance that are written on this line, in order.
    """

    path: str
    unit: str
    file: str
    line: int
    kind: str
    ordinal: int

    @property
    def name(self) -> str:
        return f"{self.path}:{self.file}:{self.line}#{self.ordinal}"

    @property
    def text(self) -> str:
        """The line of the source."""
        return linecache.getline(str(_PROJECT / self.file), self.line).strip()


#: Says what a condition is to be XORed with; None leaves it alone.
Flag = Callable[[Condition], Value | None]


def conditions(fragment: Fragment) -> list[Condition]:
    """All conditions written in rtl, in a fixed order."""
    found = []
    flip(fragment, found.append)
    return found


def flip(fragment: Fragment, flag: Flag) -> None:
    """Replace, in place and in everything below, each condition ``c`` by ``c ^ flag(c)``."""
    for instance, path in _instances(fragment, ()):
        flipper = _Flipper(".".join(path), _unit(instance), flag)
        for domain, statements in instance.statements.items():
            instance.statements[domain] = flipper.on_statements(statements)


def _instances(fragment, path):
    # Memories and foreign instances have subclasses of their own, and no statements.
    if type(fragment) is Fragment:
        yield fragment, path
    for index, (below, name, _src_loc) in enumerate(fragment.subfragments):
        yield from _instances(below, (*path, name or f"U${index}"))


def _unit(instance):
    names = (type(origin) for origin in instance.origins or ())
    return next((name.__name__ for name in names if name.__module__.startswith("rtl.")), "")


class _Flipper(ValueTransformer, StatementTransformer):
    """Flips within one instance. A value used in several places is one condition."""

    def __init__(self, path, unit, flag):
        self._instance = path, unit
        self._flag = flag
        self._ordinals = Counter()
        self._places = []  # of the statements around
        self._values = {}  # by id, with the original, which keeps the id its own
        self._flags = {}

    # Where conditions are.

    def on_value(self, value):
        known = self._values.get(id(value))
        if known is None:
            known = self._values[id(value)] = value, super().on_value(value)
        return known[1]

    def on_Operator(self, value):
        new = super().on_Operator(value)
        if not _is_condition(value):
            return new
        return self._flipped(new, (id(value),), value, value.src_loc, value.operator)

    def on_SwitchValue(self, value):
        new = super().on_SwitchValue(value)
        if not _is_mux(value) or _is_condition(value.test):
            return new
        (_zero, otherwise), (_any, then) = new.cases
        flag = self._flag_of((id(value),), value, value.src_loc, "mux")
        return new if flag is None else Mux(new.test.bool() ^ flag, then, otherwise)

    def on_statement(self, stmt):
        self._places.append(stmt.src_loc)
        new = super().on_statement(stmt)
        self._places.pop()
        return new

    def on_Assign(self, stmt):
        return Assign(stmt.lhs, self.on_value(stmt.rhs))

    def on_Switch(self, stmt):
        if _is_if(stmt):
            parts = stmt.test.parts if isinstance(stmt.test, Concat) else (stmt.test,)
            tests = []
            for part, (_patterns, _body, src_loc) in zip(parts, stmt.cases, strict=False):
                base = part
                while isinstance(base, Operator) and base.operator == "b":
                    (base,) = base.operands
                new = self.on_value(base)
                if len(new) != 1:
                    new = new.bool()
                if not _is_condition(base):
                    place = src_loc or stmt.src_loc or base.src_loc
                    new = self._flipped(new, ("if", id(base), place), base, place, "if")
                tests.append(new)
            return self._switch(stmt, Cat(tests), [patterns for patterns, _, _ in stmt.cases])
        test = self.on_value(stmt.test)
        flags = {}
        for index, (patterns, _body, src_loc) in enumerate(stmt.cases):
            if patterns:
                key = "case", id(stmt.test), patterns, src_loc
                kind = f"case {' '.join(patterns)}"
                flag = self._flag_of(key, stmt.test, src_loc or stmt.src_loc, kind)
                if flag is not None:
                    flags[index] = flag
        if not flags:
            return self._switch(stmt, test, [patterns for patterns, _, _ in stmt.cases])
        # Each case gets a bit that says it matches; the first set bit wins as the first case did.
        count = sum(patterns is not None for patterns, _, _ in stmt.cases)
        matches, rows = [], []
        for index, (patterns, _body, _src_loc) in enumerate(stmt.cases):
            if patterns is None:
                rows.append(None)
                continue
            match = test.matches(*patterns)
            rows.append(("1" + "-" * len(matches)).rjust(count, "-"))
            matches.append(match ^ flags[index] if index in flags else match)
        return self._switch(stmt, Cat(matches), rows)

    def _switch(self, stmt, test, rows):
        cases = [
            (patterns, self._case(body, src_loc), src_loc)
            for patterns, (_, body, src_loc) in zip(rows, stmt.cases, strict=True)
        ]
        return Switch(test, cases, src_loc=stmt.src_loc)

    def _case(self, body, src_loc):
        self._places.append(src_loc)
        new = self.on_statements(body)
        self._places.pop()
        return new

    def on_statements(self, stmts):
        return _StatementList(self.on_statement(stmt) for stmt in stmts)

    # Their names.

    def _flipped(self, new, key, keep, src_loc, kind):
        flag = self._flag_of(key, keep, src_loc, kind)
        return new if flag is None else new ^ flag

    def _flag_of(self, key, keep, src_loc, kind):
        if key in self._flags:
            return self._flags[key][0]
        flag = None
        # What the language makes (comparisons of enums, tests of wide values) belongs to the
        # statement that uses it.
        places = [src_loc, *reversed(self._places)]
        written = next((place for place in places if _in_rtl(place)), None)
        if written is not None:
            place = str(Path(written[0]).relative_to(_PROJECT)), written[1]
            condition = Condition(*self._instance, *place, kind, self._ordinals[place])
            self._ordinals[place] += 1
            flag = self._flag(condition)
        self._flags[key] = flag, keep
        return flag


def _in_rtl(place):
    return place is not None and Path(place[0]).is_relative_to(_RTL)


def _is_condition(value):
    """Whether an operator is a condition of its own."""
    if not isinstance(value, Operator) or value.operator not in _LOGIC or len(value) != 1:
        return False
    if value.shape().signed or not list(value._rhs_signals()):
        return False
    (first, *_) = value.operands
    return not (value.operator in _UNARY and len(first) == 1 and _is_condition(first))


def _is_mux(value):
    patterns = [patterns for patterns, _ in value.cases]
    return len(patterns) == 2 and patterns[0] == ("0" * len(value.test),) and patterns[1] is None


def _is_if(stmt):
    """Whether a Switch is an If with its Elifs: each case one bit of its own, in order."""
    rows = [patterns for patterns, _, _ in stmt.cases]
    if rows and rows[-1] is None:
        rows.pop()
    width = len(stmt.test)
    return (
        rows == [(("1" + "-" * index).rjust(width, "-"),) for index in range(len(rows))]
        and len(rows) == width
    )

"""Functions written for numbers, carried out on what hardware holds: each becomes an expression."""

import inspect
import operator
import types
from collections.abc import Callable
from functools import reduce

from amaranth import *

__all__ = ["Explorer", "Symbol", "symbolic_copy"]


class Symbol:
    """A number of a signal, for functions that mask, shift and compare whole numbers.

    Where Python asks whether it is true, the explorer says: both ways are gone.
    """

    def __init__(self, value: Value, explorer: "Explorer"):
        self._value, self._explorer = value, explorer

    def _with(self, other, operation) -> "Symbol":
        other = other._value if isinstance(other, Symbol) else int(other)
        return Symbol(operation(self._value, other), self._explorer)

    def __and__(self, other):
        return self._with(other, operator.and_)

    def __or__(self, other):
        return self._with(other, operator.or_)

    def __rshift__(self, count):
        return self._with(count, operator.rshift)

    def __lshift__(self, count):
        return self._with(count, lambda value, places: Cat(C(0, places), value))

    def __mod__(self, other):
        return self._with(other, operator.mod)

    def __eq__(self, other):
        return self._with(other, operator.eq)

    def __ne__(self, other):
        return self._with(other, operator.ne)

    def __lt__(self, other):
        return self._with(other, operator.lt)

    def __le__(self, other):
        return self._with(other, operator.le)

    def __gt__(self, other):
        return self._with(other, operator.gt)

    def __ge__(self, other):
        return self._with(other, operator.ge)

    __rand__, __ror__ = __and__, __or__
    #: No set finds it by a hash: see ``symbolic_copy``.
    __hash__ = None

    def __invert__(self):
        # A number has a sign above all its bits.
        return Symbol(~Cat(self._value, C(0, 1)).as_signed(), self._explorer)

    def __bool__(self):
        return self._explorer.decide(self._value.bool())


class Explorer:
    """Call a function of symbols once for each way through it."""

    def __init__(self):
        self._wanted, self._asked = (), []

    def decide(self, condition: Value) -> bool:
        """The way to go where ``condition`` is asked for."""
        place = len(self._asked)
        self._asked.append(condition)
        return self._wanted[place] if place < len(self._wanted) else True

    def expression(self, function: Callable[[], object], shown: Callable[[object], Value]) -> Value:
        """What ``shown`` makes of the function's result, whichever way it goes."""
        return self._from(function, shown, ())

    def truth(self, function: Callable[[], object]) -> Value:
        """Whether the function's result is true."""
        return self.expression(lambda: bool(function()), Const)

    def _from(self, function, shown, wanted):
        self._wanted, self._asked = wanted, []
        value, asked = shown(function()), self._asked
        for place in reversed(range(len(wanted), len(asked))):
            ahead = (*wanted, *(True for _ in asked[len(wanted) : place]), False)
            value = Mux(asked[place], value, self._from(function, shown, ahead))
        return value


class _Members(frozenset):
    """A set that compares instead of hashing."""

    def __contains__(self, item):
        return bool(reduce(operator.or_, (item == member for member in self)))


def symbolic_copy(module: types.ModuleType) -> types.ModuleType:
    """The module once more, with sets in which symbols can be looked for."""
    copy = types.ModuleType(module.__name__)
    vars(copy).update(set=_Members, frozenset=_Members)
    exec(compile(inspect.getsource(module), module.__file__, "exec"), vars(copy))
    return copy

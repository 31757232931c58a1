"""The golden model: the architecture in plain Python, to judge the RTL by.

It shares facts (``rtl.arch``) with the RTL and nothing else, neither with the RTL nor with the VMM.
``Hart`` executes one instruction per ``step``. Where the architecture leaves a choice, or the
answer comes from outside, it asks: the ``Platform`` for device reads, counters and interrupt lines,
and the ``Claim``, what an implementation says it did, for stale code and translations.
"""

from sim.golden.events import InterruptRefused
from sim.golden.hart import Claim, Hart, Platform
from sim.golden.memory_unit import Trap, Unknowable

__all__ = ["Claim", "Hart", "InterruptRefused", "Platform", "Trap", "Unknowable"]

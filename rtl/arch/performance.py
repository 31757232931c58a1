"""Events the performance counters count, by the number software writes to mhpmevent."""

from dataclasses import dataclass
from enum import IntEnum

from rtl.arch.layout import Field, Layout

__all__ = [
    "HPM_COUNTERS",
    "MHPMEVENT",
    "PERFORMANCE_EVENTS",
    "STALLS",
    "PerformanceEvent",
    "Stall",
]

#: mhpmcounter3 to 10 count; those above read zero.
HPM_COUNTERS = range(3, 11)

MHPMEVENT = Layout("mhpmevent", 64, (
    Field("event", 0, 5, "Number of the event counted; 0 and numbers without an event: none."),
))  # fmt: skip


class Stall(IntEnum):
    """Causes of cycles in which no instruction retires, by their event numbers."""

    FETCH = 1
    UNPREDICTED = 2
    MISPREDICT = 3
    INSTRUCTION_CACHE = 4
    INSTRUCTION_TLB = 5
    LOAD_USE = 6
    MULTIPLY = 7
    DIVIDE = 8
    DATA_CACHE = 9
    DATA_TLB = 10
    MEMORY = 11
    DEVICE = 12
    SYSTEM = 13
    TRAP = 14
    WFI = 15
    HOST = 16


@dataclass(frozen=True)
class PerformanceEvent:
    """A row of the table of events."""

    number: int
    name: str
    text: str


def _stall(cause: Stall, text: str) -> PerformanceEvent:
    return PerformanceEvent(int(cause), f"stall_{cause.name.lower()}", text)


# fmt: off
#: The causes of cycles without a retired instruction. Every such cycle has exactly one, so that
#: cycles = instructions + the sum over all stalls.
STALLS = (
    _stall(Stall.FETCH, "No instruction has come, for no other cause: packets lost to taken branches, instructions across packets."),
    _stall(Stall.UNPREDICTED, "Fetching began anew at the target of a jump or taken branch the predictor did not know."),
    _stall(Stall.MISPREDICT, "Fetching began anew behind a jump or branch predicted wrongly."),
    _stall(Stall.INSTRUCTION_CACHE, "A fetch has missed the instruction cache."),
    _stall(Stall.INSTRUCTION_TLB, "A fetch has missed the instruction TLB: page walk."),
    _stall(Stall.LOAD_USE, "An operand is being loaded."),
    _stall(Stall.MULTIPLY, "A product or a count of bits is awaited."),
    _stall(Stall.DIVIDE, "A quotient or remainder is awaited."),
    _stall(Stall.DATA_CACHE, "A load or store has missed the data cache."),
    _stall(Stall.DATA_TLB, "A load or store has missed the data TLB: page walk."),
    _stall(Stall.MEMORY, "A load or store takes more than one access (atomic, across words), waits for the data cache to be free, or is about to leave the hart."),
    _stall(Stall.DEVICE, "A load, store or fetch outside RAM is under way."),
    _stall(Stall.SYSTEM, "A CSR or system instruction takes its time, or fetching began anew behind it."),
    _stall(Stall.TRAP, "A trap is taken, until the first instruction of its handler."),
    _stall(Stall.WFI, "wfi waits."),
    _stall(Stall.HOST, "The hart is parking, resuming, or works off a charge."),
)
#: All events in the order of their numbers, which are consecutive from 1 on.
PERFORMANCE_EVENTS = (
    *STALLS,
    PerformanceEvent(17, "branch", "A conditional branch retires."),
    PerformanceEvent(18, "branch_taken", "A conditional branch that is taken retires."),
    PerformanceEvent(19, "jump", "A jump retires."),
    PerformanceEvent(20, "mispredict", "A branch or jump predicted wrongly retires."),
    PerformanceEvent(21, "load", "A load, lr or atomic operation retires."),
    PerformanceEvent(22, "store", "A store, sc or atomic operation retires."),
    PerformanceEvent(23, "instruction_cache_miss", "A fetch misses the instruction cache."),
    PerformanceEvent(24, "data_cache_miss", "A load, store or read of the page walker misses the data cache."),
    PerformanceEvent(25, "instruction_tlb_miss", "A fetch asks for a page walk."),
    PerformanceEvent(26, "data_tlb_miss", "A load or store asks for a page walk."),
    PerformanceEvent(27, "walk", "A page walk begins."),
    PerformanceEvent(28, "walk_read", "The page walker reads an entry."),
    PerformanceEvent(29, "walk_cycle", "A cycle in which a page walk is under way."),
)
# fmt: on

"""A machine without a hart: memory and time, enough for the technique that interprets."""

from types import SimpleNamespace

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.records import ParkKind
from rtl.arch.traps import Privilege
from rtl.soc.config import CONFIGURATIONS, SocConfig
from sw_vmm.errors import BusError
from sw_vmm.machine import ParkRecord
from sw_vmm.vm import MONITOR_SIZE

__all__ = ["FakeMachine"]


class FakeMachine:
    """RAM, ROM and a clock that only charges move."""

    def __init__(self, guest_ram: int, config: SocConfig = CONFIGURATIONS["full"]):
        self.config = SimpleNamespace(ram_size=guest_ram + MONITOR_SIZE, **config.as_dict())
        self.reset_count = 0
        self.reset()

    def reset(self):
        self.reset_count += 1
        self._ram = bytearray(self.config.ram_size)
        self._rom = bytearray(MEMORY_MAP["rom"].size)
        self._cycle = 0

    @property
    def park(self):
        values = dict.fromkeys(ParkRecord._fields, 0)
        values |= {
            "pc": MEMORY_MAP["rom"].base,
            "cycle": self._cycle,
            "time": self._cycle // self.config.cycles_per_tick,
            "kind": ParkKind.STOP,
            "privilege": Privilege.MACHINE,
        }
        return ParkRecord(**values)

    def charge(self, cycles):
        self._cycle += cycles

    def clean(self):
        pass

    def counters(self):
        return {"cycles": self._cycle, "instructions": 0}

    def _find(self, hpa, length):
        for name, memory in (("ram", self._ram), ("rom", self._rom)):
            offset = hpa - MEMORY_MAP[name].base
            if offset >= 0 and offset + length <= len(memory):
                return memory, offset
        raise BusError(f"nobody answers at {hpa:#x}")

    def read_memory(self, hpa, length):
        memory, offset = self._find(hpa, length)
        return bytes(memory[offset : offset + length])

    def write_memory(self, hpa, data):
        memory, offset = self._find(hpa, len(data))
        memory[offset : offset + len(data)] = data

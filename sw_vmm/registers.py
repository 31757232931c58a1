"""A parked hart's general-purpose registers as a list that reads and writes only what is used."""

from sw_vmm.machine import Machine

__all__ = ["ParkedRegisters"]

_COUNT = 32


class ParkedRegisters:
    """Registers of the parked hart, fetched at first use and kept until ``write_back``.

    Index 0 is x0; indices above 31 are scratch places that never reach the hart.
    """

    def __init__(self, machine: Machine):
        self._machine = machine
        self._values: dict[int, int] = {0: 0}
        self._changed: set[int] = set()

    def __getitem__(self, number: int) -> int:
        value = self._values.get(number)
        if value is None:
            value = self._values[number] = self._machine.read_gpr(number)
        return value

    def __setitem__(self, number: int, value: int) -> None:
        self._values[number] = value
        self._changed.add(number)

    def write_back(self) -> None:
        """Give the hart what has changed, and forget everything."""
        if len(self._values) == 1:
            return
        for number in sorted(self._changed):
            if 0 < number < _COUNT:
                self._machine.write_gpr(number, self._values[number])
        self._values = {0: 0}
        self._changed.clear()

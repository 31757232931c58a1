"""A virtual machine: guest memory, the devices of the platform, and the machine it runs on."""

from rtl.arch.csrs import INTERRUPTS
from rtl.arch.memory_map import MEMORY_MAP, UART_INTERRUPT, WINDOW_INTERRUPTS
from rtl.arch.paging import PAGE_BITS
from sw_vmm.bus import Bus
from sw_vmm.devices import Clint, EmptyWindow, Finisher, Plic, Rom, Uart
from sw_vmm.errors import BadImage, GuestTooLarge
from sw_vmm.machine import Machine

__all__ = ["MONITOR_SIZE", "Image", "Vm"]

#: RAM above the guest's that belongs to the VMM, under every technique alike.
MONITOR_SIZE = 4 << 20

_EXTERNAL = INTERRUPTS.mask("mei", "sei")
_SOFTWARE_AND_TIMER = INTERRUPTS.mask("msi", "mti")

Image = tuple[int, bytes]


class Vm:
    """Guest-physical space: guest RAM at the platform's place, and one device of each kind.

    Parameters
    ----------
    machine : Machine
        Parked after reset; its RAM is the guest's plus ``MONITOR_SIZE``.
    rom : bytes
        Reset code and device tree; the guest starts at its first instruction.
    window : device with ``interrupts``
        What answers in the device window, under every technique.

    Raises BadImage when the machine's RAM leaves no whole pages for a guest.
    """

    def __init__(self, machine: Machine, *, rom: bytes = b"", window: EmptyWindow | None = None):
        self.machine = machine
        self.config = machine.config
        self.ram_base = MEMORY_MAP["ram"].base
        self.ram_size = self.config.ram_size - MONITOR_SIZE
        if self.ram_size <= 0 or self.ram_size % (1 << PAGE_BITS):
            raise BadImage(
                f"{self.config.ram_size} bytes of RAM do not hold a guest of whole pages and the "
                f"monitor's {MONITOR_SIZE}"
            )
        self.images: list[Image] = []
        self.tohost: int | None = None
        rom_region = MEMORY_MAP["rom"]
        self.reset_vector = rom_region.base
        self.rom = Rom(rom, base=rom_region.base, size=rom_region.size)
        park = machine.park
        self.clint = Clint(
            cycles_per_tick=self.config.cycles_per_tick,
            offset=park.time - park.cycle // self.config.cycles_per_tick,
        )
        self.plic = Plic()
        self.uart = Uart(cycles_per_byte=self.config.uart_cycles_per_byte)
        self.finisher = Finisher()
        self.window = EmptyWindow() if window is None else window
        self.bus = Bus()
        for name in ("rom", "clint", "plic", "uart", "finisher", "window"):
            self.bus.attach(MEMORY_MAP[name], getattr(self, name))
        if rom:
            machine.write_memory(rom_region.base, rom)

    @property
    def ram_end(self) -> int:
        return self.ram_base + self.ram_size

    def load(self, gpa: int, data: bytes, name: str = "image") -> None:
        """Put an image into guest RAM. Raises BadImage when it does not fit there."""
        if gpa < self.ram_base:
            raise BadImage(f"{name}: {gpa:#x} is below guest memory at {self.ram_base:#x}")
        if gpa + len(data) > self.ram_end:
            raise GuestTooLarge(name, gpa, len(data), self.ram_end)
        self.images.append((gpa, bytes(data)))
        self.machine.write_memory(gpa, data)

    # -- what the emulated devices do to the virtual hart ------------------------------------------

    def mtime(self, now: int) -> int:
        return self.clint.mtime(now)

    def cycle_of(self, tick: int, now: int) -> int | None:
        return self.clint.cycle_of(tick, now)

    def lines(self, now: int) -> int:
        """The bits of mip that the devices drive at cycle ``now``."""
        levels = self.uart.interrupt(now) << UART_INTERRUPT
        slots = self.window.interrupts
        if slots:
            for slot, source in enumerate(WINDOW_INTERRUPTS):
                levels |= (slots >> slot & 1) << source
        self.plic.drive(levels)
        return self.clint.lines(now) | self.plic.lines()

    def next_event(self, now: int, interest: int) -> int | None:
        """The next cycle after ``now`` at which one of the mip bits in ``interest`` may change."""
        events = []
        if interest & _SOFTWARE_AND_TIMER:
            events.append(self.clint.next_event(now))
        if interest & _EXTERNAL:
            events.append(self.uart.next_event(now))
        return min((at for at in events if at is not None), default=None)

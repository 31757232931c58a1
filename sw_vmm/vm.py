"""A virtual machine: guest memory, the devices of the platform, and the machine it runs on."""

from rtl.arch.csrs import INTERRUPTS
from rtl.arch.memory_map import MEMORY_MAP, UART_INTERRUPT, WINDOW_INTERRUPTS
from rtl.arch.paging import PAGE_BITS
from sw_vmm.bus import Bus
from sw_vmm.devices import Clint, DeviceWindow, Finisher, Plic, Rom, Uart
from sw_vmm.ept import MemorySlot
from sw_vmm.errors import BadImage, GuestTooLarge
from sw_vmm.machine import Machine
from sw_vmm.memory import GuestMemory, MachineMemory

__all__ = ["MONITOR_SIZE", "Image", "Vm", "guest_ram"]

#: RAM above the guest's that belongs to the VMM, under every technique alike.
MONITOR_SIZE = 4 << 20

_EXTERNAL = INTERRUPTS.mask("mei", "sei")
_SOFTWARE_AND_TIMER = INTERRUPTS.mask("msi", "mti")

Image = tuple[int, bytes]


def guest_ram(machine: Machine) -> range:
    """The machine's RAM (hpa) without the monitor's; empty when there is not more than that."""
    base = MEMORY_MAP["ram"].base
    return range(base, max(base, base + machine.config.ram_size - MONITOR_SIZE))


class Vm:
    """Guest-physical space: guest RAM at the platform's place, and one device of each kind.

    Parameters
    ----------
    machine : Machine
        Parked; its RAM is the guests' plus ``MONITOR_SIZE``.
    rom : bytes
        Reset code and device tree; the guest starts at its first instruction.
    window : DeviceWindow
        What answers in the device window, under every technique.
    place : range or None
        The part of the machine's RAM (hpa) that is this guest's, one of several; None: all of it
        but the monitor's, and the machine's boot ROM too.

    Raises BadImage when the machine's RAM leaves no whole pages for a guest.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        rom: bytes = b"",
        window: DeviceWindow | None = None,
        place: range | None = None,
    ):
        self.machine = machine
        self.config = machine.config
        self.ram_base = MEMORY_MAP["ram"].base
        self.alone = place is None
        guests = guest_ram(machine)
        self._place = guests if place is None else place
        self.ram_size = len(self._place)
        if (
            not self.ram_size
            or (self._place.start | self.ram_size) % (1 << PAGE_BITS)
            or not guests.start <= self._place.start <= self._place.stop <= guests.stop
        ):
            raise BadImage(
                f"{self.config.ram_size} bytes of RAM do not hold a guest of whole pages and the "
                f"monitor's {MONITOR_SIZE}"
            )
        self.images: list[Image] = []
        self.tohost: int | None = None
        self.keys: list[tuple[bytes, bytes]] = []
        self.stop_text = b""
        rom_region = MEMORY_MAP["rom"]
        self.reset_vector = rom_region.base
        self.rom = Rom(rom, base=rom_region.base, size=rom_region.size)
        park = machine.park
        self.clint = Clint(
            cycles_per_tick=self.config.cycles_per_tick,
            offset=park.time - park.cycle // self.config.cycles_per_tick,
        )
        self.plic = Plic(self._drive_sources)
        self.uart = Uart(
            cycles_per_byte=self.config.uart_cycles_per_byte,
            line=lambda level: self.plic.drive(UART_INTERRUPT, level),
        )
        self.finisher = Finisher()
        self.window = DeviceWindow() if window is None else window
        offset = self._place.start - self.ram_base
        self.use_memory(MachineMemory(machine, self.ram_base, self.ram_size, offset))
        self._slots = 0
        self.bus = Bus()
        for name in ("rom", "clint", "plic", "uart", "finisher", "window"):
            self.bus.attach(MEMORY_MAP[name], getattr(self, name))
        if rom and self.alone:
            machine.write_memory(rom_region.base, rom)

    @property
    def ram_end(self) -> int:
        return self.ram_base + self.ram_size

    @property
    def slot(self) -> MemorySlot:
        """Guest RAM in the machine's RAM."""
        return MemorySlot(self.ram_base, self._place.start, self.ram_size)

    @property
    def monitor(self) -> range:
        """RAM that belongs to the VMM (hpa)."""
        return range(guest_ram(self.machine).stop, self.ram_base + self.config.ram_size)

    def load(self, gpa: int, data: bytes, name: str = "image") -> None:
        """Put an image into guest RAM. Raises BadImage when it does not fit there."""
        if gpa < self.ram_base:
            raise BadImage(f"{name}: {gpa:#x} is below guest memory at {self.ram_base:#x}")
        if gpa + len(data) > self.ram_end:
            raise GuestTooLarge(name, gpa, len(data), self.ram_end)
        self.images.append((gpa, bytes(data)))
        self.memory.write_bytes(gpa, data)

    def use_memory(self, memory: GuestMemory) -> None:
        """Let the devices find guest RAM there; the machine's own RAM unless a technique says."""
        self.memory = memory
        self.window.connect(memory)

    # -- what stands at the other end of the serial line, and what ends a run ------------------------

    def type_after(self, text: bytes, keys: bytes) -> None:
        """Type ``keys`` once ``text`` has appeared: each byte when the receive FIFO is empty."""
        self.keys.append((text, keys))
        self.uart.type_after(text, keys)

    def stop_at_text(self, text: bytes) -> None:
        """End the run when ``text`` has appeared on the console."""
        self.stop_text = text
        self.uart.stop_at_text(text)

    def stop_at_tohost(self, gpa: int) -> None:
        """End the run when something other than zero is stored to the double word at ``gpa``."""
        self.tohost = gpa

    def cut_console(self, output: bytes) -> bytes:
        """Console output up to the text to stop at, if it has appeared."""
        at = output.find(self.stop_text) if self.stop_text else -1
        return output if at < 0 else output[: at + len(self.stop_text)]

    # -- what the emulated devices do to the virtual hart ------------------------------------------

    def mtime(self, now: int) -> int:
        return self.clint.mtime(now)

    def cycle_of(self, tick: int, now: int) -> int | None:
        return self.clint.cycle_of(tick, now)

    def lines(self, now: int) -> int:
        """The bits of mip that the devices drive at cycle ``now``."""
        self._drive_sources(now)
        return self.clint.lines(now) | self.plic.lines()

    def _drive_sources(self, now: int) -> None:
        self.uart.advance(now)
        self._advance_window(now)

    def _advance_window(self, now: int) -> None:
        # The PLIC must see every level: a guest may acknowledge before it looks there.
        self.window.advance(now)
        slots = self.window.interrupts
        if slots != self._slots:
            self._slots = slots
            for slot, source in enumerate(WINDOW_INTERRUPTS):
                self.plic.drive(source, bool(slots >> slot & 1))

    def next_event(self, now: int, interest: int) -> int | None:
        """The next cycle after ``now`` at which one of the mip bits in ``interest`` may change.

        Or at which a device works on guest memory: a guest may watch that without an interrupt.
        What is due by now has been done behind this call.
        """
        self._advance_window(now)
        events = [self.window.next_event(now)]
        if interest & _SOFTWARE_AND_TIMER:
            events.append(self.clint.next_event(now))
        if interest & _EXTERNAL:
            events.append(self.uart.next_event(now))
        return min((at for at in events if at is not None), default=None)

"""Running a guest under a technique on a machine, with its console and its progress shown."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import BinaryIO

from rtl.soc.config import CONFIGURATIONS, SocConfig
from sim.device_tree import DEVICE_TREE_ADDRESS, boot_rom
from sim.errors import VmxlabError
from sim.guests import Guest
from sim.program_costs import program_costs
from sim.results import Run, simulator_name
from sw_vmm.charge import ChargeModel, load_charges
from sw_vmm.devices import DeviceWindow, VirtioBlock, VirtioConsole
from sw_vmm.devices.virtio_mmio import VirtioMmio
from sw_vmm.machine import Event, Machine
from sw_vmm.supervisor_guest import SupervisorStart
from sw_vmm.techniques import TECHNIQUES, make_technique
from sw_vmm.vm import MONITOR_SIZE, Vm

__all__ = ["charge_model", "configuration_for", "open_machine", "run_guest"]

#: Cycles between two looks at the console of a machine that runs without exits.
_SLICE = 1_000_000
#: Seconds before the first word about a run; the time between two grows up to the interval.
_FIRST_WORD, _INTERVAL = 2.0, 30.0
#: Seconds between two looks at the console.
_LOOK = 0.2


def configuration_for(config: SocConfig, techniques: Iterable[str]) -> SocConfig:
    """``config``, with the virtualization extension where one of the techniques needs it."""
    if any(TECHNIQUES[name].needs_vmx for name in techniques):
        return replace(config, vmx=True)
    return config


def open_machine(
    guest_ram: int, config: SocConfig = CONFIGURATIONS["full"], *, debug: bool = False
) -> Machine:
    """The simulated machine with so much RAM for the guest; built first when it must be.

    ``debug`` takes the library that snapshots, waves and pipeline traces need.
    """
    from sim.library import LibraryMachine

    return LibraryMachine(config, ram_size=guest_ram + MONITOR_SIZE, debug=debug)


def charge_model(machine: Machine, technique: str, factor: float) -> ChargeModel:
    """What the VMM's work costs under the technique on this machine. Raises ChargesError."""
    if technique == "native" or not factor:
        return ChargeModel(None, 0.0)
    return ChargeModel(load_charges(_soc_config(machine).as_dict()), factor)


def _soc_config(machine: Machine) -> SocConfig:
    names = SocConfig.__dataclass_fields__
    return SocConfig(**{name: getattr(machine.config, name) for name in names})


def run_guest(
    machine: Machine,
    guest: Guest,
    technique: str,
    *,
    charge: float = 1.0,
    on_exit: Callable[[dict], None] | None = None,
    console: BinaryIO | None = None,
    quiet: bool = False,
    **options,
) -> Run:
    """Reset the machine, run the guest under the technique, and collect what came out.

    ``options`` are those of the technique. ``console`` gets the guest's console bytes as they appear; ``on_exit`` one row per exit. Unless
    ``quiet``, standard error is told about runs that take long. Raises VmmError or MachineError
    when the run cannot go on, and VmxlabError when the technique cannot run the guest.
    """
    options |= _options(guest, technique)
    machine.reset()
    config = _soc_config(machine)
    devices = _window_devices(guest)
    rom = boot_rom(
        config,
        ram_size=guest.ram_size,
        bootargs=guest.bootargs,
        initrd=guest.initrd,
        window_devices=len(devices),
        entry=guest.entry,
    )
    shown = _Console(console)
    native = technique == "native"
    vm = Vm(_Sliced(machine, shown) if native else machine, rom=rom, window=DeviceWindow(devices))
    for address, data in guest.segments:
        vm.load(address, data, guest.name)
    if guest.input:
        vm.type_after(guest.input_after, guest.input)
    if guest.until:
        vm.stop_at_text(guest.until)
    if guest.tohost is not None:
        vm.stop_at_tohost(guest.tohost)
    shown.cut = vm.cut_console
    if not native:
        shown.source = lambda: bytes(vm.uart.output)
    charges = charge_model(machine, technique, charge)
    runner = make_technique(technique, vm, charges, on_exit, **options)
    with nullcontext() if quiet else _watched(f"{guest.name} under {technique}", shown):
        started = time.monotonic()
        result = runner.run(guest.cycles)
        seconds = time.monotonic() - started
    shown.show(result.outcome.console)
    machine.clean()
    signature, programs = (
        runner.read_memory(place[0], place[1] - place[0]) if place else None
        for place in (guest.signature, guest.programs)
    )
    return Run(
        guest=guest.name,
        images=guest.files,
        result=result,
        configuration_name=config.name,
        configuration=config.as_dict(),
        ram_size=guest.ram_size,
        charge=charges.factor,
        signature=signature,
        programs=program_costs(programs or b""),
        seconds=seconds,
        disk=next((bytes(d.image) for d in devices if isinstance(d, VirtioBlock)), None),
        simulator=simulator_name(),
        succeeded=guest.success in result.outcome.console,
    )


def _options(guest: Guest, technique: str) -> dict[str, object]:
    """Options of the technique that the guest needs. Raises VmxlabError when it has none."""
    if not guest.supervisor:
        return {}
    if technique != "vmx-ept":
        raise VmxlabError(
            f"{guest.name} starts in S-mode with the VMM for firmware: use --technique vmx-ept"
        )
    return {"start": SupervisorStart(guest.entry, DEVICE_TREE_ADDRESS)}


def _window_devices(guest: Guest) -> list[VirtioMmio]:
    """Fresh devices for a run, by slot."""
    devices: list[VirtioMmio] = []
    if guest.disk is not None:
        devices.append(VirtioBlock(bytearray(guest.disk)))
    if guest.virtio_console:
        devices.append(VirtioConsole())
    return devices


class _Console:
    """The guest's console on its way to the user, up to the text that ends the run.

    ``source`` may be called at any time from any thread; None says that nobody may ask. ``cycles``
    is how far a native run has come.
    """

    def __init__(self, file: BinaryIO | None):
        self._file = file
        self._shown = 0
        self.cycles = 0
        self._lock = threading.Lock()
        self.source: Callable[[], bytes] | None = None
        self.cut: Callable[[bytes], bytes] = bytes

    def show(self, output: bytes) -> None:
        """Write what of ``output`` was not written yet."""
        if self._file is None:
            return
        with self._lock:
            new = self.cut(output)[self._shown :]
            if new:
                self._shown += len(new)
                self._file.write(new)
                self._file.flush()

    def look(self) -> None:
        if self.source is not None:
            self.show(self.source())

    @property
    def live(self) -> bool:
        return self._file is not None


class _Sliced:
    """A machine whose long runs are interrupted now and then for a look at the console."""

    def __init__(self, machine: Machine, shown: _Console):
        self._machine = machine
        self._shown = shown

    def __getattr__(self, name: str):
        return getattr(self._machine, name)

    def run(self, cycles: int) -> Event:
        while cycles > _SLICE:
            event = self._machine.run(_SLICE)
            if event != Event.BUDGET:
                return event
            self._shown.cycles += _SLICE
            if self._shown.live:
                self._shown.show(self._machine.console())
            cycles -= _SLICE
        return self._machine.run(cycles)


@contextmanager
def _watched(title: str, shown: _Console) -> Iterator[None]:
    """Look at the console, and say now and then that a run goes on."""
    over = threading.Event()

    def watch() -> None:
        started = time.monotonic()
        word = _FIRST_WORD
        while not over.wait(_LOOK):
            shown.look()
            passed = time.monotonic() - started
            if passed >= word:
                far = f", {shown.cycles / 1e6:.0f} M cycles" if shown.cycles else ""
                print(f"{title}: {passed:.0f} s{far}", file=sys.stderr, flush=True)
                word += min(word, _INTERVAL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

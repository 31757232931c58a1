"""native on a machine that plays a script: what the hart is asked, and what comes of events."""

from collections import deque
from types import SimpleNamespace

import pytest

from rtl.arch.memory_map import MEMORY_MAP
from sw_vmm.charge import ChargeModel
from sw_vmm.devices import DeviceWindow
from sw_vmm.errors import MachineError, UnhandledExit, UnknownTechnique
from sw_vmm.machine import Event, ParkRecord
from sw_vmm.techniques import TECHNIQUES, make_technique
from sw_vmm.vm import MONITOR_SIZE, Vm

WINDOW = MEMORY_MAP["window"].base


class ScriptedMachine:
    """Every ``run`` gives the next event of the script; after that the hart parks when stopped."""

    def __init__(self, *script, finisher=0, tohost=0, console=b"", parks=True):
        self.config = SimpleNamespace(
            ram_size=(1 << 20) + MONITOR_SIZE, cycles_per_tick=10, uart_cycles_per_byte=16
        )
        self.script = deque(script)
        self.finisher, self.tohost = finisher, tohost
        self.cycles, self.guest = 0, 0
        self.output, self._parks, self.stopping = console, parks, False
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments, **named: self.calls.append((name, *arguments))

    @property
    def park(self):
        # One of a hart that was stopped.
        return ParkRecord(
            0, 0, 0, 0, 0x1000 + 4 * bool(self.cycles), 0, 0, self.cycles, 0, 0, 0, 0, 0, 3, 0
        )

    def run(self, cycles):
        assert cycles > 0
        self.calls.append(("run", cycles))
        if self.stopping:
            return Event.PARKED if self._parks else Event.BUDGET
        event = self.script.popleft() if self.script else Event.BUDGET
        used = cycles if event == Event.BUDGET else 100
        self.cycles += used
        self.guest += used
        return event

    def stop(self):
        self.stopping = True

    def resume(self, pc, **named):
        self.calls.append(("resume", pc))
        self.stopping = False

    def console(self):
        return self.output

    def window_request(self):
        return (WINDOW + 0x1008, False, 0xF0, 0)

    def counters(self):
        return {
            "cycles": self.cycles,
            "guest": self.guest,
            "transition": 0,
            "walk": 0,
            "charged": 0,
            "instructions": 7,
        }


def run(machine, cycles=1000, window=None, **settings):
    vm = Vm(machine, rom=b"\x13\0\0\0", window=window)
    for name, value in settings.items():
        getattr(vm, name)(*value)
    return make_technique("native", vm, ChargeModel(None, 0)).run(cycles)


def test_the_guest_gets_the_hart_and_the_hardwares_devices():
    machine = ScriptedMachine(Event.FINISHED, finisher=0x9_3333, console=b"bye")
    result = run(machine, type_after=(b"key", b"x"), stop_at_text=(b"never",))
    assert result.outcome.exit_code == 9
    assert result.outcome.console == b"bye"
    assert result.cycles.total == result.cycles.guest == 100
    assert result.exits == {}
    assert ("park_on", 0, 0) in machine.calls
    assert ("type_after", b"key", b"x") in machine.calls
    assert ("stop_at_text", b"never") in machine.calls
    assert ("resume", 0x1000) in machine.calls


def test_tohost_gives_its_verdict():
    machine = ScriptedMachine(Event.TOHOST, tohost=2 * 13 + 1)
    result = run(machine, stop_at_tohost=(0x8000_1000,))
    assert result.outcome.exit_code == 13
    assert ("stop_at_tohost", 0x8000_1000) in machine.calls


def test_a_tohost_request_is_refused_loudly():
    with pytest.raises(UnhandledExit, match="HTIF request"):
        run(ScriptedMachine(Event.TOHOST, tohost=0x8000_2000), stop_at_tohost=(0x8000_1000,))


def test_console_text_ends_the_run_there():
    machine = ScriptedMachine(Event.CONSOLE, console=b"boot => more")
    result = run(machine, stop_at_text=(b"=> ",))
    assert not result.outcome.finished
    assert result.outcome.text_seen
    assert result.outcome.console == b"boot => "


def test_the_budget_ends_the_run_and_parks_the_hart():
    machine = ScriptedMachine()
    result = run(machine, 5000)
    assert not result.outcome.finished
    assert result.cycles.total == 5000
    assert machine.stopping


def test_a_hart_that_does_not_park_is_an_error():
    with pytest.raises(MachineError, match="did not park"):
        run(ScriptedMachine(parks=False), 5000)


def test_window_accesses_are_answered_by_the_device():
    class Device(DeviceWindow):
        interrupts = 4

        def read(self, offset, size, now):
            assert (offset, size) == (0x100C, 4)
            return 0x1234_5678

    machine = ScriptedMachine(Event.WINDOW, Event.FINISHED, finisher=0x5555)
    result = run(machine, window=Device())
    assert result.outcome.exit_code == 0
    assert ("answer_window", 0x1234_5678 << 32) in machine.calls
    assert ("window_interrupts", 4) in machine.calls


class Working(DeviceWindow):
    """Has work at some cycles, which it does when it is let to."""

    def __init__(self, *due):
        super().__init__()
        self.due, self.done = list(due), []

    @property
    def interrupts(self):
        return len(self.done)

    def next_event(self, now):
        return self.due[0] if self.due else None

    def advance(self, now):
        while self.due and self.due[0] <= now:
            self.done.append((self.due.pop(0), now))


def test_the_hart_is_stopped_when_devices_have_work_and_goes_on_behind_it():
    machine, window = ScriptedMachine(), Working(250, 700)
    result = run(machine, 1000, window=window)
    assert window.done == [(250, 250), (700, 700)]
    assert result.cycles.total == 1000
    # To the first work, to the second, to the end; the runs between them are the stopping.
    assert [row[1] for row in machine.calls if row[0] == "run"][::2] == [250, 450, 300]
    assert [row for row in machine.calls if row[0] == "resume"] == [
        ("resume", 0x1000),
        ("resume", 0x1004),
        ("resume", 0x1004),
    ]
    assert ("window_interrupts", 1) in machine.calls and ("window_interrupts", 2) in machine.calls


def test_a_guest_may_end_while_the_hart_is_being_stopped():
    class Ending(ScriptedMachine):
        def run(self, cycles):
            event = super().run(cycles)
            return Event.FINISHED | Event.PARKED if self.stopping else event

    machine = Ending(finisher=0x5555)
    assert run(machine, 1000, window=Working(250)).outcome.exit_code == 0


def test_work_behind_the_budget_is_not_done():
    window = Working(5000)
    assert run(ScriptedMachine(), 1000, window=window).cycles.total == 1000
    assert window.done == []


def test_techniques_are_known_by_name():
    assert list(TECHNIQUES) == ["native", "interpret", "trap-emulate", "vmx-ept"]
    with pytest.raises(UnknownTechnique, match="there are native, interpret, trap-emulate"):
        make_technique("magic", None, None)

"""The Verilated SoC, called by ctypes: clocks, host-port accesses, console, RAM."""

import ctypes
import os
from ctypes import POINTER, c_char_p, c_int, c_uint8, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path

from rtl.arch.records import PARK, RETIREMENT
from sim.errors import VmxlabError
from sw_vmm.machine import BusError, Event, MachineError

__all__ = ["RETIREMENT_BYTES", "Verilated"]

_PARK_WORDS = -(-PARK.width // 64)
_RETIREMENT_WORDS = -(-RETIREMENT.width // 64)
#: Bytes of one retirement record: the layout's bits in little-endian 64-bit words.
RETIREMENT_BYTES = 8 * _RETIREMENT_WORDS

#: Cycles between two looks at Ctrl-C.
_SLICE = 200_000
#: By their bits: making one anew takes as long as two cycles of the machine.
_EVENTS = tuple(map(Event, range(2 * max(Event))))
_BUDGET = int(Event.BUDGET)


class _Status(ctypes.Structure):
    """Mirror of ``vmxlab::Status`` (sim/verilator/machine.h)."""

    _fields_ = (
        ("park", c_uint64 * _PARK_WORDS),
        ("cycles", c_uint64),
        ("transition", c_uint64),
        ("window_address", c_uint64),
        ("window_data", c_uint64),
        ("tohost", c_uint64),
        ("window_mask", c_uint32),
        ("window_write", c_uint32),
        ("finisher", c_uint32),
        ("parked", c_uint32),
    )


# fmt: off
_SIGNATURES = {
    "new": (c_void_p, c_uint64, c_uint32),
    "delete": (None, c_void_p),
    "reset": (None, c_void_p),
    "status": (POINTER(_Status), c_void_p),
    "ram": (c_void_p, c_void_p),
    "run": (c_uint32, c_void_p, c_uint64),
    "resume_and_run": (
        c_uint32, c_void_p, c_uint64, c_uint64, c_uint32, c_uint32, c_uint64, c_int,
    ),
    "access": (c_int, c_void_p, c_uint32, c_int, c_uint8, c_uint64, c_void_p),
    "repeat": (c_int, c_void_p, c_uint32, c_int, c_void_p, c_uint64),
    "skip": (c_int, c_void_p, c_uint32),
    "set_skipping": (None, c_void_p, c_int),
    "answer_window": (None, c_void_p, c_uint64),
    "window_interrupts": (None, c_void_p, c_uint8),
    "console_length": (c_uint64, c_void_p),
    "console_bytes": (c_void_p, c_void_p),
    "type_after": (None, c_void_p, c_char_p, c_uint64, c_char_p, c_uint64),
    "stop_at_text": (None, c_void_p, c_char_p, c_uint64),
    "stop_at_tohost": (None, c_void_p, c_uint32, c_int),
    "observe": (None, c_void_p, c_uint64),
    "observe_to_file": (c_int, c_void_p, c_char_p),
    "drain": (c_uint64, c_void_p, c_void_p, c_uint64),
    "lost": (c_uint64, c_void_p),
    "log_commits": (c_int, c_void_p, c_char_p, c_void_p, c_void_p),
}
#: What only the library for debugging has.
_DEBUG_SIGNATURES = {
    "save": (c_void_p, c_void_p),
    "state_length": (c_uint64, c_void_p),
    "state_bytes": (c_void_p, c_void_p),
    "free_state": (None, c_void_p),
    "restore": (None, c_void_p, c_char_p, c_uint64),
    "dump_waves": (c_int, c_void_p, c_char_p, c_uint64, c_uint64),
    "dump_stages": (c_int, c_void_p, c_char_p, c_uint64, c_uint64),
}
# fmt: on


@cache
def _load(library: Path) -> dict[str, object]:
    try:
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        raise VmxlabError(f"the built machine cannot be loaded: {error}") from None
    functions = {}
    signatures = dict(_SIGNATURES)
    if hasattr(loaded, "vmxlab_save"):
        signatures |= _DEBUG_SIGNATURES
    for name, (result, *arguments) in signatures.items():
        function = loaded[f"vmxlab_{name}"]
        function.restype, function.argtypes = result, arguments
        functions[name] = function
    return functions


class Verilated:
    """One simulated SoC with its RAM; several may live side by side.

    Parameters
    ----------
    library : Path
        The shared library of ``sim.model``.
    ram_size : int
        Bytes of RAM, a multiple of 8.
    cycles_per_tick : int
        As in the configuration the library was built for.

    Only the library for debugging (``sim.model.debug_library_file``) has ``save``, ``restore``,
    ``dump_waves`` and ``dump_stages``; it is slower.

    Members
    -------
    ram : memoryview
        The bytes of RAM. Data that the caches hold may be newer.
    park : memoryview
        The park record's bytes, valid while ``parked``.
    """

    def __init__(self, library: Path, *, ram_size: int, cycles_per_tick: int):
        functions = _load(library)
        self._functions = functions
        self._handle = None
        handle = functions["new"](ram_size, cycles_per_tick)
        if not handle:
            raise VmxlabError(f"no memory for a machine with {ram_size >> 20} MiB of RAM")
        self._handle = handle
        self._status = functions["status"](handle).contents
        self._answer = c_uint64()
        self._answer_place = ctypes.addressof(self._answer)
        self._run, self._access = functions["run"], functions["access"]
        self._resume_and_run = functions["resume_and_run"]
        self.park = memoryview(self._status.park).cast("B")
        address = functions["ram"](handle)
        self.ram = memoryview((c_uint8 * ram_size).from_address(address)).cast("B")

    def __del__(self):
        if self._handle:
            self._functions["delete"](self._handle)
            self._handle = None

    def reset(self) -> None:
        """Power-on: RAM zero, console empty, nothing armed, the hart parked."""
        self._functions["reset"](self._handle)

    @property
    def parked(self) -> bool:
        return bool(self._status.parked)

    @property
    def cycles(self) -> int:
        """Cycles in which time was not frozen, since reset."""
        return self._status.cycles

    @property
    def transition(self) -> int:
        """Transition cycles of all exits before the one the hart is parked for."""
        return self._status.transition

    @property
    def finisher(self) -> int:
        """What was last written to the test finisher."""
        return self._status.finisher

    @property
    def tohost(self) -> int:
        """The value that was last stored to the watched ``tohost``."""
        return self._status.tohost

    def run(self, cycles: int) -> Event:
        """Clock until an event, for at most ``cycles`` cycles."""
        return self._sliced(self._run(self._handle, min(cycles, _SLICE)), cycles)

    def resume_and_run(
        self, pc: int, value: int, rd: int, charge: int, cycles: int, retires: bool = False
    ) -> Event:
        """Send the parked hart on and ``run``."""
        events = self._resume_and_run(
            self._handle, pc, value, rd, charge, min(cycles, _SLICE), retires
        )
        return self._sliced(events, cycles)

    def _sliced(self, events: int, cycles: int) -> Event:
        # Between two slices Python looks at Ctrl-C.
        while events == _BUDGET and cycles > _SLICE:
            cycles -= _SLICE
            events = self._run(self._handle, min(cycles, _SLICE))
        return _EVENTS[events]

    def read(self, address: int, mask: int = 0xFF) -> int:
        """Read a word of the host port. Raises BusError when it is refused."""
        return self._accessed(
            address, self._access(self._handle, address, 0, mask, 0, self._answer_place)
        )

    def write(self, address: int, data: int, mask: int = 0xFF) -> None:
        """Write a word of the host port. Raises BusError when it is refused."""
        self._accessed(
            address, self._access(self._handle, address, 1, mask, data, self._answer_place)
        )

    def repeat_read(self, address: int, count: int) -> bytes:
        """Read the same word of the host port ``count`` times; little-endian."""
        words = (c_uint64 * count)()
        place = ctypes.addressof(words)
        self._accessed(address, self._functions["repeat"](self._handle, address, 0, place, count))
        return bytes(words)

    def repeat_write(self, address: int, data: bytes) -> None:
        """Write the 64-bit words of ``data`` to the same word of the host port, one by one."""
        words = (c_uint64 * (len(data) // 8)).from_buffer_copy(data)
        place, count = ctypes.addressof(words), len(words)
        self._accessed(address, self._functions["repeat"](self._handle, address, 1, place, count))

    def _accessed(self, address: int, result: int) -> int:
        if result == 0:
            return self._answer.value
        if result == 1:
            raise BusError(f"the host port refuses the access to its offset {address:#x}")
        raise MachineError(f"the host port does not answer at its offset {address:#x}")

    def skip(self, cycles: int) -> bool:
        """Let ``cycles`` pass in one step, if the hart is parked and only timers are live."""
        return bool(self._functions["skip"](self._handle, cycles))

    def set_skipping(self, on: bool) -> None:
        """Whether ``skip`` and ``resume_and_run`` may skip; they clock the same cycles if not."""
        self._functions["set_skipping"](self._handle, on)

    def window_request(self) -> tuple[int, bool, int, int]:
        """The waiting device-window access: address, is a write, byte mask, data (in place)."""
        status = self._status
        return (
            status.window_address,
            bool(status.window_write),
            status.window_mask,
            status.window_data,
        )

    def answer_window(self, data: int) -> None:
        self._functions["answer_window"](self._handle, data)

    def window_interrupts(self, lines: int) -> None:
        self._functions["window_interrupts"](self._handle, lines)

    def console(self) -> bytes:
        """All bytes sent since reset."""
        functions = self._functions
        length = functions["console_length"](self._handle)
        return ctypes.string_at(functions["console_bytes"](self._handle), length)

    def type_after(self, text: bytes, keys: bytes) -> None:
        """Deliver ``keys`` once ``text`` has appeared, each byte when the UART has none left.

        Several calls take effect in turn: the next text is looked for behind the one before.
        """
        self._functions["type_after"](self._handle, text, len(text), keys, len(keys))

    def stop_at_text(self, text: bytes) -> None:
        """CONSOLE once, when ``text`` has appeared since reset; an empty text disarms."""
        self._functions["stop_at_text"](self._handle, text, len(text))

    def stop_at_tohost(self, hpa: int | None) -> None:
        """TOHOST when a store of something other than zero to ``hpa`` retires; None disarms."""
        self._functions["stop_at_tohost"](self._handle, hpa or 0, hpa is not None)

    def observe(self, capacity: int) -> None:
        """Keep the newest ``capacity`` retirement records; 0 keeps none and costs nothing."""
        self._functions["observe"](self._handle, capacity)

    def observe_to_file(self, path: Path | None) -> None:
        """Write every retirement record to ``path`` until told None. Raises VmxlabError."""
        if not self._functions["observe_to_file"](self._handle, str(path or "").encode()):
            raise VmxlabError(f"cannot write the retirement trace to {path}")

    def drain(self, most: int) -> bytes:
        """At most ``most`` kept records, oldest first, of RETIREMENT_BYTES each; forgets them."""
        buffer = (c_uint64 * (most * _RETIREMENT_WORDS))()
        count = self._functions["drain"](self._handle, ctypes.addressof(buffer), most)
        return bytes(memoryview(buffer).cast("B")[: count * RETIREMENT_BYTES])

    def log_commits(self, path: Path | None, facts=None, gprs=None) -> None:
        """Write the commit log to ``path`` until told None; see ``sim.commit_log``.

        ``facts`` is a ctypes structure, ``gprs`` are the registers as they stand, if that is known.
        Raises VmxlabError when something cannot be written.
        """
        values = gprs and (c_uint64 * 32)(*gprs)
        places = (structure and ctypes.addressof(structure) for structure in (facts, values))
        if not self._functions["log_commits"](self._handle, os.fsencode(path or ""), *places):
            raise VmxlabError(f"cannot write the commit log{f' to {path}' if path else ''}")

    # The library for debugging.

    def save(self) -> bytes:
        """The state of everything but RAM and observers, for ``restore`` of the same library."""
        functions = self._functions
        state = functions["save"](self._handle)
        saved = ctypes.string_at(functions["state_bytes"](state), functions["state_length"](state))
        functions["free_state"](state)
        return saved

    def restore(self, state: bytes) -> None:
        """Go back to what ``save`` of the same library has given; RAM is left as it is."""
        self._functions["restore"](self._handle, state, len(state))

    def dump_waves(self, path: Path | None, first: int = 0, end: int = 0) -> None:
        """Write an FST of the machine cycles from ``first`` until before ``end``; None closes it.

        Raises VmxlabError when the file cannot be written.
        """
        if not self._functions["dump_waves"](self._handle, os.fsencode(path or ""), first, end):
            raise VmxlabError(f"cannot write the waves to {path}")

    def dump_stages(self, path: Path | None, first: int = 0, end: int = 0) -> None:
        """Write who is where in the pipeline in those cycles; None closes it.

        A record is the cycle and the port ``stages`` of the SoC, in little-endian 64-bit words.
        Raises VmxlabError when the file cannot be written.
        """
        if not self._functions["dump_stages"](self._handle, os.fsencode(path or ""), first, end):
            raise VmxlabError(f"cannot write the pipeline trace to {path}")

    @property
    def lost(self) -> int:
        """Records that had to make room for newer ones since ``observe``."""
        return self._functions["lost"](self._handle)

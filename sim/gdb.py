"""GDB's remote serial protocol on the host port: ``vmxlab run --gdb PORT``, no JTAG in between.

``GdbServer`` speaks the protocol, ``GdbMachine`` is a machine that stops for it.
"""

import select
import socket
from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType

from sim.errors import VmxlabError
from sim.gdb_target import PC, GdbTarget, NotMapped, target_description
from sim.host_machine import HostPortMachine
from sw_vmm.machine import Event, MachineError

__all__ = ["GdbKilled", "GdbMachine", "GdbServer"]

_LOCAL = "127.0.0.1"
_PACKET_SIZE = 0x4000
_INTERRUPT = b"\x03"
#: Cycles between two looks for GDB's Ctrl-C.
_LOOK = 50_000
#: What GDB calls signals.
_SIGINT, _SIGTRAP = 2, 5
_ERROR = "E0e"


class GdbKilled(VmxlabError):
    """The user has ended the guest from GDB."""


class Resume(Enum):
    """How GDB lets the hart go on."""

    STEP = auto()
    CONTINUE = auto()
    DETACH = auto()


class _Gone(Exception):
    """The debugger has hung up."""


class GdbServer:
    """One debugger at a time on a TCP port of this computer; 0 takes a free one (``port``).

    Raises VmxlabError when the port cannot be had.
    """

    def __init__(self, port: int):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((_LOCAL, port))
        except OSError as error:
            self._listener.close()
            raise VmxlabError(f"cannot listen on port {port}: {error.strerror}") from error
        self._listener.listen(1)
        self.port = self._listener.getsockname()[1]
        self._connection: socket.socket | None = None
        self._received = b""
        self._acknowledges = True

    def __enter__(self) -> "GdbServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.hang_up()
        self._listener.close()

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Packets.

    def _need_connection(self) -> bool:
        """Wait for a debugger if there is none; True when a new one has come."""
        if self._connection is not None:
            return False
        self._connection, _ = self._listener.accept()
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received, self._acknowledges = b"", True
        return True

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_PACKET_SIZE)
        except OSError:
            data = b""
        if not data:
            self.hang_up()
            raise _Gone
        self._received += data

    def _send_bytes(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError:
            self.hang_up()
            raise _Gone from None

    def _packet(self) -> str:
        """The next whole packet; interrupts between packets mean nothing to a parked hart."""
        while True:
            start = self._received.find(b"$")
            end = self._received.find(b"#", start)
            if start < 0 or end < 0 or len(self._received) < end + 3:
                self._receive()
                continue
            body, check = self._received[start + 1 : end], self._received[end + 1 : end + 3]
            self._received = self._received[end + 3 :]
            if not self._acknowledges:
                return body.decode("latin-1")
            if check.lower() == b"%02x" % (sum(body) & 0xFF):
                self._send_bytes(b"+")
                return body.decode("latin-1")
            self._send_bytes(b"-")

    def send(self, text: str) -> None:
        body = text.encode("latin-1")
        self._send_bytes(b"$%s#%02x" % (body, sum(body) & 0xFF))

    def interrupted(self) -> bool:
        """While the hart runs: GDB wants it to stop. Also when the debugger is gone."""
        if self._connection is None:
            return True
        try:
            while select.select([self._connection], [], [], 0)[0]:
                self._receive()
        except _Gone:
            return True
        found = _INTERRUPT in self._received
        self._received = self._received.replace(_INTERRUPT, b"")
        return found

    def tell_exit(self, code: int) -> None:
        """The guest has ended."""
        if self._connection is not None:
            try:
                self.send(f"W{code & 0xFF:02x}")
            except _Gone:
                return

    def tell_stop(self, reply: str) -> None:
        if self._connection is not None:
            try:
                self.send(reply)
            except _Gone:
                return

    # A session with a parked hart.

    def serve(self, target: GdbTarget, stop_reply: str) -> Resume:
        """Do what the debugger asks until it lets the hart go on. Raises GdbKilled.

        A debugger that hangs up without detaching may come back, or another one may: the hart
        stays parked, without breakpoints.
        """
        while True:
            if self._need_connection():
                target.remove_all()
            try:
                answer = self._do(self._packet(), target, stop_reply)
                if isinstance(answer, Resume):
                    return answer
                self.send(answer)
            except _Gone:
                continue

    def _do(self, packet: str, target: GdbTarget, stop_reply: str) -> str | Resume:
        try:
            return self._command(packet, target, stop_reply)
        except (MachineError, NotMapped):
            return _ERROR
        except ValueError:
            # Numbers that are none.
            return "E16"

    def _command(self, packet: str, target: GdbTarget, stop_reply: str) -> str | Resume:
        kind, rest = packet[:1], packet[1:]
        match kind:
            case "?":
                return stop_reply
            case "g":
                return "".join(_hex(target.read_register(n)) for n in range(PC + 1))
            case "G":
                for number in range(PC + 1):
                    target.write_register(number, _number(rest[16 * number : 16 * number + 16]))
                return "OK"
            case "p":
                return _hex(target.read_register(int(rest, 16)))
            case "P":
                number, _, value = rest.partition("=")
                target.write_register(int(number, 16), _number(value))
                return "OK"
            case "m":
                place, length = (int(word, 16) for word in rest.split(","))
                return target.read_memory(place, min(length, _PACKET_SIZE // 2)).hex()
            case "M":
                where, _, data = rest.partition(":")
                place, length = (int(word, 16) for word in where.split(","))
                written = bytes.fromhex(data)
                if len(written) != length:
                    raise ValueError
                target.write_memory(place, written)
                return "OK"
            case "Z" | "z":
                form, place, _ = rest.split(",", 2)
                if form != "0":
                    return ""
                (target.insert if kind == "Z" else target.remove)(int(place, 16))
                return "OK"
            case "c" | "s" | "C" | "S":
                place = rest.partition(";")[2] if kind in "CS" else rest
                if place:
                    target.pc = int(place, 16)
                return Resume.CONTINUE if kind in "cC" else Resume.STEP
            case "D":
                self.send("OK")
                return Resume.DETACH
            case "k":
                raise GdbKilled("the guest was killed from GDB")
            case "H" | "T" | "!":
                return "OK"
            case "q" | "Q":
                return self._query(packet)
            case "v":
                return self._multiletter(packet)
        return ""

    def _query(self, packet: str) -> str:
        name, _, rest = packet.partition(":")
        if name == "qSupported":
            return (
                f"PacketSize={_PACKET_SIZE:x};qXfer:features:read+;swbreak+;"
                "vContSupported+;QStartNoAckMode+"
            )
        if name == "QStartNoAckMode":
            self._acknowledges = False
            return "OK"
        if name == "qXfer" and rest.startswith("features:read:target.xml:"):
            first, length = (int(word, 16) for word in rest.rpartition(":")[2].split(","))
            text = target_description()
            part = text[first : first + length]
            return ("m" if first + length < len(text) else "l") + part
        return {"qC": "QC1", "qfThreadInfo": "m1", "qsThreadInfo": "l", "qAttached": "1"}.get(
            name, ""
        )

    def _multiletter(self, packet: str) -> str | Resume:
        if packet == "vCont?":
            return "vCont;c;C;s;S"
        if packet.startswith("vCont;"):
            # There is one thread: the first action is its.
            action = packet.split(";")[1][:1]
            if action in ("c", "C"):
                return Resume.CONTINUE
            if action in ("s", "S"):
                return Resume.STEP
            raise ValueError
        if packet.startswith("vKill"):
            self.send("OK")
            raise GdbKilled("the guest was killed from GDB")
        return ""


class GdbMachine:
    """A machine that runs under a debugger; to whoever runs a guest on it, it just runs.

    The hart stops for the debugger before its first instruction, and whenever that asks for it;
    ``run`` then lasts until the debugger lets it go on. Other events come through as ever. Once
    the guest has ended, or the debugger has detached, the machine is as without one.
    """

    def __init__(self, machine: HostPortMachine, server: GdbServer, say: Callable[[str], None]):
        self._machine = machine
        self._server = server
        self._say = say
        self._forget()

    def _forget(self) -> None:
        self._target: GdbTarget | None = None
        self._alone = False  # no debugger any more
        self._stepping = False
        self._passing = False  # the step is our own: the hart is to go on behind it
        self._stopping = False
        self._parked_seen = False

    def __getattr__(self, name: str):
        return getattr(self._machine, name)

    def reset(self) -> None:
        self._machine.reset()
        self._forget()

    def resume(self, pc: int, **how: int) -> None:
        self._machine.resume(pc, **how)
        if not self._alone and self._target is None:
            self._target = GdbTarget(self._machine)
            self._target.pc = pc
            self._say(f"waiting for GDB: target remote {_LOCAL}:{self._server.port}")

    def tell_exit(self, code: int) -> None:
        """Tell the debugger, if there is one, how the guest has ended."""
        self._server.tell_exit(code)

    def stop(self) -> None:
        """The run is over: whoever asks wants the hart parked."""
        self._end()
        self._machine.stop()

    def _end(self) -> None:
        self._alone = True

    def run(self, cycles: int) -> Event:
        if self._alone or self._target is None:
            return self._run_alone(cycles)
        while True:
            if self._machine.parked and not self._go_on():
                return self._run_alone(cycles)
            part = min(cycles, _LOOK)
            event = self._machine.run(part)
            if event & Event.PARKED:
                self._target.refresh()
                self._target.disarm()
                event &= ~Event.PARKED
            if event & (Event.FINISHED | Event.TOHOST | Event.CONSOLE):
                self._end()
            if event & ~Event.BUDGET:
                return event
            if event:
                cycles -= part
                if not self._stopping and self._server.interrupted():
                    self._stopping = True
                    self._machine.stop()
                if cycles <= 0:
                    return event

    def _run_alone(self, cycles: int) -> Event:
        event = self._machine.run(cycles)
        if event & Event.PARKED and self._target is not None:
            self._target.disarm()
        return event

    def _go_on(self) -> bool:
        """The hart is parked: let it go on, now or when the debugger says so. False: alone."""
        target, machine = self._target, self._machine
        resume = None
        if self._parked_seen:
            resume, reply = self._why()
        else:
            reply = _stop_reply(_SIGTRAP)
        if resume is None:
            if self._parked_seen:
                self._server.tell_stop(reply)
            self._stopping = False
            resume = self._server.serve(target, reply)
        self._parked_seen = True
        self._stepping = self._passing or resume is Resume.STEP
        if resume is Resume.DETACH:
            target.remove_all()
            self._server.hang_up()
            self._end()
        elif resume is Resume.CONTINUE and target.at_breakpoint():
            # The instruction itself first, without breakpoints.
            self._stepping = self._passing = True
        if not self._stepping:
            target.arm()
        machine.host_port.control.write(step=self._stepping)
        machine.resume(target.pc)
        return resume is not Resume.DETACH

    def _why(self) -> tuple[Resume | None, str]:
        """Why the hart has parked: how to go on at once, or what to tell the debugger."""
        passing, self._passing = self._passing, False
        if self._stopping:
            return None, _stop_reply(_SIGINT)
        if self._target.at_breakpoint():
            return None, _stop_reply(_SIGTRAP, "swbreak:;")
        if not passing and self._stepping:
            return None, _stop_reply(_SIGTRAP)
        # An ebreak of the guest's own traps, as it would without a debugger.
        self._passing = not passing
        return Resume.CONTINUE, ""


def _stop_reply(signal: int, reason: str = "") -> str:
    return f"T{signal:02x}thread:1;{reason}"


def _hex(value: int) -> str:
    return value.to_bytes(8, "little").hex()


def _number(text: str) -> int:
    data = bytes.fromhex(text)
    if len(data) != 8:
        raise ValueError
    return int.from_bytes(data, "little")

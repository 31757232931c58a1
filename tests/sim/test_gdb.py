"""The GDB stub: a small client of the remote protocol, and GDB itself where it is installed."""

import re
import shutil
import socket
import subprocess
import threading

import pytest

from rtl.arch.csrs import CSR_BY_NUMBER, CSRS
from rtl.arch.traps import Exception_, Privilege
from rtl.soc.config import SocConfig
from sim.errors import VmxlabError
from sim.gdb import GdbKilled, GdbMachine, GdbServer
from sim.gdb_target import target_description
from sim.library import LibraryMachine
from sw_vmm.machine import Event
from tests.machine.board import RAM, RAM_SIZE, Board, Tables
from tests.machine.words import encode, li

MTVEC, MEPC = CSRS["mtvec"].number, CSRS["mepc"].number
DATA = RAM + 0x8000
FINISHER = 0x10_0000
#: Counts x8 up for ever.
COUNTER = [encode("addi", rd=8, rs1=8, imm=1), encode("addi", rd=9, rs1=9, imm=2)]
LOOP = [*COUNTER, encode("jal", imm=-8)]
#: Writes "passed" to the test finisher.
ENDING = [*COUNTER, *li(5, FINISHER), *li(6, 0x5555), encode("sw", rs1=5, rs2=6), 0x6F]


class Client:
    """As much of a debugger as the tests need."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._data = b""

    def close(self):
        self._socket.close()

    def send(self, text):
        body = text.encode("latin-1")
        self._socket.sendall(b"$%s#%02x" % (body, sum(body) % 256))

    def raw(self, data):
        self._socket.sendall(data)

    def receive(self):
        while not (found := re.search(rb"\$([^#]*)#(..)", self._data, re.DOTALL)):
            data = self._socket.recv(65536)
            assert data, "the stub has hung up"
            self._data += data
        self._data = self._data[found.end() :]
        assert int(found[2], 16) == sum(found[1]) % 256
        self.raw(b"+")
        return found[1].decode("latin-1")

    def ask(self, text):
        self.send(text)
        return self.receive()

    def register(self, number):
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")

    @property
    def pc(self):
        return self.register(32)


class Debugged:
    """A machine that runs in a thread of its own until its budget is used up or it has ended."""

    def __init__(self, machine):
        self.server = GdbServer(0)
        self.machine = GdbMachine(machine, self.server, lambda text: None)
        self.events, self.error = [], None
        self._thread = None
        self._clients = []

    def start(self, *, pc=RAM, cycles=3_000_000):
        def run():
            try:
                self.machine.resume(pc)
                self.events.append(self.machine.run(cycles))
            except VmxlabError as error:
                self.error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        return self.connect()

    def connect(self):
        client = Client(self.server.port)
        self._clients.append(client)
        return client

    def wait(self):
        self._thread.join(60)
        assert not self._thread.is_alive()

    def close(self):
        for client in self._clients:
            client.close()
        self.server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def board():
    return Board(LibraryMachine(SocConfig(), ram_size=RAM_SIZE))


@pytest.fixture
def debugged(board):
    board.reset()
    board.machine.park_on(0, 0)
    debugged = Debugged(board.machine)
    yield debugged
    debugged.close()


def kill(debugged, client):
    client.send("k")
    debugged.wait()


def test_handshake(debugged, board):
    board.put(RAM, *LOOP)
    client = debugged.start()
    supported = client.ask("qSupported:multiprocess+;swbreak+")
    assert "qXfer:features:read+" in supported
    assert "swbreak+" in supported
    assert client.ask("?") == "T05thread:1;"
    assert client.ask("vCont?") == "vCont;c;C;s;S"
    assert client.ask("vMustReplyEmpty") == ""
    assert client.ask("qfThreadInfo") == "m1"
    assert client.ask("QStartNoAckMode") == "OK"
    assert client.pc == RAM
    kill(debugged, client)
    assert isinstance(debugged.error, GdbKilled)


def test_the_description_names_every_csr(debugged, board):
    board.put(RAM, *LOOP)
    client = debugged.start()
    text, first = "", 0
    while True:
        part = client.ask(f"qXfer:features:read:target.xml:{first:x},{999:x}")
        text, first = text + part[1:], first + len(part) - 1
        if part[0] == "l":
            break
    assert text == target_description()
    for number, csr in CSR_BY_NUMBER.items():
        assert re.search(rf'name="{csr.name}"[^/]*regnum="{65 + number}"', text)
    kill(debugged, client)


def test_registers_are_read_and_written(debugged, board):
    board.put(RAM, *LOOP)
    client = debugged.start()
    values = [0] + [number << 40 | 7 for number in range(1, 32)] + [RAM + 4]
    packet = "G" + "".join(value.to_bytes(8, "little").hex() for value in values)
    assert client.ask(packet) == "OK"
    assert client.ask("g") == packet[1:]
    assert client.ask(f"P{65 + MTVEC:x}={(RAM + 0x40).to_bytes(8, 'little').hex()}") == "OK"
    assert client.register(65 + MTVEC) == RAM + 0x40
    assert client.register(65 + 4096) == Privilege.MACHINE
    assert client.ask(f"P{65 + CSRS['cycle'].number:x}=0000000000000000") == "E0e"
    assert client.ask(f"p{65 + 0x7FF:x}") == "E0e"
    assert client.ask("s").startswith("T05")
    assert client.pc == RAM + 8
    assert client.register(9) == values[9] + 2
    kill(debugged, client)


def test_memory_is_read_and_written_coherently(debugged, board):
    """What the hart has just stored is seen; what is written is fetched and loaded next."""
    board.put(RAM, encode("sd", rs1=5, rs2=6), encode("ld", rd=7, rs1=5), *LOOP)
    board.machine.write_gpr(5, DATA)
    board.machine.write_gpr(6, 0x1234_5678)
    client = debugged.start()
    client.ask("s")
    assert client.ask(f"m{DATA:x},8") == (0x1234_5678).to_bytes(8, "little").hex()
    assert client.ask(f"M{DATA + 1:x},3:aabbcc") == "OK"
    client.ask("s")
    assert client.register(7) == 0xCCBBAA78
    word = encode("addi", rd=20, imm=77).to_bytes(4, "little").hex()
    assert client.ask(f"M{RAM + 8:x},4:{word}") == "OK"
    client.ask("s")
    assert client.register(20) == 77
    assert client.ask("m70000000,8") == "E0e"
    assert client.ask(f"M{DATA:x},4:00") == "E16"
    assert client.ask("mnonsense,8") == "E16"
    # A range that leaves memory is read as far as it goes.
    end = RAM + RAM_SIZE
    assert len(client.ask(f"m{end - 8:x},20")) in (16, 64)
    kill(debugged, client)


def test_a_breakpoint_stops_and_leaves_no_trace(debugged, board):
    board.put(RAM, *LOOP)
    client = debugged.start()
    before = client.ask(f"m{RAM:x},c")
    traps = [client.register(65 + CSRS[name].number) for name in ("mepc", "mcause", "mstatus")]
    assert client.ask(f"Z0,{RAM + 4:x},4") == "OK"
    for round_ in range(1, 4):
        assert client.ask("vCont;c") == "T05thread:1;swbreak:;"
        assert client.pc == RAM + 4
        assert client.register(8) == round_
        assert client.register(9) == 2 * (round_ - 1)
        assert client.ask(f"m{RAM:x},c") == before
    assert traps == [
        client.register(65 + CSRS[name].number) for name in ("mepc", "mcause", "mstatus")
    ]
    assert client.ask(f"z0,{RAM + 4:x},4") == "OK"
    assert client.ask(f"Z0,{RAM + 8:x},4") == "OK"
    assert client.ask("c") == "T05thread:1;swbreak:;"
    assert client.pc == RAM + 8
    assert client.ask("Z0,70000000,4") == "E0e"
    assert client.ask(f"Z1,{RAM:x},4") == ""
    kill(debugged, client)


def test_a_loop_of_one_instruction_hits_each_time(debugged, board):
    board.put(RAM, encode("jal", imm=0))
    client = debugged.start()
    client.ask(f"Z0,{RAM:x},4")
    for _ in range(3):
        assert client.ask("c") == "T05thread:1;swbreak:;"
        assert client.pc == RAM
    kill(debugged, client)


def test_steps(debugged, board):
    board.put(RAM, *LOOP)
    client = debugged.start()
    pcs = []
    for _ in range(7):
        assert client.ask("vCont;s:1") == "T05thread:1;"
        pcs.append(client.pc - RAM)
    assert pcs == [4, 8, 0, 4, 8, 0, 4]
    # A step on to a breakpoint, and one away from it.
    client.ask(f"Z0,{RAM + 8:x},4")
    assert client.ask("s") == "T05thread:1;swbreak:;"
    assert client.ask("s") == "T05thread:1;"
    assert client.pc == RAM
    kill(debugged, client)


def test_control_c_stops_a_running_guest(debugged, board):
    board.put(RAM, *LOOP)
    client = debugged.start(cycles=1 << 40)
    client.send("c")
    client.raw(b"\x03")
    assert client.receive() == "T02thread:1;"
    count = client.register(8)
    assert client.pc in (RAM, RAM + 4, RAM + 8)
    client.send("c")
    client.raw(b"\x03")
    assert client.receive() == "T02thread:1;"
    assert client.register(8) >= count
    kill(debugged, client)


def test_the_guests_own_ebreak_traps(debugged, board):
    """With breakpoints elsewhere, it goes to the guest's handler, where one may stand."""
    handler = RAM + 0x100
    board.put(RAM, COUNTER[0], encode("ebreak"), *LOOP)
    board.put(handler, *COUNTER, encode("jal", imm=0))
    board.set_csr("mtvec", handler)
    client = debugged.start()
    client.ask(f"Z0,{handler + 4:x},4")
    assert client.ask("c") == "T05thread:1;swbreak:;"
    assert client.pc == handler + 4
    assert client.register(65 + MEPC) == RAM + 4
    assert client.register(65 + CSRS["mcause"].number) == Exception_.BREAKPOINT
    kill(debugged, client)


def test_the_first_instruction_of_the_handler_of_an_ebreak_can_be_a_breakpoint(debugged, board):
    handler = RAM + 0x100
    board.put(RAM, encode("ebreak"))
    board.put(handler, *LOOP)
    board.set_csr("mtvec", handler)
    client = debugged.start()
    client.ask(f"Z0,{handler:x},4")
    assert client.ask("c") == "T05thread:1;swbreak:;"
    assert client.pc == handler
    kill(debugged, client)


def test_addresses_are_virtual_below_machine_mode(debugged, board):
    tables = Tables(board, RAM + 0x10000)
    code, data = 0x4000_0000, 0x5000_0000
    tables.map(code, RAM, u=1, r=0, w=0)
    tables.map(data + 0x1000, DATA, u=1)
    tables.map(data, DATA + 0x3000, u=1)
    board.put(RAM, *LOOP)
    board.machine.write_memory(DATA, b"AB")
    board.machine.write_memory(DATA + 0x3FFE, b"ab")
    board.set_csr("satp", tables.satp)
    board.machine.write_privilege(Privilege.USER)
    client = debugged.start(pc=code)
    assert client.register(65 + 4096) == Privilege.USER
    assert bytes.fromhex(client.ask(f"m{data + 0xFFE:x},4")) == b"abAB"
    assert client.ask(f"Z0,{code + 4:x},4") == "OK"
    assert client.ask("c") == "T05thread:1;swbreak:;"
    assert client.pc == code + 4
    assert client.ask(f"m{RAM:x},4") == "E0e"
    assert client.ask(f"P{65 + 4096:x}=0300000000000000") == "OK"
    # Seen from M-mode: plain addresses, and those that only the tables have.
    assert client.ask(f"m{RAM:x},4") == COUNTER[0].to_bytes(4, "little").hex()
    assert bytes.fromhex(client.ask(f"m{data + 0x1000:x},2")) == b"AB"
    kill(debugged, client)


def test_the_end_of_the_guest_comes_through(debugged, board):
    board.put(RAM, *ENDING)
    client = debugged.start()
    client.ask(f"Z0,{RAM + 4:x},4")
    client.ask("c")
    client.send("c")
    debugged.wait()
    assert debugged.events == [Event.FINISHED]
    debugged.machine.tell_exit(3)
    assert client.receive() == "W03"
    debugged.machine.stop()
    while not board.machine.parked:
        debugged.machine.run(1_000)
    # Memory is what the guest has made of it: no breakpoint is left.
    assert board.machine.read_memory(RAM + 4, 4) == COUNTER[1].to_bytes(4, "little")


def test_after_a_detach_the_guest_goes_on_alone(debugged, board):
    board.put(RAM, *ENDING)
    client = debugged.start()
    client.ask(f"Z0,{RAM + 4:x},4")
    client.ask("c")
    assert client.ask("D") == "OK"
    debugged.wait()
    assert debugged.events == [Event.FINISHED]


def test_a_debugger_that_hangs_up_can_come_back(debugged, board):
    board.put(RAM, *LOOP)
    client = debugged.start(cycles=1 << 40)
    client.ask(f"Z0,{RAM + 4:x},4")
    client.ask("c")
    client.close()
    again = debugged.connect()
    assert again.ask("?") == "T05thread:1;swbreak:;"
    assert again.pc == RAM + 4
    again.send("c")
    again.close()
    third = debugged.connect()
    assert third.ask("?") == "T02thread:1;"
    kill(debugged, third)


def test_a_damaged_packet_is_asked_for_again(debugged, board):
    board.put(RAM, *LOOP)
    client = debugged.start()
    client.raw(b"noise$?#00")
    client.raw(b"$?#3f")
    assert client.receive() == "T05thread:1;"
    assert client.pc == RAM
    kill(debugged, client)


def test_a_port_in_use_is_one_line():
    with GdbServer(0) as first, pytest.raises(VmxlabError, match=r"^cannot listen on port [^\n]+$"):
        GdbServer(first.port)


def test_a_run_under_a_debugger_gives_the_same_results(debugged, board):
    """The guest's registers and memory; only the time it stood still is different."""
    board.put(RAM, *ENDING)
    client = debugged.start()
    for place in range(0, 16, 4):
        client.ask(f"Z0,{RAM + place:x},4")
    for _ in range(3):
        client.ask("c")
    client.ask("D")
    debugged.wait()
    debugged.machine.stop()
    while not board.machine.parked:
        debugged.machine.run(1_000)
    assert [board.machine.read_gpr(n) for n in (5, 6, 8, 9)] == [FINISHER, 0x5555, 1, 2]


@pytest.mark.skipif(not shutil.which("gdb-multiarch"), reason="gdb-multiarch is not installed")
def test_gdb_itself(debugged, board):
    board.put(RAM, *LOOP)
    debugged.start().close()
    commands = [
        "set confirm off",
        "set architecture riscv:rv64",
        f"target remote 127.0.0.1:{debugged.server.port}",
        f"break *{RAM + 8:#x}",
        "continue",
        "info registers pc s0 mtvec priv",
        "stepi",
        "x/2i $pc",
        "set $s0 = 1000",
        "continue",
        "print $s0",
        "kill",
    ]
    arguments = [word for command in commands for word in ("-ex", command)]
    result = subprocess.run(
        ["gdb-multiarch", "-nx", "-batch", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    debugged.wait()
    said = result.stdout + result.stderr
    assert re.search(rf"Breakpoint 1, {RAM + 8:#018x}", said), said
    assert re.search(r"s0|fp", said)
    assert "prv:3" in said
    assert re.search(r"addi?\s+s0,s0,1", said), said
    assert "$1 = (void *) 0x3e9" in said or "$1 = 1001" in said, said

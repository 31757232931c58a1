"""QEMU's log of every instruction, and the model driven beside it."""

import re
import shutil
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from rtl.arch.csrs import CSRS, DELEGABLE_EXCEPTIONS, DELEGABLE_INTERRUPTS, INTERRUPTS, MSTATUS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.traps import Exception_, Privilege
from sim.disassembler import disassemble
from sim.golden import Hart

__all__ = ["Difference", "Root", "State", "follow", "needs_qemu", "run_qemu"]

RAM = MEMORY_MAP["ram"]
RAM_SIZE = 32 << 20
_COMMAND = (
    "qemu-system-riscv64 -M virt -bios none -nographic -icount shift=0 -monitor none -serial none "
    f"-m {RAM_SIZE >> 20}M -singlestep -d nochain,cpu,int"
)
_SECONDS = 20
_VERSION = "7.2"
_LINE = re.compile(r"^ (\w+) +([0-9a-f]{16})$", re.MULTILINE)
_REGISTER = re.compile(r" x(\d+)/\w+ +([0-9a-f]{16})")
_TRAP = re.compile(r"async:(\d), cause:([0-9a-f]+), epc:0x([0-9a-f]+), tval:0x([0-9a-f]+)")


def _missing() -> str | None:
    """Why there is no QEMU to compare with, or None."""
    program = _COMMAND.split()[0]
    if not shutil.which(program):
        return f"{program} is not installed (Debian package qemu-system-misc)"
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if f"version {_VERSION}." not in told:
        return f"what QEMU does otherwise is known for {_VERSION}, this is {told.splitlines()[0]}"
    return None


needs_qemu = pytest.mark.skipif(_missing() is not None, reason=str(_missing()))

#: CSRs that are compared, and the bits in which QEMU means the same.
_COMPARED = {
    "mstatus": -1,
    "mie": -1,
    "mip": INTERRUPTS.mask("ssi"),
    "mideleg": DELEGABLE_INTERRUPTS,
    "medeleg": DELEGABLE_EXCEPTIONS,
    **dict.fromkeys(
        [
            "mtvec",
            "stvec",
            "mepc",
            "sepc",
            "mcause",
            "scause",
            "mtval",
            "stval",
            "mscratch",
            "sscratch",
            "satp",
        ],
        -1,
    ),
}

_READ_FAULTS = {
    Exception_.LOAD_ACCESS_FAULT: Exception_.STORE_ACCESS_FAULT,
    Exception_.LOAD_PAGE_FAULT: Exception_.STORE_PAGE_FAULT,
}
_MPRV = MSTATUS["mprv"].mask
_INSTRET = {CSRS[name].number for name in ("instret", "minstret")}


class QemuTrap(NamedTuple):
    """A trap as QEMU logs it."""

    interrupt: bool
    cause: int
    pc: int
    value: int


class State(NamedTuple):
    """What QEMU shows before an instruction, and the traps taken since the state before."""

    pc: int
    x: list[int]
    csrs: dict[str, int]
    traps: tuple[QemuTrap, ...]


class Difference(AssertionError):
    """Model and QEMU disagree; the message says where."""


def run_qemu(
    program: Path | bytes, cpu: str = "rv64,f=off,d=off,h=off,priv_spec=v1.12.0"
) -> list[State]:
    """All states of a program, an ELF file or bytes for the start of RAM, from there on.

    It ends by the test finisher.
    """
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "log")
        if isinstance(program, bytes):
            image = Path(scratch, "image")
            image.write_bytes(program)
            load = ["-device", f"loader,file={image},addr={RAM.base:#x}"]
        else:
            load = ["-kernel", str(program)]
        result = subprocess.run(
            [*_COMMAND.split(), "-cpu", cpu, "-D", str(log), *load],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert not result.stderr, result.stderr
        blocks = log.read_text().split("\n pc  ")
    states, traps = [], ()
    for block in blocks[1:]:
        block = f" pc  {block}"
        named = {name: int(value, 16) for name, value in _LINE.findall(block)}
        x = [int(value, 16) for _, value in _REGISTER.findall(block)]
        if len(x) < 32:  # the log ends here
            break
        state = State(named["pc"], x, named, traps)
        # An access to a device ends the instruction, which QEMU then shows once more.
        if not states or traps or state[:3] != states[-1][:3]:
            states.append(state)
        traps = tuple(
            QemuTrap(async_ == "1", *(int(number, 16) for number in numbers))
            for async_, *numbers in _TRAP.findall(block)
        )
    return states[next(n for n, state in enumerate(states) if state.pc == RAM.base) :]


class _Outside:
    """Answers what QEMU's devices and counters answered."""

    def __init__(self):
        self.hart = None
        self.after: State | None = None

    def _answer(self):
        return self.after.x[self.hart.executed.rd] if self.hart.executed.rd < 32 else 0

    @property
    def _faults(self):
        return any(not trap.interrupt for trap in self.after.traps)

    def read(self, hpa, size):
        if self._faults:
            return None
        return self._answer() & (1 << 8 * size) - 1

    def write(self, hpa, size, value):
        return not (self._faults)

    def counter(self, name):
        return self._answer()

    def lines(self):
        return self._answer()


class Root:
    """A hart that runs the program itself."""

    def __init__(self, outside):
        self.hart = Hart(RAM_SIZE, outside, updates=True)

    def write(self, address: int, data: bytes) -> None:
        """Memory, as the program sees it."""
        self.hart.memory.write_physical(address, data)

    def step(self) -> None:
        """An instruction of the program."""
        self.hart.step()


def follow(states: list[State], segments, runner=Root) -> int:
    """Drive the model along; the number of instructions it agreed on. Raises Difference."""
    outside = _Outside()
    machine = runner(outside)
    hart = outside.hart = machine.hart
    for base, data in segments:
        machine.write(base, data)
    first = states[0]
    hart.pc, hart.x[1:32] = first.pc, first.x[1:]
    steps = 0
    for before, after in pairwise(states):
        outside.after = after
        traps = list(after.traps)
        # QEMU may show a state, and take an interrupt before the instruction.
        if not (traps and traps[0].interrupt and traps[0].pc == before.pc):
            if hart.due >= 0:
                _differ(hart, before, [f"interrupt {hart.due} against none"])
            machine.step()
            steps += 1
            i = hart.executed
            if (
                i is not None
                and i.name.startswith("csr")
                and i.bits >> 20 in _INSTRET
                and i.rd < 32
            ):
                # With -icount QEMU counts otherwise.
                hart.x[i.rd] = after.x[i.rd]
            if hart.trapped:
                _agree_on_trap(hart, before, traps.pop(0) if traps else None)
        # A fault of a fetch, and an interrupt, come before QEMU shows the next state.
        for trap in traps:
            if trap.interrupt:
                hart.interrupt(trap.cause)
            else:
                machine.step()
                _agree_on_trap(hart, before, trap)
        _compare(hart, before, after)
    return steps


def _agree_on_trap(hart, before, trap):
    expected = (trap.cause, trap.value) if trap else None
    if trap and trap.cause == Exception_.BREAKPOINT:
        # QEMU 7.2 writes zero; the address is allowed, too.
        expected = (trap.cause, trap.pc)
        values = hart.csr.values
        values["stval" if hart.privilege == Privilege.SUPERVISOR else "mtval"] = 0
    i = hart.executed
    if trap and i is not None and i.name.startswith("amo") and trap.cause in _READ_FAULTS:
        # QEMU 7.2 with -icount reads first, and faults as a load does.
        expected = (_READ_FAULTS[trap.cause], trap.value)
        values = hart.csr.values
        values["scause" if hart.privilege == Privilege.SUPERVISOR else "mcause"] = trap.cause
    if hart.trapped != expected:
        _differ(hart, before, [f"trap {hart.trapped} against {expected}"])


def _compare(hart, before, after):
    wrong = []
    if hart.pc != after.pc:
        wrong.append(f"pc {hart.pc:#x} against {after.pc:#x}")
    for number in range(1, 32):
        if hart.x[number] != after.x[number]:
            wrong.append(f"x{number} {hart.x[number]:#x} against {after.x[number]:#x}")
    for name, mask in _COMPARED.items():
        # QEMU leaves out satp where it cannot be read (mstatus.TVM).
        mine, other = hart.csr.values[name], after.csrs.get(name)
        if other is None:
            continue
        if name in ("mtvec", "stvec") and mine != other and other == before.csrs[name]:
            # QEMU 7.2 ignores a write with a reserved mode; the hart keeps the base.
            assert hart.executed.name.startswith("csrr")
            hart.csr.values[name] = other
        elif name == "mstatus" and mine ^ other == _MPRV and hart.executed.name in ("mret", "sret"):
            # QEMU 7.2 keeps MPRV below M-mode.
            hart.csr.values[name] = other
            hart.switched()
        elif mine & mask != other & mask:
            wrong.append(f"{name} {mine:#x} against {other:#x}")
    if wrong:
        _differ(hart, before, wrong)


def _differ(hart, before, wrong):
    i = hart.executed
    text = disassemble(i.bits, before.pc) if i else "(not fetched)"
    raise Difference(f"{before.pc:#x} {text}: model against QEMU: {'; '.join(wrong)}")

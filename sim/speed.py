"""make speed: how fast the simulation is, in time of the computer it runs on.

Every other figure of the project is in simulated cycles; these depend on the computer and on what
else it does.
"""

import argparse
import sys
import time
from collections.abc import Callable

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.traps import Exception_, Privilege
from rtl.soc.config import CONFIGURATIONS
from sim.cli.session import open_machine, run_guest
from sim.elf import Image
from sim.errors import VmxlabError
from sim.guests import Guest
from sim.profile import Table, print_table
from sw_vmm.assembler import Assembler
from sw_vmm.ept import Ept, MemorySlot, PageAllocator
from sw_vmm.event_counters import EventCounters
from sw_vmm.machine import Event, Machine, MachineError
from sw_vmm.vmcs import VMCS_REGION, Vmcs, control_word, execute, reset_state, start_vmx

__all__ = [
    "exit_seconds",
    "guest_transition_seconds",
    "main",
    "run_seconds",
    "transition_seconds",
]

_CODE = MEMORY_MAP["ram"].base
_RAM_SIZE = 1 << 20
_T0, _T1 = 5, 6


def _compute(code: Assembler) -> None:
    for _ in range(8):
        code.add("add", rd=_T0, rs1=_T0, rs2=_T1)
        code.add("xori", rd=_T1, rs1=_T0, imm=0x55)


def _read_csr(code: Assembler) -> None:
    code.add("csrrs", rd=_T0, rs1=0, csr=CSRS["mscratch"].number)


def _read_event_counter(code: Assembler) -> None:
    code.add("csrrs", rd=_T0, rs1=0, csr=CSRS["mhpmcounter3"].number)


def _read_device(code: Assembler) -> None:
    code.add("lbu", rd=_T0, rs1=_T1, imm=5)


def _call(code: Assembler) -> None:
    code.add("ecall")


def _loop(body: Callable[[Assembler], None]) -> bytes:
    """``body`` for ever, with the UART's address in t1."""
    code = Assembler(_CODE)
    code.load_address(_T1, MEMORY_MAP["uart"].base)
    code.label("again")
    body(code)
    code.add("jal", rd=0, to="again")
    return code.assemble()


def run_seconds(machine: Machine, body, technique: str, cycles: int) -> tuple[float, int]:
    """Seconds for ``cycles`` cycles of a loop under a technique, and its exits."""
    guest = Guest("loop", (Image(_CODE, ((_CODE, _loop(body)),)),), _RAM_SIZE, cycles)
    run = run_guest(machine, guest, technique, quiet=True)
    return run.seconds, sum(row.count for row in run.result.exits.values())


def exit_seconds(machine: Machine, body, technique: str, cycles: int) -> float:
    """Seconds per exit under a technique: the hart's cycles, the VMM's Python and its charge."""
    seconds, exits = run_seconds(machine, body, technique, cycles)
    return seconds / exits


def transition_seconds(machine: Machine, exits: int) -> float:
    """Seconds per park and resume of a U-mode loop of ``ecall``, with no VMM and no charge."""
    machine.reset()
    machine.park_on(1 << Exception_.ECALL_FROM_USER, 0)
    machine.write_privilege(Privilege.USER)
    machine.write_memory(_CODE, _loop(_call))
    machine.resume(_CODE)
    return _resuming_seconds(machine, exits)


def guest_transition_seconds(machine: Machine, body, exits: int) -> float:
    """The same for a guest in a loop of ``body``, whose first instruction exits."""
    machine.reset()
    machine.write_memory(_CODE, _loop(body))
    start_vmx(machine)
    half = _RAM_SIZE // 2
    allocator = PageAllocator(range(_CODE + half, _CODE + _RAM_SIZE))
    vmcs = Vmcs(machine, allocator.take(VMCS_REGION))
    ept = Ept(machine, allocator, [MemorySlot(_CODE, _CODE, half)])
    ept.fill_all()
    vmcs.load()
    vmcs.update(
        **reset_state()
        | EventCounters().bitmaps
        | {
            "execution_controls": control_word(
                "execution_controls", "enable_vpid", "use_csr_bitmap"
            ),
            "eptp": ept.eptp,
            "vpid": 1,
            "guest_pc": _CODE,
            "host_pc": allocator.take(),
        }
    )
    execute(machine, "vmlaunch")
    return _resuming_seconds(machine, exits)


def _resuming_seconds(machine: Machine, exits: int) -> float:
    machine.run(_RAM_SIZE)
    started = time.monotonic()
    for _ in range(exits):
        machine.resume(machine.park.pc + 4, retires=True)
        if machine.run(_RAM_SIZE) != Event.PARKED:
            raise MachineError("the loop did not park")
    return (time.monotonic() - started) / exits


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make speed", description=__doc__)
    parser.add_argument("--cycles", type=int, default=5_000_000, help="cycles of the longest run")
    cycles = parser.parse_args(arguments).cycles
    if cycles < 100_000:
        parser.error("--cycles: at least 100000 are needed")
    try:
        machine = open_machine(_RAM_SIZE)
        seconds, _ = run_seconds(machine, _compute, "native", cycles)
        transition = transition_seconds(machine, cycles // 1000)
        rows = [
            ("simulated clock, cached code", f"{cycles / seconds / 1e6:.2f} MHz"),
            ("park and resume alone", f"{transition * 1e6:.1f} us"),
        ]
        for name, body in (("CSR", _read_csr), ("MMIO", _read_device)):
            whole = exit_seconds(machine, body, "trap-emulate", cycles // 5)
            rows.append((f"{name} exit under trap-emulate", f"{whole * 1e6:.1f} us"))
        machine = open_machine(_RAM_SIZE, CONFIGURATIONS["vmx"])
        seconds, _ = run_seconds(machine, _compute, "native", cycles)
        rows.append(("simulated clock with the extension", f"{cycles / seconds / 1e6:.2f} MHz"))
        for name, body in (("CSR", _read_event_counter), ("MMIO", _read_device)):
            alone = guest_transition_seconds(machine, body, cycles // 1000)
            rows.append((f"{name} exit of a guest without a VMM", f"{alone * 1e6:.1f} us"))
            whole = exit_seconds(machine, body, "vmx-ept", cycles // 5)
            rows.append((f"{name} exit under vmx-ept", f"{whole * 1e6:.1f} us"))
    except (VmxlabError, MachineError, OSError) as error:
        print(f"vmxlab: {error}", file=sys.stderr)
        return 1
    print_table(Table("", ("what", "time"), tuple(rows)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

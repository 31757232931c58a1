"""Building bare RISC-V programs with the clang that the ``ziglang`` package carries."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from sim.cache import build_folder, cached, hash_of, sources_hash
from sim.errors import VmxlabError

__all__ = [
    "TARGET_FLAGS",
    "build_linux_program",
    "build_program",
    "compiler_command",
    "compiler_environment",
    "compiler_version",
]

_FLAGS = (
    "-mcpu=generic_rv64+m+a+c",
    "-mabi=lp64",
    "-nostdlib",
    "-static",
    "-ffreestanding",
    "-fno-sanitize=all",
    "-fno-stack-protector",
    "-fno-pic",
)
#: RV64IMAC without an operating system, loaded at any address within 2 GiB.
TARGET_FLAGS = (
    "-target",
    "riscv64-freestanding-none",
    "-mcmodel=medany",
    *_FLAGS,
)
#: The same hart under Linux; stripped, so that no path of a file gets into the program.
_LINUX_FLAGS = ("-target", "riscv64-linux-musl", *_FLAGS, "-s")


def compiler_version() -> str | None:
    """Version of the ziglang package, or None when it is not installed."""
    return version("ziglang") if importlib.util.find_spec("ziglang") else None


def compiler_command() -> list[str]:
    """The C compiler, to be followed by its arguments. Raises VmxlabError when there is none."""
    if compiler_version() is None:
        raise VmxlabError(
            "no RISC-V compiler: install the Python package 'ziglang' (pip install ziglang)"
        )
    return [sys.executable, "-m", "ziglang", "cc"]


def compiler_environment() -> dict[str, str]:
    """The environment for the compiler: what it caches lies with the other build products."""
    folder = str(build_folder() / "zig")
    return os.environ | {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}


def build_program(
    name: str,
    sources: Sequence[Path],
    *,
    script: Path,
    headers: Sequence[Path] = (),
    defines: Mapping[str, int] | None = None,
    flags: Sequence[str] = (),
) -> Path:
    """The ELF file linked from ``sources`` by the linker script ``script``; built once.

    ``defines`` are macros of the sources and symbols of the linker script. The result is cached
    under a key of everything it is made from: ``headers`` name the files the sources include. Two processes may build the same program at once. Raises VmxlabError
    with the compiler's first complaint when it does not build.
    """
    defines = defines or {}
    macros = [f"-D{symbol}={value:#x}" for symbol, value in defines.items()]
    # zig cc passes no --defsym on.
    symbols = "".join(f"{symbol} = {value:#x};\n" for symbol, value in defines.items())
    return _built(
        name,
        sources,
        [*headers, script],
        [*TARGET_FLAGS, "-O2", *macros, *flags],
        lambda: symbols + script.read_text(),
    )


def build_linux_program(
    name: str, sources: Sequence[Path], *, headers: Sequence[Path] = (), flags: Sequence[str] = ()
) -> Path:
    """As ``build_program``, for a static program of Linux without a C library.

    The kernel's own headers are there to be included.
    """
    return _built(name, sources, headers, [*_LINUX_FLAGS, "-O2", *flags], None)


def _built(name, sources, headers, arguments, script):
    sources = [Path(source) for source in sources]
    inputs = [*sources, *headers]
    for file in inputs:
        if not file.is_file():
            raise VmxlabError(f"{name}: source file {file} does not exist")
    command = compiler_command()
    key = hash_of(name, str(compiler_version()), sources_hash(inputs), *arguments)

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            more = []
            if script is None:
                more += [f"-isystem{folder}" for folder in _linux_headers()]
            else:
                layout = Path(scratch, "program.ld")
                layout.write_text(script())
                more += [f"-Wl,-T,{layout}"]
            elf = str(folder / f"{name}.elf")
            result = subprocess.run(
                [*command, *arguments, *more, "-o", elf, *map(str, sources)],
                capture_output=True,
                text=True,
                env=compiler_environment(),
                check=False,
            )
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if line.strip()]
            complaint = next((line for line in lines if "error" in line), "".join(lines[:1]))
            raise VmxlabError(f"{name} does not build: {complaint or 'the compiler failed'}")

    return cached("programs", key, build) / f"{name}.elf"


def _linux_headers():
    """Where the ziglang package keeps the kernel's headers; zig leaves them out with -nostdlib."""
    package = Path(importlib.util.find_spec("ziglang").origin).parent
    return [package / "lib/libc/include" / name for name in ("riscv-linux-any", "any-linux-any")]

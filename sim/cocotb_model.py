"""The SoC as a cocotb simulation: built once per configuration, tests run by cocotb's runner.

The one place that knows ``cocotb_tools.runner``. It is not used to build: it would make every
signal public (``--public-flat-rw``), which makes what Amaranth writes compile and run many times
slower. Here only the top's ports are public, and the build is ours, cached like the library.
"""

import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rtl.soc.config import SocConfig
from sim.cache import cached, hash_of, sources_hash
from sim.errors import ToolMissing
from sim.model import COMPILER_KEY, HARNESS, TOP_NAME, Builder, verilate, verilog_folder
from sim.progress import progress
from sim.tools import tool_versions

__all__ = ["CONFIGURATION", "CocotbModel", "cocotb_model"]

#: Environment variable that tells the simulation which machine it is.
CONFIGURATION = "VMXLAB_CONFIGURATION"
_RUNTIME = (
    "verilated.cpp",
    "verilated_dpi.cpp",
    "verilated_threads.cpp",
    "verilated_vpi.cpp",
)


@dataclass(frozen=True)
class CocotbModel:
    """A built simulation.

    Members
    -------
    folder : Path
        Where it lies.
    config : SocConfig
        What it was built for.
    """

    folder: Path
    config: SocConfig

    def run(
        self,
        test_module: str | Sequence[str],
        *,
        folder: Path,
        testcase: str | Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run the cocotb tests of ``test_module``; ``folder`` takes log and results.

        Raises AssertionError that names the tests that failed and shows the end of the log.
        """
        from cocotb_tools.runner import get_runner

        folder.mkdir(parents=True, exist_ok=True)
        log, results = folder / "simulation.log", folder / "results.xml"
        # The runner exits when a test failed or the simulator did; the results tell.
        with suppress(SystemExit):
            get_runner("verilator").test(
                test_module=test_module,
                testcase=testcase,
                hdl_toplevel=TOP_NAME,
                hdl_toplevel_lang="verilog",
                build_dir=self.folder,
                test_dir=folder,
                results_xml=str(results.absolute()),
                log_file=log,
                extra_env={
                    **(environment or {}),
                    CONFIGURATION: json.dumps(self.config.as_dict()),
                },
            )
        _check(results, log)


def cocotb_model(
    config: SocConfig, soc: Builder | None = None, *, sources: tuple[Path, ...] = ()
) -> CocotbModel:
    """The simulation of the machine ``config``, built if it is not in the cache.

    Parameters as of ``sim.model.library_file``. Raises ToolMissing or BuildError.
    """
    if importlib.util.find_spec("cocotb") is None:
        raise ToolMissing("the Python package cocotb is missing; install it (pip install cocotb)")
    import cocotb
    import cocotb_tools.config

    main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    libraries = cocotb_tools.config.libs_dir
    with progress("Building the cocotb machine") as say:
        arguments = (config,) if soc is None else (config, soc)
        verilog = verilog_folder(*arguments, sources=sources, say=say)
        harness = [HARNESS / name for name in ("ram.cpp", "ram.h", "ram.sv", "bits.h")]
        key = hash_of(
            sources_hash([verilog / "top.v", main, *harness, Path(__file__)]),
            repr((tool_versions(), cocotb.__version__, str(libraries), COMPILER_KEY)),
        )

        def build(folder: Path) -> None:
            ports = folder / "ports.vlt"
            ports.write_text(_public_ports((verilog / "top.v").read_text()))
            verilate(
                verilog,
                folder,
                output=TOP_NAME,
                flags=("--vpi", "--timescale", "1ns/1ns", ports),
                sources=[main, HARNESS / "ram.cpp"],
                runtime=_RUNTIME,
                # Python inside the simulation calls the RAM's functions: export-dynamic.
                linking=(
                    "-Wl,--export-dynamic",
                    f"-Wl,-rpath,{libraries}",
                    f"-L{libraries}",
                    "-lcocotbvpi_verilator",
                    "-lpthread",
                ),
                say=say,
            )

        return CocotbModel(cached("cocotb", key, build), config)


def _public_ports(verilog: str) -> str:
    """A Verilator control file that makes the top's ports visible to cocotb, and nothing else."""
    header = re.search(rf"^module {TOP_NAME}\((.*?)\);", verilog, re.MULTILINE | re.DOTALL)
    if header is None:
        raise AssertionError(f"no module {TOP_NAME} in the Verilog")
    names = [name.strip() for name in header[1].split(",")]
    lines = [f'public_flat_rw -module "{TOP_NAME}" -var "{name}"' for name in names]
    return "\n".join(["`verilator_config", *lines, ""])


def _check(results: Path, log: Path) -> None:
    """Raises AssertionError unless every test in ``results`` has passed, and there is one."""
    end = "\n".join(log.read_text(errors="replace").splitlines()[-40:]) if log.exists() else ""
    if not results.exists():
        raise AssertionError(f"the simulation left no results\n{end}")
    cases = list(ElementTree.parse(results).iter("testcase"))
    failed = [
        case.get("name")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    if failed or not cases:
        raise AssertionError(f"failed: {', '.join(map(str, failed)) or 'no test found'}\n{end}")

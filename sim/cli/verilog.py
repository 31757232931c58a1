"""vmxlab verilog: the SoC as one Verilog file."""

from pathlib import Path

from sim.cli.options import add_configuration_option
from sim.errors import VmxlabError

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    parser = commands.add_parser("verilog", help="write the SoC as Verilog")
    add_configuration_option(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True)
    parser.set_defaults(command=_verilog)


def _verilog(arguments) -> int:
    path = arguments.output
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise VmxlabError(f"cannot write {path}: no such folder, or it is one")
    from amaranth.back import verilog

    from rtl.soc.soc import Soc
    from sim.progress import progress

    with progress("Writing Verilog") as say:
        say("elaborating the RTL")
        text = verilog.convert(Soc(arguments.config), name="vmxlab", strip_internal_attrs=True)
    try:
        path.write_text(text)
    except OSError as error:
        raise VmxlabError(f"cannot write {path}: {error.strerror}") from error
    print(f"{path}: {text.count(chr(10))} lines, top module vmxlab")
    return 0

"""vmxlab maps: the register maps as header, Python, HTML and Markdown."""

from pathlib import Path

from sim.errors import VmxlabError

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    parser = commands.add_parser("maps", help="write the register maps for people and software")
    parser.add_argument("outdir", metavar="OUTDIR", type=Path, help="folder, made if need be")
    parser.set_defaults(command=_maps)


def _maps(arguments) -> int:
    from sim.cli.maps import write_maps

    try:
        arguments.outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VmxlabError(f"cannot write {arguments.outdir}: {error.strerror}") from error
    write_maps(arguments.outdir)
    print(f"register maps written to {arguments.outdir}")
    return 0

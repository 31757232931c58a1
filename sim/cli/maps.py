"""``vmxlab maps OUTDIR``: the register maps as header, Python, HTML and Markdown; the manual."""

from pathlib import Path

from rtl.arch.memory_map import MEMORY_MAP
from rtl.maps import MAPS, map_path
from sim.errors import BuildError, VmxlabError
from sim.isa_manual import ISA_MANUAL, isa_manual

__all__ = ["write_maps"]


def write_maps(outdir: Path | str) -> list[Path]:
    """Write ``NAME.h``, ``NAME.py`` and ``NAME.md`` of every map, one site ``html``, and ``vmx.md``,
    the manual of the virtualization extension (from a checkout).

    Creates ``outdir`` if need be and gives the files written. Raises VmxlabError when the folder
    cannot be written, BuildError when a map cannot be compiled.
    """
    # Imported here: the command line starts without the exporters and what they bring along.
    from rtl.lib.rdl import documents
    from rtl.lib.rdl.bindings import write_bindings
    from rtl.lib.rdl.source import MapError

    outdir = Path(outdir)
    written = []
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        for name in MAPS:
            source = map_path(name)
            header, module, page = (outdir / f"{name}.{suffix}" for suffix in ("h", "py", "md"))
            base = MEMORY_MAP[name].base if name in MEMORY_MAP else None
            documents.write_header(source, header, base=base)
            write_bindings(source, module)
            documents.write_markdown(source, page)
            written += [header, module, page]
        documents.write_html(map(map_path, MAPS), outdir / "html")
        written.append(outdir / "html" / "index.html")
        if ISA_MANUAL.exists():
            manual = outdir / ISA_MANUAL.name
            manual.write_text(isa_manual())
            written.append(manual)
    except OSError as error:
        raise VmxlabError(f"the register maps cannot be written to {outdir}: {error}") from None
    except MapError as error:
        raise BuildError(f"a register map is wrong: {error}") from None
    return written

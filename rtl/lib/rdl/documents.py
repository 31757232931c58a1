"""C header, HTML and Markdown of register maps, by PeakRDL's exporters."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from peakrdl_cheader.exporter import CHeaderExporter
from peakrdl_html import HTMLExporter
from peakrdl_markdown import MarkdownExporter

from rtl.lib.rdl.source import compiled

__all__ = ["write_header", "write_html", "write_markdown"]


def write_header(source: Path, target: Path, *, base: int | None = None) -> None:
    """The C header of one map: a struct of its size, and masks of the fields. Raises MapError.

    With a ``base`` address, it also has a macro with the map's name: the block itself.
    """
    with compiled(source) as top:
        CHeaderExporter().export(
            top,
            str(target),
            reuse_typedefs=False,
            instantiate=base is not None,
            inst_offset=base or 0,
        )


def write_markdown(source: Path, target: Path) -> None:
    """The Markdown page of one map. Raises MapError."""
    with compiled(source) as top:
        MarkdownExporter().export(top, str(target))


def write_html(sources: Iterable[Path], target: Path) -> None:
    """One browsable site of all maps, below the folder ``target``. Raises MapError."""
    # Links into the source's repository would say where this copy of it came from.
    exporter = HTMLExporter(generate_source_links=False)
    with ExitStack() as stack:
        tops = [stack.enter_context(compiled(source)) for source in sources]
        exporter.export(tops, str(target), title="Register maps")

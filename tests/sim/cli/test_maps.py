"""``vmxlab maps``: every map, in every form."""

import ast

import pytest

from rtl.maps import MAPS
from sim.cli.maps import write_maps
from sim.errors import VmxlabError


def test_every_map_is_written_in_every_form(tmp_path):
    outdir = tmp_path / "deep" / "maps"
    written = write_maps(outdir)
    expected = {f"{name}.{suffix}" for name in MAPS for suffix in ("h", "py", "md")}
    assert {str(path.relative_to(outdir)) for path in written} == expected | {
        "html/index.html",
        "vmx.md",
    }
    for name in MAPS:
        assert f"{name}_t" in (outdir / f"{name}.h").read_text()
        assert name in (outdir / f"{name}.md").read_text()
        ast.parse((outdir / f"{name}.py").read_text())
    assert (outdir / "html" / "index.html").stat().st_size > 0
    # The site carries the time it was made; everything else is a function of the sources.
    stable = [path for path in written if path.suffix != ".html"]
    before = [path.read_bytes() for path in stable]
    assert write_maps(outdir) == written
    assert [path.read_bytes() for path in stable] == before


def test_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VmxlabError) as caught:
        write_maps(tmp_path / "file")
    assert "\n" not in str(caught.value)

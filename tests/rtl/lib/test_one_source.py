"""SystemRDL is the single source: move a register in a copy of it, and everything follows."""

import shutil
import subprocess

import pytest

from rtl.arch.memory_map import MEMORY_MAP
from rtl.lib.rdl import documents
from rtl.lib.rdl.bindings import write_bindings
from rtl.lib.register_block import RegisterBlock
from rtl.maps import MAPS, map_path
from tests.streams import access, simulate

FROM, TO = 0x018, 0x7F0


@pytest.mark.parametrize("address", [FROM, TO])
def test_moved_register_is_moved_everywhere(tmp_path, address):
    for path in map_path("host_port").parent.glob("*.rdl"):
        shutil.copy(path, tmp_path)
    source = tmp_path / "host_port.rdl"
    text = source.read_text()
    place = f"park_interrupts @ {FROM:#05x};"
    assert text.count(place) == 1
    source.write_text(text.replace(place, f"park_interrupts @ {address:#05x};"))

    # The RTL.
    block = RegisterBlock(source)

    async def bench(ctx):
        for other in {FROM, TO} - {address}:
            assert (await access(ctx, block.bus, other, write=1, data=99)).error
        assert not (await access(ctx, block.bus, address, write=1, data=1234)).error
        assert ctx.get(block.park_interrupts.value.value) == 1234

    simulate(block, bench)

    # The Python bindings.
    write_bindings(source, tmp_path / "host_port.py")
    names, written = {}, []
    exec((tmp_path / "host_port.py").read_text(), names)
    port = names["HostPort"](None, lambda *access: written.append(access))
    port.park_interrupts.value = 5
    assert written == [(address, 5, 8)]

    # The C header, as a compiler understands it.
    documents.write_header(source, tmp_path / "host_port.h")
    (tmp_path / "check.cpp").write_text(
        "#include <cstddef>\n"
        '#include "host_port.h"\n'
        f'static_assert(offsetof(host_port_t, park_interrupts) == {address:#x}, "moved");\n'
    )
    subprocess.run(["g++", "-fsyntax-only", tmp_path / "check.cpp"], check=True)


@pytest.mark.parametrize("name", MAPS)
def test_maps_fit_their_regions(name):
    """A platform's block lies where the memory map says, and is no larger."""
    block = RegisterBlock(map_path(name))

    async def bench(ctx):
        assert (await access(ctx, block.bus, -(-block.map.size // 8) * 8)).error

    simulate(block, bench)
    if name != "host_port":
        assert block.map.size <= MEMORY_MAP[name].size

"""The one loader of the generated register bindings."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from rtl.maps import map_path
from sim.cache import cached, hash_of, sources_hash

__all__ = ["load_bindings"]

_RTL = Path(__file__).resolve().parents[1] / "rtl"


@cache
def load_bindings(name: str) -> ModuleType:
    """The Python bindings of the register map ``name``, generated if they are not in the cache.

    Raises KeyError when there is no map of that name.
    """
    source = map_path(name)
    sources = [*source.parent.glob("*.rdl"), *(_RTL / "lib" / "rdl").glob("*.py")]

    def build(folder: Path) -> None:
        # Imported here: who finds the bindings in the cache needs no SystemRDL compiler.
        from rtl.lib.rdl.bindings import write_bindings

        write_bindings(source, folder / f"{name}.py")

    file = cached("bindings", hash_of(name, sources_hash(sources)), build) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"vmxlab_bindings.{name}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

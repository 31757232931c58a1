"""The one loader of the Python bindings that are generated from the register maps.

``load("host_port").HostPort(read, write)`` gives the host port's registers as attributes; what a
binding offers stands in ``docs/registers.md``. A binding is generated when it is first asked for
and kept, under a hash of everything it is made from, where build products go. The generator runs
in a process of its own, so that the VMM needs neither SystemRDL nor gateware in its own.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import rtl.arch
from sw_vmm.errors import VmmError

__all__ = ["BindingsError", "load"]

_RTL = Path(rtl.arch.__file__).resolve().parents[1]
_MAPS = _RTL / "maps"
_GENERATOR = "rtl.lib.rdl.bindings"


class BindingsError(VmmError):
    """The bindings cannot be made; the message is one line."""


@cache
def load(name: str) -> ModuleType:
    """The bindings of the map ``name``, generated if need be. Raises BindingsError."""
    source = _MAPS / f"{name}.rdl"
    if not name.isidentifier() or not source.is_file():
        raise BindingsError(f"there is no register map named {name!r}")
    file = _folder() / f"{name}-{_key()}.py"
    text = _intact(file)
    if text is None:
        text = _generate(source, file)
    spec = importlib.util.spec_from_loader(f"vmxlab_bindings.{name}", loader=None, origin=str(file))
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(file)
    exec(compile(text, str(file), "exec"), module.__dict__)
    return module


def _folder() -> Path:
    """``$VMXLAB_BUILD``, the checkout's ``build`` or the user's cache; in it, ``bindings``."""
    if chosen := os.environ.get("VMXLAB_BUILD"):
        root = Path(chosen).absolute()
    elif (_RTL.parent / "pyproject.toml").is_file():
        root = _RTL.parent / "build"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmxlab"
    return root / "bindings"


def _key() -> str:
    """A hash of all maps (they may include each other) and of the generator."""
    digest = hashlib.sha256()
    for path in sorted([*_MAPS.glob("*.rdl"), *(_RTL / "lib" / "rdl").glob("*.py")]):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _seal(text: str) -> str:
    return f"# {hashlib.sha256(text.encode()).hexdigest()}\n"


def _intact(file: Path) -> str | None:
    """The module's text, unless it is missing, cut short or changed."""
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    text, newline, seal = content.rpartition("\n# ")
    text += newline[:1]
    return text if newline and f"# {seal}" == _seal(text) else None


def _generate(source: Path, file: Path) -> str:
    """Generate the module and put it in place in one step: two processes may do so at once."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            fresh = Path(scratch) / file.name
            path = os.pathsep.join(filter(None, [str(_RTL.parent), os.environ.get("PYTHONPATH")]))
            done = subprocess.run(
                [sys.executable, "-m", _GENERATOR, str(source), str(fresh)],
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise BindingsError(f"the bindings of {source.name} were not made: {reason}")
            text = fresh.read_text(encoding="utf-8")
            fresh.write_text(text + _seal(text), encoding="utf-8")
            fresh.replace(file)
    except OSError as error:
        raise BindingsError(f"the bindings of {source.name} were not kept: {error}") from None
    return text

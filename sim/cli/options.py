"""Command-line options and what their texts mean."""

import argparse
import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS
from rtl.soc.config import CONFIGURATIONS, SocConfig
from sim.errors import VmxlabError
from sim.guests import GUESTS
from sw_vmm.techniques import TECHNIQUES
from sw_vmm.vm import MONITOR_SIZE

__all__ = [
    "UsageError",
    "add_configuration_option",
    "add_guest_options",
    "charge_factor",
    "check_writable",
    "choose",
    "cycle_budget",
    "cycle_number",
    "guest_name",
    "input_bytes",
    "memory_size",
    "technique_list",
    "technique_name",
    "text_bytes",
]

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30}
_PAGE = 1 << PAGE_BITS
_LARGEST = MEMORY_MAP["ram"].size - MONITOR_SIZE
_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "e": b"\x1b", "0": b"\0", "\\": b"\\"}


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """``name`` if it is known. Raises VmxlabError with a suggestion otherwise."""
    known = list(known)
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise VmxlabError(f"unknown {what} {name!r}{hint} (there are {', '.join(known)})")


class UsageError(VmxlabError):
    """The arguments do not fit together."""


def guest_name(text: str) -> str:
    return _usage(choose, "guest", text, GUESTS)


def configuration(text: str) -> SocConfig:
    return CONFIGURATIONS[_usage(choose, "configuration", text, CONFIGURATIONS)]


def technique_name(text: str) -> str:
    return _usage(choose, "technique", text, TECHNIQUES)


def technique_list(text: str) -> list[str]:
    """Names joined by commas, each once."""
    names = [technique_name(name.strip()) for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("at least one technique is needed")
    return list(dict.fromkeys(names))


def memory_size(text: str) -> int:
    """Bytes of guest RAM: a number, perhaps with K, M or G (powers of 1024)."""
    found = re.fullmatch(r"(\d+)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 64M or 1G")
    size = int(found[1]) << _UNITS[found[2].upper()]
    if not 0 < size <= _LARGEST or size % _PAGE:
        raise argparse.ArgumentTypeError(
            f"{text} of RAM: whole pages of {_PAGE} bytes are needed, "
            f"{_PAGE >> 10}K to {_LARGEST >> 20}M"
        )
    return size


def _cycles(text: str) -> int:
    found = re.fullmatch(r"(-?\d[\d_]*)\s*([KMG]?)", text.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of cycles")
    return int(found[1].replace("_", "")) * 1000 ** (_UNITS[found[2].upper()] // 10)


def cycle_number(text: str) -> int:
    """A number of cycles, not negative; K, M and G are powers of 1000."""
    cycles = _cycles(text)
    if cycles < 0:
        raise argparse.ArgumentTypeError(f"cycle {text}: the number must not be negative")
    return cycles


def cycle_budget(text: str) -> int:
    """A positive number of cycles; K, M and G are powers of 1000."""
    cycles = _cycles(text)
    if cycles <= 0:
        raise argparse.ArgumentTypeError(f"a budget of {text} cycles: it must be positive")
    return cycles


def charge_factor(text: str) -> float:
    """Factor on the cost of the VMM's work: 0, 1, 2x, 0.5."""
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no factor such as 0, 1 or 2x") from None
    if not 0 <= factor < float("inf"):
        raise argparse.ArgumentTypeError(f"the factor {text} must not be negative")
    return factor


def text_bytes(text: str) -> bytes:
    r"""The text in UTF-8, with \n, \r, \t, \e, \0 and \\ replaced; not empty."""
    if not text:
        raise argparse.ArgumentTypeError("the text must not be empty")
    parts = re.split(r"\\([nrte0\\])", text)
    return b"".join(
        _ESCAPES[part] if place % 2 else part.encode() for place, part in enumerate(parts)
    )


def check_writable(path: Path) -> None:
    """Say before a long run that its result could not be written. Raises VmxlabError."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise VmxlabError(f"cannot write {path}: no such folder, or it is one")
    place = path if path.exists() else path.absolute().parent
    if not os.access(place, os.W_OK):
        raise VmxlabError(f"cannot write {path}: permission denied")


def input_bytes(text: str) -> bytes:
    """The bytes of the file of that name, if there is one; otherwise the text itself."""
    path = Path(text)
    try:
        if path.is_file():
            return path.read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from error
    return text_bytes(text)


def add_configuration_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="NAME",
        type=configuration,
        default=CONFIGURATIONS["full"],
        help=f"configuration of the machine: {', '.join(CONFIGURATIONS)} (default full)",
    )


def add_guest_options(parser: argparse.ArgumentParser) -> None:
    """Options that say what is run, shared by run and compare."""
    add_configuration_option(parser)
    parser.add_argument("--firmware", metavar="FILE", type=Path, help="firmware of the guest")
    parser.add_argument("--kernel", metavar="FILE", type=Path, help="kernel of the guest")
    parser.add_argument(
        "--cycles", metavar="N", type=cycle_budget, help="end the run after N cycles"
    )
    parser.add_argument(
        "--until", metavar="TEXT", type=text_bytes, help="end the run when TEXT was printed"
    )
    parser.add_argument(
        "--input",
        metavar="TEXT|FILE",
        type=input_bytes,
        help="what is typed on the console (the contents of FILE if it exists)",
    )
    parser.add_argument(
        "--input-after", metavar="TEXT", type=text_bytes, help="type it once TEXT was printed"
    )
    parser.add_argument(
        "--mem",
        metavar="SIZE",
        type=memory_size,
        help="guest RAM (default 64M; linux: 128M)",
    )
    parser.add_argument(
        "--disk", metavar="FILE", type=Path, help="image of a virtio disk; FILE is not changed"
    )
    parser.add_argument(
        "--charge",
        metavar="F",
        type=charge_factor,
        default=1.0,
        help="factor on the cycles charged for the VMM's work; 0: infinitely fast (default 1)",
    )


def _usage(function, *arguments):
    try:
        return function(*arguments)
    except VmxlabError as error:
        raise argparse.ArgumentTypeError(str(error)) from error

"""make demo: stock firmware and a kernel of ours, natively and virtualized, side by side."""

import os
import sys

from sim.cli.main import main
from sim.guests import GUESTS, GuestOptions
from sim.packages import PackageError

__all__ = ["choose_guest"]

#: It follows the first guest, and pages.
_KERNEL = "tiny"


def choose_guest(ci: bool) -> str:
    """``u-boot``, or ``hello`` when its packages cannot be had.

    Raises PackageError instead of falling back when ``ci`` is set.
    """
    try:
        GUESTS["u-boot"].load(GuestOptions(ram_size=64 << 20), _say)
    except PackageError as error:
        if ci:
            raise
        _say(f"vmxlab: {error}")
        _say("vmxlab: falling back to the embedded guest 'hello'")
        return "hello"
    return "u-boot"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _demo() -> int:
    try:
        guest = choose_guest(os.environ.get("CI", "").lower() == "true")
    except PackageError as error:
        _say(f"vmxlab: {error}")
        return 1
    # Each under all techniques that can run it, on one machine.
    return max(main(["compare", name]) for name in (guest, _KERNEL))


if __name__ == "__main__":
    sys.exit(_demo())

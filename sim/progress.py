"""Telling the user what takes so long."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["progress"]

#: Seconds between two plain lines about the same thing.
_INTERVAL = 5.0


@contextmanager
def progress(title: str) -> Iterator[Callable[..., None]]:
    """Show what is going on, on standard error; nothing when there is nothing to say.

    The function given is called as ``say(stage, detail="")`` at every step. On a terminal it is one
    line that goes away at the end, elsewhere a plain line per stage and now and then a detail.
    """
    start = time.monotonic()
    status = None
    last = ("", start)

    def say(stage: str, detail: str = "") -> None:
        nonlocal status, last
        line = f"{title}: {stage} {detail}".rstrip()
        if sys.stderr.isatty():
            if status is None:
                # Imported here: it takes a tenth of a second that most runs need not spend.
                from rich.console import Console

                status = stack.enter_context(Console(stderr=True).status(line))
            status.update(line)
            return
        now = time.monotonic()
        if stage != last[0] or now - last[1] >= _INTERVAL:
            last = stage, now
            print(f"{line} ({now - start:.0f} s)", file=sys.stderr, flush=True)

    with ExitStack() as stack:
        yield say

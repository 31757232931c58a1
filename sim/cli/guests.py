"""vmxlab guests: what can be run."""

from sim.guests import GUESTS
from sw_vmm.techniques import TECHNIQUES

__all__ = ["add_parser"]


def add_parser(commands) -> None:
    parser = commands.add_parser("guests", help="list guests and techniques")
    parser.set_defaults(command=_guests)


def _guests(_arguments) -> int:
    width = max(map(len, GUESTS))
    for kind in GUESTS.values():
        print(f"{kind.name:{width}}  {kind.text}")
    print(f"\ntechniques: {', '.join(TECHNIQUES)}")
    return 0

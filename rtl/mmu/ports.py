"""What passes between the requesters, the TLBs and the page walker."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.paging import LEVELS, VPN_BITS
from rtl.mmu.context import Fault, Translation, TranslationQuery, World
from rtl.mmu.permissions import PageRights

__all__ = ["Refill", "TlbEntry", "TlbTag", "TranslationPort"]


class TranslationPort(wiring.Signature):
    """A requester's way to its translations, seen from the requester.

    ``hit`` and ``translation`` answer ``query`` in the same cycle, and the permission of the
    query is part of the hit. After a miss ``walk`` asks for a walk of the tables, and exactly one
    ``walked`` answers: a fault of that query, or NONE, after which the requester queries again
    (it may miss again). A requester that has lost interest still takes ``walked``.
    """

    def __init__(self):
        super().__init__(
            {
                "query": Out(TranslationQuery),
                "hit": In(1),
                "translation": In(Translation),
                "walk": Out(stream.Signature(TranslationQuery)),
                "walked": In(stream.Signature(Fault)),
            }
        )


class TlbTag(data.Struct):
    """Which queries a cached translation answers.

    ``level`` is the size of what is cached (0: 4 KiB, 1: 2 MiB, 2: 1 GiB), ``guest_level`` that of
    the leaf it was made from, at least as large.
    """

    world: World
    vpid: 16
    ept_tag: 2
    asid: 16
    global_: 1
    page: LEVELS * VPN_BITS
    level: range(LEVELS)
    guest_level: range(LEVELS)


class TlbEntry(data.Struct):
    """A cached translation; ``frame`` is aligned to the size the tag's ``level`` says."""

    tag: TlbTag
    frame: 44
    rights: PageRights


class Refill(data.Struct):
    """In a cycle with ``valid`` the L1 TLB takes ``entry``."""

    valid: 1
    entry: TlbEntry

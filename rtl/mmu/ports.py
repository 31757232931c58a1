"""What passes between the requesters, the TLBs and the page walker."""

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS
from rtl.arch.paging import LEVELS, PAGE_BITS
from rtl.arch.vmx.ept import EPT_GPA_BITS, EPT_TAG_BITS
from rtl.mmu.context import FRAME_BITS, Fault, Translation, TranslationQuery, World
from rtl.mmu.permissions import PageRights

__all__ = [
    "PAGE_NUMBER_BITS",
    "AddressSpace",
    "MmuEvents",
    "PteMemory",
    "PteRequest",
    "PteResponse",
    "Refill",
    "TlbEntry",
    "TlbTag",
    "TranslationPort",
]

#: Bits of a page number: enough for a gpa, which is what an unpaged guest's addresses are. For a
#: canonical gva the bits above Sv39's are copies of its sign.
PAGE_NUMBER_BITS = EPT_GPA_BITS - PAGE_BITS


class TranslationPort(wiring.Signature):
    """A requester's way to its translations, seen from the requester.

    ``hit`` and ``translation`` answer the ``query`` of the cycle before, and the permission of
    that query is part of the hit. After a miss ``walk`` asks for a walk of the tables, and exactly
    one ``walked`` answers: a fault of that query, or NONE, after which the requester queries again
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


class AddressSpace(data.Struct):
    """Whose addresses are meant; see ``TranslationContext``."""

    world: World
    vpid: 16
    ept_tag: EPT_TAG_BITS
    asid: 16
    paged: 1


class TlbTag(data.Struct):
    """Which queries a cached translation answers.

    ``level`` is the size of what is cached (0: 4 KiB, 1: 2 MiB, 2: 1 GiB), ``guest_level`` that of
    the leaf it was made from, at least as large. Translations of unpaged queries are global.
    """

    space: AddressSpace
    global_: 1
    page: PAGE_NUMBER_BITS
    level: range(LEVELS)
    guest_level: range(LEVELS)


class TlbEntry(data.Struct):
    """A cached translation; ``frame``, see ``frame_of``, is aligned to the size the tag's
    ``level`` says.
    """

    tag: TlbTag
    frame: FRAME_BITS
    rights: PageRights


class Refill(data.Struct):
    """In a cycle with ``valid`` the L1 TLB takes ``entry``."""

    valid: 1
    entry: TlbEntry


class PteRequest(data.Struct):
    """Reads the entry at ``address`` (hpa, a multiple of 8, in RAM), and with ``set`` updates it.

    An update happens in one step: if the entry is ``expected``, the bits of ``set`` are set in
    its low byte. The response is what the entry was before, so it tells whether that happened.
    """

    address: BUS_ADDRESS_BITS
    set: 8
    expected: 64


class PteResponse(data.Struct):
    """``error``: memory answered with a bus error, and nothing was done."""

    data: 64
    error: 1


class PteMemory(wiring.Signature):
    """The walker's way to page-table entries; one access at a time, every response is taken.

    An update that is not taken yet may be withdrawn.
    """

    def __init__(self):
        super().__init__(
            {
                "request": Out(stream.Signature(PteRequest)),
                "response": In(stream.Signature(PteResponse)),
            }
        )


class MmuEvents(data.Struct):
    """Strobes for counters.

    ``l2_hit`` or ``l2_miss`` comes once for each walk a requester asks for, ``walk_cache_hit``
    when a walk begins below the root, ``nested_hit`` when the place of a guest's page or table was
    known, ``pte_read`` with each read of an entry, ``pte_update`` when A or D is set.
    """

    l2_hit: 1
    l2_miss: 1
    walk_cache_hit: 1
    nested_hit: 1
    pte_read: 1
    pte_update: 1

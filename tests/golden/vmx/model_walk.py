"""The model's translation in the shape of tests.rtl.mmu.two_stage_reference, to be put in its place."""

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PTE
from sim.golden.page_tables import PageTables
from sim.golden.translation import Context, Fault, Stage, canonical
from tests.rtl.mmu import two_stage_reference as reference

__all__ = ["context_of", "translate"]

_RAM = MEMORY_MAP["ram"]


class _Words:
    """RAM of full size in which most is zero, over a dict of words by hpa."""

    def __init__(self, words):
        self.words = words

    def __getitem__(self, place):
        assert place.stop - place.start == 8
        return self.words.get(_RAM.base + place.start, 0).to_bytes(8, "little")

    def __setitem__(self, place, data):
        self.words[_RAM.base + place.start] = int.from_bytes(data, "little")


def context_of(query) -> Context:
    """The model's context for a query of the walker's tests."""
    context = query["context"]
    stage = Stage(context["ept_root"], bool(context["ept_ad"]), 0) if context["ept"] else None
    return Context(
        bool(context["paged"]),
        context["privilege"],
        context["root"],
        0,
        bool(context.get("sum")),
        bool(context.get("mxr")),
        bool(context["adue"]),
        stage,
    )


def translate(memory, query):
    """As the reference's: a mapping, of which only the frame is there; or one of its exceptions."""
    context, gva, access = context_of(query), query["gva"], query["access"]
    if context.paged and not canonical(gva):
        raise reference.PageFault("not canonical")
    tables = PageTables(_Words(memory.words), _RAM.size, lambda page: None)
    tables.switch(context)
    outcome = tables.translate(gva, access, context)
    match outcome.fault:
        case Fault.PAGE:
            raise reference.PageFault("the model says so")
        case Fault.ACCESS:
            raise reference.AccessFault("the model says so")
        case Fault.EPT:
            refusal = outcome.refusal
            leaf = PTE.decode(refusal.leaf)
            kind = reference.EptViolation if refusal.violation else reference.EptMisconfiguration
            rights = tuple(leaf[name] for name in "rwx")
            raise kind("", refusal.gpa, refusal.access, not refusal.final, rights, refusal.level)
    return reference.Mapping(outcome.physical >> 12, 0, 0, False, {})

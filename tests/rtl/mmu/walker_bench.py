"""A page walker with memory behind it, and its walks against the reference."""

import random

from rtl.mmu.context import Fault
from tests.rtl.mmu import two_stage_reference as reference
from tests.rtl.mmu.tables import translated
from tests.streams import get, put, wait

__all__ = ["EVERYTHING", "Memory", "check_walk", "invalidate", "walk", "wanted_of", "watch_refills"]

EVERYTHING = {"any_world": 1, "any_vpid": 1}
SIZES = {4096 << 9 * level: level for level in range(3)}


class Memory:
    """Answers the walker after random delays; ``log`` lists what it did."""

    def __init__(self, words, errors=(), schedule=None):
        self.words, self.errors, self.log = words, errors, []
        self.schedule = schedule or random.Random(0)
        #: Called with each request before it is served.
        self.before = lambda request: None

    def read(self, address):
        if address in self.errors:
            raise reference.AccessFault("bus error")
        self.log.append(("read", address))
        return self.words.get(address, 0)

    def update(self, address, expected, bits):
        if self.words.get(address, 0) == expected:
            self.words[address] = expected | bits
        self.log.append(("update", address, bits))

    @property
    def reads(self):
        return [entry[1] for entry in self.log if entry[0] == "read"]

    def server(self, port):
        async def serve(ctx):
            while True:
                await wait(ctx, 1 + self.schedule.choice([0, 0, 3]))
                request = await get(ctx, port.request)
                assert request.address % 8 == 0
                self.before(request)
                await wait(ctx, self.schedule.choice([0, 1, 5]))
                # The data of an error means nothing.
                response = {"data": self.schedule.getrandbits(64), "error": 1}
                if request.address not in self.errors:
                    response = {"data": self.words.get(request.address, 0)}
                    if request.set:
                        self.update(request.address, request.expected, request.set)
                    else:
                        self.read(request.address)
                await put(ctx, port.response, response)

        return serve


FAULTS = {
    reference.PageFault: Fault.PAGE,
    reference.AccessFault: Fault.ACCESS,
    reference.EptViolation: Fault.EPT_VIOLATION,
    reference.EptMisconfiguration: Fault.EPT_MISCONFIGURATION,
}


def wanted_of(memory, query):
    """Fault, its details or the mapping, and a memory after the walk, by the reference."""
    after = Memory(dict(memory.words), memory.errors)
    context = {"adue": 0, "ept": 0, "ept_ad": 0, **query["context"]}
    try:
        mapping = reference.translate(after, {**query, "context": context})
    except reference.EptFault as fault:
        return FAULTS[type(fault)], fault.about, after
    except (reference.PageFault, reference.AccessFault) as fault:
        return FAULTS[type(fault)], None, after
    return Fault.NONE, mapping, after


def watch_refills(dut, refills):
    async def watch(ctx):
        tick = ctx.tick().sample(dut.refill.valid, dut.refill.entry)
        while True:
            _, _, valid, entry = await tick
            if valid:
                refills.append(entry)

    return watch


def check_entry(entry, mapping, query):
    context, tag, rights = query["context"], entry.tag, mapping.rights
    for name in ("world", "vpid", "ept_tag", "asid", "paged"):
        found = tag.space[name]
        assert int(found.value if name == "world" else found) == context.get(name, 0)
    assert tag.global_ == mapping.is_global
    assert (tag.level, tag.guest_level) == (SIZES[mapping.size], SIZES[mapping.guest_size])
    frames = mapping.size // 4096
    page = query["gva"] >> 12 & (1 << 29) - 1
    assert tag.page // frames == page // frames
    assert entry.frame % frames == 0
    assert entry.frame + page % frames == translated(mapping.frame)
    found = {name: entry.rights[name] for name in rights}
    if not context["paged"]:
        # Nothing asks an unpaged translation about U.
        del rights["u"], found["u"]
    assert found == rights


def check_ept_fault(details, about):
    gpa, access, page_table, rights, level = about
    assert details.level == level
    assert (details.gpa, details.access.value, details.page_table) == (gpa, access, page_table)
    assert (details.readable, details.writable, details.executable) == rights


async def invalidate(ctx, dut, what=EVERYTHING):
    ctx.set(dut.i_invalidate.payload, what)
    ctx.set(dut.i_invalidate.valid, 1)
    await ctx.tick()
    ctx.set(dut.i_invalidate.valid, 0)


async def walk(ctx, dut, query):
    await put(ctx, dut.i_query, query)
    return await get(ctx, dut.o_fault)


def check_log(found, wanted):
    """What was accessed is what the manual says, in order, but for reads that had been made.

    A walk that has left some out and fails makes them all.
    """
    made = iter(found)
    accessed, following = set(), next(made, None)
    for access in wanted:
        if access == following:
            following = next(made, None)
        elif access not in accessed:
            break
        accessed.add(access)
    else:
        if following is None:
            return
    assert found[-len(wanted) :] == wanted and set(found) <= set(wanted)


async def check_walk(ctx, dut, memory, refills, query, *, cold):
    """One walk against the reference; a cold one reads exactly what the manual says, but entries of
    the EPT only once.
    """
    memory.log.clear()
    fault, wanted, after = wanted_of(memory, query)
    if cold:
        await invalidate(ctx, dut)
    assert ctx.get(dut.idle)
    assert await walk(ctx, dut, query) == fault
    await ctx.tick()
    assert memory.words == after.words
    if cold:
        check_log(memory.log, after.log)
    assert len(refills) == (fault == Fault.NONE)
    if refills:
        check_entry(refills.pop(), wanted, query)
    if fault in (Fault.EPT_VIOLATION, Fault.EPT_MISCONFIGURATION):
        check_ept_fault(ctx.get(dut.ept_fault), wanted)
    return fault

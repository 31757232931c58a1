"""The guest's CSR file against the golden model of it (docs/isa/vmx.md#guest-csrs)."""

import pytest

from rtl.arch.csrs import (
    CSR_BY_NUMBER,
    CSRS,
    DELEGABLE_INTERRUPTS,
    INTERRUPTS,
    MENVCFG,
    MSTATUS,
)
from rtl.arch.traps import Exception_, Interrupt
from rtl.arch.vmx.capability import VMX_CSRS
from rtl.arch.vmx.fields import VMCS_FIELDS
from tests.rtl.core.guest_csr_bench import ALL, HELD, LEVELS, run, valid_value

OPERATIONS = (("SET", 0), ("WRITE", 1), ("SET", 1), ("CLEAR", 1))
STATUS = ~VMCS_FIELDS["status_mask"].reserved & ALL
LINES = INTERRUPTS.mask()


def drawn(noise):
    """An operand: few bits, all bits, many."""
    return noise.choice((0, ALL, 1 << noise.randrange(64), *(noise.getrandbits(64),) * 3))


async def surroundings(bench, noise):
    """Another host around the guest."""
    near = noise.getrandbits(64)
    await bench.surround(
        root_pending=noise.getrandbits(12),
        ticks=noise.choice((near, 0, ALL)),
        guest_lines=noise.getrandbits(12) & LINES & noise.getrandbits(12),
        interrupt_passthrough=noise.getrandbits(12) & LINES,
        interrupt_window_mask=noise.getrandbits(12) & LINES,
        status_mask=noise.choice((0, STATUS, noise.getrandbits(64) & STATUS)),
        status_shadow=noise.getrandbits(64),
        time_offset=noise.choice((0, noise.getrandbits(64))),
        guest_mtimecmp=noise.choice((near, near + 1 & ALL, noise.getrandbits(64), ALL)),
        guest_mhartid=noise.getrandbits(64),
    )


@pytest.mark.parametrize("privilege", LEVELS, ids=lambda level: LEVELS[level].name)
def test_every_csr_answers_every_access(privilege):
    """All CSRs, those that a guest has not, and numbers beside them, from a state drawn for each."""
    beside = {number + d for number in CSR_BY_NUMBER for d in (-1, 1)}
    absent = {csr.number for csr in VMX_CSRS.values()} | beside - set(CSR_BY_NUMBER)

    async def scenario(bench, noise):
        for operation, writes in OPERATIONS:
            await surroundings(bench, noise)
            await bench.load(guest_privilege=privilege)
            for number in CSR_BY_NUMBER:
                await bench.access(number, operation, drawn(noise), writes)
            await bench.read_fields()
        for number in sorted(absent):
            await bench.access(number, "WRITE", drawn(noise), 1)

    run(scenario, privilege)


#: What a step of a sequence may be, and how often.
STEPS = {"access": 8, "trap": 2, "ret": 2, "retire": 3, "surround": 3, "field": 2, "entry": 1}
#: CSRs that matter for what happens next, drawn more often.
HOT = (
    "mstatus", "sstatus", "mie", "mip", "sie", "sip", "mideleg", "medeleg", "menvcfg", "satp",
    "mcounteren", "mcountinhibit", "mcycle", "minstret", "stimecmp", "mtvec", "stvec", "time",
)  # fmt: skip


async def step(bench, noise, kind):
    match kind:
        case "access":
            numbers = [CSRS[noise.choice(HOT)].number, noise.choice(list(CSR_BY_NUMBER))]
            await bench.access(noise.choice(numbers), *draw_access(noise))
        case "trap":
            interrupt = noise.getrandbits(1)
            code = noise.choice(list(Interrupt if interrupt else Exception_))
            value = 0 if interrupt else noise.getrandbits(64)
            await bench.trap(interrupt, int(code), value, noise.getrandbits(64) & ~1)
        case "ret":
            await bench.ret(noise.getrandbits(1))
        case "retire":
            for _ in range(noise.randrange(80)):
                await bench.retire()
        case "surround":
            await surroundings(bench, noise)
        case "field":
            name = noise.choice(HELD)
            await bench.write_field(name, valid_value(noise, name))
            await bench.read_field(noise.choice(list(VMCS_FIELDS)))
        case "entry":
            await bench.load()


def draw_access(noise):
    operation, writes = noise.choice(OPERATIONS)
    return operation, drawn(noise), writes


@pytest.mark.parametrize("seed", range(4))
def test_sequences_do_what_the_model_does(seed):
    """Accesses, traps, returns, retirement, another host, fields written: in any order."""

    async def scenario(bench, noise):
        await surroundings(bench, noise)
        for kind in noise.choices(list(STEPS), STEPS.values(), k=300):
            await step(bench, noise, kind)
            await bench.settled()
        await bench.read_fields()

    run(scenario, seed)


def test_fields_read_what_was_written_whatever_it_is():
    """What no entry would accept is no different; reserved bits are the VMCS's to keep."""
    values = (ALL, 0, 0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA)

    async def scenario(bench, noise):
        for offset in range(len(HELD)):
            # Each field with another value than its neighbours.
            for n, name in enumerate(HELD):
                await bench.write_field(name, values[(n + offset) % len(values)])
            for name in HELD:
                await bench.read_field(name)

    run(scenario)


@pytest.mark.parametrize("stce", (0, 1))
def test_timers_are_due_from_their_deadline_on(stce):
    """In virtual time; the M timer's deadline of all ones is never."""
    deadlines = (0, 1, 5, ALL - 1, ALL)

    async def scenario(bench, noise):
        await bench.load(guest_menvcfg=MENVCFG.encode(stce=stce), guest_mie=LINES)
        for deadline in deadlines:
            await bench.write_field("guest_stimecmp", deadline)
            for now in {(deadline + d) & ALL for d in (-1, 0, 1)} | {ALL}:
                for offset in (0, 3, ALL):
                    ticks = (now - offset) & ALL
                    await bench.surround(ticks=ticks, time_offset=offset, guest_mtimecmp=deadline)
                    await bench.settled()
                    for name in ("time", "mip"):
                        await bench.access(CSRS[name].number, "SET", 0, 0)

    run(scenario)


@pytest.mark.parametrize("stce", (0, 1))
def test_with_stce_software_neither_writes_stip_nor_sees_what_it_wrote(stce):
    sti, others = INTERRUPTS["sti"].mask, INTERRUPTS.mask("ssi", "sei")

    async def scenario(bench, noise):
        await bench.load(guest_privilege=3)
        await bench.surround(guest_mtimecmp=ALL)
        for own in (0, sti, sti | others):
            for operation, writes in OPERATIONS:
                for operand in (0, sti, ALL):
                    for name in ("mip", "sip"):
                        await bench.load(
                            guest_privilege=3,
                            guest_mip=own,
                            guest_mideleg=DELEGABLE_INTERRUPTS,
                            guest_menvcfg=MENVCFG.encode(stce=stce),
                            guest_stimecmp=ALL,
                        )
                        await bench.access(CSRS[name].number, operation, operand, writes)
                        await bench.read_field("guest_mip")
                        await bench.settled()

    run(scenario)


@pytest.mark.parametrize("operation", ("SET", "CLEAR", "WRITE"))
def test_every_source_of_an_interrupt_shows_and_none_is_written_back(operation):
    """One bit from each source, seen by csrrs and csrrc of mip and sip; sources then fall silent."""

    async def scenario(bench, noise):
        for bit in Interrupt:
            for source in ("guest_lines", "root", "software"):
                for mideleg in (0, LINES):
                    line = 1 << bit
                    own = line * (source == "software")
                    await bench.load(
                        guest_mip=own, guest_mideleg=mideleg & CSRS["mideleg"].writable
                    )
                    await bench.surround(
                        guest_lines=line * (source == "guest_lines"),
                        root_pending=line * (source == "root"),
                        interrupt_passthrough=noise.choice((line, LINES & ~line)),
                        guest_mtimecmp=ALL,
                    )
                    for name in ("mip", "sip"):
                        await bench.access(
                            CSRS[name].number, operation, 1 << noise.randrange(12), 1
                        )
                    await bench.settled()
                    await bench.surround(guest_lines=0, root_pending=0)
                    await bench.read_field("guest_mip")
                    await bench.settled()

    run(scenario)


def test_the_host_owns_the_bits_of_the_status_mask():
    """Each field of mstatus under the mask, read and written through mstatus and sstatus."""
    fields = [field for field in MSTATUS.fields if field.mask & STATUS]

    async def scenario(bench, noise):
        for field in fields:
            for shadow in (0, ALL):
                await bench.surround(status_mask=field.mask, status_shadow=shadow)
                for name in ("mstatus", "sstatus"):
                    for operation, writes in OPERATIONS:
                        real = valid_value(noise, "guest_mstatus")
                        await bench.write_field("guest_mstatus", real)
                        await bench.write_field("guest_privilege", 3)
                        await bench.access(CSRS[name].number, operation, drawn(noise), writes)
                        await bench.read_field("guest_mstatus")
                        await bench.trap(0, 2, 0, 0)
                        await bench.ret(0)

    run(scenario)


def test_mpp_does_not_become_2_whoever_owns_its_bits():
    mpp = MSTATUS["mpp"]

    async def scenario(bench, noise):
        await bench.load(guest_privilege=3)
        for mask in range(4):
            for shadow in range(4):
                await bench.surround(status_mask=mask << mpp.lsb, status_shadow=shadow << mpp.lsb)
                for real in (0, 1, 3):
                    for written in range(4):
                        await bench.write_field("guest_mstatus", MSTATUS.encode(mpp=real))
                        value = written << mpp.lsb
                        await bench.access(CSRS["mstatus"].number, "WRITE", value, 1)
                        await bench.read_field("guest_mstatus")
                        assert bench.csr.status("mpp") != 2

    run(scenario)


def test_the_window_looks_at_enables_and_not_at_what_is_pending():
    """Every interrupt, enabled or not, delegated or not, under every state of the global enables."""

    async def scenario(bench, noise):
        for privilege in LEVELS:
            for status in range(4):
                mstatus = MSTATUS.encode(mie=status & 1, sie=status >> 1)
                await bench.load(guest_privilege=privilege, guest_mstatus=mstatus)
                for bit in Interrupt:
                    line = 1 << bit
                    await bench.surround(
                        interrupt_window_mask=line,
                        guest_lines=noise.choice((0, line, LINES)),
                    )
                    for enables in (line, LINES & ~line):
                        for mideleg in (line, LINES & ~line):
                            await bench.write_field("guest_mie", enables)
                            await bench.write_field("guest_mideleg", mideleg & DELEGABLE_INTERRUPTS)
                            await bench.settled()

    run(scenario)


def test_counters_carry_and_stand_still():
    """Over the border of what counts in flip-flops, and over the end; inhibited or not."""

    async def scenario(bench, noise):
        await bench.load(guest_privilege=3)
        for start in (60, ALL - 3, (1 << 32) - 5):
            for inhibit in (0, 1, 4, 5):
                await bench.write_field("guest_mcycle", start)
                await bench.write_field("guest_minstret", start)
                await bench.access(CSRS["mcountinhibit"].number, "WRITE", inhibit, 1)
                for _ in range(20):
                    await bench.retire()
                for name in ("mcycle", "minstret", "cycle", "instret"):
                    await bench.access(CSRS[name].number, "SET", 0, 0)
                await bench.access(CSRS["minstret"].number, "WRITE", start, 1)
                await bench.access(CSRS["mcycle"].number, "WRITE", start, 1)
                await bench.read_field("guest_mcycle")
                await bench.read_field("guest_minstret")

    run(scenario)

"""The entry checks against the golden model: every mutation, and random heaps of them."""

import random

from rtl.arch.csrs import MSTATUS
from rtl.arch.vmx.checks import ENTRY_CHECKS
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.fields import VMCS_FIELDS
from rtl.vmx.entry_checks import CheckClass, EntryChecks
from sim.golden.vmx.entry_checks import first_failure
from tests.golden.vmx.valid_vmcs import mutations, valid_fields
from tests.streams import simulate

WORD = (1 << 64) - 1
MUTATIONS = list(mutations())


class Driver:
    """Write fields as VMWRITE does, and ask the unit and the model for the first failure."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut
        self.fields = dict.fromkeys(valid_fields(), 0)
        self.masks = dict.fromkeys(CONTROL_WORDS, WORD)

    async def write(self, **fields):
        for name, value in fields.items():
            self.fields[name] = value
            number = VMCS_FIELDS[name].number
            self.ctx.set(self.dut.write, {"valid": 1, "number": number, "value": value})
            await self.ctx.tick()
        self.ctx.set(self.dut.write, {"valid": 0, "number": 0, "value": WORD})

    def mask(self, name, value):
        self.masks[name] = value
        self.ctx.set(getattr(self.dut, name.replace("_controls", "_mask")), value)

    async def check(self):
        fields = self.fields
        privilege = fields["guest_privilege"] & 3
        summary = {
            "privilege": privilege,
            "tw": MSTATUS["tw"].extract(fields["guest_mstatus"]),
            "waiting": fields["guest_activity"] & 1,
        }
        self.ctx.set(self.dut.guest, summary)
        await self.ctx.tick()
        while not self.ctx.get(self.dut.settled):
            await self.ctx.tick()
        result = self.ctx.get(self.dut.result)
        state = {**fields, **{f"mask:{name}": mask for name, mask in self.masks.items()}}
        wanted = first_failure(state)
        if wanted is None:
            assert not result.failed, list(ENTRY_CHECKS)[result.number - 1]
            return None
        assert result.failed, wanted.name
        assert result.number == wanted.number, wanted.name
        assert result.check_class == CheckClass[wanted.check_class.name]
        return wanted.name


def run(scenario):
    dut = EntryChecks()

    async def testbench(ctx):
        driver = Driver(ctx, dut)
        for name in CONTROL_WORDS:
            driver.mask(name, WORD)
        await driver.write(**valid_fields())
        assert await driver.check() is None
        await scenario(driver)

    simulate(dut, testbench, cycles=100_000)


def test_every_mutation_is_found_and_forgotten():
    valid = valid_fields()

    async def scenario(driver):
        for wanted, name, value in MUTATIONS:
            await driver.write(**{name: value})
            assert await driver.check() == wanted
            await driver.write(**{name: valid[name]})
        assert await driver.check() is None

    run(scenario)


def test_heaps_of_mutations_report_the_first():
    choose = random.Random(1)
    valid = valid_fields()
    seen = set()
    mutated = [(name, value) for _, name, value in MUTATIONS]
    # What no single field brings about, or what makes it unharmful.
    pairs = [("guest_activity", 1), ("guest_privilege", 0), ("guest_privilege", 1)]
    pairs += [("guest_mstatus", valid["guest_mstatus"] | 1 << 21), ("vpid", 7)]
    pairs += [("entry_interruption", 1 << 31 | 3 << 8 | 2), ("time_scale", 1 << 48)]
    for name, word in CONTROL_WORDS.items():
        pairs += [(name, valid[name] | 1 << row.bit) for row in word.controls if row.allowed]

    async def scenario(driver):
        for _ in range(600):
            changed = dict(choose.choices(choose.choice((mutated, pairs)), k=choose.randint(1, 4)))
            await driver.write(**changed)
            if choose.random() < 0.1:
                driver.mask(choose.choice(list(CONTROL_WORDS)), choose.getrandbits(64))
                await driver.ctx.tick()
            seen.add(await driver.check())
            back = choose.sample(sorted(changed), k=choose.randint(0, len(changed)))
            await driver.write(**{name: valid[name] for name in back})
            if choose.random() < 0.2:
                for name in CONTROL_WORDS:
                    driver.mask(name, WORD)
                await driver.write(**valid)

    run(scenario)
    assert {"exit_controls_allowed", "guest_activity_privilege", "guest_activity_injection"} <= seen
    assert len(seen) > 20


def test_the_result_is_not_settled_while_a_write_is_on_its_way():
    valid = valid_fields()

    async def scenario(driver):
        ctx, dut = driver.ctx, driver.dut
        number = VMCS_FIELDS["guest_privilege"].number
        for value, failed in ((2, 1), (valid["guest_privilege"], 0)):
            ctx.set(dut.write, {"valid": 1, "number": number, "value": value})
            await ctx.tick()
            ctx.set(dut.write.valid, 0)
            assert not ctx.get(dut.settled)
            while not ctx.get(dut.settled):
                await ctx.tick()
            assert ctx.get(dut.result).failed == failed

    run(scenario)

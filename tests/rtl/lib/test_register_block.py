"""Register blocks against SystemRDL's rules, bit by bit, on maps that hypothesis draws."""

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.lib.rdl.source import load_map
from rtl.lib.register_block import Refusal, RegisterBlock
from rtl.maps import map_path
from tests.streams import simulate

# SystemRDL 2.0, tables 14 and 15: what a write of a bit makes of it (None: stays).
ON_WRITE = {
    None: lambda old, data: data,
    "woset": lambda old, data: 1 if data else None,
    "woclr": lambda old, data: 0 if data else None,
    "wot": lambda old, data: 1 - old if data else None,
    "wzs": lambda old, data: None if data else 1,
    "wzc": lambda old, data: None if data else 0,
    "wzt": lambda old, data: None if data else 1 - old,
    "wclr": lambda old, data: 0,
    "wset": lambda old, data: 1,
}
ON_READ = {None: None, "rclr": 0, "rset": 1}
INPUTS = ("next", "we", "wel", "hwset", "hwclr", "swwe")


@dataclass
class FieldSpec:
    """A field as drawn; ``properties`` are SystemRDL's."""

    name: str
    lsb: int
    width: int
    sw: str
    hw: str
    reset: int
    on_write: str | None
    on_read: str | None
    properties: frozenset[str]
    state: int = 0

    @property
    def storage(self):
        return (
            "w" in self.sw or self.hw == "rw" or self.on_read is not None
            or bool(self.properties & {"we", "wel", "hwset", "hwclr"})
        )  # fmt: skip

    def rdl(self):
        words = [f"sw={self.sw};", f"hw={self.hw};"]
        words += [f"onwrite={self.on_write};"] * (self.on_write is not None)
        words += [f"onread={self.on_read};"] * (self.on_read is not None)
        words += [f"{name};" for name in sorted(self.properties - {"hw_first"})]
        words += ["precedence=hw;"] * ("hw_first" in self.properties)
        place = f"{self.name}[{self.lsb + self.width - 1}:{self.lsb}]"
        return f"field {{ {' '.join(words)} }} {place} = {self.reset};"

    def inputs(self):
        """Widths of the hardware's inputs."""
        named = {name: 1 for name in INPUTS if name in self.properties}
        return {"next": self.width, **named} if "w" in self.hw else named

    def step(self, bits, inputs):
        """The next state. ``bits`` has what software does to each bit: None, "read" or data."""
        new = 0
        for bit, done in enumerate(bits):
            old = self.state >> bit & 1
            to = None
            if done == "read" and "r" in self.sw:
                to = ON_READ[self.on_read]
            elif done in (0, 1) and "w" in self.sw and inputs.get("swwe", 1):
                to = ON_WRITE[self.on_write](old, done)
            hardware = None
            if "w" in self.hw and inputs.get("we", 1) and not inputs.get("wel", 0):
                hardware = inputs["next"] >> bit & 1
            if inputs.get("hwset"):
                hardware = 1
            if inputs.get("hwclr"):
                hardware = 0
            if "singlepulse" in self.properties:
                old = self.reset >> bit & 1
            order = (to, hardware) if "hw_first" in self.properties else (hardware, to)
            for change in order:
                old = old if change is None else change
            new |= old << bit
        return new


@dataclass
class RegisterSpec:
    name: str
    offset: int
    width: int
    idle_only: bool
    fields: list[FieldSpec] = field(default_factory=list)

    @property
    def span(self):
        return range(self.offset, self.offset + self.width // 8)

    def rdl(self):
        fields = " ".join(spec.rdl() for spec in self.fields)
        busy = "idle_only;" if self.idle_only else ""
        return f"reg {{ regwidth={self.width}; {busy} {fields} }} {self.name} @ {self.offset:#x};"


@st.composite
def field_specs(draw, name, lsb, width):
    sw, hw = draw(st.sampled_from(["r", "w", "rw"])), draw(st.sampled_from(["r", "w", "rw", "na"]))
    properties = set()
    on_write = draw(st.sampled_from(list(ON_WRITE))) if "w" in sw else None
    on_read = draw(st.sampled_from(list(ON_READ))) if "r" in sw else None
    if "w" in hw:
        properties |= {draw(st.sampled_from(["we", "wel", "hwset"]))}
        if draw(st.booleans()):
            properties -= {"we", "wel"}
    if "w" in hw or draw(st.booleans()):
        properties |= draw(st.sets(st.sampled_from(["hwset", "hwclr"])))
    if draw(st.booleans()):
        properties |= {"hw_first"}
    if "w" in sw:
        properties |= draw(st.sets(st.sampled_from(["swwe", "swmod"])))
    properties |= draw(st.sets(st.sampled_from(["swacc"])))
    storing = bool(properties & {"hwset", "hwclr"})
    # Combinations that SystemRDL calls meaningless.
    if (sw, hw) in (("w", "w"), ("w", "na")) or ((sw, hw) == ("r", "na") and not storing):
        hw, properties = "r", properties - {"we", "wel"}
    reset = draw(st.integers(0, 2**width - 1))
    if width == 1 and sw == "rw" and draw(st.booleans()):
        hw, on_write, on_read, reset, properties = "r", None, None, 0, {"singlepulse", "swmod"}
    return FieldSpec(name, lsb, width, sw, hw, reset, on_write, on_read, frozenset(properties))


@st.composite
def maps(draw):
    """A few registers with gaps between and inside them."""
    registers, offset = [], 0
    for number in range(draw(st.integers(1, 4))):
        size = draw(st.sampled_from([1, 2, 4, 8]))
        offset = -(-(offset + draw(st.integers(0, 3))) // size) * size
        register = RegisterSpec(f"r{number}", offset, 8 * size, draw(st.booleans()))
        lsb = 0
        for index in range(draw(st.integers(1, 3))):
            lsb += draw(st.integers(0, 3))
            width = draw(st.integers(1, 5))
            if lsb + width > 8 * size:
                break
            register.fields.append(draw(field_specs(f"f{index}", lsb, width)))
            lsb += width
        if not register.fields:
            register.fields.append(draw(field_specs("f0", 0, 8 * size)))
        registers.append(register)
        offset += size
    return registers


def cycle(rng, registers):
    """What happens in a cycle: an access if the bus is free (kind, address, mask, data), busy."""
    kind = rng.choice([None, "read", "write", "write"])
    words = -(-registers[-1].span.stop // 8)
    # One word behind the map, too.
    address, mask = 8 * rng.randrange(words + 1), rng.randrange(1, 256)
    if rng.random() < 0.8:
        # All of a register, or the bytes of one that the mask names.
        span = rng.choice(registers).span
        address = span.start & ~7
        whole = sum(1 << byte - address for byte in span)
        mask = mask & whole or whole
    return kind, address, mask, rng.getrandbits(64), rng.random() < 0.2


def outcome(registers, address, mask, busy):
    """What a block answers to an access: the reason for an error, or None."""
    wanted = {address + lane for lane in range(8) if mask >> lane & 1}
    held = {byte: spec for spec in registers for byte in spec.span}
    if wanted - set(held):
        return Refusal.NO_SUCH_REGISTER
    if busy and any(held[byte].idle_only for byte in wanted):
        return Refusal.BUSY
    return None


def read_data(registers, address, inputs):
    """The word as software sees it."""
    word = 0
    for register in registers:
        for spec in register.fields:
            seen = spec.state if spec.storage else inputs[register.name, spec.name].get("next")
            if seen is None:
                seen = spec.reset
            place = 8 * (register.offset - address) + spec.lsb
            if "r" in spec.sw and address <= register.offset < address + 8:
                word |= seen << place
    return word


@settings(deadline=None, max_examples=30)
@given(maps(), st.integers(0, 2**32 - 1).map(random.Random))
def test_block_follows_systemrdl(tmp_path_factory, registers, rng):
    folder = tmp_path_factory.mktemp("rdl")
    source = folder / "drawn.rdl"
    (folder / "properties.rdl").write_text(
        map_path("host_port").with_name("properties.rdl").read_text()
    )
    body = "\n".join(register.rdl() for register in registers)
    source.write_text(f'`include "properties.rdl"\naddrmap drawn {{\n{body}\n}};\n')
    base = 0x4000
    dut = RegisterBlock(load_map(source), base=base)
    guarded = any(register.idle_only for register in registers)
    for register in registers:
        for spec in register.fields:
            spec.state = spec.reset

    async def bench(ctx):
        answer, strobes = None, {}
        ctx.set(dut.bus.response.ready, 1)
        for _ in range(60):
            kind, address, mask, data, busy = cycle(rng, registers)
            if answer is not None:
                kind = None
            inputs = {}
            for register in registers:
                for spec in register.fields:
                    drawn = {}
                    for name, width in spec.inputs().items():
                        drawn[name] = rng.getrandbits(width)
                        port = getattr(getattr(getattr(dut, register.name), spec.name), name)
                        ctx.set(port, drawn[name])
                    inputs[register.name, spec.name] = drawn
            if guarded:
                ctx.set(dut.busy, busy)
            ctx.set(dut.bus.request.valid, kind is not None)
            ctx.set(
                dut.bus.request.payload,
                {"address": base + address, "write": kind == "write", "mask": mask, "data": data},
            )
            # What the previous access left behind.
            assert ctx.get(dut.bus.response.valid) == (answer is not None)
            if answer is not None:
                reason, expected, bits = answer
                payload = ctx.get(dut.bus.response.payload)
                assert payload.error == (reason is not None)
                assert reason is not None or payload.data & bits == expected & bits
                assert ctx.get(dut.refused) == (reason or Refusal.NONE)
            else:
                assert ctx.get(dut.refused) == Refusal.NONE
            for register in registers:
                for spec in register.fields:
                    port = getattr(getattr(dut, register.name, None), spec.name, None)
                    if "r" in spec.hw:
                        seen = spec.state if spec.storage else spec.reset
                        assert ctx.get(port.value) == seen, (register.name, spec.name)
                    for name in {"swmod", "swacc"} & spec.properties:
                        strobe = strobes.get((register.name, spec.name, name), 0)
                        assert ctx.get(getattr(port, name)) == strobe, name
            # What this cycle does.
            answer, strobes = None, {}
            acts = False
            if kind is not None:
                reason = outcome(registers, address, mask, busy)
                acts = reason is None
                bits = sum(0xFF << 8 * lane for lane in range(8) if mask >> lane & 1)
                expected = read_data(registers, address, inputs) if kind == "read" else 0
                answer = (reason, expected, bits if kind == "read" else 0)
            for register in registers:
                for spec in register.fields:
                    done = []
                    for bit in range(spec.width):
                        place = 8 * (register.offset - address) + spec.lsb + bit
                        touched = acts and 0 <= place < 64 and mask >> place // 8 & 1
                        done.append(
                            (data >> place & 1 if kind == "write" else "read") if touched else None
                        )
                    wrote = any(bit in (0, 1) for bit in done) and "w" in spec.sw
                    changed = wrote or ("read" in done and spec.on_read is not None)
                    strobes[register.name, spec.name, "swmod"] = int(changed)
                    # A read of what only can be written is an access like any other.
                    strobes[register.name, spec.name, "swacc"] = int(
                        any(bit is not None for bit in done)
                    )
                    if spec.storage:
                        spec.state = spec.step(done, inputs[register.name, spec.name])
            await ctx.tick()

    simulate(dut, bench)

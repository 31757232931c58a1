"""The boot ROM: reset code run by an independent simulator, device tree read by an own parser."""

import struct

import pytest
import unicorn
from hypothesis import given
from hypothesis import strategies as st
from unicorn import riscv_const as regs

from rtl.arch.memory_map import MEMORY_MAP, UART_INTERRUPT
from rtl.soc.config import SocConfig
from sim.device_tree import CLOCK_HZ, boot_rom, device_tree, reset_code

RAM = MEMORY_MAP["ram"]
ROM = MEMORY_MAP["rom"]
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126))


def parse(blob):
    """Nodes by path, each a dict of property bytes (Devicetree Specification 0.4, chapter 5)."""
    magic, total, structure, strings, _, version, _, _, strings_size, _ = struct.unpack_from(
        ">10I", blob
    )
    assert (magic, total, version) == (0xD00DFEED, len(blob), 17)
    names = blob[strings : strings + strings_size]
    nodes, path, at = {}, [], structure
    while True:
        (token,) = struct.unpack_from(">I", blob, at)
        at += 4
        if token == 1:
            end = blob.index(b"\0", at)
            path.append(blob[at:end].decode())
            nodes["/".join(path) or "/"] = {}
            at = end + 4 - end % 4
        elif token == 2:
            path.pop()
        elif token == 3:
            size, name = struct.unpack_from(">II", blob, at)
            text = names[name : names.index(b"\0", name)].decode()
            nodes["/".join(path) or "/"][text] = blob[at + 8 : at + 8 + size]
            at += 8 + (size + 3) // 4 * 4
        elif token == 9:
            return nodes


def words(data):
    return list(struct.unpack(f">{len(data) // 4}I", data))


def strings(data):
    assert data[-1] == 0
    return data[:-1].decode().split("\0")


@pytest.fixture(scope="module")
def nodes():
    return parse(device_tree(SocConfig(), ram_size=64 << 20))


def test_every_device_stands_where_the_memory_map_says(nodes):
    devices = {"finisher": "test", "clint": "clint", "plic": "plic", "uart": "serial"}
    for region, node in devices.items():
        base, size = MEMORY_MAP[region].base, MEMORY_MAP[region].size
        properties = nodes[f"/soc/{node}@{base:x}"]
        assert words(properties["reg"]) == [0, base, 0, size]


def test_nothing_else_is_named(nodes):
    tops = {path.split("/")[1].split("@")[0] for path in nodes if path != "/"}
    assert tops == {"chosen", "cpus", "memory", "soc", "poweroff", "reboot"}
    in_soc = {path.split("/")[2].split("@")[0] for path in nodes if path.startswith("/soc/")}
    assert in_soc == {"test", "clint", "plic", "serial"}
    assert sum(path.startswith("/cpus/cpu@") for path in nodes) == 2  # cpu and its intc


@given(st.integers(1, 2047), st.integers(1, 1000), PRINTABLE)
def test_memory_clock_and_arguments_follow(mebibytes, cycles_per_tick, bootargs):
    config = SocConfig(cycles_per_tick=cycles_per_tick)
    nodes = parse(device_tree(config, ram_size=mebibytes << 20, bootargs=bootargs))
    assert words(nodes[f"/memory@{RAM.base:x}"]["reg"]) == [0, RAM.base, 0, mebibytes << 20]
    assert words(nodes["/cpus"]["timebase-frequency"]) == [CLOCK_HZ // cycles_per_tick]
    found = nodes["/chosen"].get("bootargs")
    assert (strings(found)[0] if found else "") == bootargs


def test_initial_ram_disk_is_named_where_there_is_one(nodes):
    first, end = 0x8765_4000, 0x1_2345_6789
    chosen = parse(device_tree(SocConfig(), ram_size=1 << 26, initrd=(first, end)))["/chosen"]
    found = [words(chosen[f"linux,initrd-{name}"]) for name in ("start", "end")]
    assert [high << 32 | low for high, low in found] == [first, end]
    assert not any("initrd" in name for name in nodes["/chosen"])


def test_hart_is_described_in_all_forms(nodes):
    cpu = nodes["/cpus/cpu@0"]
    (isa,) = strings(cpu["riscv,isa"])
    base, *extensions = isa.split("_")
    listed = strings(cpu["riscv,isa-extensions"])
    assert base.startswith("rv64") and sorted(base[4:]) == sorted(
        name for name in listed if len(name) == 1
    )
    assert extensions == [name for name in listed if len(name) > 1]
    always = {"i", "m", "a", "c", "zicsr", "zifencei", "zicntr", "sstc", "svade", "svadu"}
    assert always | {"zba", "zbb", "zbs"} == set(listed)
    assert strings(cpu["mmu-type"]) == ["riscv,sv39"]
    small = parse(device_tree(SocConfig(bit_manipulation=False), ram_size=64 << 20))["/cpus/cpu@0"]
    assert set(strings(small["riscv,isa-extensions"])) == always
    assert "zb" not in strings(small["riscv,isa"])[0]


@pytest.mark.parametrize("count", [0, 1, 8])
def test_slots_of_the_window_are_named_as_far_as_they_hold_devices(count):
    nodes = parse(device_tree(SocConfig(), ram_size=64 << 20, window_devices=count))
    slots = {path: node for path, node in nodes.items() if "virtio" in path}
    assert list(slots) == [f"/soc/virtio_mmio@{0x1000_1000 + n * 0x1000:x}" for n in range(count)]
    for number, node in enumerate(slots.values()):
        assert strings(node["compatible"]) == ["virtio,mmio"]
        assert words(node["reg"]) == [0, 0x1000_1000 + number * 0x1000, 0, 0x1000]
        assert words(node["interrupts"]) == [1 + number]


def test_references_lead_to_their_nodes(nodes):
    by_phandle = {}
    for path, properties in nodes.items():
        if "phandle" in properties:
            (number,) = words(properties["phandle"])
            assert number not in by_phandle
            by_phandle[number] = path
    intc = next(path for path in nodes if path.endswith("interrupt-controller"))
    plic = next(path for path in nodes if "/plic@" in path)
    clint = next(path for path in nodes if "/clint@" in path)
    uart = next(path for path in nodes if "/serial@" in path)
    pairs = words(nodes[plic]["interrupts-extended"])
    assert [by_phandle[number] for number in pairs[::2]] == [intc, intc]
    assert pairs[1::2] == [11, 9]
    pairs = words(nodes[clint]["interrupts-extended"])
    assert [by_phandle[number] for number in pairs[::2]] == [intc, intc]
    assert pairs[1::2] == [3, 7]
    assert by_phandle[words(nodes[uart]["interrupt-parent"])[0]] == plic
    assert words(nodes[uart]["interrupts"]) == [UART_INTERRUPT]
    for name in ("poweroff", "reboot"):
        assert "/test@" in by_phandle[words(nodes[f"/{name}"]["regmap"])[0]]
    assert strings(nodes["/chosen"]["stdout-path"]) == [uart]


def test_two_trees_are_one():
    assert device_tree(SocConfig(), ram_size=1 << 26) == device_tree(SocConfig(), ram_size=1 << 26)


@given(st.integers(RAM.base, RAM.base + (1 << 30)).map(lambda entry: entry & ~1))
def test_reset_code_jumps_with_hart_and_tree(entry):
    rom = boot_rom(SocConfig(), ram_size=1 << 26, entry=entry)
    machine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
    machine.mem_map(ROM.base, ROM.size)
    machine.mem_write(ROM.base, rom)
    machine.reg_write(regs.UC_RISCV_REG_A0, 99)
    page = entry & ~0xFFF
    machine.mem_map(page, 0x2000)
    machine.emu_start(ROM.base, entry, count=20)
    assert machine.reg_read(regs.UC_RISCV_REG_PC) == entry
    assert machine.reg_read(regs.UC_RISCV_REG_A0) == 0
    tree = machine.reg_read(regs.UC_RISCV_REG_A1)
    assert rom[tree - ROM.base :] == device_tree(SocConfig(), ram_size=1 << 26)
    assert tree % 8 == 0


@pytest.mark.parametrize("bootargs", ["a\0b", "line\n", "caf\xe9"])
def test_arguments_that_no_tree_can_hold_are_refused(bootargs):
    with pytest.raises(ValueError, match="printable"):
        device_tree(SocConfig(), ram_size=1 << 26, bootargs=bootargs)


def test_rom_that_overflows_is_refused():
    with pytest.raises(ValueError, match="bytes"):
        boot_rom(SocConfig(), ram_size=1 << 26, bootargs="x" * ROM.size)
    with pytest.raises(ValueError, match="cannot be encoded"):
        reset_code(RAM.base, ROM.base + 4096)

"""What a guest finds in the boot ROM: the reset code and the device tree of the platform."""

import fdt

from rtl.arch.csrs import CSRS
from rtl.arch.instructions import BIT_MANIPULATION, IMMEDIATES, INSTRUCTIONS, RD, RS1, Format
from rtl.arch.memory_map import (
    DEVICE_WINDOW_SLOT_SIZE,
    MEMORY_MAP,
    UART_INTERRUPT,
    WINDOW_INTERRUPTS,
)
from rtl.arch.traps import Interrupt
from rtl.soc.config import SocConfig
from sw_vmm.devices.finisher import Finish

__all__ = [
    "CLOCK_HZ",
    "DEVICE_TREE_ADDRESS",
    "boot_rom",
    "device_tree",
    "isa_extensions",
    "reset_code",
]

#: The hart's clock, as far as a guest can tell.
CLOCK_HZ = 100_000_000
#: Where a guest finds the device tree, behind the reset code.
DEVICE_TREE_ADDRESS = MEMORY_MAP["rom"].base + 32
#: The 16550's input clock; nothing but a guest's divisor depends on it.
_UART_CLOCK_HZ = 3_686_400

_A0, _A1, _T0 = 10, 11, 5


def isa_extensions(config: SocConfig) -> tuple[str, ...]:
    """The hart's extensions beside the base, in the order of the ISA string."""
    optional = BIT_MANIPULATION if config.bit_manipulation else ()
    # Both Svade and Svadu: menvcfg.ADUE selects, and is 0 after reset.
    return ("m", "a", "c", "zicntr", "zicsr", "zifencei", *optional, "sstc", "svade", "svadu")


def device_tree(
    config: SocConfig,
    *,
    ram_size: int,
    bootargs: str = "",
    initrd: tuple[int, int] | None = None,
    window_devices: int = 0,
) -> bytes:
    """The flattened device tree: the platform of ``rtl.arch.memory_map`` with ``ram_size`` bytes.

    It names guest RAM, the devices of the SoC and as many slots of the device window as hold a
    device, nothing else, and depends on nothing but the arguments; ``initrd`` is first and end address of an initial RAM disk. Raises ValueError when
    ``bootargs`` is not printable ASCII.
    """
    if not (bootargs.isascii() and bootargs.isprintable()):
        raise ValueError(f"boot arguments {bootargs!r} are not printable ASCII")
    tree = fdt.FDT()
    tree.header.version = 17
    tree.header.last_comp_version = 16
    phandles = {"intc": 1, "plic": 2, "finisher": 3}
    _words(tree, "/", "#address-cells", 2)
    _words(tree, "/", "#size-cells", 2)
    _strings(tree, "/", "compatible", "vmxlab,soc", "riscv-virtio")
    # OpenSBI 1.1 copies the model over "generic" without an end: it must be longer than that.
    _strings(tree, "/", "model", "vmxlab,soc")

    if bootargs:
        _strings(tree, "/chosen", "bootargs", bootargs)
    if initrd:
        for name, address in zip(("start", "end"), initrd, strict=True):
            _words(tree, "/chosen", f"linux,initrd-{name}", address >> 32, address & 0xFFFF_FFFF)
    _strings(tree, "/chosen", "stdout-path", f"/soc/{_unit('serial', 'uart')}")

    _cpus(tree, config, phandles)

    memory = f"/memory@{MEMORY_MAP['ram'].base:x}"
    _strings(tree, memory, "device_type", "memory")
    _words(tree, memory, "reg", *_reg(MEMORY_MAP["ram"].base, ram_size))

    _words(tree, "/soc", "#address-cells", 2)
    _words(tree, "/soc", "#size-cells", 2)
    _strings(tree, "/soc", "compatible", "simple-bus")
    tree.add_item(fdt.Property("ranges"), "/soc")
    _soc(tree, phandles)
    for slot in range(window_devices):
        _window_slot(tree, phandles, slot)

    for name, word in (("poweroff", Finish.PASS), ("reboot", Finish.RESET)):
        _strings(tree, f"/{name}", "compatible", f"syscon-{name}")
        _words(tree, f"/{name}", "regmap", phandles["finisher"])
        _words(tree, f"/{name}", "offset", 0)
        _words(tree, f"/{name}", "value", int(word))
    return tree.to_dtb()


def reset_code(entry: int, tree_address: int, base: int = MEMORY_MAP["rom"].base) -> bytes:
    """Instructions that jump to ``entry`` with a0 = hart id and a1 = the device tree's address.

    The code is put at ``base``; ``tree_address`` lies within 2 KiB behind it.
    """
    entry_word = 24
    code = (
        _encode("csrrs", rd=_A0, rs1=0, csr=CSRS["mhartid"].number),
        _encode("auipc", rd=_A1, imm=0),
        _encode("addi", rd=_A1, rs1=_A1, imm=tree_address - base - 4),
        _encode("auipc", rd=_T0, imm=0),
        _encode("ld", rd=_T0, rs1=_T0, imm=entry_word - 12),
        _encode("jalr", rd=0, rs1=_T0, imm=0),
    )
    return b"".join(word.to_bytes(4, "little") for word in code) + entry.to_bytes(8, "little")


def boot_rom(
    config: SocConfig,
    *,
    ram_size: int,
    bootargs: str = "",
    initrd: tuple[int, int] | None = None,
    window_devices: int = 0,
    entry: int = MEMORY_MAP["ram"].base,
) -> bytes:
    """The contents of the boot ROM. Raises ValueError when they do not fit."""
    rom = MEMORY_MAP["rom"]
    tree = device_tree(
        config,
        ram_size=ram_size,
        bootargs=bootargs,
        initrd=initrd,
        window_devices=window_devices,
    )
    code = reset_code(entry, DEVICE_TREE_ADDRESS)
    image = code.ljust(DEVICE_TREE_ADDRESS - rom.base, b"\0") + tree
    if len(image) > rom.size:
        raise ValueError(f"reset code and device tree need {len(image)} of {rom.size} bytes")
    return image


def _encode(name, *, rd=0, rs1=0, imm=0, csr=None):
    row = INSTRUCTIONS[name]
    word = row.match | rd << RD[0] | rs1 << RS1[0]
    if row.format is Format.CSR:
        return word | csr << 20
    return word | IMMEDIATES[row.format].insert(imm)


def _cpus(tree, config, phandles):
    cpu, intc = "/cpus/cpu@0", "/cpus/cpu@0/interrupt-controller"
    _words(tree, "/cpus", "#address-cells", 1)
    _words(tree, "/cpus", "#size-cells", 0)
    _words(tree, "/cpus", "timebase-frequency", CLOCK_HZ // config.cycles_per_tick)
    _strings(tree, cpu, "device_type", "cpu")
    _words(tree, cpu, "reg", 0)
    _strings(tree, cpu, "status", "okay")
    _strings(tree, cpu, "compatible", "riscv")
    # Single letters stand together, the others follow by underscores; newer kernels read the
    # two properties after it instead.
    extensions = isa_extensions(config)
    letters = "".join(name for name in extensions if len(name) == 1)
    names = "".join(f"_{name}" for name in extensions if len(name) > 1)
    _strings(tree, cpu, "riscv,isa", f"rv64i{letters}{names}")
    _strings(tree, cpu, "riscv,isa-base", "rv64i")
    _strings(tree, cpu, "riscv,isa-extensions", "i", *extensions)
    _strings(tree, cpu, "mmu-type", "riscv,sv39")
    _strings(tree, intc, "compatible", "riscv,cpu-intc")
    _words(tree, intc, "#address-cells", 0)
    _words(tree, intc, "#interrupt-cells", 1)
    tree.add_item(fdt.Property("interrupt-controller"), intc)
    _words(tree, intc, "phandle", phandles["intc"])


def _soc(tree, phandles):
    def device(node, region, *compatible):
        path = f"/soc/{_unit(node, region)}"
        _strings(tree, path, "compatible", *compatible)
        _words(tree, path, "reg", *_reg(MEMORY_MAP[region].base, MEMORY_MAP[region].size))
        return path

    def lines(path, *interrupts):
        words = [word for line in interrupts for word in (phandles["intc"], int(line))]
        _words(tree, path, "interrupts-extended", *words)

    finisher = device("test", "finisher", "sifive,test1", "sifive,test0", "syscon")
    _words(tree, finisher, "phandle", phandles["finisher"])

    clint = device("clint", "clint", "sifive,clint0", "riscv,clint0")
    lines(clint, Interrupt.MACHINE_SOFTWARE, Interrupt.MACHINE_TIMER)

    plic = device("plic", "plic", "sifive,plic-1.0.0", "riscv,plic0")
    lines(plic, Interrupt.MACHINE_EXTERNAL, Interrupt.SUPERVISOR_EXTERNAL)
    tree.add_item(fdt.Property("interrupt-controller"), plic)
    _words(tree, plic, "#address-cells", 0)
    _words(tree, plic, "#interrupt-cells", 1)
    _words(tree, plic, "riscv,ndev", max(UART_INTERRUPT, *WINDOW_INTERRUPTS))
    _words(tree, plic, "phandle", phandles["plic"])

    uart = device("serial", "uart", "ns16550a")
    _words(tree, uart, "clock-frequency", _UART_CLOCK_HZ)
    _words(tree, uart, "interrupt-parent", phandles["plic"])
    _words(tree, uart, "interrupts", UART_INTERRUPT)


def _window_slot(tree, phandles, slot):
    base = MEMORY_MAP["window"].base + slot * DEVICE_WINDOW_SLOT_SIZE
    path = f"/soc/virtio_mmio@{base:x}"
    _strings(tree, path, "compatible", "virtio,mmio")
    _words(tree, path, "reg", *_reg(base, DEVICE_WINDOW_SLOT_SIZE))
    _words(tree, path, "interrupt-parent", phandles["plic"])
    _words(tree, path, "interrupts", WINDOW_INTERRUPTS[slot])


def _unit(node, region):
    return f"{node}@{MEMORY_MAP[region].base:x}"


def _reg(base, size):
    return base >> 32, base & 0xFFFF_FFFF, size >> 32, size & 0xFFFF_FFFF


def _words(tree, path, name, *words):
    tree.add_item(fdt.PropWords(name, *words), path)


def _strings(tree, path, name, *strings):
    tree.add_item(fdt.PropStrings(name, *strings), path)

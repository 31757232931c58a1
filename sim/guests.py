"""The guests vmxlab knows: where their bytes come from, and how their console is driven."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import sw_vmm.guests
from rtl.arch.memory_map import MEMORY_MAP, UART_INTERRUPT
from sim.elf import Image, load_elf, load_raw
from sim.errors import VmxlabError
from sim.packages import OPENSBI, U_BOOT, Package, package_file
from sim.tiny import KERNEL_ADDRESS, tiny_elf
from sim.toolchain import build_program

__all__ = [
    "GUESTS",
    "Guest",
    "GuestKind",
    "GuestOptions",
    "bare_program",
    "hello_elf",
    "platform_defines",
]

_SOURCES = Path(sw_vmm.guests.__file__).parent
_RAM = MEMORY_MAP["ram"].base


@dataclass(frozen=True)
class GuestOptions:
    """What the user asked for; None is the guest's own choice.

    ``input`` is typed once ``input_after`` has appeared on the console, and ``until`` ends the
    run when it appears.
    """

    ram_size: int
    firmware: Path | None = None
    kernel: Path | None = None
    until: bytes | None = None
    input: bytes | None = None
    input_after: bytes | None = None
    cycles: int | None = None
    bootargs: str = ""


@dataclass(frozen=True)
class Guest:
    """A guest ready to be put into memory: the same bytes under every technique.

    ``files`` are (name, SHA-256) of what it was loaded from; ``signature`` is the range it
    declares; ``tohost`` the HTIF word that ends it; ``cycles`` the budget.
    """

    name: str
    images: tuple[Image, ...]
    ram_size: int
    cycles: int
    until: bytes | None = None
    input: bytes = b""
    input_after: bytes = b""
    bootargs: str = ""
    files: tuple[tuple[str, str], ...] = ()

    @property
    def entry(self) -> int:
        """Where the reset code jumps: the entry point of the first image."""
        return self.images[0].entry

    @property
    def segments(self) -> tuple[tuple[int, bytes], ...]:
        return tuple(segment for image in self.images for segment in image.segments)

    @property
    def signature(self) -> tuple[int, int] | None:
        return next((image.signature for image in self.images if image.signature), None)

    @property
    def programs(self) -> tuple[int, int] | None:
        """Where the guest leaves what its user programs took (``sim.program_costs``)."""
        return next((image.programs for image in self.images if image.programs), None)

    @property
    def tohost(self) -> int | None:
        found = (image.symbols.get("tohost") for image in self.images)
        return next((address for address in found if address is not None), None)


@dataclass(frozen=True)
class GuestKind:
    """A row of ``vmxlab guests``.

    ``load`` makes the guest; it may build or download, and says so by its second argument.
    ``takes`` are the options that name its files.
    """

    name: str
    text: str
    load: Callable[[GuestOptions, Callable[[str], None]], Guest]
    takes: tuple[str, ...] = field(default=())


def platform_defines() -> dict[str, int]:
    """Addresses and interrupt numbers of the platform, for programs and linker scripts."""
    bases = {f"{name.upper()}_BASE": region.base for name, region in MEMORY_MAP.items()}
    return {**bases, "UART_INTERRUPT": UART_INTERRUPT}


def hello_elf() -> Path:
    """The embedded guest, built from source at first use."""
    folder = _SOURCES / "hello"
    return build_program(
        "hello",
        [folder / "start.S", folder / "main.c"],
        script=_SOURCES / "bare.ld",
        defines=platform_defines(),
        flags=("-Wall", "-Wextra", "-Werror"),
    )


def bare_program(path: Path, options: GuestOptions, *, cycles: int = 200_000_000) -> Guest:
    """Any bare ELF program that ends by HTIF ``tohost`` or by the test finisher."""
    image = load_elf(path, ram_size=options.ram_size)
    return _guest(path.name, [(path, image)], options, cycles=cycles)


def _load_hello(options, say):
    path = hello_elf()
    image = load_elf(path, ram_size=options.ram_size)
    return _guest("hello", [(path, image)], options, cycles=100_000_000)


def _load_tiny(options, say, *, name="tiny", sbi_timer=False):
    kernel = tiny_elf(sbi_timer=sbi_timer, firmware=options.firmware is None)
    files = [(kernel, load_elf(kernel, ram_size=options.ram_size))]
    if options.firmware:
        files.insert(0, (options.firmware, _load_any(options.firmware, _RAM, options)))
        _refuse_overlap(files[0], KERNEL_ADDRESS)
    return _guest(name, files, options, cycles=1_000_000_000)


def _load_tiny_sbi(options, say):
    return _load_tiny(options, say, name="tiny-sbi", sbi_timer=True)


def _load_u_boot(options, say):
    firmware = _file(options.firmware, OPENSBI, say)
    kernel = _file(options.kernel, U_BOOT, say)
    files = [
        (firmware, _load_any(firmware, _RAM, options)),
        (kernel, _load_any(kernel, KERNEL_ADDRESS, options)),
    ]
    _refuse_overlap(files[0], KERNEL_ADDRESS)
    return _guest(
        "u-boot",
        files,
        options,
        cycles=4_000_000_000,
        until=b"=> ",
        typed=b" ",
        typed_after=b"Hit any key",
    )


def _refuse_overlap(firmware, kernel_address):
    path, image = firmware
    if image.end > kernel_address:
        raise VmxlabError(f"{path}: reaches {image.end:#x}, into the kernel at {kernel_address:#x}")


def _file(given: Path | None, package: Package, say) -> Path:
    return Path(given) if given else package_file(package, say=say)


def _load_any(path, address, options):
    """An ELF file by its own addresses, anything else as raw bytes at ``address``."""
    try:
        is_elf = path.read_bytes()[:4] == b"\x7fELF"
    except OSError as error:
        raise VmxlabError(f"{path}: {error.strerror}") from error
    if is_elf:
        return load_elf(path, ram_size=options.ram_size)
    return load_raw(path, address, ram_size=options.ram_size)


def _guest(name, files, options, *, cycles, until=None, typed=b"", typed_after=b""):
    return Guest(
        name=name,
        images=tuple(image for _, image in files),
        ram_size=options.ram_size,
        cycles=cycles if options.cycles is None else options.cycles,
        until=until if options.until is None else options.until,
        input=typed if options.input is None else options.input,
        input_after=typed_after if options.input_after is None else options.input_after,
        bootargs=options.bootargs,
        files=tuple(
            (path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path, _ in files
        ),
    )


#: Every guest ``vmxlab run`` knows by name.
GUESTS = {
    kind.name: kind
    for kind in (
        GuestKind(
            "hello", "Embedded bare program: UART, traps, timer, S- and U-mode.", _load_hello
        ),
        GuestKind(
            "tiny",
            "Embedded kernel with Sv39, processes, pipes, and programs that stress each.",
            _load_tiny,
            takes=("firmware",),
        ),
        GuestKind(
            "tiny-sbi",
            "The same, its timer armed by calls of the firmware.",
            _load_tiny_sbi,
            takes=("firmware",),
        ),
        GuestKind(
            "u-boot",
            "Stock OpenSBI fw_jump and stock U-Boot in S-mode, to the prompt.",
            _load_u_boot,
            takes=("firmware", "kernel"),
        ),
    )
}

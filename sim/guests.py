"""The guests vmxlab knows: where their bytes come from, and how their console is driven."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import sw_vmm.guests
from rtl.arch.memory_map import MEMORY_MAP, UART_INTERRUPT
from rtl.arch.paging import PAGE_BITS
from sim.elf import Image, load_elf, load_raw
from sim.errors import VmxlabError
from sim.linux_image import LINUX_BOOTARGS, LINUX_SUCCESS, initial_ram_disk, kernel_image
from sim.packages import LINUX, OPENSBI, U_BOOT, Package, package_file
from sim.tiny import KERNEL_ADDRESS, tiny_disk, tiny_elf
from sim.toolchain import build_program
from sw_vmm.devices.virtio_block import SECTOR

__all__ = [
    "DEFAULT_RAM_SIZE",
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
#: What a guest gets that has no need of its own.
DEFAULT_RAM_SIZE = 64 << 20
#: Behind the kernel, for the device tree: OpenSBI puts it at a multiple of 2 MiB.
_FIRMWARE_ROOM = 4 << 20
#: What can run a guest that pages.
_PAGING = ("native", "vmx-ept")
#: With 64 MiB Debian's kernel hangs before it has a console.
_LINUX_RAM = 128 << 20


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
    disk: Path | None = None
    virtio_console: bool = False


@dataclass(frozen=True)
class Guest:
    """A guest ready to be put into memory: the same bytes under every technique.

    ``files`` are (name, SHA-256) of what it was loaded from; ``signature`` is the range it
    declares; ``tohost`` the HTIF word that ends it; ``cycles`` the budget; ``initrd`` first and end
    address of its initial RAM disk. ``success`` is what it prints when all is well: a guest that
    ends without it has failed. ``archives`` are (name, SHA-256) of the packages it is from.
    ``supervisor``: it starts in S-mode at its entry point, and the VMM answers its SBI calls.
    ``disk`` is the image of its virtio block device and ``virtio_console`` tells whether it has a
    virtio console; they take the first slots of the device window, in this order.
    """

    name: str
    images: tuple[Image, ...]
    ram_size: int
    cycles: int
    until: bytes | None = None
    input: bytes = b""
    input_after: bytes = b""
    bootargs: str = ""
    initrd: tuple[int, int] | None = None
    success: bytes = b""
    files: tuple[tuple[str, str], ...] = ()
    archives: tuple[tuple[str, str], ...] = ()
    disk: bytes | None = None
    virtio_console: bool = False
    supervisor: bool = False

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
    ``takes`` are the options that name its files; ``ram_size`` is what it gets unless told.
    ``techniques`` are those it is compared under unless told.
    """

    name: str
    text: str
    load: Callable[[GuestOptions, Callable[[str], None]], Guest]
    takes: tuple[str, ...] = field(default=())
    ram_size: int = DEFAULT_RAM_SIZE
    techniques: tuple[str, ...] = ("native", "trap-emulate", "vmx-ept")


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
    guest = _guest(name, files, options, cycles=1_000_000_000)
    disk = tiny_disk() if guest.disk is None else guest.disk
    return replace(guest, disk=disk, virtio_console=True)


def _load_tiny_sbi(options, say):
    return _load_tiny(options, say, name="tiny-sbi", sbi_timer=True)


def _load_tiny_kernel(options, say):
    kernel = tiny_elf(sbi_timer=True, firmware=False)
    files = [(kernel, load_elf(kernel, ram_size=options.ram_size))]
    guest = _guest("tiny-kernel", files, options, cycles=1_000_000_000)
    disk = tiny_disk() if guest.disk is None else guest.disk
    return replace(guest, disk=disk, virtio_console=True, supervisor=True)


def _load_u_boot(options, say):
    source = _Source(options, say)
    files = [
        source.load(options.firmware, OPENSBI, _RAM),
        source.load(options.kernel, U_BOOT, KERNEL_ADDRESS),
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
        archives=source.archives,
    )


def _refuse_overlap(firmware, kernel_address):
    path, image = firmware
    if image.end > kernel_address:
        raise VmxlabError(f"{path}: reaches {image.end:#x}, into the kernel at {kernel_address:#x}")


def _load_linux(options, say):
    if options.kernel is None and options.ram_size < _LINUX_RAM:
        raise VmxlabError(
            f"{LINUX.name} does not start with less than {_LINUX_RAM >> 20}M of RAM (see --mem)"
        )
    source = _Source(options, say)
    firmware = source.load(options.firmware, OPENSBI, _RAM)
    _refuse_overlap(firmware, KERNEL_ADDRESS)
    kernel_path = source.find(options.kernel, LINUX)
    kernel = kernel_image(kernel_path, KERNEL_ADDRESS, ram_size=options.ram_size)
    disk_path = initial_ram_disk()
    disk = disk_path.read_bytes()
    # At the very end of RAM, as far as possible from the kernel and what the firmware puts behind it.
    place = _RAM + options.ram_size - len(disk) & -(1 << PAGE_BITS)
    if place < kernel.end + _FIRMWARE_ROOM:
        raise VmxlabError(
            f"{kernel_path}: {options.ram_size >> 20}M of RAM do not hold the kernel and its "
            "initial RAM disk (see --mem)"
        )
    guest = _guest(
        "linux",
        [firmware, (kernel_path, kernel), (disk_path, Image(place, ((place, disk),)))],
        options,
        cycles=10_000_000_000,
        archives=source.archives,
    )
    return replace(
        guest,
        bootargs=options.bootargs or LINUX_BOOTARGS,
        initrd=(place, place + len(disk)),
        success=LINUX_SUCCESS,
    )


class _Source:
    """Where a guest's files come from: given by the user, or from packages (``archives``)."""

    def __init__(self, options: GuestOptions, say: Callable[[str], None]):
        self._options = options
        self._say = say
        self.archives: list[tuple[str, str]] = []

    def find(self, given: Path | None, package: Package) -> Path:
        if given:
            return Path(given)
        found = package_file(package, say=self._say)
        self.archives.append((found.archive, found.archive_sha256))
        return found.path

    def load(self, given: Path | None, package: Package, address: int) -> tuple[Path, Image]:
        path = self.find(given, package)
        return path, _load_any(path, address, self._options)


def _load_any(path, address, options):
    """An ELF file by its own addresses, anything else as raw bytes at ``address``."""
    try:
        is_elf = path.read_bytes()[:4] == b"\x7fELF"
    except OSError as error:
        raise VmxlabError(f"{path}: {error.strerror}") from error
    if is_elf:
        return load_elf(path, ram_size=options.ram_size)
    return load_raw(path, address, ram_size=options.ram_size)


def _disk(path: Path) -> bytes:
    try:
        image = path.read_bytes()
    except OSError as error:
        raise VmxlabError(f"{path}: {error.strerror}") from error
    if not image or len(image) % SECTOR:
        raise VmxlabError(
            f"{path}: {len(image)} bytes are no disk: whole sectors of {SECTOR} bytes are needed"
        )
    return image


def _guest(name, files, options, *, cycles, until=None, typed=b"", typed_after=b"", archives=()):
    disk = None if options.disk is None else _disk(options.disk)
    if disk is not None:
        files = [*files, (options.disk, None)]
    return Guest(
        name=name,
        images=tuple(image for _, image in files if image is not None),
        ram_size=options.ram_size,
        cycles=cycles if options.cycles is None else options.cycles,
        until=until if options.until is None else options.until,
        input=typed if options.input is None else options.input,
        input_after=typed_after if options.input_after is None else options.input_after,
        bootargs=options.bootargs,
        files=tuple(
            (path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path, _ in files
        ),
        archives=tuple(archives),
        disk=disk,
        virtio_console=options.virtio_console,
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
            techniques=_PAGING,
        ),
        GuestKind(
            "tiny-sbi",
            "The same, its timer armed by calls of the firmware.",
            _load_tiny_sbi,
            takes=("firmware",),
            techniques=_PAGING,
        ),
        GuestKind(
            "tiny-kernel",
            "Its kernel alone, started in S-mode: the VMM is its firmware (vmx-ept only).",
            _load_tiny_kernel,
            techniques=("vmx-ept",),
        ),
        GuestKind(
            "u-boot",
            "Stock OpenSBI fw_jump and stock U-Boot in S-mode, to the prompt.",
            _load_u_boot,
            takes=("firmware", "kernel"),
        ),
        GuestKind(
            "linux",
            "Stock OpenSBI and a stock Linux kernel, to our own /init and its checks.",
            _load_linux,
            takes=("firmware", "kernel"),
            ram_size=_LINUX_RAM,
            techniques=_PAGING,
        ),
    )
}

"""What a Linux guest is made of besides firmware: the kernel's image, boot arguments, our init."""

import stat
import struct
from pathlib import Path

import sw_vmm.guests
from sim.cache import cached, hash_of
from sim.cpio import Entry, newc_archive
from sim.elf import ElfError, Image, load_raw
from sim.toolchain import build_linux_program

__all__ = ["LINUX_BOOTARGS", "LINUX_SUCCESS", "build_init", "initial_ram_disk", "kernel_image"]

_SOURCES = Path(sw_vmm.guests.__file__).parent / "linux_init"
#: Linux's Documentation/arch/riscv/boot-image-header.rst: the size in memory, and a magic number.
_IMAGE_SIZE = struct.Struct("<Q")
_DISK = "initrd.cpio"
_IMAGE_SIZE_AT, _MAGIC_AT, _MAGIC = 16, 56, b"RSC\x05"

#: Self-tests, measurements, and lists for people to read (tracing, sysfs): more than half of the
#: kernel's instructions.
_LEFT_OUT = (
    "jent_mod_init",
    "load_system_certificate_list",
    "bpf_tcp_ca_kfunc_init",
    "init_kprobe_trace",
    "bpf_dummy_struct_ops_init",
    "check_unaligned_access_all_cpus",
    "trace_eval_init",
    "tracer_init_tracefs",
    "init_blk_tracer",
    "slab_sysfs_init",
    "param_sysfs_builtin_init",
)
#: ``earlycon`` shows from the first line on how far the kernel gets; a panic ends the machine;
#: grace periods need not wait for the next tick.
LINUX_BOOTARGS = " ".join((
    "console=ttyS0",
    "earlycon",
    "panic=-1",
    "cryptomgr.notests",
    "rcupdate.rcu_expedited=1",
    f"initcall_blacklist={','.join(_LEFT_OUT)}",
))  # fmt: skip
#: The last line of init before it switches the machine off.
LINUX_SUCCESS = b"checks passed\r\n"


def kernel_image(path: Path, address: int, *, ram_size: int) -> Image:
    """A bootable kernel image at ``address``, with the memory behind it that it claims.

    Raises ElfError when the file is no such image, or does not fit into RAM.
    """
    image = load_raw(path, address, ram_size=ram_size)
    ((_, data),) = image.segments
    if data[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        raise ElfError(f"{path}: no bootable Linux image for RISC-V (arch/riscv/boot/Image)")
    (size,) = _IMAGE_SIZE.unpack_from(data, _IMAGE_SIZE_AT)
    if size <= len(data):
        return image
    if size > ram_size:
        raise ElfError(
            f"{path}: the kernel needs {size >> 10} KiB, and RAM has {ram_size >> 10} (see --mem)"
        )
    return Image(address, ((address, data + bytes(size - len(data))),))


def build_init() -> Path:
    """The init program, built from source at first use."""
    return build_linux_program(
        "init",
        sorted([*_SOURCES.glob("*.S"), *_SOURCES.glob("*.c")]),
        headers=sorted(_SOURCES.glob("*.h")),
        flags=("-Wall", "-Wextra", "-Werror"),
    )


def initial_ram_disk() -> Path:
    """The archive that becomes the root file system: init, and what it needs to find."""
    init = build_init().read_bytes()
    entries = (
        Entry("dev", stat.S_IFDIR | 0o755),
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry("proc", stat.S_IFDIR | 0o755),
        Entry("init", stat.S_IFREG | 0o755, init),
    )
    archive = newc_archive(entries)

    def build(folder: Path) -> None:
        (folder / _DISK).write_bytes(archive)

    return cached("programs", hash_of(_DISK, archive), build) / _DISK

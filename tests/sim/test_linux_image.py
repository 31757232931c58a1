"""What the Linux guest is made of, as far as it can be known without Linux: the rest is `make linux`."""

import itertools
import stat
import struct

import pytest

from rtl.arch.memory_map import MEMORY_MAP
from sim.elf import ElfError
from sim.errors import VmxlabError
from sim.guests import GUESTS, GuestOptions
from sim.linux_image import LINUX_SUCCESS, build_init, initial_ram_disk, kernel_image
from tests.sim.test_cpio import unpack

RAM = MEMORY_MAP["ram"].base


def kernel_bytes(*, memory, length=4096):
    """An Image as arch/riscv/boot makes it: image_size at 16, both magic numbers."""
    data = bytearray(length)
    struct.pack_into("<QQQ", data, 8, 0x20_0000, memory, 0)
    data[48:56], data[56:60] = b"RISCV\0\0\0", b"RSC\x05"
    return bytes(data)


@pytest.fixture
def files(tmp_path):
    firmware, kernel = tmp_path / "firmware", tmp_path / "kernel"
    firmware.write_bytes(bytes(4096))
    kernel.write_bytes(kernel_bytes(memory=8 << 20))
    return {"firmware": firmware, "kernel": kernel}


def load(ram_size, **options):
    return GUESTS["linux"].load(GuestOptions(ram_size=ram_size, **options), lambda text: None)


def test_kernel_gets_the_memory_it_claims(tmp_path):
    path = tmp_path / "kernel"
    path.write_bytes(kernel_bytes(memory=5 << 20))
    image = kernel_image(path, RAM, ram_size=8 << 20)
    assert (image.entry, image.end) == (RAM, RAM + (5 << 20))
    ((_, data),) = image.segments
    assert data.startswith(path.read_bytes()) and not any(data[4096:])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (kernel_bytes(memory=64 << 20), "RAM has 8192"),
        (b"\x7fELF" + bytes(4096), "no bootable Linux image"),
        (b"MZ", "no bootable Linux image"),
        (b"", "empty"),
    ],
)
def test_what_is_no_kernel_for_this_machine_is_refused(tmp_path, data, message):
    path = tmp_path / "kernel"
    path.write_bytes(data)
    with pytest.raises(ElfError, match=message):
        kernel_image(path, RAM, ram_size=8 << 20)


def test_guest_is_firmware_kernel_and_disk_that_do_not_meet(files):
    guest = load(32 << 20, **files)
    spans = sorted((first, first + len(data)) for first, data in guest.segments)
    assert [first for first, _ in spans[:2]] == [RAM, RAM + (2 << 20)]
    assert all(end <= first for (_, end), (first, _) in itertools.pairwise(spans))
    assert guest.initrd == spans[2]
    assert guest.initrd[0] % 4096 == 0 and RAM + (32 << 20) - guest.initrd[1] < 4096
    assert dict(guest.segments)[guest.initrd[0]] == initial_ram_disk().read_bytes()
    assert [name for name, _ in guest.files] == ["firmware", "kernel", "initrd.cpio"]
    assert guest.success == LINUX_SUCCESS
    assert "console=ttyS0" in guest.bootargs


def test_boot_arguments_may_be_others(files):
    assert load(32 << 20, **files, bootargs="quiet").bootargs == "quiet"


def test_too_little_memory_is_said(files):
    with pytest.raises(VmxlabError, match=r"12M of RAM do not hold .*--mem"):
        load(12 << 20, **files)
    with pytest.raises(VmxlabError, match=r"less than 128M of RAM .*--mem"):
        load(64 << 20, firmware=files["firmware"])


def test_disk_holds_init_and_what_it_needs():
    *records, _ = unpack(initial_ram_disk().read_bytes())
    found = {name: (numbers, data) for name, numbers, data in records}
    assert set(found) == {"dev", "dev/console", "proc", "init"}
    assert found["init"][1] == build_init().read_bytes()
    assert found["init"][0][1] == stat.S_IFREG | 0o755
    assert found["dev/console"][0][9:11] == [5, 1]


def test_init_is_a_static_program_for_the_hart():
    data = build_init().read_bytes()
    machine, flags = struct.unpack_from("<H", data, 18), struct.unpack_from("<I", data, 48)
    assert machine == (243,)
    # No floating-point ABI (bits 1 and 2), and no program header that names an interpreter (3).
    assert flags[0] & 6 == 0
    place, size, count = struct.unpack_from("<Q", data, 32) + struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, place + size * index)[0] for index in range(count)]
    assert 1 in kinds and 3 not in kinds
    assert b"/build/" not in data

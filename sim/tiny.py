"""Building the embedded guest ``tiny`` from its sources."""

from pathlib import Path

import sw_vmm.guests
from rtl.arch.csrs import CSRS, MENVCFG, MSTATUS
from rtl.arch.memory_map import (
    DEVICE_WINDOW_SLOT_SIZE,
    DEVICE_WINDOW_SLOTS,
    MEMORY_MAP,
    UART_INTERRUPT,
    WINDOW_INTERRUPTS,
)
from rtl.arch.paging import PTE, SATP, SatpMode
from rtl.arch.traps import Exception_, Interrupt, Privilege
from sim.cache import cached, hash_of
from sim.toolchain import build_program
from sw_vmm.devices.virtio_block import SECTOR

__all__ = ["KERNEL_ADDRESS", "tiny_disk", "tiny_elf"]

_SOURCES = Path(sw_vmm.guests.__file__).parent / "tiny"
#: Where the kernel begins, as stock fw_jump firmware wants it.
KERNEL_ADDRESS = MEMORY_MAP["ram"].base + 0x20_0000
#: Where user programs begin: the gigabyte below RAM is theirs.
_USER_BASE = 0x4000_0000
_SECTORS = 64
_FLAGS = ("-Wall", "-Wextra", "-Werror")


def tiny_disk() -> bytes:
    """The disk ``tiny`` finds when the user gives none: no two sectors alike."""
    return b"".join(
        bytes((sector * 29 + place * (2 * sector + 1)) & 0xFF for place in range(SECTOR))
        for sector in range(_SECTORS)
    )


def tiny_elf(*, sbi_timer: bool = False, firmware: bool = True) -> Path:
    """The ELF file, built from source at first use.

    With ``sbi_timer`` the kernel arms its timer by SBI, not by stimecmp. Without ``firmware`` it is
    the kernel alone, to be entered in S-mode at its entry point with a0 = hart id and a1 = device
    tree; whoever does so answers its SBI calls.
    """
    macros = {"TIMER_BY_SBI": 1} if sbi_timer else {}
    kernel = sorted(_SOURCES.glob("kernel/*.[cS]"))
    entry = ("-Wl,--entry,kernel_entry",)
    if firmware:
        kernel += sorted(_SOURCES.glob("firmware/*.[cS]"))
        entry = ("-Wl,--entry,firmware_entry",)
    return build_program(
        "tiny",
        [*kernel, _SOURCES / "memory_functions.c", _user_image()],
        script=_SOURCES / "tiny.ld",
        headers=_headers(),
        defines=_facts() | macros,
        flags=(*_FLAGS, *entry),
    )


def _headers() -> list[Path]:
    return sorted(_SOURCES.rglob("*.h"))


def _user_image() -> Path:
    """The user programs as an assembler source that holds their image."""
    image = build_program(
        "tiny-user",
        [*sorted(_SOURCES.glob("user/*.[cS]")), _SOURCES / "memory_functions.c"],
        script=_SOURCES / "user" / "user.ld",
        headers=_headers(),
        defines={"USER_BASE": _USER_BASE},
        flags=_FLAGS,
    ).read_bytes()

    def build(folder: Path) -> None:
        lines = [
            '.section .user_image, "a"',
            ".balign 4096",
            ".globl user_image",
            "user_image:",
            *(
                ".byte " + ",".join(map(str, image[place : place + 32]))
                for place in range(0, len(image), 32)
            ),
        ]
        (folder / "user_image.S").write_text("\n".join(lines) + "\n")

    return cached("sources", hash_of(image), build) / "user_image.S"


def _facts() -> dict[str, int]:
    """Addresses, numbers and bits of the architecture, as macros of the kernel and firmware."""
    layouts = {"PTE": PTE, "MSTATUS": MSTATUS, "MENVCFG": MENVCFG}
    return {
        **{f"{name.upper()}_BASE": region.base for name, region in MEMORY_MAP.items()},
        "USER_BASE": _USER_BASE,
        "UART_INTERRUPT": UART_INTERRUPT,
        "WINDOW_FIRST_INTERRUPT": WINDOW_INTERRUPTS[0],
        "WINDOW_SLOTS": DEVICE_WINDOW_SLOTS,
        "WINDOW_SLOT_SIZE": DEVICE_WINDOW_SLOT_SIZE,
        "CSR_STIMECMP": CSRS["stimecmp"].number,
        "SATP_SV39": SATP.encode(mode=SatpMode.SV39),
        "SATP_ASID_LSB": SATP["asid"].lsb,
        "PTE_PPN_LSB": PTE["ppn"].lsb,
        "MSTATUS_MPP_SUPERVISOR": MSTATUS.encode(mpp=Privilege.SUPERVISOR),
        **{
            f"{layout}_{field.name.upper()}": field.mask
            for layout, fields in layouts.items()
            for field in fields.fields
        },
        **{f"CAUSE_{cause.name}": int(cause) for cause in Exception_},
        **{interrupt.name: int(interrupt) for interrupt in Interrupt},
    }

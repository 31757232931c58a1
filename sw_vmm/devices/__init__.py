"""Devices the VMM emulates, in machine cycles: the same registers and times as the RTL's."""

from sw_vmm.devices.clint import Clint
from sw_vmm.devices.device import Device
from sw_vmm.devices.finisher import Finisher
from sw_vmm.devices.plic import Plic
from sw_vmm.devices.rom import Rom
from sw_vmm.devices.uart import Uart
from sw_vmm.devices.virtio_block import VirtioBlock
from sw_vmm.devices.virtio_console import VirtioConsole
from sw_vmm.devices.window import DeviceWindow

__all__ = [
    "Clint",
    "Device",
    "DeviceWindow",
    "Finisher",
    "Plic",
    "Rom",
    "Uart",
    "VirtioBlock",
    "VirtioConsole",
]

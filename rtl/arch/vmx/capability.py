"""CSRs of the extension: what the hart can do, and what software lets it do.

Root M-mode only; in non-root operation they do not exist.
"""

from rtl.arch.csrs import Csr
from rtl.arch.layout import Field, Layout
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPT_GPA_BITS, EPT_TAGS
from rtl.arch.vmx.fields import VMCS_REGION_BITS, VMCS_REVISION

__all__ = ["VMXBASIC", "VMX_CSRS"]

_ALL = (1 << 64) - 1
_READ_WRITE, _READ_ONLY = 0x7C0, 0xFC0

# fmt: off
VMXBASIC = Layout("vmxbasic", 64, (
    Field("revision", 0, 31, "Revision identifier of a VMCS region."),
    Field("region_bits", 32, 5, "Logarithm of the region's size in bytes."),
    Field("ept_tags", 40, 4, "EPTs whose translations the hart holds at a time."),
    Field("gpa_bits", 48, 6, "Bits of a guest-physical address."),
))
# fmt: on


def _rows():
    yield Csr("vmxstatus", _READ_WRITE, "What became of the latest VMX instruction.", _ALL)
    basic = VMXBASIC.encode(
        revision=VMCS_REVISION,
        region_bits=VMCS_REGION_BITS,
        ept_tags=EPT_TAGS,
        gpa_bits=EPT_GPA_BITS,
    )
    yield Csr("vmxbasic", _READ_ONLY, "Sizes and revision.", 0, basic, VMXBASIC)
    for index, (name, word) in enumerate(CONTROL_WORDS.items()):
        short = name.removesuffix("_controls")
        text = f"Bits of {name}"
        number = _READ_ONLY + 1 + 2 * index
        yield Csr(f"vmx{short}required", number, f"{text} that must be set.", 0, word.required)
        yield Csr(f"vmx{short}allowed", number + 1, f"{text} the hart implements.", 0, word.allowed)
        mask = f"{text} that software allows."
        yield Csr(f"vmx{short}mask", _READ_WRITE + 1 + index, mask, _ALL, _ALL)


#: By name.
VMX_CSRS = {csr.name: csr for csr in _rows()}

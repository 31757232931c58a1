"""The virtualization extension (docs/isa/vmx.md)."""

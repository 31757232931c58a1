"""Facts of the virtualization extension; ``docs/isa/vmx.md`` is its normative text."""

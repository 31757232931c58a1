"""The virtualization extension in plain Python: ``docs/isa/vmx.md`` as a program."""

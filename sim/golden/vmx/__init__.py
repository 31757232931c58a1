"""The virtualization extension in plain Python: ``docs/isa/vmx.md`` as a program.

``Hart(..., vmx=True)`` has it; ``hart.vmx`` (``operation.VmxOperation``) is what such a hart has
besides a hart. What there is to compare with an implementation:

===========================  ======================================================================
``hart.world``               0 root, 1 non-root; ``hart.csr`` are the CSRs of that world
``hart.trapped``             a VM exit as the retirement record shows it: the reason with bit
                             ``EXIT_BIT`` set, and the qualification
``vmx.vmcs.fields``          all fields of the current VMCS by name: the information area after an
                             exit is complete there, and guest state is saved
``vmx.vmcs.pointer``         with ``on``, ``launched``: what VMPTRST shows, and VMX operation
``vmx.vmcs.uncertain``       fields that cycles have made: compare them by VMREAD, which asks the
                             ``Platform`` (``counter("guest_mcycle")``)
``vmx.vmcs.opaque``          double words in memory that hold such a value: not to be compared
``vmx.root_csr``             root's CSRs, ``vmxstatus`` and the masks among them, in both worlds
``vmx.guest_csr``            the guest's, which count from its last entry
``vmx.parked``, ``park()``   whether the latest exit parks (``park_exits``), and the park record
===========================  ======================================================================

What an implementation says is believed where only time or caches can tell: when an exit comes
between instructions (``event_exit``), whether the guest waits in wfi then, guests' counters and
time, translations that are older than tables of the guest or the EPT and not yet invalidated, and A
and D that hardware may have set unseen. ``hart.due`` says what must come before the next
instruction: an interrupt, an exit (``events.EXIT_DUE``), or what the entry injects
(``events.INJECTION_DUE``; ``inject`` takes it). ``sim.lockstep`` is the user of all that.

The files: ``vmcs`` (which VMCS is current, its fields), ``entry_checks``, ``operation`` (entry,
exit, what comes between instructions), ``instructions``, ``intercept`` (which CSR instructions
exit), ``exits`` (information of exits), ``guest_csrs``, ``virtual_time``, ``nested`` (walks in two
dimensions).
"""

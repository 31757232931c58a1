"""What a memory's reader may expect of a row that is written in the same cycle."""

__all__ = ["COLLISIONS_UNDEFINED"]

#: For ``attrs`` of a ``Memory``: nobody looks at what a read in the cycle of a write to the same
#: row gives. Block RAM of the ECP5 promises nothing either; without this, synthesis adds a register
#: and a multiplexer per bit to give the old row, as simulation does.
COLLISIONS_UNDEFINED = {"read_during_write": "undefined"}

"""Mistakes a user can make and things a computer can lack: said in one line, never a traceback."""

__all__ = ["VmxlabError"]


class VmxlabError(Exception):
    """The command cannot go on; the message is one clear line that says what to do."""

"""Mistakes a user can make and things a computer can lack: said in one line, never a traceback."""

__all__ = ["BuildError", "ToolMissing", "VmxlabError"]


class VmxlabError(Exception):
    """The command cannot go on; the message is one clear line that says what to do."""


class ToolMissing(VmxlabError):
    """A program or package that is needed is not installed; the message names what to install."""


class BuildError(VmxlabError):
    """A build failed that should not have; the message names the log with the whole story."""

"""How Ctrl-C ends a command."""

from __future__ import annotations

#: Exit code of a command that Ctrl-C ended.
INTERRUPTED = 130


class Interrupted(Exception):
    """Ctrl-C ended a run; the message says how it goes on."""

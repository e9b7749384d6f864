"""Runs tlkit's commands in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from tlkit.cli.app import main


@dataclass
class Completed:
    """A command's exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: object, stdin: str = "") -> Completed:
    """Runs a command as the command line does, but in this process: importing torch anew takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    line = ["tlkit", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", line),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    assert isinstance(code, int)
    return Completed(code, out.getvalue(), err.getvalue())

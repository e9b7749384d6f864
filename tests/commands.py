"""Commands as the command line runs them, in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from tlkit.cli.app import main


@dataclass
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: object, given: str = "") -> Done:
    """One command as the command line runs it, in this process: loading torch anew takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    line = ["tlkit", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", line),
        mock.patch.object(sys, "stdin", io.StringIO(given)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())

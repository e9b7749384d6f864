"""Starts real processes that have loaded torch already: forks of a server, which imports it once.

A new interpreter needs four seconds of processor time for its imports alone. What is specific to a new
interpreter, such as how a command is installed or how its output is encoded, needs `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from commands import Completed

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["tlkit.cli.app", "tlkit.experiment.runner", "tlkit.inference.predictor", "sklearn.metrics"]
)


class Started:
    """A process with its outputs in files.

    Attributes:
        process: the process.
        stdout: the file of its standard output.
        stderr: the file of its standard error.
    """

    def __init__(
        self,
        target: Callable[..., object],
        *arguments: object,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> None:
        """Starts a process that calls a module's function.

        Args:
            target: the function.
            arguments: its arguments.
            folder: the process's current folder; None: that of this process.
            environment: variables besides those of this process.
            stdin: its standard input.
        """
        self._files = tempfile.TemporaryDirectory()
        streams = [Path(self._files.name) / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_bytes(stdin)
        _, self.stdout, self.stderr = streams
        variables = {**os.environ, **(environment or {})}
        self.process: BaseProcess = CONTEXT.Process(
            target=_call, args=(target, arguments, folder or Path.cwd(), variables, streams), daemon=True
        )
        self.process.start()

    def wait(self, seconds: float = 120) -> Completed:
        """Waits until it ends; its exit code is negative where a signal ended it."""
        self.process.join(seconds)
        code = self.process.exitcode
        assert code is not None, "the process does not end"
        return Completed(code, self.stdout.read_text(), self.stderr.read_text())


def tlkit(*arguments: object) -> None:
    """Runs a command as the command line does."""
    from tlkit.cli.app import main

    sys.argv = ["tlkit", *map(str, arguments)]
    main()


def execute(code: str, *arguments: object) -> None:
    """Runs code as ``python -c`` does."""
    sys.argv = ["-c", *map(str, arguments)]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


def _call(
    target: Callable[..., object],
    arguments: tuple[object, ...],
    folder: Path,
    variables: dict[str, str],
    streams: list[Path],
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for descriptor, (path, flags) in enumerate(
        zip(streams, (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT), strict=True)
    ):
        os.dup2(os.open(path, flags), descriptor)
    sys.stdin = open(0, closefd=False)  # multiprocessing has closed it
    target(*arguments)

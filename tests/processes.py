"""Starts real processes that have loaded torch already: forks of a server, which imports it once.

A new interpreter needs four seconds of processor time for its imports alone. What is specific to one, such
as how a command is installed or what it reads from standard input, needs `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from commands import Completed

PRELOADED = ["tlkit.cli.app", "tlkit.experiment.runner", "tlkit.inference.predictor", "sklearn.metrics"]
# Windows has no such server: there, every process is a new interpreter
CONTEXT = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
if CONTEXT.get_start_method() == "forkserver":
    CONTEXT.set_forkserver_preload(PRELOADED)


class Started:
    """A process with its outputs in files.

    Attributes:
        process: the process.
        stdout: the file of its standard output.
        stderr: the file of its standard error.
    """

    def __init__(self, target: Callable[..., object], *arguments: object, folder: Path | None = None) -> None:
        """Starts a process that calls a module's function.

        Args:
            target: the function.
            arguments: its arguments.
            folder: the process's current folder; None: that of this process.
        """
        outputs = Path(tempfile.mkdtemp())
        self.stdout, self.stderr = outputs / "stdout", outputs / "stderr"
        for path in (self.stdout, self.stderr):
            path.touch()
        call = (target, arguments, folder or Path.cwd(), dict(os.environ), (self.stdout, self.stderr))
        self.process: BaseProcess = CONTEXT.Process(target=_call, args=call, daemon=True)
        weakref.finalize(self.process, shutil.rmtree, outputs)
        self.process.start()

    def wait(self, seconds: float = 600) -> Completed:
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
    environment: dict[str, str],
    outputs: tuple[Path, Path],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY), descriptor)
    target(*arguments)

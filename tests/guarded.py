"""Runs Python code in a process that reports what it touches: the network, other programs, other files.

Not a test: `tests/attack` uses it to see that a stranger's file does nothing but what it may.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import dataclass

from huggingface_hub import constants
from processes import Started

import tlkit
import tlkit.inference.predictor
import tlkit.reporting.page
from tlkit.plugins.loader import load_registry

#: What an audit hook (PEP 578) reports, of all that Python code and its libraries ask the system for.
EVENTS = (
    *("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec"),
    *("os.posix_spawn", "pickle.find_class"),
)


@dataclass(frozen=True)
class Outcome:
    """What a code did: its error, what it touched, and how far the process's memory has grown, in bytes."""

    error: str
    touched: list[str]
    memory: int


def run_guarded(*codes: str, canaries: tuple[str, ...] = (), timeout: float = 60) -> list[Outcome]:
    """Runs each of `codes` in one process, after tlkit and what it loads are imported.

    A TlkitError that a code raises is its error; any other exception fails the test.

    Args:
        codes: Python code.
        canaries: parts of paths that must not be opened.
        timeout: seconds for all of them.
    """
    completed = Started(_guard, codes, canaries).wait(timeout)
    assert completed.returncode == 0, completed.stderr[-3000:]
    return [Outcome(*json.loads(line)) for line in completed.stdout.splitlines()[-len(codes) :]]


def _guard(codes: tuple[str, ...], canaries: tuple[str, ...]) -> None:
    touched: list[str] = []

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event in EVENTS:
            touched.append(f"{event} {args}"[:200])
        elif event == "open" and isinstance(args[0], str) and any(name in args[0] for name in canaries):
            touched.append(f"open {args[0]}")

    constants.HF_HUB_OFFLINE = False  # wherever the tests run, what would use the network is to be seen
    load_registry().known("backbone")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.addaudithook(hook)
    for code in codes:
        error = ""
        touched.clear()
        try:
            exec(code, {"tlkit": tlkit})
        except tlkit.TlkitError as problem:
            error = str(problem)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps([error, touched, grown * 1024]))  # noqa: T201

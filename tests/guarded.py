"""Runs Python code in a process that reports what it touches: the network, other programs, other files.

Not a test: `tests/attack` uses it to see that a stranger's file does nothing but what it may.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: An audit hook (PEP 578) sees what Python code and its libraries ask the system for.
HOOK = """
import json, os, sys
touched = []
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec",
                 "os.posix_spawn", "pickle.find_class"):
        touched.append(f"{event} {args}"[:200])
    elif event == "open" and isinstance(args[0], str) and any(name in args[0] for name in CANARIES):
        touched.append(f"open {args[0]}")
"""


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
    program = (
        "import tlkit, tlkit.inference.predictor, tlkit.reporting.page, timm, torch, resource\n"
        "from tlkit.plugins.loader import load_registry\n"
        "load_registry().known('backbone')\n"
        f"CANARIES = {canaries!r}\n{HOOK}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "sys.addaudithook(hook)\n"
        f"for code in {codes!r}:\n"
        "    error = ''\n"
        "    touched.clear()\n"
        "    try:\n        exec(code)\n"
        "    except tlkit.TlkitError as problem:\n        error = str(problem)\n"
        "    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "    print(json.dumps([error, touched, grown * 1024]))\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
    completed = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=environment,
        cwd=Path.cwd(),
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    return [Outcome(*json.loads(line)) for line in completed.stdout.splitlines()[-len(codes) :]]

"""Records what a command prints, for the figures in README.md and docs: benchmarks/recorded/NAME.txt.

uv run python -m benchmarks.record audit -- tlkit audit photos
uv run python -m benchmarks.record pets --run runs/pets -- tlkit fit photos --out runs/pets
uv run python -m benchmarks.record pets --run runs/pets --log fit.log --seconds 38 --note "an idle machine"

The last one is for a run that was made before, whose output is in a file. Device, threads and versions are
those of run.json where there is a run folder, and otherwise those of this process, whose environment the
command has. Names of folders that say nothing are shortened by --rename. See benchmarks/figures.py for how
pages use the records.
"""

from __future__ import annotations

import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.records import RECORDED
from tlkit.errors import RunFolderError
from tlkit.experiment.results import RunDescription
from tlkit.runtime.devices import choose_device
from tlkit.utils.json_files import read_json

#: The libraries whose versions a record names.
LIBRARIES = ("tlkit", "torch", "timm")


def run(command: list[str]) -> tuple[str, str]:
    """Runs a command, and returns what it printed and how long it took; its output is shown as well."""
    began, lines = time.perf_counter(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            lines.append(line)
    if process.returncode:
        raise SystemExit(f"the command failed with exit code {process.returncode}: nothing is recorded")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, processor = time.perf_counter() - began, used.ru_utime + used.ru_stime
    return "".join(lines), f"{seconds:.0f} s by the clock, {processor:.0f} s of processor time"


def describe(run_folder: Path) -> RunDescription:
    """Returns what a run says of the machine that it ran on."""
    return read_json(run_folder / "run.json", RunDescription, RunFolderError)


def where(description: RunDescription | None) -> str:
    """Returns the device, threads and versions of a run, or of this process."""
    if description is None:
        device, threads, python = choose_device(None).type, torch.get_num_threads(), platform.python_version()
        versions = {library: version(library) for library in LIBRARIES}
    else:
        device, threads, python = description.device, description.threads, description.python
        versions = description.versions
    named = ", ".join(f"{library} {versions[library]}" for library in LIBRARIES)
    return f"on {device}, threads: {threads}; Python {python}, {named}"


def header(command: list[str], when: datetime, *parts: str) -> str:
    """Returns the first lines of a record: the command, when it was run, and what else is to be said."""
    line = shlex.join([Path(command[0]).name, *command[1:]])
    return f"$ {line}\n" + "; ".join(filter(None, (f"{when:%Y-%m-%d}", *parts))) + "\n\n"


def main(
    name: str,
    command: Annotated[list[str] | None, typer.Argument(help="The command, after --.")] = None,
    run_folder: Annotated[Path | None, typer.Option("--run", help="Keep its results.json, too.")] = None,
    log: Annotated[Path | None, typer.Option(help="The output of a run that was made before.")] = None,
    seconds: Annotated[float | None, typer.Option(help="How long that took by the clock.")] = None,
    note: Annotated[str, typer.Option(help="What else was going on, such as: an idle machine.")] = "",
    rename: Annotated[list[str] | None, typer.Option(help="Such as /tmp/x/f1=runs/pets.")] = None,
) -> None:
    """Run a command, and record its output."""
    if log is not None:
        if run_folder is None:
            raise typer.BadParameter("--log needs --run, whose run.json has the machine of that run")
        command = command or list(describe(run_folder).command)
    if not command:
        raise typer.BadParameter("name a command after --")
    if log is None:
        note = note or f"load {os.getloadavg()[0]:.1f}"
        output, took = run(command)
        when = datetime.now()
    else:
        took = "" if seconds is None else f"{seconds:.0f} s by the clock, noted by hand"
        output, when = log.read_text(encoding="utf-8"), datetime.fromtimestamp(log.stat().st_mtime)
    machine = where(None if run_folder is None else describe(run_folder))
    text = header(command, when, took, machine, note) + "".join(
        f"{line.rstrip()}\n" for line in output.splitlines()
    )
    for old, new in (change.split("=", 1) for change in rename or ()):
        text = text.replace(old, new)
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{name}.txt").write_text(text, encoding="utf-8")
    if run_folder is not None:
        shutil.copyfile(run_folder / "results.json", RECORDED / f"{name}.json")


if __name__ == "__main__":
    typer.run(main)

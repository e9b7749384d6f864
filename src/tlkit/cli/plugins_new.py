"""`tlkit plugins new`: writes a package that registers one part, with a test, to start a plugin from."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.plugins_check import check_kind

#: The names that Python packaging allows for a distribution.
VALID_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
#: What a package may have besides a part: hooks that observe runs, or a command.
OTHERS = ("events", "command")


def new(
    name: Annotated[
        str, typer.Argument(help="The part's or command's name; the package is called tlkit-NAME.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="backbone, head, loss, augmentation, freeze-policy, source, engine; events (observes runs); "
            "command."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The folder to write; tlkit-NAME unless given.")] = None,
) -> None:
    """Create a plugin: a package with one part, or that observes runs or adds a command; a test, a README."""
    check_kind(kind, OTHERS)
    part = _part_name(name, kind)
    folder = out or Path(f"tlkit-{part}")
    if folder.exists():
        raise typer.BadParameter(
            f"{folder} exists already: choose another folder with --out", param_hint="NAME"
        )
    _write_package(folder, part, kind)
    say(f"{folder} has the {kind} {part!r}. Install it and run its test:")
    say(f"  pip install -e {folder}")
    say(f"  pytest {folder}")
    if kind == "command":
        say(f"  tlkit {part} --help")
    elif kind not in OTHERS:
        say(f"  tlkit plugins check {part}{' --root FOLDER' if kind == 'source' else ''}")


def _part_name(name: str, kind: str) -> str:
    """Returns the name of the new part; raises typer.BadParameter if it is not valid or not free."""
    from tlkit.plugins.loader import load_registry

    if not VALID_NAME.fullmatch(name):
        raise typer.BadParameter(
            f"{name!r} is not a valid package name: use letters, digits, '-', '_' and '.', with a letter or "
            "digit at both ends",
            param_hint="NAME",
        )
    part = re.sub(r"[-_.]+", "-", name.removeprefix("tlkit-")).lower()
    if kind not in OTHERS and part in load_registry().names(kind):
        raise typer.BadParameter(f"a {kind} {part!r} exists already: choose another name", param_hint="NAME")
    with suppress(PackageNotFoundError):
        installed = distribution(f"tlkit-{part}")
        raise typer.BadParameter(
            f"a package {installed.name} is installed already: choose another name", param_hint="NAME"
        )
    return part


def _write_package(folder: Path, part: str, kind: str) -> None:
    from tlkit.plugins.registry import HOOKS

    module = f"tlkit_{part.replace('-', '_')}"
    values = {
        "part": part,
        "distribution": f"tlkit-{part}",
        "module": module,
        "kind": kind,
        "hook": HOOKS.get(kind, ""),
        "summary": {
            "events": f"Observes tlkit's runs: {part}.",
            "command": f"The command tlkit {part}.",
        }.get(kind, f"The {kind} {part} for tlkit."),
        "group": '"tlkit.commands"' if kind == "command" else "tlkit",
        "target": f"{module}:app" if kind == "command" else module,
    }
    templates = files("tlkit.cli") / "templates"
    readme = f"README_{kind}.md.txt" if kind in OTHERS else "README.md.txt"
    for target, template in (
        ("pyproject.toml", "pyproject.toml.txt"),
        ("README.md", readme),
        (f"src/{module}.py", f"{kind}.py.txt"),
        (f"tests/test_{module}.py", f"test_{kind}.py.txt"),
    ):
        text = (templates / template).read_text(encoding="utf-8")
        file = folder / target
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(text).substitute(values), encoding="utf-8")

"""``tlkit plugins new``: a package that registers one part, with its test, ready to be changed."""

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

#: A distribution's name, as Python packaging wants it.
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "src/{module}.py": "{kind}.py.txt",
    "tests/test_{module}.py": "test_{kind}.py.txt",
}


def new(
    name: Annotated[str, typer.Argument(help="The part's name; the package is called tlkit-NAME.")],
    kind: Annotated[str, typer.Option(help="backbone, head, augmentation, freeze-policy or source.")],
    out: Annotated[Path | None, typer.Option(help="The folder; tlkit-NAME unless given.")] = None,
) -> None:
    """Begin a plugin: a package with one part, a test that calls the contract suite, and a README."""
    from tlkit.plugins.loader import load_registry
    from tlkit.plugins.registry import HOOKS, KINDS

    if kind not in KINDS:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(KINDS)}", param_hint="--kind")
    if not NAME.fullmatch(name):
        raise typer.BadParameter(
            f"{name!r} is no name for a package: letters, digits, '-', '_' and '.', "
            "a letter or digit at both ends",
            param_hint="NAME",
        )
    part = re.sub(r"[-_.]+", "-", name.removeprefix("tlkit-")).lower()
    if part in load_registry().names(kind):
        raise typer.BadParameter(
            f"there is a {kind} {part!r} already: choose another name", param_hint="NAME"
        )
    with suppress(PackageNotFoundError):
        found = distribution(f"tlkit-{part}")
        raise typer.BadParameter(
            f"a package {found.name} is installed already: choose another name", param_hint="NAME"
        )
    folder = out or Path(f"tlkit-{part}")
    if folder.exists():
        raise typer.BadParameter(f"{folder} is there already: choose another with --out", param_hint="NAME")
    names = {
        "part": part,
        "distribution": f"tlkit-{part}",
        "module": f"tlkit_{part.replace('-', '_')}",
        "kind": kind,
        "hook": HOOKS[kind],
    }
    for target, template in FILES.items():
        text = (files("tlkit") / "templates" / template.format(kind=kind)).read_text(encoding="utf-8")
        file = folder / target.format(**names)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(text).substitute(names), encoding="utf-8")
    say(f"{folder} has the {kind} {part!r}. Install it and run its test:")
    say(f"  pip install -e {folder}")
    say(f"  pytest {folder}")
    say(f"  tlkit plugins check {part}{' --root FOLDER' if kind == 'source' else ''}")

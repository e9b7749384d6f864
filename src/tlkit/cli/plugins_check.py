"""``tlkit plugins check``: the contract suite over parts, and over every family of timm's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli.console import json_line, progress, say, table

if TYPE_CHECKING:
    from tlkit.plugins.registry import Registry
    from tlkit.testing import Result
    from tlkit.testing.timm_families import Row

COLUMNS = ("family", "name", "px>", "forward", "blocks>", "split", "fine-tune step", "model folder")


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Parts, as in a recipe; with --timm families, all unless named."),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only parts of this kind.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="Give the parts this option.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The folder that sources are checked with.")] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Pixels of the images that backbones are checked with.")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object per line instead of a table.")
    ] = False,
    timm: Annotated[bool, typer.Option("--timm", help="One network of every family of timm's.")] = False,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --timm, write the table to this Markdown file too."),
    ] = None,
) -> None:
    """Check parts against what tlkit wants of them, and say how to mend what fails.

    A backbone's option `weights` is "none", or left out, unless --set says otherwise, so that nothing is
    fetched.
    """
    from tlkit.plugins.loader import load_registry
    from tlkit.plugins.registry import KINDS

    if kind is not None and kind not in KINDS:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(KINDS)}", param_hint="--kind")
    if not timm and not names:
        raise typer.BadParameter("name at least one part; tlkit plugins list shows them", param_hint="NAMES")
    if page is not None and not timm:
        raise typer.BadParameter("only --timm writes one", param_hint="--page")
    registry = load_registry()
    if timm:
        passed = _check_timm(names or [], registry, as_json=json_, page=page)
    else:
        passed = _check_parts(names or [], registry, kind, set_ or [], root, size, as_json=json_)
    if not passed:
        raise typer.Exit(1)


def _check_parts(
    names: Sequence[str],
    registry: Registry,
    kind: str | None,
    texts: Sequence[str],
    root: Path | None,
    size: int | None,
    *,
    as_json: bool,
) -> bool:
    from tlkit.recipe.reader import read_options

    given = read_options(texts)
    # every name is looked up first, so that a misspelt one costs no time
    parts = [
        part for name in names for part in ([registry.find(kind, name)] if kind else registry.search(name))
    ]
    where = root.absolute() if root else None
    for part in parts:
        _must_be_possible(part.kind, part.name, given, registry, where)
    done = []
    for part in parts:
        with progress(f"{part.kind} {part.name}", _checks(part.kind), "checks") as tick:
            for result in _results(part.kind, part.name, given, registry, where, size):
                done.append(result)
                tick(1)
                if as_json:
                    json_line(asdict(result))
    failed = [result for result in done if result.outcome == "failed"]
    if not as_json:
        rows = [(f"{each.kind} {each.part}", each.check, each.outcome, each.message) for each in done]
        table(None, ("part", "check", "result", "message"), rows)
        na = sum(result.outcome == "not applicable" for result in done)
        say(f"{len(done) - len(failed) - na} passed, {len(failed)} failed, {na} not applicable")
    return not failed


def _must_be_possible(
    kind: str, name: str, given: Mapping[str, Any], registry: Registry, root: Path | None
) -> None:
    """Finds a mistake before any part is checked, which takes its time."""
    from tlkit.errors import PluginError

    for key, message in registry.problems(kind, name, given):
        raise PluginError(f"{kind} {name!r}: option {key!r} {message}")
    if kind == "source" and root is None and registry.needs_root(name):
        raise PluginError(f"source {name!r} needs a folder: give one with --root PATH")


def _checks(kind: str) -> int:
    """How many results a part of that kind gives."""
    from tlkit.testing import CHECKS

    return len(CHECKS[kind]) + 2


def _results(
    kind: str, name: str, given: Mapping[str, Any], registry: Registry, root: Path | None, size: int | None
) -> Iterator[Result]:
    from tlkit.testing import results

    own = registry.without_weights(name) if kind == "backbone" else {}
    return results(kind, name, {**own, **given}, registry=registry, root=root, size=size)


def _check_timm(wanted: Sequence[str], registry: Registry, *, as_json: bool, page: Path | None) -> bool:
    from tlkit.testing import timm_families

    families = timm_families.families(wanted)
    rows = []
    with progress("timm", len(families), "families") as tick:
        for row in timm_families.survey(families, registry):
            rows.append(row)
            if as_json:
                json_line(asdict(row))
            tick(1)
    if not as_json:
        table(None, (*COLUMNS, "reason"), [(*_cells(row), row.reason) for row in rows])
        say(_summary(rows))
    if page is not None:
        page.write_text(_page(rows), encoding="utf-8")
    return all(row.works for row in rows)


def _cells(row: Row) -> tuple[str, ...]:
    flags = [row.forward, row.split, row.finetune, row.model_folder]
    forward, split, finetune, folder = ("yes" if flag else "no" for flag in flags)
    return row.family, row.name, str(row.size), forward, str(row.blocks), split, finetune, folder


def _summary(rows: Sequence[Row]) -> str:
    flags = ("forward", "split", "finetune", "model_folder")
    forward, split, finetune, folder = (sum(getattr(row, flag) for row in rows) for flag in flags)
    return (
        f"Of {len(rows)} families {forward} forward, {split} divide in front of their last block and keep "
        f"features, {finetune} fine-tune, {folder} come back from a model folder."
    )


def _page(rows: Sequence[Row]) -> str:
    """The table as a Markdown page."""
    from datetime import date
    from importlib.metadata import version

    names = [column.removesuffix(">") for column in COLUMNS]
    lines = [
        "# timm's networks",
        "",
        f"timm {version('timm')}, {date.today():%Y-%m-%d}. One network of every family, the one "
        "with the fewest parameters, without pretrained weights; written by "
        "`tlkit plugins check --timm --page docs/timm.md`.",
        "",
        f"{_summary(rows)} One that does not divide trains whole: slower, to the same end.",
        "",
        f"| {' | '.join(names)} |",
        f"|{'|'.join(' ---: ' if column.endswith('>') else ' --- ' for column in COLUMNS)}|",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
    ]
    reasons = [f"- `{row.name}` ({row.family}): {row.reason}" for row in rows if row.reason]
    if reasons:
        lines += ["", "## Why not", "", *reasons]
    return "\n".join(lines) + "\n"

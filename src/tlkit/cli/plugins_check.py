"""`tlkit plugins check`: runs the contract suite on parts, or on a network of every timm family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli.console import json_line, progress, say, table

if TYPE_CHECKING:
    from tlkit.plugins.registry import RegisteredPart, Registry
    from tlkit.testing import Result
    from tlkit.testing.timm_families import Row

#: The table of timm's families; columns whose name ends with ``>`` are aligned to the right.
FAMILY_COLUMNS = ("family", "name", "px>", "forward", "blocks>", "partitioned", "fine-tuned", "model folder")


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of parts, as in a recipe; with --timm, names of families (all unless given)."
        ),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only parts of this kind.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="Set an option of the parts.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The folder that sources are checked with.")] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Size in pixels of the images that backbones are checked with.")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object per line instead of a table.")
    ] = False,
    timm: Annotated[bool, typer.Option("--timm", help="Check one network of every timm family.")] = False,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --timm, write the table to this Markdown file too."),
    ] = None,
) -> None:
    """Check that parts do what tlkit requires of them, and say how to fix what fails.

    A backbone's option `weights` is "none", or left out, unless --set says otherwise, so that nothing is
    downloaded.
    """
    from tlkit.plugins.loader import load_registry

    if kind is not None:
        check_kind(kind)
    if not timm and not names:
        raise typer.BadParameter("name at least one part; tlkit plugins list shows them", param_hint="NAMES")
    if page is not None and not timm:
        raise typer.BadParameter("it can only be used with --timm", param_hint="--page")
    registry = load_registry()
    if timm:
        passed = _check_timm(names or [], registry, as_json=json_, page=page)
    else:
        passed = _check_parts(names or [], registry, kind, set_ or [], root, size, as_json=json_)
    if not passed:
        raise typer.Exit(1)


def check_kind(kind: str, others: Sequence[str] = ()) -> None:
    """Raises typer.BadParameter unless it is a kind of part, or one of the others."""
    from tlkit.plugins.registry import KINDS

    if kind not in (*KINDS, *others):
        kinds = ", ".join((*KINDS, *others))
        raise typer.BadParameter(f"{kind!r} is not one of {kinds}", param_hint="--kind")


def _check_parts(
    names: Sequence[str],
    registry: Registry,
    kind: str | None,
    assignments: Sequence[str],
    root: Path | None,
    size: int | None,
    *,
    as_json: bool,
) -> bool:
    """Checks parts by name and prints the results; returns whether no check failed."""
    from tlkit.recipe.reader import read_options

    options = read_options(assignments)
    parts = [
        part for name in names for part in ([registry.find(kind, name)] if kind else registry.search(name))
    ]
    folder = root.absolute() if root else None
    # before any check runs, since checks take time
    for part in parts:
        _check_options(part, options, registry, folder)
    results = []
    for part in parts:
        with progress(f"{part.kind} {part.name}", _check_count(part.kind), "checks") as tick:
            for result in _results(part, options, registry, folder, size):
                results.append(result)
                tick(1)
                if as_json:
                    json_line(asdict(result))
    if not as_json:
        _print_results(results)
    return all(result.outcome != "failed" for result in results)


def _check_options(
    part: RegisteredPart, options: Mapping[str, Any], registry: Registry, root: Path | None
) -> None:
    """Raises PluginError if a part cannot be made with these options and this folder."""
    from tlkit.errors import PluginError

    for key, message in registry.problems(part.kind, part.name, options):
        raise PluginError(f"{part.kind} {part.name!r}: option {key!r} {message}")
    if part.kind == "source" and root is None and registry.needs_root(part.name):
        raise PluginError(f"source {part.name!r} needs a folder: name one with --root PATH")


def _check_count(kind: str) -> int:
    """Returns the number of results of a part of that kind."""
    from tlkit.testing import CHECKS

    return len(CHECKS[kind]) + 2  # whether its options are declared, and whether it can be made


def _results(
    part: RegisteredPart,
    options: Mapping[str, Any],
    registry: Registry,
    root: Path | None,
    size: int | None,
) -> Iterator[Result]:
    from tlkit.testing import results

    defaults = registry.without_weights(part.name) if part.kind == "backbone" else {}
    return results(part.kind, part.name, {**defaults, **options}, registry=registry, root=root, size=size)


def _print_results(results: Sequence[Result]) -> None:
    rows = [
        (f"{result.kind} {result.part}", result.check, result.outcome, result.message) for result in results
    ]
    table(None, ("part", "check", "result", "message"), rows)
    outcomes = [result.outcome for result in results]
    counts = (f"{outcomes.count(outcome)} {outcome}" for outcome in ("passed", "failed", "not applicable"))
    say(", ".join(counts))


def _check_timm(requested: Sequence[str], registry: Registry, *, as_json: bool, page: Path | None) -> bool:
    """Checks a network of each family and prints a row for each; returns whether all of them work."""
    from tlkit.testing import timm_families

    families = timm_families.families(requested)
    rows = []
    with progress("timm", len(families), "families") as tick:
        for row in timm_families.survey(families, registry):
            rows.append(row)
            if as_json:
                json_line(asdict(row))
            tick(1)
    if not as_json:
        table(None, (*FAMILY_COLUMNS, "reason"), [(*_cells(row), row.reason) for row in rows])
        say(_summary(rows))
    if page is not None:
        page.write_text(_page(rows), encoding="utf-8")
    return all(row.works for row in rows)


def _cells(row: Row) -> tuple[str, ...]:
    flags = (row.forward, row.partitions, row.finetune, row.model_folder)
    forward, partitions, finetune, folder = ("yes" if flag else "no" for flag in flags)
    return row.family, row.name, str(row.size), forward, str(row.blocks), partitions, finetune, folder


def _summary(rows: Sequence[Row]) -> str:
    return (
        f"Of {len(rows)} families, {sum(row.forward for row in rows)} compute features, "
        f"{sum(row.partitions for row in rows)} are partitioned in front of their last block, "
        f"{sum(row.finetune for row in rows)} are fine-tuned, and "
        f"{sum(row.model_folder for row in rows)} are restored from a model folder."
    )


def _page(rows: Sequence[Row]) -> str:
    """Returns the table as a Markdown page."""
    from datetime import date
    from importlib.metadata import version

    names = [column.removesuffix(">") for column in FAMILY_COLUMNS]
    alignments = [" ---: " if column.endswith(">") else " --- " for column in FAMILY_COLUMNS]
    lines = [
        "# timm's networks",
        "",
        f"timm {version('timm')}, {date.today():%Y-%m-%d}. One network of every family, the one "
        "with the fewest parameters, without pretrained weights; written by "
        "`tlkit plugins check --timm --page docs/timm.md`.",
        "",
        f"{_summary(rows)} A network that cannot be partitioned trains whole: slower, with the same result.",
        "",
        f"| {' | '.join(names)} |",
        f"|{'|'.join(alignments)}|",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
    ]
    reasons = [f"- `{row.name}` ({row.family}): {row.reason}" for row in rows if row.reason]
    if reasons:
        lines += ["", "## Why not", "", *reasons]
    return "\n".join(lines) + "\n"

"""`tlkit plugins`: the installed plugins, and the parts that they register with their options."""

from __future__ import annotations

import inspect
import json
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import say, table
from tlkit.cli.plugins_check import check, check_kind
from tlkit.cli.plugins_new import new
from tlkit.errors import PluginError

if TYPE_CHECKING:
    from tlkit.plugins.registry import RegisteredPart

app = typer.Typer(
    help="List, show, check and create plugins and the parts that they register.", no_args_is_help=True
)
app.command()(check)
app.command()(new)


@app.command("list")
def list_plugins() -> None:
    """List the installed plugins and the parts that they register."""
    from tlkit.plugins.loader import load_registry
    from tlkit.plugins.registry import KINDS

    registry = load_registry()
    states = [
        (plugin.name, plugin.distribution, plugin.version, plugin.state, plugin.reason)
        for plugin in registry.plugins
    ]
    table("Plugins", ("name", "distribution", "version", "state", "reason"), states)
    parts = []
    for kind in KINDS:
        parts += [(kind, part.name, part.owner) for part in registry.parts(kind)]
        parts += [
            (kind, f"{family.name} (all its names)", family.owner) for family in registry.families(kind)
        ]
    table("Parts", ("kind", "name", "owner"), parts)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A part's name, as in a recipe.")],
    kind: Annotated[
        str | None, typer.Option(help="Kind of the part, if parts of several kinds have this name.")
    ] = None,
) -> None:
    """Show what a part does, which plugin registered it, and its options."""
    from tlkit.plugins.loader import load_registry

    if kind is not None:
        check_kind(kind)
    registry = load_registry()
    try:
        parts = [registry.find(kind, name)] if kind else registry.search(name)
    except PluginError as error:
        raise PluginError(_of_timm(name) or str(error)) from error
    if len(parts) > 1:
        kinds = ", ".join(part.kind for part in parts)
        raise typer.BadParameter(
            f"several parts are called {name!r}: choose one of {kinds}", param_hint="--kind"
        )
    _show(parts[0])


def _of_timm(name: str) -> str | None:
    """Returns where recipes name timm's optimisers and schedules, if it is one of these."""
    from timm.optim import list_optimizers

    from tlkit.training.optimizers import SCHEDULES

    for key, names in (("optimizer", list_optimizers()), ("schedule", SCHEDULES)):
        if name in names:
            return f"{name!r} is one of timm's {key}s and no plugin's part: recipes name it in training.{key}"
    return None


def _show(part: RegisteredPart) -> None:
    from tlkit.plugins import options

    factory = part.factory
    while isinstance(factory, partial):
        factory = factory.func
    # the options have a table of their own
    doc = (inspect.getdoc(factory) or "no description").partition("\nArgs:\n")[0].strip()
    say(f"{part.kind} {part.name}\nfrom {part.owner} {part.version}\n\n{doc}\n", hanging=0)
    rows = [
        (option.name, option.type_text, _default(option.default), option.doc)
        for option in options.describe(part.factory)
    ]
    if rows:
        table("Options", ("name", "type", "default", "meaning"), rows)


def _default(value: object) -> str:
    """Formats a default as in a recipe, as far as TOML can express it."""
    if value is None:
        return "none"
    if isinstance(value, str | bool | list | tuple | dict):
        return json.dumps(value, default=str)
    return str(value)


@app.command()
def blocks(
    name: Annotated[str, typer.Argument(help="A backbone's name, as in a recipe.")],
    features: Annotated[
        str | None,
        typer.Option(help="map or pooled; the backbone's default unless given."),
    ] = None,
) -> None:
    """Show a backbone's blocks, which freeze policies freeze as a whole, from input to output."""
    from tlkit.plugins.loader import load_registry

    registry = load_registry()
    chosen = {} if features is None else {"features": features}
    backbone = registry.make("backbone", name, {**chosen, **registry.without_weights(name)})
    sizes = {key: value.numel() for key, value in backbone.module.named_parameters()}
    rows = []
    for number, block in enumerate(backbone.blocks(), 1):
        count = sum(sizes[key] for key in block.parameters)
        span = f"{block.parameters[0]} … {block.parameters[-1]}"
        rows.append((str(number), block.span, f"{count:,}", span))
    table(f"{name}: {sum(sizes.values()):,} parameters", ("#>", "block", "parameters>", "from … to"), rows)

"""The command line: commands, and what becomes of errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated

import typer

from tlkit.cli import cache, plugins
from tlkit.cli.console import say
from tlkit.cli.evaluate import evaluate
from tlkit.cli.explain import explain, visualize
from tlkit.cli.export import export
from tlkit.cli.fetch import fetch
from tlkit.cli.fit import fit
from tlkit.cli.predict import predict
from tlkit.cli.report import compare, report
from tlkit.cli.run import run
from tlkit.errors import PluginError, TlkitError
from tlkit.plugins.disabled import is_disabled

#: The heading in --help of commands that plugins add.
PANEL = "Commands of plugins"

app = typer.Typer(
    name="tlkit",
    help="Transfer learning for image classification with little data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, fit, predict, evaluate, report, compare, explain, visualize, export, fetch):
    app.command()(command)
app.add_typer(plugins.app, name="plugins")
app.add_typer(cache.app, name="cache")


@app.callback(invoke_without_command=True)
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version_: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    """Options that every command has."""
    if version_:
        say(f"tlkit {version('tlkit')}")
        raise typer.Exit


def main() -> None:
    """Runs the command line; a user's mistake ends with code 2 and no traceback."""
    # --debug means the same wherever it stands
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        _add_plugin_commands(arguments)
        app(arguments)
    except TlkitError as error:
        if debug:
            raise
        say(f"Error: {error}", stderr=True)
        sys.exit(2)
    except KeyboardInterrupt:
        say("Stopped. The same command with the same --out goes on from here.", stderr=True)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        say(f"Error: {type(error).__name__}: {error}", stderr=True)
        say("This is a fault of tlkit's or of a plugin's; --debug shows where it happened.", stderr=True)
        sys.exit(1)


def _add_plugin_commands(arguments: Sequence[str]) -> None:
    """Adds plugins' own commands.

    Only the one that is asked for is loaded, so that ``--help`` stays fast whatever they import; the
    others are described by their package's summary.

    Raises:
        PluginError: the one that is asked for cannot be loaded.
    """
    own = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    own |= {group.name for group in app.registered_groups}
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for entry in entry_points(group="tlkit.commands"):
        owner = entry.dist.name if entry.dist else entry.name
        if is_disabled(entry.name, owner):
            continue
        if entry.name in own:
            say(f"{owner}'s command {entry.name!r} is left out: tlkit has one of that name", stderr=True)
        elif entry.name == asked:
            app.add_typer(_load(entry, owner), name=entry.name, rich_help_panel=PANEL)
        else:
            about = entry.dist.metadata.json if entry.dist else {}
            app.add_typer(
                typer.Typer(help=str(about.get("summary", ""))), name=entry.name, rich_help_panel=PANEL
            )


def _load(entry: EntryPoint, owner: str) -> typer.Typer:
    try:
        loaded = entry.load()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise PluginError(f"{owner}'s command {entry.name!r} could not be loaded: {text}") from error
    if not isinstance(loaded, typer.Typer):
        raise PluginError(f"{owner}'s command {entry.name!r} must be a typer.Typer, not {loaded!r}")
    return loaded

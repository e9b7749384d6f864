"""The command line: its commands, plugins' commands, and how errors are reported."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated

import typer

from tlkit.cli import cache, plugins
from tlkit.cli.audit import audit
from tlkit.cli.card import card, push
from tlkit.cli.choose import choose
from tlkit.cli.console import say, say_interrupted
from tlkit.cli.curve import curve
from tlkit.cli.evaluate import evaluate
from tlkit.cli.explain import explain, visualize
from tlkit.cli.export import export
from tlkit.cli.features import features
from tlkit.cli.fetch import fetch
from tlkit.cli.fit import fit
from tlkit.cli.interrupts import INTERRUPTED, Interrupted, interrupt_once
from tlkit.cli.manifest import manifest
from tlkit.cli.next_to_label import next_to_label
from tlkit.cli.predict import predict
from tlkit.cli.report import compare, report
from tlkit.cli.review import review
from tlkit.cli.run import run
from tlkit.cli.serve import serve
from tlkit.cli.tune import tune
from tlkit.errors import PluginError, TlkitError
from tlkit.plugins.disabled import is_disabled
from tlkit.runtime.process import keep_freed_memory

#: The heading of plugins' commands in --help.
PANEL = "Commands of plugins"

app = typer.Typer(
    name="tlkit",
    help="Transfer learning for image classification with little data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    run,
    fit,
    predict,
    evaluate,
    report,
    compare,
    audit,
    review,
    choose,
    tune,
    curve,
    explain,
    visualize,
    export,
    card,
    push,
    serve,
    manifest,
    features,
    fetch,
)
for command in COMMANDS:
    app.command()(command)
app.command("next")(next_to_label)
app.add_typer(plugins.app, name="plugins")
app.add_typer(cache.app, name="cache")


@app.callback(invoke_without_command=True)
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show an error's traceback.")] = False,
    version_: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Handles the options of all commands."""
    if version_:
        say(f"tlkit {version('tlkit')}")
        raise typer.Exit


def main() -> None:
    """Runs the command line; exits with code 2 and without a traceback if the user made a mistake."""
    interrupt_once()
    keep_freed_memory()
    _accept_any_name()
    # --debug may be anywhere on the command line
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
    except Interrupted as error:
        say_interrupted(str(error))
        sys.exit(INTERRUPTED)
    except SystemExit as exit_:
        if exit_.code == INTERRUPTED:  # typer's, for Ctrl-C
            say_interrupted("interrupted")
        raise
    except Exception as error:
        if debug:
            raise
        say(f"Error: {type(error).__name__}: {error}", stderr=True)
        say("This is a bug in tlkit or in a plugin; --debug shows where it happened.", stderr=True)
        sys.exit(1)


def _accept_any_name() -> None:
    """Lets names that are not UTF-8, and characters that the terminal lacks, be read and printed."""
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _add_plugin_commands(arguments: Sequence[str]) -> None:
    """Adds plugins' own commands.

    Only the command that is asked for is loaded, so that ``--help`` stays fast whatever plugins import; the
    others are described by the summary of their distribution.

    Raises:
        PluginError: the command that is asked for cannot be loaded.
    """
    own = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    own |= {group.name for group in app.registered_groups}
    requested = next((argument for argument in arguments if not argument.startswith("-")), None)
    for entry in entry_points(group="tlkit.commands"):
        owner = entry.dist.name if entry.dist else entry.name
        if is_disabled(entry.name, owner):
            continue
        if entry.name in own:
            say(
                f"{owner}'s command {entry.name!r} is left out: tlkit has a command of that name", stderr=True
            )
            continue
        command = _load(entry, owner) if entry.name == requested else _placeholder(entry)
        app.add_typer(command, name=entry.name, rich_help_panel=PANEL)


def _placeholder(entry: EntryPoint) -> typer.Typer:
    """Returns a command with a plugin's summary as its help, without loading the plugin."""
    metadata = entry.dist.metadata.json if entry.dist else {}
    return typer.Typer(help=str(metadata.get("summary", "")))


def _load(entry: EntryPoint, owner: str) -> typer.Typer:
    """Loads a plugin's command.

    Raises:
        PluginError: it cannot be imported, or is not a typer.Typer.
    """
    try:
        command = entry.load()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        raise PluginError(f"{owner}'s command {entry.name!r} could not be loaded: {text}") from error
    if not isinstance(command, typer.Typer):
        raise PluginError(f"{owner}'s command {entry.name!r} must be a typer.Typer, not {command!r}")
    return command

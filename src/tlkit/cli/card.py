"""`tlkit card` and `tlkit push`: a model card, and a model on a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.options import ModelArgument, PhaseOption


def card(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write README.md to; the run folder unless given.")
    ] = None,
    phase: PhaseOption = None,
) -> None:
    """Write a model card, README.md: scores with their intervals, data, limits, licence of the weights."""
    from tlkit.reporting.card import card as write_card

    say(str(write_card(run, phase=phase, out=out)))


def push(
    model: ModelArgument,
    repository: Annotated[
        str, typer.Argument(help="Such as me/cats-and-dogs; created if it does not exist.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Create a new repository as private.")] = False,
    phase: PhaseOption = None,
) -> None:
    """Send a classifier with its card to the Hugging Face hub, where timm and tlkit load it from."""
    from tlkit.reporting.push import push as send

    say(send(model, repository, phase=phase, private=private))

"""`tlkit review`: a page to decide about the suspects of an audit, or to label images, one by one."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import say
from tlkit.utils.formatting import plural

if TYPE_CHECKING:
    from tlkit.serving.suspects import Decisions


def review(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="AUDIT|NEXT.csv",
            help="audit.json, or the folder that holds it; or the list of tlkit next.",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="Run or model folder that heat maps are made with; the audited run unless given."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The page's port; a free one unless given.")
    ] = None,
) -> None:
    """Review an audit's suspects, or label the images of tlkit next, on a local page."""
    from tlkit.serving.review import Review
    from tlkit.serving.review import review as serve_review
    from tlkit.serving.suspects import count_decided

    ended = serve_review(target, model=model, port=port, ready=_print_address)
    noun = "suspect" if isinstance(ended, Review) else "image"
    decided = count_decided(ended)
    say(f"{decided} of {plural(len(ended.suspects), noun)} {'is' if decided == 1 else 'are'} decided.")
    if not ended.path.exists():
        return
    file = shlex.quote(str(ended.path))
    if isinstance(ended, Review):
        recipe = _recipe(ended.audit.target)
        say(f"To train with these decisions: tlkit run {recipe} --set data.corrections={file}")
    else:
        say(f"To train with these labels: tlkit fit {file}")


def _print_address(decisions: Decisions, address: str) -> None:
    from tlkit.serving.suspects import count_decided

    kinds = Counter(suspect.kind for suspect in decisions.suspects)
    counts = {
        plural(kinds["label"], "label"): kinds["label"],
        f"{plural(kinds['copies'], 'pair')} of copies": kinds["copies"],
        f"{plural(kinds['unlike'], 'image')} unlike all others": kinds["unlike"],
        f"{plural(kinds['unlabelled'], 'image')} to label": kinds["unlabelled"],
    }
    listed = ", ".join(text for text, count in counts.items() if count)
    decided = count_decided(decisions)
    already = f"; {decided} of them are decided" if decided else ""
    say(f"{decisions.name}: {listed or 'no suspects'}{already}", hanging=2)
    say(f"Decisions go to {decisions.path}. Ctrl-C ends the review.")
    say(f"Open {address}")


def _recipe(target: str) -> str:
    """Returns the recipe or run that was audited, as a command names it."""
    path = Path(target)
    return shlex.quote(target) if path.suffix == ".toml" or (path / "recipe.toml").is_file() else "RECIPE"

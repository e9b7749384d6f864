"""`tlkit review`: a page to decide about the suspects of an audit, one by one."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import say
from tlkit.utils.formatting import plural

if TYPE_CHECKING:
    from tlkit.serving.review import Review


def review(
    audit: Annotated[Path, typer.Argument(help="audit.json, or the folder that holds it.")],
    model: Annotated[
        Path | None,
        typer.Option(help="Run or model folder that heat maps are made with; the audited run unless given."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The page's port; a free one unless given.")
    ] = None,
) -> None:
    """Review an audit's suspects on a local page; decisions are saved in corrections.csv."""
    from tlkit.serving.review import review as serve_review

    ended = serve_review(audit, model=model, port=port, ready=_print_address)
    say(f"{ended.decided} of {plural(len(ended.suspects), 'suspect')} are decided.")
    if ended.path.exists():
        recipe, file = _recipe(ended.audit.target), shlex.quote(str(ended.path))
        say(f"To train with these decisions: tlkit run {recipe} --set data.corrections={file}")


def _print_address(review: Review, address: str) -> None:
    kinds = Counter(suspect.kind for suspect in review.suspects)
    counts = {
        plural(kinds["label"], "label"): kinds["label"],
        f"{plural(kinds['copies'], 'pair')} of copies": kinds["copies"],
        f"{plural(kinds['unlike'], 'image')} unlike all others": kinds["unlike"],
    }
    listed = ", ".join(text for text, count in counts.items() if count)
    decided = f"; {review.decided} of them are decided" if review.decided else ""
    say(f"{review.audit.name}: {listed or 'no suspects'}{decided}", hanging=2)
    say(f"Decisions go to {review.path}. Ctrl-C ends the review.")
    say(f"Open {address}")


def _recipe(target: str) -> str:
    """Returns the recipe or run that was audited, as a command names it."""
    path = Path(target)
    return shlex.quote(target) if path.suffix == ".toml" or (path / "recipe.toml").is_file() else "RECIPE"

"""`tlkit audit`: what is wrong with labelled images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import say, table
from tlkit.cli.options import BackboneOption, DeviceOption, TargetArgument, WeightsOption, check_target
from tlkit.utils.formatting import plural

if TYPE_CHECKING:
    from tlkit.analysis.audit_file import Audit

#: How many suspects the console lists.
SUSPECTS_SHOWN = 10


def audit(
    target: TargetArgument,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            help="Write splits that keep copies together to this CSV file, for data.splits.", dir_okay=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of those splits.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="The folder of audit.json and audit.html; audits/NAME unless given.")
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Find copies, wrong labels and other flaws of labelled images; nothing is changed."""
    check_target(target)
    from tlkit.analysis import audit as analysis
    from tlkit.analysis.audit_text import describe_audit
    from tlkit.analysis.fixed_splits import fix_splits
    from tlkit.cli.observer import ConsoleObserver
    from tlkit.reporting.audit_page import write_audit_page

    observer = ConsoleObserver()
    audited = analysis.audit(target, backbone=backbone, weights=weights, device=device, observer=observer)
    folder = out or Path("audits") / audited.name
    file = analysis.write_audit(audited, folder)
    for sentence in describe_audit(audited):
        say(sentence, hanging=2)
    _print_suspects(audited)
    if fix is not None:
        fixed = fix_splits(audited, fix, seed=seed, observer=observer)
        counts = ", ".join(f"{count:,} {split}" for split, count in fixed.counts.items())
        say(
            f"{fix}: splits for data.splits, with all copies of a photo in one: {counts}; "
            f"{plural(len(fixed.moved), 'image')} moved",
            hanging=2,
        )
        if fixed.two_labels:
            say(
                f"{plural(len(fixed.two_labels), 'group')} of copies keep their several labels, which no "
                "split mends: decide about them in the review",
                hanging=2,
            )
    page = write_audit_page(audited, folder)
    say(f"{page}: every finding with its photos; {file}: the same for programs", hanging=2)
    say(f"tlkit review {shlex.quote(str(folder))} goes through them one by one", hanging=2)


def _print_suspects(audited: Audit) -> None:
    suspects = audited.labels.suspects[:SUSPECTS_SHOWN]
    if suspects:
        rows = [(suspect.image, suspect.label, suspect.suggested) for suspect in suspects]
        table("Labels most probably wrong", ("image", "label", "suggested"), rows)

"""What people see: the only user of rich. A pipe gets plain lines, without colours or moving bars."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tlkit.utils.formatting import format_bytes, format_duration

if TYPE_CHECKING:
    from rich.console import Console

    from tlkit.experiment.estimate import Estimate
    from tlkit.experiment.planning import PhasePlan, Plan

#: Seconds between two lines of progress in a pipe.
PLAIN_EVERY = 10.0
#: How many kinds of mistake an evaluation lists.
CONFUSIONS_SHOWN = 10


def console(*, stderr: bool = False) -> Console:
    """Where output goes; wide and unstyled where no person looks."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 160, highlight=False, soft_wrap=True)


def say(text: str = "", *, style: str | None = None, stderr: bool = False) -> None:
    """Prints text as it is; brackets in it are no markup."""
    console(stderr=stderr).print(text, style=style, markup=False)


def json_line(values: Mapping[str, Any]) -> None:
    """Prints one JSON object on a line of its own, at once: a reader need not wait for what follows."""
    sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table; cells are text as it is."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for column in columns:
        name = column.removesuffix(">")
        shown.add_column(name, justify="right" if column.endswith(">") else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    console().print(shown)


def print_plan(plan: Plan) -> None:
    """The plan of a run: images, then per phase what learns, what is frozen, and what is kept."""
    counts = ", ".join(f"{count:,} {name}" for name, count in plan.images.items() if count)
    more = " …" if len(plan.classes) > 6 else ""
    say(f"{plan.recipe}: {', '.join(plan.classes[:6])}{more}; images: {counts}; on {plan.device}")
    if plan.about:
        say(f"the images are {plan.about}")
    if plan.rejected:
        say(f"left out: {len(plan.rejected)} images (listed in results.json under data.rejected)")
    for number, phase in enumerate(plan.phases, 1):
        start = f", from {phase.start_from}" if phase.start_from else ""
        epochs = f"{phase.epochs} epoch{'s' * (phase.epochs > 1)}" if phase.epochs else "no training"
        network = f"{phase.backbone.rpartition('/')[2]} + {phase.head}"
        say()
        say(
            f"{number} {phase.name}: {network}{start}, {phase.image_size} px, {phase.precision}, {epochs}",
            style="bold",
        )
        say(f"  learns    {_learning(phase)}")
        if phase.head_untrained:
            say(
                f"            nothing trains the head {phase.head}: "
                "unless it came with weights, its answers mean nothing"
            )
        say(f"  frozen    {phase.frozen:,}")
        say(f"  frontier  {phase.frontier}")
        say(f"  keeps     {_keeping(phase)}")
    say()


def print_estimates(estimates: Mapping[str, Estimate]) -> None:
    """What training is going to cost, with kept features and without."""
    for name, found in estimates.items():
        fresh = f"{format_duration(found.fresh)} with images read anew each epoch"
        if found.kept is None:
            say(f"{name} will train for about {fresh}")
            continue
        views = f"{found.views} kept views" if found.views > 1 else "kept features"
        making = f"{format_duration(found.making)} to make them" if found.making else "all there"
        kept = f"{format_duration(found.kept)} with {views} ({format_bytes(found.bytes)}, {making})"
        now, instead = (kept, fresh) if found.keeps else (fresh, kept)
        say(f"{name} will train for about {now}; it would be {instead}")
    if estimates:
        say()


def _keeping(phase: PhasePlan) -> str:
    """What is kept of the images' way through the network, and why not more."""
    if not phase.feature_bytes:
        return f"nothing: {phase.why_not}" if phase.why_not else "nothing"
    shapes = " + ".join("×".join(str(length) for length in shape) for shape in phase.feature_shapes)
    views = "" if phase.views in (1, "fresh") else f", {phase.views} views of each training image"
    kept = f"{shapes} per image{views}: {format_bytes(phase.feature_bytes)}"
    return f"{kept}; not of training images: {phase.why_not}" if phase.why_not else kept


def _learning(phase: PhasePlan) -> str:
    """Which part of the network learns, in numbers: of the backbone, and of the head."""
    learning = [block for block in phase.blocks if block.state != "frozen"]
    parts = []
    if learning:
        count = phase.learning - phase.learning_head
        parts.append(f"{count:,} in {len(learning)} of {len(phase.blocks)} blocks")
    if phase.learning_head:
        parts.append(f"{phase.learning_head:,} in the head")
    return " + ".join(parts) or "nothing"


def print_results(results: Mapping[str, Any]) -> None:
    """The closing table: accuracy with its interval, the gain over the phase before, seconds."""
    rows = []
    for result in results["phases"]:
        test = result["test"]
        low, high = test["ci95"]
        gained = ""
        if result["versus"]:
            gained = format_gain(result["versus"][0], test["n"])
        rows.append(
            (
                result["name"],
                f"{test['accuracy']:.3f}",
                f"{low:.3f} – {high:.3f}",
                f"{test['correct']:,} of {test['n']:,}",
                gained,
                f"{result['best_epoch']} of {result['epochs']}" if result["epochs"] else "–",
                f"{result['seconds']['total']:,.0f}",
            )
        )
    title = "Accuracy on the test images"
    table(title, ["phase", "accuracy>", "95% interval", "right>", "gain", "epoch kept>", "seconds>"], rows)
    if about := results["data"].get("about"):
        say(f"The images are {about}.")
    if results["goal"] is not None and results["goal_met"] is not None:
        met = "met" if results["goal_met"] else "missed"
        last = results["phases"][-1]
        reached = f"{last['test']['accuracy']:.3f} after {last['name']}"
        say(f"The goal of {results['goal']:.2f} is {met}: {reached}.")


def print_evaluation(result: Mapping[str, Any]) -> None:
    """What a classifier is worth: accuracy with its interval, per class, and what is taken for what."""
    low, high = result["ci95"]
    interval = f"{result['accuracy']:.3f} ({low:.3f} – {high:.3f})"
    right = f"{result['correct']:,} of {result['n']:,}"
    say(f"accuracy {interval}: {right}")
    auroc = "" if result["auroc"] is None else f", area under the ROC curve {result['auroc']:.4f}"
    say(f"log loss {result['log_loss']:.4f}, calibration error {result['ece']:.4f}{auroc}")
    if "rejected" in result:
        rejected = result["rejected"]
        others = rejected["accuracy_of_others"]
        rest = "" if others is None else f"; {others:.3f} of the others are right"
        say(f"unclassified below {rejected['below']:g}: {rejected['n']:,}{rest}")
    rows = [
        (name, f"{row['n']:,}", *(_share(row[key]) for key in ("precision", "recall", "f1")))
        for name, row in result["per_class"].items()
    ]
    table(None, ["class", "images>", "precision>", "recall>", "f1>"], rows)
    names = list(result["per_class"])
    mistakes = [
        (count, names[true], names[taken])
        for true, row in enumerate(result["confusion"])
        for taken, count in enumerate(row)
        if count and true != taken
    ]
    for count, true, taken in sorted(mistakes, reverse=True)[:CONFUSIONS_SHOWN]:
        say(f"{count:,} of {true} taken for {taken}")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Any]:
    """Shows how far some work has come, its rate and the time left; yields what counts it up."""
    with _bar(what, total, unit) if sys.stderr.isatty() else _lines(what, total, unit) as tick:
        yield tick


@contextmanager
def _bar(what: str, total: int, unit: str) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began, done = time.monotonic(), 0
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, rate="")

        def tick(count: int) -> None:
            nonlocal done
            done += count
            rate = done / max(time.monotonic() - began, 1e-9)
            bar.update(task, advance=count, rate=pace(rate, unit))

        yield tick


def pace(rate: float, unit: str = "") -> str:
    """How much per second, or per minute where that is less than one."""
    each, time = (rate, "s") if rate >= 1 else (60 * rate, "min")
    return f"{each:,.0f} {unit}/{time}" if unit else f"{each:,.0f}/{time}"


@contextmanager
def _lines(what: str, total: int, unit: str) -> Iterator[Any]:
    began = last = time.monotonic()
    done = 0

    def tick(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= PLAIN_EVERY and done < total:
            last = now
            rate = done / (now - began)
            left = (total - done) / rate
            say(f"{what}: {done:,} of {total:,} {unit}, {pace(rate)}, {left:,.0f} s left", stderr=True)

    yield tick
    spent = time.monotonic() - began
    if spent >= 1:
        say(f"{what}: {done:,} {unit} in {spent:,.1f} s, {pace(done / spent)}", stderr=True)


@contextmanager
def counting(what: str, unit: str) -> Iterator[Any]:
    """As `progress` for work whose length nobody knows: a line now and then, unless a table is shown."""
    began = last = time.monotonic()
    done = 0

    def tick(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= PLAIN_EVERY and not sys.stdout.isatty():
            last = now
            say(f"{what}: {done:,} {unit}, {done / (now - began):,.0f}/s", stderr=True)

    yield tick

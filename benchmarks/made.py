"""Tables and paragraphs of README.md and docs that are made from records, with every number in its place."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable

from safetensors import safe_open

from benchmarks.records import ROOT, results, source
from tlkit.experiment.results import PhaseResult, describe_gains
from tlkit.utils.formatting import format_bytes

WEIGHTS = "plugins/catsdogs/src/tlkit_catsdogs/weights/vgg16-quarter.studio.safetensors"
WIDTH = 130
EMBEDDED = "Where the embedded experiment's time goes"
LABEL_ERRORS = "2026-11-27: label errors, on 2 cores, no GPU, others' work on the same machine"
SEVERAL_LABELS = (
    "2026-11-27: several labels per image, on 2 cores, no GPU, three others' work on the same machine"
)
SEVERAL_LABELS_LINK = (
    "../benchmarks/RESULTS.md"
    "#2026-11-27-several-labels-per-image-on-2-cores-no-gpu-three-others-work-on-the-same-machine"
)
#: Rows of the record's table of what grows, their unit, what docs/scale.md calls them and says of them.
GROWTH = (
    (
        "first plan: listed and hashed",
        "s",
        "listing and hashing new files",
        "once: then the index, or a manifest",
    ),
    (
        "plan again: files unchanged",
        "s",
        "looking unchanged files up",
        "a manifest; `stat` takes longer on a network file system",
    ),
    ("plan of the manifest", "s", "plan of a manifest", ""),
    ("report", "s", "report", "`--no-report`"),
    (
        "memory",
        "GB",
        "memory of `tlkit run`",
        "the list of images is in the memory of `tlkit run` and of each part",
    ),
    ("index of hashes", "MB", "index of hashes", "`tlkit cache clear`"),
    ("manifest", "MB", "manifest", ""),
    ("`splits.csv`", "MB", "`splits.csv`", ""),
    (
        "`predictions.csv`",
        "MB",
        "`predictions.csv` of 10 classes",
        "with many classes, probabilities are in `probabilities.safetensors`, 4 bytes each",
    ),
)
#: What docs/scale.md assumes where it calculates: bytes of a photo, of its pooled features, of its maps, and
#: of its place in the list of images; and bytes that a shared file system reads in a second.
PHOTO, POOLED, MAPS, LISTED, READ = 100_000, 5_000, 16_000, 1_600, 1e9
#: Images that one process lists in memory, at most.
MOST_LISTED = 10**7


def table(head: str, alignment: str, rows: list[list[str]]) -> str:
    """Returns a table in Markdown."""
    return "\n".join([head, alignment, *(f"| {' | '.join(row)} |" for row in rows)])


def photos() -> str:
    """Returns the phases of the run on photos."""
    run = results("photos")
    gains = describe_gains(run.phases)

    def row(phase: PhaseResult) -> list[str]:
        scores = phase.measured
        low, high = scores.ci95
        gain = gains[phase.name][0] if phase.versus else ""
        best = f"{phase.best_epoch} of {phase.epochs}" if phase.epochs else ""
        accuracy = [f"{scores.accuracy:.3f}", f"{low:.3f}–{high:.3f}", f"{scores.correct} of {scores.n}"]
        return [phase.name, *accuracy, gain, best, f"{phase.seconds.total:.0f}"]

    head = "| phase | accuracy | 95% interval | correct | gain | best epoch | seconds |"
    return table(
        head, "| --- | ---: | ---: | ---: | --- | ---: | ---: |", [row(phase) for phase in run.phases]
    )


def photos_again() -> str:
    """Returns what features cost the run on photos, and a second one with another head."""
    firsts = {phase.name: phase for phase in results("photos").phases}
    rows = [
        [
            again.name,
            f"{firsts[again.name].features.computed:,}, then {again.features.computed:,}",
            f"{firsts[again.name].seconds.features:.1f} s",
            f"{again.seconds.features:.2f} s",
        ]
        for again in results("photos-again").phases
    ]
    head = "| phase | image views computed | for features, first run | for features, second run |"
    return table(head, "| --- | --- | ---: | ---: |", rows)


def weights() -> str:
    """Returns what the file of vgg16-quarter's weights says of itself."""
    with safe_open(ROOT / WEIGHTS, "pt") as file:  # type: ignore[no-untyped-call]
        values = file.metadata()
    low, high = json.loads(values["accuracy_ci95"])
    rows = [
        ["studio images to train on", f"{int(values['train_images']):,}"],
        ["epochs", values["epochs"]],
        ["minutes, on 2 cores that had other work, too", f"{float(values['seconds']) / 60:.0f}"],
        ["studio images to test", f"{int(values['test_images']):,}"],
        ["accuracy on those, with 95% interval", f"{float(values['accuracy']):.3f} ({low:.3f}–{high:.3f})"],
    ]
    return table("| | |", "| --- | ---: |", rows)


def numbers_of(name: str, pattern: str) -> list[str]:
    """Returns the groups of a pattern in a record; its spaces stand for line breaks, too."""
    match = re.search(pattern.replace(" ", r"\s+"), source(name) or "", re.MULTILINE)
    if match is None:
        raise ValueError(f"the record {name!r} has no {pattern!r}")
    return list(match.groups())


def paragraph(text: str) -> str:
    """Returns a paragraph in lines of the pages' width."""
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def catsdogs_time() -> str:
    """Returns how long the embedded experiment took."""
    date, seconds = numbers_of("catsdogs", r"^(\S+); (\d+) s by the clock")
    return paragraph(
        f"""This took {seconds} seconds on 2 CPU cores that had other work, too ({date}), with the
        installation from uv's cache."""
    )


def second_run() -> str:
    """Returns how long the embedded experiment takes from cached features."""
    second, first = numbers_of(
        EMBEDDED, r"without the benchmark, computes no feature: (\d+) s where the first took (\d+)"
    )
    (date,) = numbers_of(EMBEDDED, r"^## (\S+): ")
    return paragraph(
        f"""A second run, with another head or learning rate, computes no feature of the frozen part again:
        without the benchmark it took {second} seconds, the first one {first} ({date})."""
    )


def pets_time() -> str:
    """Returns how long `tlkit fit` took on photos of cats and dogs, and how good the classifiers are."""
    date, seconds = numbers_of("pets", r"^(\S+); (\d+) s by the clock")
    (more,) = numbers_of("pets-2000", r"; (\d+) s by the clock")
    (accuracy,) = numbers_of("pets-2000", r"^probe: (\S+) .* on 2,000 images out of fold")
    others, few, many = numbers_of("Beside scikit-learn", r"Of ([\d,]+) others, (\S+) and (\S+) are right")
    return paragraph(
        f"""This took {seconds} seconds from an empty cache, report included ({date}); with 2,000 photos it
        took {more} seconds, and accuracy out of fold was {accuracy}. On {others} other photos of cats and
        dogs the classifier is correct for {float(few):.1%}, that of 2,000 photos for {float(many):.1%}."""
    )


def speed() -> str:
    """Returns how long fine-tuning takes with tlkit, and with other libraries."""
    section = source("Beside what people use today") or ""
    without_augmentation = section.partition("| augmented: ")[0]
    rows = re.findall(r"^\| ([^|]+) \| [\d.]+ \| ([\d,]+) \|", without_augmentation, re.MULTILINE)
    return table("| | seconds |", "| --- | ---: |", [list(row) for row in rows])


def label_errors() -> str:
    """Returns how well `tlkit audit` finds labels that were changed at random."""
    changed, waste, pets = (
        numbers_of(LABEL_ERRORS, pattern)[0]
        for pattern in (
            r"(\d+%) of the labels were changed at random",
            r"^\| waste, 2,527 of 6 classes \| \S+ \| (\S+) \|",
            r"^\| cats and dogs, 3,400 \| \S+ \| (\S+) \|",
        )
    )
    return paragraph(
        f"""With {changed} of the labels changed at random, F1 is {waste} on waste and {pets} on cats and dogs
        ([benchmark](../benchmarks/RESULTS.md))."""
    )


def multilabel_intervals() -> str:
    """Returns how often intervals of scores of several labels held the truth."""
    row = r"^\| ([^|]+) \| (\d+) \| ([\d.]+), \S+ \| ([\d.]+), \S+ \| ([\d.]+), \S+ \|$"
    rows = re.findall(row, source(SEVERAL_LABELS) or "", re.MULTILINE)
    shares = [float(share) for name, _, *held in rows if name != "long tail" for share in held]
    few, many = ([float(share) for share in held] for name, _, *held in rows if name == "long tail")
    return paragraph(
        f"""In [simulations]({SEVERAL_LABELS_LINK}) of 20 to 1,000 test images (with twenty classes: 20 to
        200), the intervals held the truth in {min(shares):.0%} to {max(shares):.1%} of the draws. **The
        scores of very rare classes are too high, and their intervals do not reflect this**: where two of
        ten classes are in 0.4% of the images, the intervals of mean average precision and macro F1 held the
        truth in {many[0]:.0%} and {many[1]:.0%} of the draws of 1,000 images, but in {few[0]:.0%} and
        {few[1]:.0%} of those of 200 images, most of which lack one of the two classes."""
    )


def int8() -> str:
    """Returns what 8-bit integers cost for photos of cats and dogs."""
    after, images, before, gained, lost = numbers_of(
        "Exports", r"cats and dogs (\d+) of (\d+) correct, (\d+) before \((\d+) gained, (\d+) lost\)"
    )
    return paragraph(
        f"""The command prints what this costs. Of {images} photos of cats and dogs that were not trained on,
        {after} were predicted correctly, and {before} before ({gained} gained, {lost} lost)."""
    )


def growth() -> str:
    """Returns what takes more time, memory or disk with more images."""
    section = source("2026-11-27: many images") or ""
    lines = re.findall(r"^\| (.+), \w+ \| (\S+) \| (\S+) \|$", section, re.M)
    values = {name: pair for name, *pair in reversed(lines)}  # of several rows, the first table's
    rows = [
        [step, *(f"{value} {unit}" for value in values[name]), limit] for name, unit, step, limit in GROWTH
    ]
    head = "| step | 1,000 images | 100,000 images | where it ends, and what then |"
    return table(head, "| --- | ---: | ---: | --- |", rows)


def prediction_rate() -> int:
    """Returns how many photos a second and core are predicted, decoding included."""
    (rate,) = numbers_of("Prediction", r"^\| `mobilenetv2_100`, float32 .* \((\d+)\) \| \d+% ")
    return int(rate)


def assumptions() -> str:
    """Returns what the table of what is calculated assumes."""
    return paragraph(
        f"""The following is calculated, not measured. It assumes photos of {PHOTO // 1000} kB;
        `mobilenetv2_100` with pooled features of 1,280 float32 numbers ({POOLED // 1000} kB), or VGG16's
        last maps at 150 pixels (512 × 4 × 4 bfloat16 numbers, {MAPS // 1000} kB); and {prediction_rate()}
        photos per second and core, including decoding ([measured](../benchmarks/RESULTS.md#prediction)):"""
    )


def duration(seconds: float) -> str:
    """Returns a duration with two digits, in the largest unit of which there are two."""
    units = {"days": 86400, "h": 3600, "min": 60}
    name, unit = next(((name, unit) for name, unit in units.items() if seconds >= 2 * unit), ("s", 1))
    return f"{float(f'{seconds / unit:.2g}'):g} {name}"


def calculated() -> str:
    """Returns what reading, computing and keeping takes with up to a thousand million images."""
    rows = []
    for exponent in range(4, 10):
        images = 10**exponent
        read, pooled, maps, listed = (format_bytes(images * size) for size in (PHOTO, POOLED, MAPS, LISTED))
        computed, fed = duration(images / prediction_rate()), duration(images * PHOTO / READ)
        memory = listed if images <= MOST_LISTED else "beyond one process"
        rows.append([f"10^{exponent}", read, computed, pooled, maps, f"in {fed}", memory])
    head = (
        "| images | read | computed, on one core | kept, pooled | kept, maps "
        "| a shared file system of 1 GB/s feeds | list of images in memory |"
    )
    return table(head, "| --- | --- | --- | --- | --- | --- | --- |", rows)


def tutorial() -> str:
    """Returns how good the tutorial's backbone is."""
    name = "The tutorial's backbone"
    pretrained, zero_shot, new_head, tuned = (
        numbers_of(name, rf"^\| {phase} \| (\S+) \|")[0]
        for phase in ("pretrain", "zero-shot", "bottleneck", "fine-tune")
    )
    (date,), (seconds,) = numbers_of(name, r"^## (\S+): "), numbers_of(name, r"after pretraining, (\d+) s")
    return paragraph(
        f"""On {date} the accuracy of this backbone was {pretrained} after pretraining, which took {seconds}
        s on two cores, and on the experiment's images {zero_shot} zero-shot, {new_head} with a new head, and
        {tuned} after fine-tuning."""
    )


def seed_again() -> str:
    """Returns what the embedded experiment ends with since the five seeds were run."""
    (date,) = numbers_of("catsdogs", r"^(\S+); \d+ s by the clock")
    now = [numbers_of("catsdogs", rf"^ {phase} (\S+) ")[0] for phase in ("bottleneck", "fine-tune")]
    before = numbers_of("Five seeds of the embedded experiment", r"^\| 1 \| \S+ \| \S+ \| (\S+) \| (\S+) \|")
    return paragraph(
        f"""Such small gains depend on small differences. Since then, tlkit evaluates classifiers in float32,
        and the same recipe with seed 1 ends with {" and ".join(now)} ({date}) instead of
        {" and ".join(before)}."""
    )


#: What is made, by the name in its marker.
MADE: dict[str, Callable[[], str]] = {
    "assumptions": assumptions,
    "calculated": calculated,
    "catsdogs-time": catsdogs_time,
    "growth": growth,
    "int8": int8,
    "label-errors": label_errors,
    "multilabel-intervals": multilabel_intervals,
    "pets-time": pets_time,
    "photos": photos,
    "photos-again": photos_again,
    "second-run": second_run,
    "seed-again": seed_again,
    "speed": speed,
    "tutorial": tutorial,
    "weights": weights,
}

"""The report of a run: its answer first, then all that stands behind it."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tlkit.errors import TlkitError
from tlkit.evaluation.metrics import per_class
from tlkit.experiment.observer import Observer
from tlkit.experiment.record import PhaseRecord, RunRecord, SplitPredictions
from tlkit.inference.predictor import UNCLASSIFIED, Predictor, load
from tlkit.plugins import options
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.reporting import prediction_charts, run_charts
from tlkit.reporting.gallery import EXAMPLES, Example, Gallery, changed, least_sure, surest_mistakes
from tlkit.reporting.pictures import Album, Picture
from tlkit.reporting.render import render, replaced_when_complete
from tlkit.utils.formatting import format_duration

#: How many rejected images and how many classes' predictions a page lists.
LISTED = 20
Shown = TypeVar("Shown")
CLASSES_SHOWN = 12
#: Classes listed one by one; of more, those that do worst.
PER_CLASS = 30


def report(
    run: Path | str,
    *,
    observer: Observer | None = None,
    registry: Registry | None = None,
    device: str | None = None,
) -> Path:
    """Makes ``report.html`` of a run folder, and ``pictures/`` beside it.

    A run that was cut short gets a page of what there is, which says what is missing.

    Args:
        run: the run folder.
        observer: watches.
        registry: the parts to choose from; all that is installed unless given.
        device: such as "cpu" or "cuda:1"; the best there is unless given.

    Returns:
        The page.

    Raises:
        RunFolderError: it is no run folder, or damaged.
        ReportError: the page cannot be written.
    """
    record = RunRecord(Path(run))
    page = record.folder / "report.html"
    observer = observer or Observer()
    with replaced_when_complete(page) as folder:
        values = _Page(record, folder, registry or load_registry(), device).values(observer)
        (folder / page.name).write_text(render("report.html", **values), encoding="utf-8")
    return page


@dataclass
class _Looks:
    """All that is shown of photos; the slow part."""

    samples: list[Picture] = field(default_factory=list)
    views: dict[str, list[Picture]] = field(default_factory=dict)
    mistakes: list[Example] = field(default_factory=list)
    unsure: list[Example] = field(default_factory=list)
    changed: list[Example] = field(default_factory=list)
    responses: dict[str, list[Picture]] = field(default_factory=dict)


class _Page:
    """Gathers a report's values, section by section."""

    def __init__(self, record: RunRecord, folder: Path, registry: Registry, device: str | None) -> None:
        self.record = record
        self.album = Album(folder)
        self.registry = registry
        self.device = device
        self.missing: list[str] = []

    def values(self, observer: Observer) -> dict[str, Any]:
        """What the template shows."""
        record = self.record
        last = record.done[-1] if record.done else None
        tests = {phase.name: phase.predictions["test"] for phase in record.done if self._predicted(phase)}
        self._missing_phases()
        looks = self._looks(last, tests, observer)
        return {
            "name": record.recipe.name,
            "results": [phase.result for phase in record.done],
            "goal": record.recipe.goal,
            "goal_met": (record.results or {}).get("goal_met"),
            "last": last.result if last else None,
            "about": ((record.results or {}).get("data") or record.plan or {}).get("about", ""),
            "accuracies": self._accuracies(),
            "data": self._data(),
            "phases": self._phases(looks),
            "networks": self._networks(),
            "seconds": self._seconds(),
            "shown": self._results(last, tests),
            "looks": looks,
            "again": self._again(),
            "missing": self.missing,
            "unclassified": UNCLASSIFIED,
        }

    def _predicted(self, phase: PhaseRecord) -> bool:
        if "test" in phase.predictions:
            return True
        self.missing.append(f"The predictions of phase {phase.name} are not there.")
        return False

    def _missing_phases(self) -> None:
        for phase in self.record.phases:
            if phase.result is None:
                epochs = len(phase.history)
                how_far = f"it has trained {epochs} epochs" if epochs else "it has not begun"
                self.missing.append(f"Phase {phase.name} has not ended: {how_far}.")
        if any(phase.result is None for phase in self.record.phases):
            folder = shlex.quote(str(self.record.folder))
            self.missing.append(f"`tlkit run {folder} --out {folder}` goes on.")

    def _accuracies(self) -> Picture | None:
        results = [phase.result for phase in self.record.done if phase.result]
        if not results:
            return None
        alt = "Accuracy on the test images: " + ", ".join(
            f"{result['name']} {result['test']['accuracy']:.3f}" for result in results
        )
        draw = partial(run_charts.accuracies, results=results, goal=self.record.recipe.goal)
        return self.album.chart("accuracies", alt, draw, width=5.2, height=1.3 + 0.45 * len(results))

    def _data(self) -> dict[str, Any]:
        images, classes = self.record.images, self.record.classes
        rejected = ((self.record.results or {}).get("data") or self.record.plan or {}).get("rejected", [])
        counts = Counter(row.split for row in images)
        found: dict[str, Any] = {"counts": counts, "classes": classes, "rejected": rejected, "listed": LISTED}
        found["charts"] = []
        if images:
            alt = "Images: " + ", ".join(f"{count:,} {name}" for name, count in counts.items())
            draw = partial(run_charts.split, images=images, classes=classes)
            found["charts"].append(self.album.chart("split", alt, draw, height=2.4, caption="The split"))
            widths, heights = [row.width for row in images], [row.height for row in images]
            found["sizes"] = (
                f"{min(widths)} to {max(widths)} pixels wide and {min(heights)} to {max(heights)} high"
            )
            if len({*zip(widths, heights, strict=True)}) == 1:
                found["sizes"] = f"all {widths[0]}×{heights[0]} pixels"
            else:
                alt = f"Sizes of the images: {found['sizes']}"
                draw = partial(run_charts.sizes, images=images)
                found["charts"].append(self.album.chart("sizes", alt, draw, height=2.4, caption=alt))
        return found

    def _phases(self, looks: _Looks) -> list[dict[str, Any]]:
        rows = []
        for phase in self.record.phases:
            picture = None
            if phase.history:
                best = phase.result["best_epoch"] if phase.result else None
                alt = f"Loss and accuracy of {phase.name} over {len(phase.history)} epochs"
                alt += f"; the weights of epoch {best} were kept" if best else ""
                draw = partial(run_charts.curves, phase=phase)
                picture = self.album.chart(f"curves-{phase.name}", alt, draw, height=3.4)
            views = looks.views.get(phase.name, [])
            fresh = (phase.plan or {}).get("views") == "fresh"
            rows.append(
                {
                    "record": phase,
                    "curves": picture,
                    "views": views,
                    "fresh": fresh,
                    "saved": self._saved(phase),
                }
            )
        return rows

    def _saved(self, phase: PhaseRecord) -> str:
        """What kept features saved: the prefix's work in epochs that did not need it."""
        result, counts = phase.result, Counter(row.split for row in self.record.images)
        if result is None or not result["features"]["kept"] or not result["epochs"]:
            return ""
        without = result["epochs"] * (counts["train"] + counts["val"])
        spared = without - result["features"]["computed"]
        if spared <= 0:
            made = result["features"]["computed"]
            return (
                f"in so few epochs they saved nothing, {made:,} passes through the frozen part where "
                f"{without:,} would have done; the next run finds them"
            )
        each = self.record.view_seconds()
        said = f"{spared:,} of {without:,} passes through the frozen part were not needed"
        return f"{said}, some {format_duration(spared * each)} at this run's own rate" if each else said

    def _networks(self) -> Picture | None:
        phases = (self.record.plan or {}).get("phases", [])
        if not phases:
            return None
        alt = "Blocks from input to output: " + "; ".join(
            f"{phase['name']}: {sum(block['state'] != 'frozen' for block in phase['blocks'])} of "
            f"{len(phase['blocks'])} learn"
            for phase in phases
        )
        draw = partial(run_charts.networks, phases=phases)
        width = max(3.0, 1.25 * len(phases) + 0.4)
        return self.album.chart("networks", alt, draw, width=width, height=4.2)

    def _seconds(self) -> Picture | None:
        results = [phase.result for phase in self.record.done if phase.result]
        if not results:
            return None
        alt = "Seconds: " + ", ".join(f"{each['name']} {each['seconds']['total']:.0f}" for each in results)
        draw = partial(run_charts.seconds, results=results)
        return self.album.chart("seconds", alt, draw, height=1.4 + 0.3 * len(results))

    def _results(self, last: PhaseRecord | None, tests: dict[str, SplitPredictions]) -> dict[str, Any] | None:
        if last is None or last.result is None or last.name not in tests:
            return None
        record, found, test = self.record, tests[last.name], last.result["test"]
        classes = record.classes
        threshold = record.recipe.reject_below
        drawn: list[Picture] = []

        def chart(name: str, alt: str, draw: Callable[..., None], caption: str, **values: Any) -> None:
            picture = self.album.chart(name, alt, partial(draw, **values), height=3.2, caption=caption)
            drawn.append(picture)

        wrong = test["n"] - test["correct"]
        alt = f"Confusion of {last.name}: {wrong:,} of {test['n']:,} test images are given a wrong class"
        chart("confusion", alt, prediction_charts.confusion, alt, cells=test["confusion"], classes=classes)
        confused = prediction_charts.confused(test["confusion"], classes)
        areas = {phase.name: phase.result["test"]["auroc"] for phase in record.done if phase.result}
        alt = "ROC curves; area below: " + ", ".join(
            f"{name} {'undefined' if area is None else f'{area:.3f}'}" for name, area in areas.items()
        )
        of = f"of {classes[1]}" if len(classes) == 2 else "mean over the classes, each against the rest"
        chart("roc", f"{alt} ({of})", prediction_charts.roc, f"{alt} ({of})", phases=tests)
        alt = f"Reliability of {last.name}: calibration error {test['ece']:.3f}"
        chart("reliability", alt, prediction_charts.reliability, alt, found=found)
        alt = f"Confidence of {last.name} where it is right and where it is wrong"
        chart("confidence", alt, prediction_charts.confidence, alt, found=found, threshold=threshold)
        guessed = self._unlabelled(last)
        if guessed:
            alt = "Images without a label: " + ", ".join(
                f"{count:,} {name}" for name, count in guessed.items()
            )
            chart("unlabelled", alt, prediction_charts.unlabelled, alt, counts=guessed)
        rows = per_class(found.probabilities.astype("float64"), found.labels, classes)
        worst = sorted(rows.items(), key=lambda item: item[1]["f1"] if item[1]["f1"] is not None else 1)
        return {
            "phase": last.name,
            "charts": drawn,
            "confused": confused if len(classes) > prediction_charts.NUMBERED else [],
            "test": test,
            "per_class": list(rows.items()) if len(rows) <= PER_CLASS else worst[:PER_CLASS],
            "classes": len(rows),
            "threshold": threshold,
            "rejected": None if threshold is None else self._rejected(found, threshold),
        }

    def _rejected(self, found: SplitPredictions, threshold: float) -> dict[str, Any]:
        kept = found.confidence >= threshold
        return {
            "n": int((~kept).sum()),
            "accuracy": float(found.right[kept].mean()) if kept.any() else None,
        }

    def _unlabelled(self, last: PhaseRecord) -> dict[str, int]:
        """How many images without a label got which class, or none at the stored threshold."""
        found = last.predictions.get("unlabelled")
        if found is None:
            return {}
        sure = found.confidence >= (self.record.recipe.reject_below or 0.0)
        counts = Counter(self.record.classes[place] for place in found.classes[sure])
        names = counts.most_common(CLASSES_SHOWN) if len(self.record.classes) > CLASSES_SHOWN else None
        shown = dict(names) if names else {name: counts[name] for name in self.record.classes}
        others = int(sure.sum()) - sum(shown.values())
        return {
            **shown,
            **({"other classes": others} if others else {}),
            **({UNCLASSIFIED: int((~sure).sum())} if self.record.recipe.reject_below is not None else {}),
        }

    def _looks(
        self, last: PhaseRecord | None, tests: dict[str, SplitPredictions], observer: Observer
    ) -> _Looks:
        """Photos; what cannot be had is said to be missing."""
        looks = _Looks()
        gallery = Gallery(self.record, self.album, self.registry)
        total = 4 * EXAMPLES + 9
        with observer.working("looking at examples", total, "pictures") as tick, closing(gallery):
            looks.samples = self._optional("training images", gallery.samples) or []
            for phase in self.record.done:
                wanted = phase is last or phase.phase.augmentation.name != "none"
                if wanted and (predictor := self._load(phase)) is not None:
                    views = partial(gallery.views, phase, predictor)
                    looks.views[phase.name] = self._optional(f"views of phase {phase.name}", views) or []
                    if phase is last:
                        self._look(looks, gallery, predictor, phase, tests, tick)
        self.missing += list(gallery.missing)
        return looks

    def _look(
        self,
        looks: _Looks,
        gallery: Gallery,
        predictor: Predictor,
        last: PhaseRecord,
        tests: dict[str, SplitPredictions],
        tick: Callable[[int], object],
    ) -> None:
        found = tests.get(last.name)

        def shown(kind: str, places: list[int], remarks: Mapping[int, str]) -> list[Example]:
            assert found is not None
            examples = partial(gallery.examples, kind, found, places, predictor, remarks, tick)
            return self._optional(f"examples ({kind})", examples) or []

        if found is not None:
            looks.mistakes = shown("mistake", surest_mistakes(found), {})
            looks.unsure = shown("unsure", least_sure(found), {})
            others = [name for name in tests if name != last.name]
            if others:
                gained, lost = changed(tests[others[-1]], found)
                remarks = dict.fromkeys(gained, f"{others[-1]} had it wrong")
                remarks |= dict.fromkeys(lost, f"{others[-1]} had it right")
                looks.changed = shown("changed", [*gained, *lost], remarks)
        responses = partial(gallery.responses, predictor, tick)
        looks.responses = self._optional("what the layers respond to", responses) or {}

    def _optional(self, what: str, make: Callable[[], Shown]) -> Shown | None:
        """A part that the page can do without; whatever keeps it from being made is said to be missing.

        Networks, augmentations and sources are plugins', and fail in many ways.
        """
        try:
            return make()
        except Exception as error:
            self.missing.append(f"Not shown: {what}. {type(error).__name__}: {error}")
            return None

    def _load(self, phase: PhaseRecord) -> Predictor | None:
        try:
            return load(phase.folder / "model", device=self.device, registry=self.registry)
        except TlkitError as error:
            self.missing.append(f"The model of phase {phase.name} cannot be looked into: {error}")
            return None

    def _again(self) -> dict[str, Any]:
        about = self.record.about
        command = about.get("command") or []
        made_by_tlkit = bool(command) and Path(command[0]).name in ("tlkit", "__main__.py")
        return {
            "command": shlex.join(["tlkit", *command[1:]]) if made_by_tlkit else shlex.join(command),
            "recipe": (self.record.folder / "recipe.toml").read_text(encoding="utf-8"),
            "about": about,
            "weights": {phase.name: self._weights(phase) for phase in self.record.phases},
        }

    def _weights(self, phase: PhaseRecord) -> str:
        """What weights a phase began with, and what file it ended with."""
        part = phase.phase.backbone
        try:
            known = options.describe(self.registry.find("backbone", part.name).factory)
        except TlkitError:  # its plugin is not here
            known = []
        default = next((option.default for option in known if option.name == "weights"), "its own")
        began = f"{part.name}, weights: {part.options.get('weights', default)}"
        config = phase.folder / "model" / "config.json"
        try:
            ended = json.loads(config.read_text(encoding="utf-8"))["tlkit"]["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return began
        return f"{began}; trained: model.safetensors with sha256 {ended}"

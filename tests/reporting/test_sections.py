"""The parts of a report that need no run: selections, counts, descriptions, curves, and the files."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tlkit.data.corrections import LabelChange
from tlkit.errors import ReportError
from tlkit.evaluation.metrics import reject_curve, rejected
from tlkit.experiment.plan import ClassImages, DataSummary
from tlkit.experiment.record import SplitPredictions
from tlkit.experiment.results import FeatureUse, ParameterCounts, PhaseResult, PhaseSeconds
from tlkit.reporting.data_section import LISTED, make_data_section
from tlkit.reporting.examples_section import changed, least_confident, most_confident_mistakes
from tlkit.reporting.missing import Missing
from tlkit.reporting.mistakes import OF_ALL, PAIRS, Mistakes, make_mistakes
from tlkit.reporting.phases_section import describe_savings
from tlkit.reporting.pictures import Album
from tlkit.reporting.prediction_charts import (
    GRID,
    MAX_CURVE_POINTS,
    confidence,
    reject,
    reliability,
    roc,
    roc_curve,
)
from tlkit.reporting.render import replaced_when_complete
from tlkit.reporting.results_section import count_predictions
from tlkit.reporting.run_charts import magnitude, shortened
from tlkit.reporting.run_images import RunImages

DATA = DataSummary(
    train=100,
    val=20,
    test=30,
    per_class={"cat": ClassImages(train=60, val=10, test=15), "dog": ClassImages(train=40, val=10, test=15)},
    unlabelled=0,
    rejected=(),
    about="",
)


def predictions(labels: list[int], second: list[float], ids: list[str] | None = None) -> SplitPredictions:
    """Predictions of two classes, from the probabilities of the second one."""
    rows = np.array([[1 - value, value] for value in second], np.float32)
    return SplitPredictions(ids or [str(index) for index in range(len(labels))], np.array(labels), rows)


def result(epochs: int, computed: int, cached: bool = True) -> PhaseResult:
    scores = {
        "n": 2,
        "correct": 1,
        "accuracy": 0.5,
        "ci95": (0.1, 0.9),
        "balanced_accuracy": 0.5,
        "macro_f1": 1 / 3,
        "log_loss": 0.7,
    }
    return PhaseResult(
        name="phase",
        epochs=epochs,
        best_epoch=epochs,
        monitor="accuracy",
        best_value=0.5,
        stopped=None,
        parameters=ParameterCounts(trainable=1, frozen=1),
        weights=None,
        features=FeatureUse(cached=cached, computed=computed, reused=0, size=0, why_not=None),
        seconds=PhaseSeconds(total=1, features=0, training=1, evaluation=0),
        temperature=1.0,
        val=scores,
        test={
            **scores,
            "top5": None,
            "auroc": None,
            "ece": 0.0,
            "ece_ci95": (0.0, 0.5),
            "confusion": ((0, 0, 1), (1, 0, 1)),
        },
    )


def test_examples_are_selected_by_confidence() -> None:
    before = predictions([0, 0, 1, 1], [0.9, 0.1, 0.2, 0.9], ["a", "b", "c", "d"])
    after = predictions([1, 1, 0, 0], [0.6, 0.2, 0.7, 0.1], ["d", "c", "b", "a"])
    assert most_confident_mistakes(after) == [1, 2]
    assert least_confident(after) == [0, 2, 1, 3]
    assert changed(before, after) == ([3], [2])


def test_the_reject_curve_is_drawn_with_the_stored_threshold_on_it() -> None:
    generator = np.random.default_rng(1)
    confidence = 0.5 + 0.5 * generator.random(2000)
    correct = generator.random(2000) < confidence
    curve, figure = reject_curve(confidence, correct), Figure()
    reject(figure, curve, rejected(confidence, correct, 0.8))
    line, mark = figure.axes[0].lines
    coverage, accuracy = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert len(coverage) == MAX_CURVE_POINTS and coverage[-1] == 1 and accuracy[-1] == correct.mean()
    for share, value in zip(coverage, accuracy, strict=True):
        accepted = np.argsort(-confidence)[: round(share * 2000)]
        assert value == pytest.approx(correct[accepted].mean())
    accepted = confidence >= 0.8
    assert list(mark.get_xdata()) == [accepted.mean()]
    assert list(mark.get_ydata()) == [correct[accepted].mean()]
    assert mark.get_label() == "threshold 0.8"
    without = Figure()
    reject(without, curve, None)
    assert len(without.axes[0].lines) == 1


def test_predictions_below_the_threshold_are_counted_as_unclassified() -> None:
    unlabelled = predictions([-1, -1, -1], [0.1, 0.95, 0.55])
    assert count_predictions(unlabelled, ["cat", "dog"], None) == {"cat": 1, "dog": 2}
    assert count_predictions(unlabelled, ["cat", "dog"], 0.8) == {"cat": 1, "dog": 1, "unclassified": 1}


def test_of_many_classes_the_most_frequent_predictions_are_named() -> None:
    classes = [f"class {index}" for index in range(14)]
    indices = [index for index in range(14) for _ in range(15 - index)]
    rows = np.eye(14, dtype=np.float32)[indices]
    many = SplitPredictions([str(index) for index in indices], np.full(len(indices), -1), rows)
    counts = count_predictions(many, classes, None)
    assert list(counts) == [*classes[:12], "other classes"]
    assert counts["class 0"] == 15 and counts["other classes"] == 3 + 2


class Readable(RunImages):
    """Images that can all be read."""

    def __init__(self) -> None:
        pass

    def read(self, image_id: str) -> tuple[None, Image.Image]:  # type: ignore[override]
        """Returns a small picture."""
        return None, Image.new("RGB", (4, 4))


def drawn_mistakes(count: int, folder: Path) -> Mistakes:
    """All images are of one of as many classes, and are predicted as the next."""
    labels = np.arange(count) % 40
    rows = np.eye(41, dtype=np.float32)[labels + 1]
    wrong = SplitPredictions([str(index) for index in range(count)], labels, rows)
    classes = [f"class {index}" for index in range(41)]
    mistakes = make_mistakes(wrong, classes, Readable(), Album(folder))
    assert mistakes is not None and mistakes.count == count and mistakes.pair_count == 40
    return mistakes


def test_no_mistake_is_left_out_without_a_word(tmp_path: Path) -> None:
    few = drawn_mistakes(OF_ALL, tmp_path)
    assert few.shown == OF_ALL and len(few.pairs) == 40
    many = drawn_mistakes(OF_ALL + 1, tmp_path)
    assert many.shown < many.count and len(many.pairs) == PAIRS < many.pair_count


def test_savings_are_the_passes_that_cached_features_replaced() -> None:
    text = describe_savings(result(epochs=10, computed=120), DATA, 0.5)
    assert (
        text
        == "they saved 1,080 of 1,200 passes through the frozen prefix, about 9 min 0 s at this run's rate"
    )
    assert "about" not in describe_savings(result(epochs=10, computed=120), DATA, None)
    assert "they saved nothing (960 passes" in describe_savings(result(epochs=2, computed=960), DATA, 0.5)
    assert describe_savings(result(epochs=2, computed=0, cached=False), DATA, 0.5) == ""


def test_roc_curves() -> None:
    assert (roc_curve(predictions([0, 0, 1], [0.1, 0.2, 0.9])) == 1).all()
    assert (roc_curve(predictions([0, 1], [0.5, 0.5])) == GRID).all()
    assert np.isnan(roc_curve(predictions([1, 1], [0.5, 0.4]))).all()


def test_predictions_of_a_diverged_network_are_drawn() -> None:
    diverged = predictions([0, 1], [float("nan"), float("nan")])
    assert np.isnan(roc_curve(diverged)).all()
    charts = [
        partial(roc, tests={"phase": diverged}),
        partial(reliability, predictions=diverged),
        partial(confidence, predictions=diverged, threshold=0.5),
        partial(reject, curve=reject_curve(diverged.confidence, diverged.correct), unclassified=None),
    ]
    for draw in charts:
        figure = Figure(layout="constrained")
        draw(figure)
        figure.savefig(io.BytesIO(), format="svg")


def test_names_and_numbers_are_shortened() -> None:
    assert shortened("American Staffordshire bull terrier") == "American…l terrier"
    assert [magnitude(count) for count in (12, 1234, 7_635_264, 2 * 10**9)] == [
        "12",
        "1.23 k",
        "7.64 M",
        "2 G",
    ]


def test_reasons_are_listed_once() -> None:
    missing = Missing()
    assert missing.attempt("a part", lambda: 1 // 0) is None
    missing.add("reason")
    missing.add("reason")
    assert missing.attempt("another part", lambda: 3) == 3
    assert missing.reasons[0].startswith("Not shown: a part. ZeroDivisionError: ")
    assert missing.reasons[1:] == ["reason"]


def test_a_page_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    page, pixels = tmp_path / "page.html", np.zeros((4, 4, 3), np.uint8)
    with replaced_when_complete(page) as unfinished:
        unfinished.album.photo("old", "A picture", pixels)
        unfinished.file.write_text("old")
    with pytest.raises(ReportError, match="cannot be written: disk full"):
        with replaced_when_complete(page) as unfinished:
            unfinished.album.photo("new", "A picture", pixels)
            unfinished.file.write_text("new")
            raise OSError("disk full")
    assert page.read_text() == "old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["old.jpg", "page.html", "pictures"]
    with replaced_when_complete(page) as unfinished:
        unfinished.file.write_text("new")
    assert page.read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["page.html", "pictures"]


def test_the_data_section_lists_the_first_corrected_labels(tmp_path: Path) -> None:
    changes = tuple(LabelChange(image=f"{number}.jpg", given="cat", corrected="dog") for number in range(30))
    summary = "corrections.csv: 30 labels changed, 0 images left out"
    data = DATA.model_copy(update={"corrections": summary, "corrected": changes})
    section = make_data_section([], ["cat", "dog"], data, [], Album(tmp_path), "multiclass")
    assert (section.corrections, section.corrected_count) == (summary, 30)
    assert section.corrected == changes[:LISTED]

"""The closing text of a run on a terminal of 80 columns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tlkit.cli.results_text import print_mistakes, print_results
from tlkit.evaluation.metrics import baselines, evaluate
from tlkit.experiment.plan import ClassImages, DataSummary
from tlkit.experiment.results import (
    FeatureUse,
    OutOfFoldScores,
    ParameterCounts,
    PhaseResult,
    PhaseSeconds,
    Results,
    Versus,
    describe_gains,
)

EQUAL = {"cat": 2500, "dog": 2500}
UNEQUAL = {"glass": 6, "metal": 2, "paper": 18, "trash": 1}


class Terminal(io.StringIO):
    """A terminal without colours, which rich takes to have 80 columns."""

    def isatty(self) -> bool:
        """Says that it is a terminal."""
        return True


def make_results(names: Sequence[str], counts: dict[str, int]) -> Results:
    """Makes results of phases that predict every image as the largest class."""
    labels = np.repeat(range(len(counts)), list(counts.values()))
    largest = max(counts, key=counts.__getitem__)
    test = evaluate(np.eye(len(counts))[np.full(len(labels), list(counts).index(largest))], labels)
    phases = [
        PhaseResult(
            name=name,
            epochs=100,
            best_epoch=100,
            monitor="accuracy",
            best_value=test.accuracy,
            stopped=None,
            parameters=ParameterCounts(trainable=1, frozen=1),
            weights=None,
            features=FeatureUse(cached=True, computed=1, reused=0, size=0, why_not=None),
            seconds=PhaseSeconds(total=3559, features=0, training=3559, evaluation=0),
            temperature=1.0,
            val=test,
            test=test,
            versus=(Versus(phase=names[index - 1], gained=0, lost=0, p=1.0),) if index else (),
        )
        for index, name in enumerate(names)
    ]
    per_class = {name: ClassImages(train=count, val=count, test=count) for name, count in counts.items()}
    total = sum(counts.values())
    return Results(
        schema_version=1,
        recipe="recipe",
        classes=tuple(counts),
        goal=0.8,
        goal_met=False,
        data=DataSummary(
            train=total, val=total, test=total, per_class=per_class, unlabelled=0, rejected=(), about=""
        ),
        baselines=baselines(counts, largest),
        phases=tuple(phases),
    )


def printed(results: Results, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the lines that a terminal of 80 columns shows."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.stdout", terminal)
    print_results(results)
    return [line.rstrip() for line in terminal.getvalue().splitlines()]


@pytest.mark.parametrize("counts", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("count", [2, 12])
def test_nothing_is_wrapped_or_cut_at_80_columns(
    count: int, counts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"bottleneck-{number}" for number in range(1, count + 1)]
    results = make_results(names, counts)
    lines = printed(results, monkeypatch)
    assert max(map(len, lines)) <= 80
    test = results.phases[0].test
    low, high = test.ci95
    cells = [f"{test.accuracy:.3f}", f"{low:.3f}–{high:.3f}"]
    if counts is UNEQUAL:
        cells.append("0.250")
    cells += ["100 of 100", "59 min 19 s"]
    rows = [line.split("   ") for line in lines if "100 of 100" in line]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        [name, *cells] for name in names
    ]
    gains = [line for line in lines if "points over" in line]
    assert gains[0] == "bottleneck-2: +0.0 points over bottleneck-1 (p = 1)"
    assert len(gains) == count - 1
    corrections = [line for line in lines if line.startswith("p-values are")]
    expected = f"p-values are Holm-corrected for {count - 1} comparisons of phases."
    assert corrections == ([expected] if count > 2 else [])


def test_the_p_values_of_phases_are_corrected_together(capsys: pytest.CaptureFixture[str]) -> None:
    results = make_results(["first", "second", "third"], EQUAL)
    versus = [
        (),
        (Versus(phase="first", gained=60, lost=10, p=0.01),),
        (
            Versus(phase="second", gained=30, lost=5, p=0.03),
            Versus(phase="first", gained=90, lost=5, p=0.001),
        ),
    ]
    phases = [
        phase.model_copy(update={"versus": pairs})
        for phase, pairs in zip(results.phases, versus, strict=True)
    ]
    assert describe_gains(phases) == {
        "first": [],
        "second": ["+1.0 points over first (p = 0.02)"],
        "third": ["+0.5 points over second (p = 0.03)", "+1.7 points over first (p = 0.003)"],
    }
    print_results(results.model_copy(update={"phases": tuple(phases)}))
    printed = capsys.readouterr().out
    assert (
        "third: +0.5 points over second (p = 0.03)\np-values are Holm-corrected for 3 comparisons" in printed
    )


def test_the_folds_of_a_cross_validation_have_a_spread(capsys: pytest.CaptureFixture[str]) -> None:
    results = make_results(["probe"], EQUAL)
    assert results.phases[0].test is not None
    scores = OutOfFoldScores(
        **results.phases[0].test.model_dump(),
        folds=3,
        repeats=1,
        fold_accuracies=(0.9, 1.0, 0.8),
        untested=(),
    )
    phase = results.phases[0].model_copy(update={"test": None, "out_of_fold": scores})
    print_results(results.model_copy(update={"phases": (phase,)}))
    assert "Standard deviation of the folds' accuracies: probe 0.100.\n" in capsys.readouterr().out
    assert scores.model_copy(update={"fold_accuracies": (0.9,)}).fold_deviation is None


def test_of_many_classes_the_five_most_probable_ones_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"class {number}": 5 for number in range(21)}
    results = make_results(["probe", "fine-tune"], many)
    phases = [
        phase.model_copy(update={"test": phase.test.model_copy(update={"top5": top5})})
        for phase, top5 in zip(results.phases, (0.9, 0.95), strict=True)
        if phase.test is not None
    ]
    line = "Label among the five most probable classes: probe 0.900, fine-tune 0.950."
    assert line in printed(results.model_copy(update={"phases": tuple(phases)}), monkeypatch)
    few = printed(make_results(["probe"], UNEQUAL), monkeypatch)
    assert not any("five most probable" in text for text in few)


def test_a_long_name_is_folded_and_the_numbers_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fine-tune-the-last-two-blocks-with-a-smaller-learning-rate"
    lines = printed(make_results([name], UNEQUAL), monkeypatch)
    table = [line for line in lines if line.startswith(" ")]
    assert max(map(len, table)) <= 80
    (first,) = [line for line in table if "100 of 100" in line]
    assert first.endswith("   0.478–0.814       0.250   100 of 100   59 min 19 s")
    rows = table[table.index(first) :]
    assert "".join(row[: first.index("0.667")].strip() for row in rows) == name


def test_of_unequal_classes_the_text_says_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(make_results(["bottleneck"], UNEQUAL), monkeypatch)
    assert lines[-4:] == [
        "Baselines: 0.250 by chance, 0.667 by always predicting paper.",
        "The classes are unequal: 18 images of paper, 1 of trash.",
        "Look at balanced accuracy, which counts them equally: 0.250 (macro F1 0.200).",
        "The goal of 0.80 is missed: 0.667 after bottleneck.",
    ]
    assert "balanced" not in "\n".join(printed(make_results(["bottleneck"], EQUAL), monkeypatch))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"best_value": 0.5}, "tune kept epoch 100: balanced accuracy 0.500 on the validation images"),
        (
            {"best_value": 0.5, "best_epoch": 0},
            "tune kept the weights that it started from: balanced accuracy 0.500 on the validation images",
        ),
        ({"best_value": None, "val": None}, None),  # in a cross-validation
    ],
)
def test_what_was_kept_where_another_score_than_the_accuracy_decides(
    changes: dict[str, Any], line: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    results = make_results(["tune"], EQUAL)
    phase = results.phases[0].model_copy(update={"monitor": "balanced_accuracy", **changes})
    print_results(results.model_copy(update={"phases": (phase,)}))
    kept = [text for text in capsys.readouterr().out.splitlines() if "kept" in text]
    assert kept == ([line] if line else [])


def test_no_mistakes_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_mistakes([])
    assert capsys.readouterr().out == "No mistakes: every image is predicted correctly.\n"

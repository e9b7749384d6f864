"""`tlkit.fit`: how images are divided, what is tried and taken, few images, and mistakes."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import command
from huggingface_hub import constants
from tlkit_catsdogs.drawn.kinds import STUDIO
from tlkit_catsdogs.drawn.world import draw

import tlkit
from tlkit.analysis import choose as analysis
from tlkit.analysis.choose import Choice, read_choice
from tlkit.analysis.images import ImageData, image_data
from tlkit.cli.fit import summarise
from tlkit.errors import DataError, RecipeError
from tlkit.experiment.observer import Observer
from tlkit.fitting import fit as fitting
from tlkit.fitting.fit import why_not_worth_trying
from tlkit.fitting.recipe import FitOptions, FolderCounts, choose_recipe
from tlkit.recipe.schema import PartSpec

PHOTOS = ImageData("photos", PartSpec(name="folder"), Path("photos").absolute())


def draw_animals(folder: Path, counts: list[int]) -> Path:
    """Draws animals of the first kinds, as many of each as `counts` says, in a folder per kind."""
    for label, count in enumerate(counts):
        (folder / STUDIO[label].name).mkdir(parents=True)
        for number in range(count):
            content = draw("studio", 9, number * len(STUDIO) + label)
            (folder / STUDIO[label].name / f"{number}.jpg").write_bytes(content)
    return folder


def division(
    counts: dict[str, int],
    *,
    has_test: bool = False,
    has_val: bool = False,
    has_groups: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Returns how `fit` would divide such a folder."""
    chosen = FitOptions(**options)
    chosen.check()
    folder = FolderCounts(sum(counts.values()), counts, has_test, has_val, has_groups)
    recipe = choose_recipe(PHOTOS, chosen, folder, "x")
    assert not recipe.flaws and recipe.data is not None
    included = {"folds", "repeats", "fractions", "group"}
    return recipe.data.model_dump(include=included, exclude_unset=True)


def test_how_images_are_divided() -> None:
    assert division({"a": 100, "b": 100}) == {"folds": 10, "repeats": 10}
    assert division({"a": 5, "b": 3}) == {"folds": 5, "repeats": 10}
    assert division({"a": 1, "b": 3}) == {"folds": 3, "repeats": 10}
    assert division({"a": 1000, "b": 1000}) == {"folds": 5, "repeats": 1}
    assert division({"a": 3000, "b": 3000}) == {"fractions": {"val": 0.1, "test": 0.2}}
    assert division({"a": 3000, "b": 3000}, folds=5) == {"folds": 5, "repeats": 1}
    assert division({"a": 30, "b": 30}, test=0.3) == {"fractions": {"val": 0.1, "test": 0.3}}
    assert division({"a": 30, "b": 30}, has_test=True) == {"folds": 10, "repeats": 10}
    assert division({"a": 30, "b": 30}, has_test=True, has_val=True) == {}
    assert division({"a": 30, "b": 30}, has_val=True) == {"folds": 10, "repeats": 10}
    assert division({"a": 3000, "b": 3000}, has_groups=True) == {"folds": 5, "repeats": 1}
    assert division({"a": 3000, "b": 3000}, group="^.") == {"folds": 5, "repeats": 1, "group": "^."}


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({"a": 30, "b": 30}, {"folds": 5, "test": 0.2}, "folds and test exclude each other"),
        ({"a": 3, "b": 3}, {"folds": 5}, r"no class has 5 images \(a 3, b 3\)"),
        ({"a": 1, "b": 1}, {}, "no class has 2 images .*: add images"),
        ({"a": 9, "b": 9}, {"test": 0.2, "has_groups": True}, "test: there are groups, which only folds"),
        ({"a": 9, "b": 9}, {"test": 0.2, "has_val": True}, "test: there are validation images"),
        ({"a": 9, "b": 9}, {"test": 0.2, "group": "^."}, "group and test exclude each other"),
        ({"a": 9, "b": 9}, {"group": "^.", "has_val": True, "has_test": True}, "group: .* divided already"),
    ],
)
def test_divisions_that_cannot_be(counts: dict[str, int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        division(counts, **options)


def test_unequal_classes_are_chosen_for_by_balanced_accuracy() -> None:
    for counts, monitor in (({"a": 30, "b": 10}, "accuracy"), ({"a": 31, "b": 10}, "balanced_accuracy")):
        recipe = choose_recipe(
            PHOTOS, FitOptions(), FolderCounts(sum(counts.values()), counts, False, False), "x"
        )
        assert {phase.training.monitor for phase in recipe.phases} == {monitor}


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn animals of six kinds, between one and nine of each."""
    return draw_animals(tmp_path_factory.mktemp("few") / "animals", [9, 7, 6, 6, 5, 1])


@pytest.fixture(scope="module")
def ended(animals: Path, tmp_path_factory: pytest.TempPathFactory) -> tlkit.Run:
    """What `fit` makes of them."""
    return tlkit.fit(animals, backbone="vgg16-quarter", folds=3, out=tmp_path_factory.mktemp("fit") / "run")


def test_images_of_a_group_stay_in_one_fold(animals: Path, tmp_path: Path) -> None:
    # images with one number are a group; that of the class with one image is always trained on
    run = tlkit.fit(
        animals, backbone="vgg16-quarter", quality="fast", group=r"\d+\.jpg$", out=tmp_path / "run"
    )
    folds: dict[str, set[str]] = {}
    with (run.folder / "splits.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if "-1" not in row["folds"].split():
                folds.setdefault(Path(row["id"]).name, set()).add(row["folds"])
    assert len(folds) == 8 and all(len(assigned) == 1 for assigned in folds.values())
    assert len(set.union(*folds.values())) > 1
    for pattern, message in (("patient", "matches no image"), ("(", "must be a regular expression")):
        with pytest.raises(tlkit.TlkitError, match=f"data.group: .*{message}"):
            tlkit.fit(animals, backbone="vgg16-quarter", group=pattern, out=tmp_path / "other")


def test_a_few_images_of_many_unequal_classes(ended: tlkit.Run, animals: Path) -> None:
    probe = ended.results.phases[0]
    assert probe.out_of_fold is not None
    # the class with one image is trained on, and cannot be tested
    assert (probe.out_of_fold.n, ended.results.data.train) == (33, 34)
    assert probe.out_of_fold.untested == (STUDIO[5].name,)
    assert probe.out_of_fold.accuracy > 0.5
    baselines = ended.results.baselines
    assert baselines is not None and (baselines.chance, baselines.majority) == (1 / 6, 9 / 33)
    predictor = tlkit.load(ended.folder)
    assert len(predictor.classes) == 6
    images = sorted(animals.rglob("*.jpg"))
    assert predictor.evaluate(images, [image.parent.name for image in images]).accuracy > 0.9


def test_what_to_expect(ended: tlkit.Run) -> None:
    probe = ended.results.phases[0]

    def expectation(correct: int) -> str:
        scores = probe.measured.model_copy(update={"correct": correct, "accuracy": correct / 33})
        return probe.model_copy(update={"out_of_fold": scores}).describe_expectation()

    rest = "of new images like these will be labelled correctly"
    assert expectation(32) == f"About 97.0% {rest}"
    assert expectation(33) == f"At least {probe.measured.ci95[0]:.1%} {rest}"  # not "100%"


def test_fine_tuning_that_changed_nothing_is_not_the_classifiers(ended: tlkit.Run) -> None:
    probe, fine_tune = ended.results.phases
    unchanged = fine_tune.model_copy(update={"decision": None, "epochs": 10})
    data = ended.results.data.model_copy(update={"val": 120})
    results = ended.results.model_copy(update={"phases": (probe, unchanged), "data": data})
    assert summarise(results)[1:] == [
        "The classifier is that of probe, trained on 34 images.",
        "No epoch of fine-tune was better on the 120 validation images.",
    ]


def test_what_is_not_tried_has_its_reason(ended: tlkit.Run) -> None:
    decisions = {result.name: result.decision for result in ended.results.phases}
    fine_tune = decisions["fine-tune"]
    assert decisions["probe"] is None and fine_tune is not None and not fine_tune.taken
    reason = "34 images are too few to train the whole network, which takes 300"
    assert fine_tune.describe() == f"not taken: {reason}"


def test_fine_tuning_is_tried_where_there_are_errors(ended: tlkit.Run) -> None:
    phase = ended.recipe.phase("fine-tune")
    probe = ended.results.phases[0]
    assert probe.out_of_fold is not None

    def after(n: int, correct: int, **data: int) -> str | None:
        scores = probe.out_of_fold.model_copy(update={"n": n, "correct": correct})  # type: ignore[union-attr]
        measured = {"out_of_fold": None, "val": scores} if "val" in data else {"out_of_fold": scores}
        result = probe.model_copy(update=measured)
        summary = ended.results.data.model_copy(update={"train": n, **data})
        results = ended.results.model_copy(update={"phases": (result,), "data": summary})
        return why_not_worth_trying(phase, results)

    assert after(600, 500) is None
    assert after(600, 590) == "10 errors on 600 images leave too little to gain"
    # without folds, validation images decide
    assert after(150, 120, folds=0, train=500, val=150) is None
    assert after(150, 149, folds=0, train=500, val=150) == "1 error on 150 images leave too little to gain"
    eight = after(8, 7, folds=0, train=500, val=8)
    assert eight is not None and eight.startswith("8 validation images are too few to decide")
    few = "34 images are too few to train the whole network, which takes 300"
    assert why_not_worth_trying(phase, ended.results.model_copy(update={"phases": ()})) == few


def test_auto_takes_the_backbone_that_choose_chooses_and_reuses_its_features(
    animals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Notes(tlkit.Observer):
        texts: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.texts.append(text)

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(analysis, "CANDIDATES", ("vgg16-quarter",))

    def choose_of_two(*arguments: Any, **options: Any) -> Choice:
        chosen = analysis.choose(*arguments, **options)
        other = chosen.best.model_copy(update={"backbone": "other", "behind": 0.1})
        return chosen.model_copy(update={"candidates": (chosen.best, other)})

    monkeypatch.setattr(fitting, "choose", choose_of_two)
    run = tlkit.fit(
        animals,
        backbone="auto",
        quality="fast",
        folds=2,
        out=tmp_path / "out",
        observer=Notes(),
        time_limit=600,
    )
    (probe,) = run.results.phases
    assert run.recipe.phases[0].backbone.name == "vgg16-quarter"
    assert probe.features.computed == 0 and probe.features.reused == 2 * 34
    missing, described, _, why, optimism = Notes.texts[:5]
    assert missing.endswith("is not compared: its weights are not on this machine and cannot be downloaded")
    assert described.startswith("vgg16-quarter: accuracy ") and "ms an image" in described
    assert why == "vgg16-quarter has the highest balanced accuracy."
    assert optimism == fitting.OPTIMISM
    choice = read_choice(run.folder)
    assert choice is not None and choice.best.describe() == described
    page = tlkit.report(run.folder).read_text()
    assert '<section id="choice">' in page and why in page


def test_without_folds_validation_decides() -> None:
    for options, keep in (({}, "last"), ({"test": 0.2}, "best")):
        chosen = FitOptions(**options)  # type: ignore[arg-type]
        recipe = choose_recipe(PHOTOS, chosen, FolderCounts(800, {"a": 400, "b": 400}, False, False), "x")
        assert recipe.phase("fine-tune").training.keep == keep


def test_existing_splits_are_used(tmp_path: Path) -> None:
    for split, start in (("train", 10), ("test", 4)):
        draw_animals(tmp_path / "animals" / split, [start, start])
    # the test images are among the training images: equal bytes are never in both, and are listed as rejected
    run = tlkit.fit(tmp_path / "animals", backbone="vgg16-quarter", quality="fast", out=tmp_path / "out")
    data = run.results.data
    assert (data.test, data.train, data.val, len(data.rejected)) == (8, 12, 0, 8)
    assert run.results.phases[0].measured.n == 8


def test_images_held_out_and_the_fast_way(tmp_path: Path) -> None:
    folder = draw_animals(tmp_path / "animals", [20, 20])
    run = tlkit.fit(folder, backbone="vgg16-quarter", quality="fast", test=0.25, out=tmp_path / "out")
    (probe,) = run.results.phases
    assert (probe.name, probe.measured.n, probe.out_of_fold) == ("probe", 10, None)
    assert repr(run) == f"Run({str(tmp_path / 'out')!r}, phases=['probe'])"


def test_on_the_command_line(tmp_path: Path) -> None:
    folder = draw_animals(tmp_path / "animals", [6, 6])
    out = tmp_path / "out"
    run = command(
        "fit",
        folder,
        "--backbone",
        "vgg16-quarter",
        "--folds",
        "3",
        "--time-limit",
        "10m",
        "--out",
        out,
        "--no-report",
    )
    assert run.returncode == 0, run.stderr
    said = " ".join(run.stdout.split())
    assert "of new images like these will be labelled correctly; the 95% interval is" in said
    assert "Measured by cross-validation: 12 images out of fold (3 folds, drawn 10 times)" in said
    assert "The classifier is that of probe, trained on 12 images." in said
    assert "fine-tune was not taken: 12 images are too few to train the whole network" in said
    for arguments, message in (
        (["--time-limit", "soon"], "'soon' is not a duration, such as 90s, 10m or 1.5h"),
        (["--test", "1.5"], "test: must be a fraction above 0 and below 0.9, and is 1.5"),
        (["--quality", "good"], "'good' is not one of 'best', 'fast'"),
    ):
        failed = command("fit", folder, *arguments)
        assert failed.returncode == 2 and message in " ".join(failed.stderr.replace("│", " ").split())


def test_too_few_images_and_a_missing_folder_are_reported(tmp_path: Path) -> None:
    folder = draw_animals(tmp_path / "animals", [1, 1])
    with pytest.raises(tlkit.TlkitError, match=r"no class has 2 images \(\w+ 1, \w+ 1\): add images"):
        tlkit.fit(folder, backbone="vgg16-quarter", out=tmp_path / "out")
    shutil.rmtree(folder / STUDIO[1].name)
    with pytest.raises(tlkit.TlkitError, match="has only one class"):
        tlkit.fit(folder, backbone="vgg16-quarter", out=tmp_path / "out")
    shutil.rmtree(folder)
    with pytest.raises(tlkit.TlkitError, match="does not exist"):
        tlkit.fit(folder, backbone="vgg16-quarter", out=tmp_path / "out")


def test_several_labels_per_image(several_labels: Path, tmp_path: Path) -> None:
    images = several_labels / "images"
    done = command(
        *("fit", images / "few.csv", "--task", "multilabel", "--backbone", "vgg16-quarter", "--folds", "2"),
        *("--out", tmp_path / "run", "--no-report"),
    )
    assert done.returncode == 0, done.stderr
    assert "Mean average precision on 30 images out of fold" in done.stdout
    assert "The classifier is that of probe, trained on 30 images." in done.stdout
    recipe = tlkit.read_recipe(tmp_path / "run")
    assert (recipe.task, [phase.name for phase in recipe.phases]) == ("multilabel", ["probe"])
    labels, probabilities = tlkit.load(tmp_path / "run").predict([images / "0.png", images / "1.png"])
    assert len(labels) == 2 and probabilities.shape == (2, 2)
    notes: list[str] = []
    observer = Observer()
    observer.note = notes.append
    data = image_data(images / "columns.csv", None, observer, "multilabel")
    assert notes == ["classes: circle, red (columns of columns.csv)"]
    assert data.source.options["label_columns"] == ["circle", "red"]


def test_options_without_effect_are_refused(by_class: Path) -> None:
    with pytest.raises(RecipeError, match=r"quality: there is no 'fsat' \(did you mean 'fast'"):
        tlkit.fit(by_class, quality="fsat")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"task: there is no 'multilable' \(did you mean 'multilabel'"):
        tlkit.fit(by_class, task="multilable")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="separator: must not be empty"):
        tlkit.fit([], [], task="multilabel", separator="")
    for options in ({"quality": "fast"}, {"task": "multilabel"}):
        with pytest.raises(RecipeError, match=r"epochs: are those of fine-tuning, which .* leaves out"):
            tlkit.fit(by_class, epochs=5, **options)  # type: ignore[arg-type]


def test_several_labels_in_a_folder(by_class: Path) -> None:
    with pytest.raises(DataError, match="take a CSV file with columns path and label"):
        tlkit.fit(by_class, task="multilabel")
    with pytest.raises(RecipeError, match="backbones are compared on one label per image"):
        tlkit.fit("labels.csv", task="multilabel", backbone="auto")

"""Runs whose labels are corrected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import command
from small_runs import RECIPE, Runner, write_recipe

from tlkit.data.corrections_file import Correction, append_correction
from tlkit.errors import RunFolderError
from tlkit.utils.hashing import file_sha256

#: With an image to spare in each class, and timm's smallest network.
PER_CLASS = "per_class = {{ train = 8, val = 2, test = 3 }}"
FEW = (
    RECIPE.partition("[[phase]]")[0]
    .replace("per_class = {{ train = 8, val = 3, test = 4 }}", PER_CLASS)
    .replace("{backbone}", 'name = "test_resnet"\nweights = "none"')
    .replace("size = 64", "size = 32")
    .replace("epochs = 3", "epochs = 1")
    + '[[phase]]\nname = "first"\n[[phase]]\nname = "second"\n'
)


@pytest.fixture
def corrections(few_photos: Path, tmp_path: Path) -> Path:
    """One label changed, one photo left out."""
    path = tmp_path / "corrections.csv"
    cat, dog = file_sha256(few_photos / "cat.3.jpg"), file_sha256(few_photos / "dog.3.jpg")
    append_correction(path, Correction("cat.3.jpg", cat, "relabel", "cat", "dog"))
    append_correction(path, Correction("dog.3.jpg", dog, "remove", "dog"))
    return path


def test_a_run_lists_what_was_corrected_and_computes_no_feature_again(
    run: Runner, corrections: Path, tmp_path: Path
) -> None:
    text = FEW.replace(PER_CLASS, "folds = 3")
    run(text=text, phases=["first"])
    overrides = {"data.corrections": str(corrections)}
    ended = run(text=text, out=tmp_path / "out", phases=["first"], overrides=overrides)
    data = json.loads((tmp_path / "out" / "results.json").read_text())["data"]
    assert data["corrected"] == [{"image": "cat.3.jpg", "from": "cat", "to": "dog"}]
    assert data["corrections"] == "corrections.csv: 1 label changed, 1 image left out"
    assert data["rejected"] == [["dog.3.jpg", "removed by corrections.csv"]]
    assert "train,cat.3.jpg,dog," in (tmp_path / "out" / "splits.csv").read_text()
    assert f'corrections = "{corrections}"' in (tmp_path / "out" / "recipe.toml").read_text()
    features = ended.results.phases[0].features
    assert (features.computed, features.reused) == (0, 29)


def test_other_corrections_are_not_mixed_into_a_run_that_began_without_them(
    run: Runner, corrections: Path, tmp_path: Path, few_photos: Path
) -> None:
    options = {"out": tmp_path / "out", "overrides": {"data.corrections": str(corrections)}}
    run(text=FEW, phases=["first"], **options)
    append_correction(
        corrections, Correction("cat.4.jpg", file_sha256(few_photos / "cat.4.jpg"), "relabel", "cat", "dog")
    )
    with pytest.raises(RunFolderError, match="not those that this run began with"):
        run(text=FEW, **options)


def test_the_plan_and_errors_name_the_file(corrections: Path, few_photos: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", few_photos, text=FEW)
    recipe.write_text(recipe.read_text().replace("[data]", '[data]\ncorrections = "corrections.csv"'))
    planned = command("run", recipe, "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "corrections.csv: 1 label changed, 1 image left out\n" in planned.stdout
    (few_photos / "dog.3.jpg").write_bytes((few_photos / "dog.4.jpg").read_bytes())
    changed = command("run", recipe, "--plan")
    assert changed.returncode == 2
    assert "line 3: 'dog.3.jpg' has changed since it was reviewed" in changed.stderr

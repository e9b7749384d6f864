"""What cannot be run: mistakes in a recipe, images that cannot be read, folders that cannot be written."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import RECIPE, Runner

from tlkit.errors import DataError, RecipeError, RunFolderError, StoreError, TlkitError, WeightsError


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"training.epoch": 3}, RecipeError, "did you mean 'epochs'"),
        ({"backbone.name": "resnet81"}, RecipeError, "did you mean 'resnet18'"),
        ({"training.batch_size": "many"}, RecipeError, "training.batch_size"),
        ({"data.root": "nowhere"}, RecipeError, "nowhere"),
        ({"data.per_class.train": 12}, DataError, "cat"),
        ({"phase.bottleneck.start_from": "fine-tune"}, RecipeError, "comes later"),
        ({"phase.fine-tune.freeze.blocks": 9}, RecipeError, "the backbone has 5: conv1–act1, layer1"),
        ({"head.name": "liner"}, RecipeError, "did you mean 'linear'"),
        ({"backbone.weight": "none"}, RecipeError, "weights"),
        ({"training.optimizer.name": "sgdd"}, RecipeError, "sgd"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_are_named_before_any_work(
    change: dict[str, Any], error: type[TlkitError], message: str, run: Runner, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message.replace(".", r"\.")):
        run(overrides=change, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_mistakes_are_reported_at_once(run: Runner) -> None:
    changes = {
        "data.per_clas": 3,
        "data.root": "nowhere",
        "training.epochs": "many",
        "phase.bottleneck.augmentation": {"name": "affine", "rotatoin": 3},
        "phase.fine-tune.start_from": "botleneck",
        "phase.fine-tune.freeze.blocks": 9,
    }
    with pytest.raises(RecipeError) as caught:
        run(overrides=changes)
    problems = sorted(caught.value.problems)
    expected = [
        ("data.per_clas: ", "per_class"),
        ("data.root: ", "nowhere"),
        ("phase.bottleneck.augmentation.rotatoin: ", "rotation"),
        ("phase.fine-tune.freeze: ", "the backbone has 5"),
        ("phase.fine-tune.start_from: ", "bottleneck"),
        ("training.epochs: ", "many"),
    ]
    for problem, (key, hint) in zip(problems, expected, strict=True):
        assert problem.startswith(key)
        assert hint in problem


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "text": lambda path: path.write_text("this is not a photo"),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_an_unreadable_image_stops_the_run_unless_it_is_to_be_skipped(
    kind: str, run: Runner, few_photos: Path, tmp_path: Path
) -> None:
    BAD_FILES[kind](few_photos / "cat.7.jpg")
    with pytest.raises(DataError, match=r"cat\.7\.jpg: "):
        run(out=tmp_path / "out")
    changes = {"data.on_unreadable": "skip", "data.per_class": {"train": 8, "val": 3, "test": 3}}
    rejected = run(overrides=changes).results.data.rejected
    assert [name for name, _ in rejected] == ["cat.7.jpg"]


def test_weights_of_another_network_are_refused(run: Runner, weights: Path) -> None:
    with pytest.raises(RecipeError, match="another network's weights"):
        run(overrides={"backbone.weights": str(weights / "model.safetensors")})


def test_weights_that_cannot_be_reached_are_reported_within_seconds(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a port that nobody listens on, so that the test is the same with and without a network
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", "/nonexistent")
    began = time.monotonic()
    with pytest.raises(RecipeError, match=r"--set backbone\.weights=PATH"):
        run(overrides={"backbone": {"name": "resnet18.a1_in1k"}})
    assert time.monotonic() - began < 20
    assert issubclass(WeightsError, TlkitError)


def test_a_run_folder_that_cannot_be_used(run: Runner, few_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        run(out=tmp_path / "file" / "out")
    with pytest.raises(RunFolderError, match="holds no run"):
        run(out=few_photos)


def test_features_that_cannot_be_written(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"features\.cache=false"):
        run()


def test_a_source_that_needs_a_folder_asks_for_it(run: Runner) -> None:
    with pytest.raises(RecipeError, match=r"data\.root: is missing: source 'catsdogs' needs the folder"):
        run(text=RECIPE.replace('root = "{photos}"\n', ""))

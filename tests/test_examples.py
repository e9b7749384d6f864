"""The examples run on a few real photos, with random weights where pretrained ones are not available."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import torch
from processes import Started, execute
from safetensors.torch import load_file

import tlkit
from tlkit.experiment.validation import validate

EXAMPLES = Path(__file__).parents[1] / "examples" / "catsdogs"
IMPROVEMENTS = sorted(path.stem for path in (EXAMPLES / "improvements").glob("*.toml"))
#: The one of them that runs with every test; running the others is slow.
FIRST = "one-more-block"


@pytest.fixture
def small(few_photos: Path, photos: Path) -> dict[str, object]:
    """Returns settings that make an example quick: few photos, few pixels, one epoch, no download."""
    unlabelled = few_photos / "test1"
    unlabelled.mkdir()
    for number in range(1, 4):
        shutil.copyfile(photos / f"dog.{100 + number}.jpg", unlabelled / f"{number}.jpg")
    return {
        "data.root": str(few_photos),
        "data.per_class": {"train": 4, "val": 2, "test": 3},
        "backbone.weights": "none",
        "preprocess.size": 32,
        "training.epochs": 1,
    }


def test_vgg16_goes_through_all_phases(small: dict[str, object], tmp_path: Path) -> None:
    unlabelled = {
        "data.unlabelled": str(tmp_path / "photos" / "test1"),
        "phase.benchmark.preprocess.size": 32,
    }
    run = tlkit.run(EXAMPLES / "photos.toml", overrides={**small, **unlabelled}, out=tmp_path / "out")
    assert run.plan is not None
    plans = {phase.name: phase for phase in run.plan.phases}
    assert list(plans) == ["benchmark", "zero-shot", "bottleneck", "fine-tune"]
    fine_tune = plans["fine-tune"]
    assert fine_tune.trainable - fine_tune.trainable_head == 7_079_424
    assert fine_tune.frozen == 7_635_264
    assert [block.state for block in fine_tune.blocks] == ["frozen"] * 4 + ["trainable"]
    assert plans["zero-shot"].trainable == 0
    assert plans["benchmark"].frozen == 0
    results = {phase.name: phase for phase in run.results.phases}
    assert [versus.phase for versus in results["fine-tune"].versus] == ["bottleneck", "benchmark"]
    assert results["zero-shot"].epochs == 0
    assert results["fine-tune"].features.computed == 8 * 7  # seven augmented views of each training image
    assert run.results.data.unlabelled == 3
    for name in results:
        text = (run.folder / "phases" / name / "predictions.csv").read_text()
        assert text.count("\nunlabelled,") == 3


def test_mobilenet_with_real_weights_tells_cats_from_dogs(
    weights: Path, photos: Path, tmp_path: Path
) -> None:
    changes = {
        "backbone.name": f"local-dir:{weights}",
        "data.root": str(photos),
        "data.per_class": {"train": 20, "val": 10, "test": 20},
        "phase.fine-tune.augmentation.views": 2,
        "phase.fine-tune.epochs": 1,
    }
    phases = ["zero-shot", "bottleneck", "fine-tune"]
    run = tlkit.run(
        EXAMPLES / "photos-mobilenet.toml", overrides=changes, out=tmp_path / "out", phases=phases
    )
    zero_shot, bottleneck, fine_tune = run.results.phases
    assert zero_shot.test.accuracy >= 0.8
    assert bottleneck.test.accuracy >= 0.9
    assert fine_tune.test.accuracy >= 0.9
    # zero-shot and bottleneck share one pass: training once, and validation once, unless the bottleneck is
    # trained in bfloat16: zero-shot is only evaluated, in float32
    assert run.plan is not None
    shared = 60 if run.plan.phases[1].precision == "float32" else 0
    assert (zero_shot.features.computed, zero_shot.features.reused) == (60, 0)
    assert (bottleneck.features.computed, bottleneck.features.reused) == (60 - shared, shared)


def test_improvements_are_valid(small: dict[str, object]) -> None:
    assert FIRST in IMPROVEMENTS
    for name in IMPROVEMENTS:
        recipe = tlkit.read_recipe(EXAMPLES / "improvements" / f"{name}.toml", small)
        assert recipe.phase("fine-tune").start_from == "bottleneck"
        validate(recipe, tlkit.load_registry())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name != FIRST else []) for name in IMPROVEMENTS]
)
def test_improvements_run(name: str, small: dict[str, object], tmp_path: Path) -> None:
    changes = {**small, "phase.bottleneck.epochs": 1, "phase.fine-tune.epochs": 1}
    recipe = EXAMPLES / "improvements" / f"{name}.toml"
    run = tlkit.run(recipe, overrides=changes, out=tmp_path / "out", phases=["bottleneck", "fine-tune"])
    assert [phase.epochs for phase in run.results.phases] == [1, 1]


SMALL_WORLD = {
    "data.source.per_class": 80,
    "data.source.without_label": 6,
    "data.per_class": {"train": 30, "val": 10, "test": 40},
    "training.epochs": 3,
    "phase.benchmark.epochs": 1,
}


class Passes(tlkit.Observer):
    """Counts the images of frozen passes."""

    def __init__(self) -> None:
        self.images = 0

    @contextmanager
    def progress(self, task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
        self.images += total if task == "frozen pass" else 0
        yield lambda _: None


def test_the_embedded_experiment_needs_no_download_and_computes_features_once(tmp_path: Path) -> None:
    passes = Passes()
    first = tlkit.run(EXAMPLES, overrides=SMALL_WORLD, out=tmp_path / "first", observer=passes)
    phases = {phase.name: phase for phase in first.results.phases}
    assert list(phases) == ["benchmark", "zero-shot", "bottleneck", "fine-tune"]
    assert "drawn" in first.results.data.about
    assert first.results.data.unlabelled == 6
    bottleneck = phases["bottleneck"].features
    # on a processor without bfloat16, those that zero-shot is measured on are the same
    assert bottleneck.computed + bottleneck.reused == 80
    assert passes.images >= 80
    assert phases["fine-tune"].test.accuracy > 0.8
    passes = Passes()
    again = tlkit.run(EXAMPLES, overrides=SMALL_WORLD, out=tmp_path / "again", observer=passes)
    assert passes.images == 0
    for phase in again.results.phases:
        assert phase.features.computed == 0
        assert phase.test == phases[phase.name].test


def test_pretraining_makes_weights_that_the_backbone_loads(tmp_path: Path) -> None:
    changes = {
        "data.source.per_class": 6,
        "data.per_class": {"train": 3, "val": 1, "test": 2},
        "phase.pretrain.epochs": 2,
    }
    run = tlkit.run(EXAMPLES.parent / "pretraining", overrides=changes, out=tmp_path / "run")
    command = [
        sys.executable,
        EXAMPLES.parent / "pretraining" / "pack.py",
        run.folder,
        tmp_path / "w.safetensors",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "on 56 test images" in output
    trained = load_file(run.folder / "phases" / "pretrain" / "model" / "model.safetensors")
    options = {"weights": tmp_path / "w.safetensors", "features": "pooled"}
    backbone = tlkit.load_registry().make("backbone", "vgg16-quarter", options)
    assert torch.equal(backbone.classifier.weight, trained["head.fc.weight"].half().float())
    first = backbone.module.features[0].weight
    assert torch.equal(first, trained["backbone.features.0.weight"].half().float())


@pytest.mark.slow
def test_the_embedded_experiment_shows_that_transfer_learning_works(tmp_path: Path) -> None:
    began = time.monotonic()
    run = tlkit.run(EXAMPLES, out=tmp_path / "out")
    assert time.monotonic() - began < 180
    phases = {phase.name: phase for phase in run.results.phases}
    accuracy = {name: phase.test.accuracy for name, phase in phases.items()}
    assert accuracy["benchmark"] + 0.1 < accuracy["zero-shot"] < accuracy["fine-tune"]
    assert accuracy["fine-tune"] >= 0.94
    assert accuracy["benchmark"] + 0.1 < accuracy["bottleneck"]
    against_benchmark = phases["fine-tune"].versus[1]
    assert against_benchmark.phase == "benchmark"
    assert against_benchmark.p < 0.01
    assert phases["fine-tune"].test.n == 5000


def test_a_list_of_photos_becomes_a_served_model(photos: Path, tmp_path: Path) -> None:
    """The script of examples/python, in a process of its own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for kind in ("cat", "dog"):
        for number in range(1, 7):
            shutil.copyfile(photos / f"{kind}.{number}.jpg", folder / f"{kind}.{number}.jpg")
    script = (EXAMPLES.parent / "python" / "serve_photos.py").read_text(encoding="utf-8")
    started = Started(execute, script, folder, "vgg16-quarter", folder=tmp_path)
    deadline = time.monotonic() + 300
    while "http://" not in started.stdout.read_text():
        assert started.process.is_alive() and time.monotonic() < deadline, started.stderr.read_text()
        time.sleep(0.05)
    lines = started.stdout.read_text().splitlines()
    assert re.match(r"accuracy [01]\.\d{3} \(0\.\d{3} to [01]\.\d{3}\) on 12 photos", lines[0])
    assert lines[1].startswith(str(folder / "cat.1.jpg")) and len(lines) == 5
    photo, headers = (folder / "dog.1.jpg").read_bytes(), {"Content-Type": "image/jpeg"}
    answer = requests.post(f"{lines[4]}/predict", data=photo, headers=headers, timeout=30)
    assert answer.json()[0]["label"] in ("cat", "dog")
    assert started.process.pid is not None
    os.kill(started.process.pid, signal.SIGINT)
    assert started.wait(60).returncode == 0

"""Backbones compared on real photos: what is measured of them, which one is chosen, and mistakes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from tlkit import UnreachableWeightsError
from tlkit.analysis import choose as module
from tlkit.analysis.choose import choose
from tlkit.errors import DataError, RecipeError
from tlkit.experiment.backbones import BACKBONE
from tlkit.experiment.observer import Observer
from tlkit.plugins.loader import load_registry
from tlkit.reporting.choice_section import write_choice_chart

SHARED = Path(__file__).parents[3] / "shared"
REAL = f"local-dir:{SHARED / 'weights' / 'mobilenetv2_100'}"


class Notes(Observer):
    """Collects what the observer is told."""

    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


@pytest.fixture(scope="module")
def folder(datasets, tmp_path_factory):
    """Eight photos of each of two flowers, one of them twice, and two that are set aside for testing."""
    root = tmp_path_factory.mktemp("flowers")
    for name in ("rose", "daisy"):
        photos = sorted((datasets / "flowers/train" / name).iterdir())
        for split, chosen in (("train", photos[:8]), ("test", photos[8:10])):
            (root / split / name).mkdir(parents=True)
            for photo in chosen:
                (root / split / name / photo.name).write_bytes(photo.read_bytes())
    first = next((root / "train/rose").iterdir())
    (root / "train/rose/again.jpg").write_bytes(first.read_bytes())
    (root / "train/rose/broken.jpg").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def choice(folder):
    # its weights are random: a second network, which is worse
    return choose(folder, backbones=[REAL, "vgg16-quarter"], registry=load_registry())


def test_each_backbone_has_its_accuracy_and_cost_on_the_same_images(choice, folder):
    assert (choice.name, choice.images, choice.measure) == (folder.name, 16, "accuracy")
    assert [image for image, _ in choice.rejected] == ["train/rose/broken.jpg"]
    assert {candidate.scores.n for candidate in choice.candidates} == {16}
    sizes = {candidate.backbone: candidate.weight_bytes for candidate in choice.candidates}
    assert sizes[REAL] == pytest.approx(9e6, rel=0.05)
    assert all(0 < candidate.seconds < 20 for candidate in choice.candidates)


def test_the_best_comes_first_and_the_others_are_tested_against_it(choice):
    best, other = choice.candidates
    assert best is choice.best and (best.test, best.p, best.behind) == (None, None, 0)
    assert best.scores.accuracy >= other.scores.accuracy
    assert other.behind == pytest.approx(best.scores.accuracy - other.scores.accuracy)
    gained, lost = other.test.gained, other.test.lost
    assert gained - lost == best.scores.correct - other.scores.correct
    assert other.p == pytest.approx(other.test.p)


def test_a_cheaper_one_within_one_standard_error_is_named(choice):
    best, other = choice.candidates

    def cheaper(behind, seconds):
        changes = {"behind": behind, "standard_error": 0.03, "seconds": seconds * best.seconds}
        return choice.model_copy(update={"candidates": (best, other.model_copy(update=changes))})

    assert cheaper(0.031, 0.5).cheaper is None
    assert cheaper(0.02, 1.5).cheaper is None
    near = cheaper(0.02, 0.5)
    assert near.cheaper.backbone == other.backbone
    assert "within one standard error of it (2.0 ± 3.0 points behind) and takes 50% of its time" in (
        near.describe()
    )
    equal = cheaper(0.0, 1.5).describe()
    assert equal.startswith(f"{best.backbone}, {other.backbone} have the highest accuracy; {best.backbone} ")


def test_what_cannot_be_had_is_left_out_and_said(folder, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(module, "CANDIDATES", (BACKBONE, "vgg16-quarter", "tiny-missing"))
    notes = Notes()
    choice = choose(folder, observer=notes)
    assert [candidate.backbone for candidate in choice.candidates] == ["vgg16-quarter"]
    assert choice.unreachable == (BACKBONE,)
    assert notes.texts == [
        f"{BACKBONE} is not compared: its weights are not on this machine and cannot be downloaded"
    ]
    with pytest.raises(UnreachableWeightsError, match=BACKBONE):
        choose(folder, backbones=[BACKBONE])


def test_mistakes_are_found_before_anything_is_computed(folder, tmp_path):
    with pytest.raises(RecipeError, match=r"did you mean .*'vgg16-quarter'") as caught:
        choose(folder, backbones=[REAL, "vgg16-quater", "no-such"])
    assert len(caught.value.problems) == 2
    for name in ("rose", "daisy"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        photo = next((folder / "train" / name).glob("*[0-9]*"))
        (tmp_path / "photos" / name / "1.jpg").write_bytes(photo.read_bytes())
    with pytest.raises(DataError, match=r"too few images to compare backbones on \(daisy 1, rose 1\)"):
        choose(tmp_path / "photos", backbones=[REAL])


def test_the_chart_shows_every_backbone(choice, tmp_path):
    write_choice_chart(choice, tmp_path / "charts/choice.svg")
    text = (tmp_path / "charts/choice.svg").read_text()
    assert "vgg16-quarter" in text and "milliseconds per image" in text

"""Which images of a folder to label next, with a trained classifier and without."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from commands import command

import tlkit
from tlkit.analysis.next_to_label import next_to_label
from tlkit.errors import DataError
from tlkit.inference.predictor import Predictor
from tlkit.model.description import CHECKSUM_KEY
from tlkit.utils.json_files import content_sha256

SHARED = Path(__file__).parents[3] / "shared"
REAL = f"local-dir:{SHARED / 'weights' / 'mobilenetv2_100'}"


def copy(photos, folder):
    folder.mkdir(parents=True)
    for photo in photos:
        (folder / photo.name).write_bytes(photo.read_bytes())


@pytest.fixture(scope="module")
def photos(datasets):
    return {name: sorted((datasets / "flowers/train" / name).iterdir()) for name in ("daisy", "rose")}


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    """A classifier that knows ten photos of each of two flowers, enough to tell unknown ones."""
    root = tmp_path_factory.mktemp("labelled")
    for name, files in photos.items():
        copy(files[:10], root / "photos" / name)
    return tlkit.fit(
        root / "photos", backbone=REAL, quality="fast", folds=2, out=root / "run", registry=None
    ).folder


@pytest.fixture(scope="module")
def unlabelled(photos, tmp_path_factory):
    """Six new photos of each flower in a folder below, two that are labelled, a copy, and no image."""
    root = tmp_path_factory.mktemp("unlabelled")
    copy([*photos["daisy"][10:16], *photos["rose"][10:16]], root / "new")
    copy([photos["daisy"][0], photos["rose"][0]], root / "old")
    (root / "copy.jpg").write_bytes(photos["rose"][12].read_bytes())
    (root / "broken.jpg").write_bytes(b"no image")
    return root


def test_with_a_classifier(model, unlabelled):
    selection = next_to_label(model, unlabelled, 4)
    assert (selection.candidates, selection.labelled, selection.compared) == (12, 2, 20)
    assert [Path(path).name for path, _ in selection.unreadable] == ["broken.jpg"]
    assert len({image.image for image in selection.images}) == 4
    assert not any("old" in image.image for image in selection.images)
    predictor = tlkit.load(model)
    first = selection.images[0]
    (row,) = predictor.predict_proba([first.image])
    assert first.top[0] == (predictor.classes[row.argmax()], pytest.approx(row.max(), abs=1e-5))


def test_a_model_without_features_of_its_training_images(model, unlabelled, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(next(model.glob("phases/*/model")), folder)
    config = json.loads((folder / "config.json").read_text())
    config["tlkit"]["unknown"] = None
    config["tlkit"]["config_sha256"] = content_sha256(json.dumps(config), *CHECKSUM_KEY)
    (folder / "config.json").write_text(json.dumps(config))
    selection = next_to_label(folder, unlabelled, 4)
    # a model folder does not list the labelled images either
    assert (selection.candidates, selection.labelled, selection.compared) == (14, 0, 0)
    assert sum(image.similar for image in selection.images) == 14


def test_features_and_probabilities_of_one_pass_are_those_of_two(model, photos):
    import numpy as np

    predictor = tlkit.load(model)
    images = photos["rose"][10:13]
    represented = predictor.represent([*images, Path("missing.jpg")])
    assert represented.images == tuple(map(str, images))
    assert [image for image, _ in represented.unreadable] == ["missing.jpg"]
    np.testing.assert_allclose(represented.probabilities, predictor.predict_proba(images), atol=1e-5)
    plain = Predictor(predictor.module, predictor.preprocess, predictor.classes).represent(images).features
    np.testing.assert_allclose(plain, predictor.features(images), rtol=1e-3, atol=1e-4)
    assert not np.allclose(plain, represented.features)


def test_on_the_command_line_with_and_without_a_model(model, unlabelled, tmp_path):
    ended = command("next", model, unlabelled, "--count", 3, "--csv", tmp_path / "next.csv", "--json")
    assert ended.returncode == 0, ended.stderr
    assert "broken.jpg cannot be read" in ended.stderr and "3 of 12 images; 2 have labels" in ended.stderr
    assert "compared with 20 training images" in ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    with (tmp_path / "next.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [line["path"] for line in lines]
    assert rows[0]["class_1"] == lines[0]["top"][0]["class"]

    # without a model, nothing is said of classes
    listed = tmp_path / "typical.csv"
    ended = command("next", unlabelled, "--backbone", REAL, "--count", 3, "--csv", listed)
    assert ended.returncode == 0, ended.stderr
    header, _, *table = ended.stdout.strip().splitlines()
    assert header.split() == ["score", "similar", "image"] and len(table) == 3
    with listed.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["path", "score", "similar"] and len(rows) == 3
    assert sum(int(row["similar"]) for row in rows) == 14


def test_mistakes(model, unlabelled, tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        next_to_label(model, tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no image to label: 2 have labels already"):
        next_to_label(model, unlabelled / "old")
    with pytest.raises(DataError, match="a model has its own backbone"):
        next_to_label(model, unlabelled, backbone=REAL)
    with pytest.raises(DataError, match="count must be at least 1"):
        next_to_label(None, unlabelled, 0)

"""The report's map: of the training images, in the order of the features that the model stores."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_pages import Page
from sklearn.neighbors import NearestNeighbors

import tlkit
from tlkit.errors import ReportError
from tlkit.experiment.record import RunRecord
from tlkit.inference.predictor import Predictor
from tlkit.model.unknown import UnknownDetector
from tlkit.plugins.loader import load_registry
from tlkit.reporting.map_section import NEIGHBOURS, MapSection, make_map_section
from tlkit.reporting.missing import Missing
from tlkit.reporting.pictures import Album
from tlkit.reporting.run_images import RunImages


@pytest.fixture(scope="module")
def predictor(cross_validated: Path) -> Predictor:
    return tlkit.load(cross_validated, device="cpu")


def make(run: Path, predictor: Predictor, folder: Path, rows: slice = slice(None)) -> MapSection | None:
    record = RunRecord(run)
    with RunImages(record, load_registry(), Missing()) as images:
        return make_map_section(record.images[rows], record.classes, predictor, images, Album(folder))


def stored_features(predictor: Predictor) -> np.ndarray:
    assert isinstance(predictor.unknown, UnknownDetector)
    return predictor.unknown.features.numpy()


def test_stored_features_are_those_of_the_training_images_in_the_order_of_splits_csv(
    cross_validated: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLKIT_CACHE", str(cross_validated.parent / "cache"))
    rows = RunRecord(cross_validated).images
    paths = [cross_validated.parent / "images" / row.id for row in rows]
    pooled = tlkit.features(paths, backbone="vgg16-quarter", device="cpu")
    expected = np.sign(pooled) * np.sqrt(np.abs(pooled))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(stored_features(predictor), expected, atol=2e-3)  # stored in 16 bits


def test_images_without_a_similar_one_of_their_class_are_marked_and_shown(
    cross_validated: Path, predictor: Predictor, tmp_path: Path
) -> None:
    labels = np.array([row.label for row in RunRecord(cross_validated).images])
    section = make(cross_validated, predictor, tmp_path)
    assert section is not None and section.count == len(labels) == 30 and section.neighbours == NEIGHBOURS
    # another library's neighbours; the first one is the image itself
    search = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, metric="cosine").fit(stored_features(predictor))
    nearest = search.kneighbors(return_distance=False, n_neighbors=NEIGHBOURS)
    alone = [index for index, row in enumerate(nearest) if not (labels[row] == labels[index]).any()]
    assert section.marked == len(alone) == len(section.pictures)
    page = Page(cross_validated / "report.html")
    said = f"{len(alone)} image" if alone else "No image lies among other classes"
    assert "Map of the training images" in page.text and said in page.text
    chart = (cross_validated / "pictures" / "map.svg").read_text("utf-8")
    assert "cat" in chart and "dog" in chart and "All images" in chart


def test_a_wrong_label_is_marked_and_its_photo_shown(
    cross_validated: Path, predictor: Predictor, tmp_path: Path
) -> None:
    record = RunRecord(cross_validated)
    wrong = replace(record.images[3], label="a class of its own")
    rows = [wrong if row.id == wrong.id else row for row in record.images]
    classes = [*record.classes, "a class of its own"]
    with RunImages(record, load_registry(), Missing()) as images:
        section = make_map_section(rows, classes, predictor, images, Album(tmp_path))
    assert section is not None
    captions = [picture.caption for picture in section.pictures]
    assert f"a class of its own: {wrong.id}" in captions
    assert f"none of the {NEIGHBOURS} most similar has this label" in (tmp_path / "map.svg").read_text(
        "utf-8"
    )


def test_features_of_another_run_are_an_error(
    cross_validated: Path, predictor: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(ReportError, match=r"29 different training images.* features of 30.* not of one run"):
        make(cross_validated, predictor, tmp_path, slice(1, None))


def test_a_model_without_features_has_no_map(cross_validated: Path, tmp_path: Path) -> None:
    shutil.copytree(cross_validated / "phases" / "probe" / "model", tmp_path / "model")
    without = tlkit.load(tmp_path / "model", device="cpu", unknown=False)
    assert make(cross_validated, without, tmp_path) is None
    assert not (tmp_path / "map.svg").exists()

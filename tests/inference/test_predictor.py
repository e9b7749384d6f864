"""Predictors: the same pixels however an image comes, labels, features, evaluation, bad images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

import tlkit
from tlkit.data.images import read_image
from tlkit.data.inspection import inspect_images
from tlkit.data.labelled import labelled_images
from tlkit.data.loader import normalize
from tlkit.data.views import View, ViewReader
from tlkit.errors import DataError, RunFolderError
from tlkit.inference.pixels import ImageLike, read_pixels
from tlkit.model.classifier import Classifier
from tlkit.parts.source import Sample

Painted = PillowImage.Image


def painted() -> Painted:
    """A picture without symmetries, 90 by 60."""
    y, x = np.mgrid[0:60, 0:90]
    return PillowImage.fromarray(np.stack([2 * x, 4 * y, (x * y) % 255], axis=2).astype(np.uint8))


def rotated(path: Path) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    painted().save(path, exif=exif)


def sixteen_bits(path: Path) -> None:
    PillowImage.fromarray((np.arange(60 * 90).reshape(60, 90) * 12).astype(np.uint16)).save(path)


def transparent(path: Path) -> None:
    image = painted().convert("RGBA")
    image.putalpha(PillowImage.linear_gradient("L").resize(image.size))
    image.save(path)


def animated(path: Path) -> None:
    painted().save(path, save_all=True, append_images=[painted().rotate(90, expand=False)])


ZOO: dict[str, Callable[[Path], object]] = {
    "plain.jpg": lambda path: painted().save(path, quality=92),
    "rotated.jpg": rotated,
    "cmyk.jpg": lambda path: painted().convert("CMYK").save(path),
    "grey.jpg": lambda path: painted().convert("L").save(path),
    "plain.png": lambda path: painted().save(path),
    "palette.png": lambda path: painted().quantize(16).save(path),
    "see-through-palette.png": lambda path: painted().quantize(16).save(path, transparency=0),
    "transparent.png": transparent,
    "grey-alpha.png": lambda path: painted().convert("LA").save(path),
    "sixteen-bits.png": sixteen_bits,
    "one-bit.png": lambda path: painted().convert("1").save(path),
    "sixteen-bits.tiff": sixteen_bits,
    "animated.gif": animated,
    "plain.webp": lambda path: painted().save(path, lossless=True),
    "plain.bmp": lambda path: painted().save(path),
}


@pytest.mark.parametrize("name", ZOO)
def test_every_path_gives_the_same_pixels(name: str, fitted: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    ZOO[name](path)
    predictor = tlkit.load(fitted)
    expected = predictor.preprocess(read_image(path))
    (image,), _ = inspect_images([Sample("a", path)], threads=1)
    trained_on = ViewReader().get(image, [View(predictor.preprocess)], remember=False)[0]
    assert np.array_equal(trained_on, expected)
    with PillowImage.open(path) as opened:
        answers = predictor.predict_proba([path, str(path), opened, np.asarray(read_image(path))])
    assert (answers == answers[0]).all()
    streamed = next(iter(predictor.stream([path], top=2)))
    # sums in a batch of one are rounded differently
    assert [dict(streamed.top)[name] for name in predictor.classes] == pytest.approx(answers[0], abs=1e-6)


def test_a_mixture_of_images(fitted: Path, photos: Path) -> None:
    predictor = tlkit.load(fitted)
    paths = [photos / f"{kind}.{number}.jpg" for kind in ("cat", "dog") for number in range(41, 61)]
    mixed: list[ImageLike] = [
        path if index % 3 == 0 else read_image(path) if index % 3 == 1 else np.asarray(read_image(path))
        for index, path in enumerate(paths)
    ]
    labels, probabilities = predictor.predict(mixed)
    assert probabilities.shape == (40, 2)
    assert np.allclose(probabilities.sum(1), 1)
    assert labels == [predictor.classes[index] for index in probabilities.argmax(1)]
    assert np.array_equal(probabilities, predictor.predict_proba(paths))
    assert predictor.features(paths[:3]).shape == (3, 128, 4, 4)


def test_one_image_needs_no_list(fitted: Path, photos: Path) -> None:
    predictor, path = tlkit.load(fitted), photos / "cat.41.jpg"
    pixels = np.asarray(read_image(path))
    expected = predictor.predict_proba([path])
    for image in (path, str(path), PillowImage.fromarray(pixels), pixels):
        assert np.array_equal(predictor.predict_proba(image), expected)
    assert predictor.predict_proba(np.stack([pixels, pixels])).shape == (2, 2)
    assert [prediction.image for prediction in predictor.stream(str(path))] == [str(path)]
    assert predictor.evaluate(path, "cat").n == 1
    assert predictor.represent(path).images == (str(path),)
    grey = pixels[:, :, 0]
    assert len(predictor.predict(grey).labels) == 1
    assert len(predictor.predict(np.stack([grey, grey, grey])).labels) == 3


def test_it_predicts_as_the_run_did(fitted: Path) -> None:
    """The run's test images through the predictor, which computes in float32 whatever the run did."""
    rows = (fitted / "phases" / "fine-tune" / "predictions.csv").read_text().splitlines()[1:]
    of_test = [row.split(",") for row in rows if row.startswith("test,")]
    data = tlkit.read_recipe(fitted).data
    assert data is not None and data.root is not None
    probabilities = tlkit.load(fitted).predict_proba([data.root / row[1] for row in of_test])
    assert np.allclose(probabilities[:, 0], [float(row[4]) for row in of_test], atol=0.03)


def test_the_temperature_is_fitted_on_validation_and_saved(fitted: Path) -> None:
    predictor = tlkit.load(fitted)
    results = json.loads((fitted / "results.json").read_text())
    assert predictor.temperature == results["phases"][-1]["temperature"] != 1


def test_unclassified_instead_of_a_guess(fitted: Path, photos: Path) -> None:
    paths = [photos / f"cat.{number}.jpg" for number in range(1, 31)]
    confidence = tlkit.load(fitted).predict_proba(paths).max(1)
    threshold = float(np.median(confidence))
    labels, _ = tlkit.load(fitted, reject_below=threshold).predict(paths)
    assert [label == "unclassified" for label in labels] == list(confidence < threshold)
    assert "unclassified" in labels


@pytest.mark.usefixtures("shared_cache")
def test_a_recipe_can_store_the_threshold(fitted: Path, tmp_path: Path) -> None:
    changes = {"reject_below": 0.97, "phase.bottleneck.epochs": 1}
    ended = tlkit.run(fitted, overrides=changes, out=tmp_path / "out", phases=["bottleneck"])
    assert tlkit.load(ended.folder).reject_below == 0.97


def test_evaluation(fitted: Path, by_class: Path) -> None:
    predictor = tlkit.load(fitted, reject_below=0.9)
    paths, labels = labelled_images(by_class)
    result = predictor.evaluate(paths, labels)
    predicted, probabilities = tlkit.load(fitted).predict(paths)
    correct = np.array(predicted) == np.array(labels)
    assert (result.n, result.correct) == (len(paths), correct.sum())
    accepted = probabilities.max(1) >= 0.9
    assert result.rejected is not None
    assert result.rejected.model_dump() == {
        "below": 0.9,
        "n": int((~accepted).sum()),
        "accuracy_of_others": correct[accepted].mean(),
    }
    of_cats = [predicted[index] == "cat" for index, label in enumerate(labels) if label == "cat"]
    assert result.per_class["cat"].recall == np.mean(of_cats)
    stored = json.loads((fitted / "results.json").read_text())["phases"][-1]["test"]
    added = {"per_class", "baselines", "rejected", "unknown", "mistakes"}
    assert stored.keys() | added == result.model_dump().keys()


def test_classes_are_matched_by_name(fitted: Path, by_class: Path, tmp_path: Path) -> None:
    shutil.copytree(by_class, tmp_path / "other")
    (tmp_path / "other" / "dog").rename(tmp_path / "other" / "dogs")
    paths, labels = labelled_images(tmp_path / "other")
    with pytest.raises(DataError, match=r"does not know 'dogs' \(did you mean 'dog'\?\); it knows cat, dog"):
        tlkit.load(fitted).evaluate(paths, labels)


def test_images_that_cannot_be_read_are_all_named(fitted: Path, few_photos: Path) -> None:
    (few_photos / "cat.1.jpg").write_bytes((few_photos / "cat.1.jpg").read_bytes()[:500])
    (few_photos / "cat.2.jpg").write_text("words")
    paths = [few_photos / f"cat.{number}.jpg" for number in (1, 2, 3, 99)]
    predictor = tlkit.load(fitted)
    with pytest.raises(DataError, match=r"(?s)cat\.1\.jpg.*cat\.2\.jpg.*cat\.99\.jpg"):
        predictor.predict([*paths, np.zeros((4, 4, 3), np.float32)])
    errors = [prediction.error for prediction in predictor.stream(paths)]
    assert [error is None for error in errors] == [False, False, True, False]


def test_objects_that_are_not_images_are_refused(fitted: Path) -> None:
    with pytest.raises(DataError, match=r"array of float32 \(4, 4, 3\) is not an image: it must be uint8"):
        tlkit.load(fitted).predict([np.zeros((4, 4, 3), np.float32)])
    with pytest.raises(DataError, match="int is neither a path nor a Pillow image nor an array"):
        tlkit.load(fitted).predict([3])  # type: ignore[list-item]
    with pytest.raises(DataError, match="there are no images"):
        tlkit.load(fitted).predict([])


def test_the_module_inside_is_a_pytorch_network(fitted: Path, photos: Path) -> None:
    predictor = tlkit.load(fitted)
    assert isinstance(predictor.module, torch.nn.Module)
    assert not predictor.module.training
    pixels = predictor.preprocess(read_image(photos / "cat.1.jpg"))
    assert pixels.shape == (128, 128, 3)


def test_folded_batch_norms_change_no_label(weights: Path, photos: Path) -> None:
    registry = tlkit.load_registry()
    base = registry.make("backbone", f"local-dir:{weights}", {})
    torch.manual_seed(1)
    head = registry.make("head", "linear", {}, base, ["a", "b", "c"])
    predictor = tlkit.Predictor(Classifier(base, head), base.preprocess, ["a", "b", "c"], device="cpu")
    paths = [photos / f"{kind}.{number}.jpg" for kind in ("cat", "dog") for number in range(1, 17)]
    pixels = np.stack([read_pixels(path, base.preprocess) for path in paths])
    with torch.inference_mode():
        expected = predictor.module(normalize(pixels, base.preprocess)).softmax(1).numpy()
    labels, probabilities = predictor.predict(paths)
    assert labels == ["abc"[index] for index in expected.argmax(1)]
    assert len(set(labels)) > 1
    assert np.abs(probabilities - expected).max() < 1e-4


def test_bfloat16_is_close(fitted: Path, photos: Path) -> None:
    paths = [photos / f"{kind}.{number}.jpg" for kind in ("cat", "dog") for number in range(1, 11)]
    exact = tlkit.load(fitted).predict_proba(paths)
    rounded = tlkit.load(fitted, precision="bfloat16").predict_proba(paths)
    assert 0 < np.abs(rounded - exact).max() < 0.1


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda model: (model / "model.safetensors").unlink(),
            r"is not a model folder: .* no model\.safetensors",
        ),
        (lambda model: (model / "config.json").unlink(), r"is not a model folder: .* no config\.json"),
        (lambda model: (model / "config.json").write_text("{"), r"config\.json cannot be read: Invalid JSON"),
        (
            lambda model: alter(model / "model.safetensors"),
            "is not the file that config.json was written for",
        ),
        (
            lambda model: (model / "model.safetensors").write_bytes(b"\x80\x04pickle"),
            r"model\.safetensors cannot be read",
        ),
        (lambda model: newer(model / "config.json"), "made by a newer tlkit"),
    ],
)
def test_damaged_model_folders(
    break_it: Callable[[Path], object], message: str, fitted: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(fitted / "phases" / "fine-tune" / "model", model)
    tlkit.load(model)
    break_it(model)
    with pytest.raises(RunFolderError, match=message):
        tlkit.load(model)


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def newer(path: Path) -> None:
    config = json.loads(path.read_text())
    config["tlkit"]["format"] += 1
    path.write_text(json.dumps(config))


def test_models_that_do_not_exist(fitted: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"fitte does not exist \(did you mean 'fitted'\?\)"):
        (tmp_path / "fitted").mkdir()
        tlkit.load(tmp_path / "fitte")
    with pytest.raises(RunFolderError, match="is neither a model folder nor a run folder"):
        tlkit.load(tmp_path)
    with pytest.raises(RunFolderError, match=r"no finished phase 'finetune' \(did you mean 'fine-tune'\?\)"):
        tlkit.load(fitted, phase="finetune")
    with pytest.raises(RunFolderError, match="is a model folder and has no phases"):
        tlkit.load(fitted / "phases" / "bottleneck" / "model", phase="bottleneck")

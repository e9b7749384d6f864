"""Predicts and evaluates with a model in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.data.labelled import images_with_labels, labelled_images
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer
from tlkit.inference.loading import LoadOptions, Model, as_predictor, load
from tlkit.inference.multilabel import MultilabelPredictor
from tlkit.inference.pixels import ImageLike, Images, as_images
from tlkit.inference.prediction import Evaluation, Prediction
from tlkit.inference.predictor import Predictor

if TYPE_CHECKING:
    from tlkit.runtime.devices import Precision


def predict(
    model: Model,
    images: Images,
    *,
    top: int = 1,
    phase: str | None = None,
    reject_below: float | None = None,
    unknown: bool = True,
    device: str | None = None,
    precision: Precision = "float32",
    engine: str | Mapping[str, Any] | None = None,
) -> list[Prediction]:
    """Labels images; for many calls, load the model once with `tlkit.load`.

    Args:
        model: a model folder, a run folder, or what `tlkit.load` returns.
        images: files, Pillow images and uint8 arrays, in any mixture, or a single one; or a folder, with all
            folders below it. An image that cannot be read is reported in its prediction.
        top: how many classes each prediction lists.
        phase: the phase of a run; its last unless given.
        reject_below: in place of the threshold that is stored with the model.
        unknown: whether images that belong to none of the classes are labelled "unknown".
        device: such as "cpu" or "cuda:1"; the best one unless given.
        precision: see `tlkit.load`.
        engine: predicts image files in its workers: a name, or a table with ``name`` and its options, as
            ``compute.engine`` of a recipe; this process unless given.

    Raises:
        DataError: a path or folder of images does not exist.
        EngineError: workers are lost again and again, or cannot load the model.
        PluginError: there is no such engine.
        RunFolderError: there is no model that can be loaded.
    """
    options: LoadOptions = {
        "phase": phase,
        "reject_below": reject_below,
        "unknown": unknown,
        "device": device,
        "precision": precision,
    }
    listed = as_images(images)
    if engine is None:
        return list(as_predictor(model, **options).stream(listed, top=top))
    return list(_in_workers(engine, model, listed, lambda _: None, top, options))


def evaluate(
    model: Model,
    images: Images,
    labels: str | Sequence[str] | None = None,
    *,
    separator: str | None = None,
    phase: str | None = None,
    reject_below: float | None = None,
    unknown: bool = True,
    device: str | None = None,
    precision: Precision = "float32",
    engine: str | Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> Evaluation:
    """Computes a classifier's scores on labelled images.

    Args:
        model: a model folder, a run folder, or what `tlkit.load` returns.
        images: a folder per class or a CSV file with columns `path` and `label`, of whose splits the test
            images are taken, and of which `label` may have several with the separator between them, where
            the model predicts several; or, with `labels`, files, Pillow images and uint8 arrays.
        labels: the class name of each of a list of images; where images may have several, all of them with
            ``|`` between them.
        separator: what is between the labels of an image in a CSV file; ``|`` unless given.
        phase: the phase of a run; its last unless given.
        reject_below: in place of the threshold that is stored with the model.
        unknown: whether images that belong to none of the classes are labelled "unknown".
        device: such as "cpu" or "cuda:1"; the best one unless given.
        precision: see `tlkit.load`.
        engine: predicts image files in its workers, as for `predict`.
        observer: is shown the progress.

    Returns:
        The scores; of a model that predicts several labels per image, `MultilabelScores`.

    Raises:
        DataError: there are no labels, one is not a class of this classifier, or images cannot be read.
        EngineError: workers are lost again and again, or cannot load the model.
        PluginError: there is no such engine.
        RunFolderError: there is no model that can be loaded.
    """
    options: LoadOptions = {
        "phase": phase,
        "reject_below": reject_below,
        "unknown": unknown,
        "device": device,
        "precision": precision,
    }
    if engine is None:
        predictor = as_predictor(model, **options)
    else:
        # the device is the workers': this computer may have no GPU
        here: LoadOptions = {**options, "device": "cpu", "precision": "float32"}
        predictor = load(_model_path(model), **here)
    listed, labels = _labelled_images(predictor, images, labels, separator)
    observer = observer or Observer()
    with observer.progress("evaluating", len(listed), "images") as tick:
        if engine is None:
            return predictor.evaluate(listed, labels, tick=tick)
        from tlkit.inference.worker_prediction import collect

        truth = predictor.truth(labels, len(listed))
        predictions = _in_workers(engine, model, listed, observer.note, len(predictor.classes), options)
        return predictor.score(listed, truth, collect(predictions, predictor.classes, tick))


def _labelled_images(
    predictor: Predictor, images: Images, labels: str | Sequence[str] | None, separator: str | None
) -> tuple[Sequence[ImageLike], str | Sequence[str]]:
    """Returns images and their labels: those that are given, or those of a folder per class or a CSV file.

    Raises:
        DataError: there are no labels, or nothing that a separator could separate.
    """
    has_several = isinstance(predictor, MultilabelPredictor)
    if separator is not None and (labels is not None or not has_several):
        reason = "labels are given" if has_several else "this model predicts one label per image"
        raise DataError(f"a separator is for a CSV file with several labels per image: {reason}")
    if labels is not None:
        return list(as_images(images)), labels
    if not isinstance(images, str | Path):
        raise DataError("there are no labels: give them, or a folder per class or a CSV file")
    if has_several:
        return images_with_labels(Path(images), predictor.classes, separator)
    return labelled_images(Path(images))


def _in_workers(
    engine: str | Mapping[str, Any],
    model: Model,
    images: Iterable[ImageLike],
    note: Callable[[str], object],
    top: int,
    options: LoadOptions,
) -> Iterator[Prediction]:
    """Yields predictions by an engine's workers.

    Raises:
        DataError: the model, or an image, is no file that workers could read.
    """
    from tlkit.inference.worker_prediction import stream_from_workers

    folder, paths = _model_path(model), list(images)
    if not all(isinstance(path, str | Path) for path in paths):
        raise DataError("an engine's workers read image files: give paths, or leave the engine out")
    return stream_from_workers(engine, folder, map(str, paths), note, top=top, **options)


def _model_path(model: Model) -> Path:
    """Returns where workers find a model; raises DataError if it is loaded already."""
    if isinstance(model, Predictor):
        raise DataError(
            "an engine's workers load the model themselves: give its folder, or leave the engine out"
        )
    return Path(model)

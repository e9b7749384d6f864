"""Audits labelled images: everything that their features say is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tlkit.analysis.audit_file import (
    Audit,
    AuditedImage,
    LabelErrors,
    MapPoint,
    Neighbour,
    Rejected,
    Series,
    Unlike,
)
from tlkit.analysis.confusions import find_confusions, small_classes
from tlkit.analysis.duplicates import NEIGHBOURS, Copies, find_copies
from tlkit.analysis.feature_map import MIN_IMAGES, choose_images, lay_out
from tlkit.analysis.features import DatasetFeatures, LabelledImages, target_features
from tlkit.analysis.images import TrainingImages
from tlkit.analysis.label_errors import VOTERS, find_label_errors
from tlkit.analysis.neighbours import Neighbours, nearest
from tlkit.analysis.out_of_fold import OutOfFold
from tlkit.analysis.outliers import find_unlike
from tlkit.analysis.series import find_series
from tlkit.analysis.shortcuts import find_shortcuts
from tlkit.errors import DataError, ReportError
from tlkit.evaluation.metrics import balanced_accuracy
from tlkit.experiment.observer import Observer
from tlkit.plugins.registry import Registry
from tlkit.utils.json_files import write_json

#: Similar images that are named beside each image that something is said about.
NEIGHBOURS_NAMED = 5


def audit(
    target: TrainingImages,
    labels: str | Iterable[object] | None = None,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> Audit:
    """Finds copies, label errors and other flaws of labelled images; changes nothing.

    Args:
        target: labelled images as for `tlkit.fit`: a folder per class, a CSV file with columns `path` and
            `label`, a list of images, a `torch.utils.data.Dataset`, or a `datasets.Dataset`; or a recipe or a
            run folder.
        labels: of a list of images; None of all else.
        backbone: what computes the features; the recipe's, or `tlkit.fit`'s, unless given.
        weights: "pretrained", "none", or a .safetensors file; the backbone's default unless given.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: is shown the progress.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        TlkitError: the images, the recipe or the backbone must be corrected first.
    """
    observer = observer or Observer()
    features = target_features(
        target,
        labels,
        backbone=backbone,
        weights=weights,
        device=device,
        observer=observer,
        registry=registry,
    )
    named = isinstance(target, str | Path) and labels is None
    return audit_features(features, str(target if named else features.labelled.origin), observer)


def audit_features(features: DatasetFeatures, target: str, observer: Observer) -> Audit:
    """Audits images with features; see `audit`.

    Args:
        features: the images.
        target: what they are, as it was named.
        observer: is shown the progress.

    Raises:
        DataError: there is one image only.
    """
    labelled = features.labelled
    if len(features) < 2:
        raise DataError(f"{target} holds one image that can be read: an audit compares images with others")
    mean, labels, classes = features.mean, features.labels, labelled.classes
    neighbours = nearest(mean, max(VOTERS, NEIGHBOURS))
    copies = find_copies(features, neighbours, observer)
    out_of_fold = OutOfFold.of(mean, labels, len(classes), labelled.groups)
    label_errors = find_label_errors(features, neighbours, out_of_fold, observer)
    series = find_series(features, neighbours, [pair.images for pair in copies.pairs])
    unlike = find_unlike(features, neighbours)
    predicted = out_of_fold.predicted
    is_predicted = predicted >= 0
    counts = np.bincount(labels, minlength=len(classes))
    per_class = {name: int(count) for name, count in zip(classes, counts, strict=True)}
    return Audit(
        name=labelled.name,
        target=target,
        root=None if labelled.data.root is None else str(labelled.data.root),
        backbone=features.backbone,
        weights=features.weights,
        classes=per_class,
        small_classes=small_classes(per_class),
        accuracy=balanced_accuracy(predicted[is_predicted], labels[is_predicted])
        if is_predicted.any()
        else None,
        images=_describe_images(features, neighbours, _named(copies, label_errors, series, unlike)),
        rejected=tuple(Rejected(image=image, reason=reason) for image, reason in labelled.rejected),
        pairs=copies.pairs,
        groups=copies.groups,
        series=series,
        labels=label_errors,
        unlike=unlike,
        confusions=find_confusions(labels, predicted, classes),
        shortcuts=find_shortcuts(labelled.images, labels, labelled.groups, observer),
        map=_make_map(features, _named_alone(label_errors, unlike)),
    )


def write_audit(audit: Audit, folder: Path) -> Path:
    """Writes ``audit.json`` into a folder, and returns its path.

    Raises:
        ReportError: it cannot be written.
    """
    file = folder / "audit.json"
    try:
        write_json(file, audit)
    except OSError as error:
        raise ReportError(f"{file} cannot be written: {error.strerror or error}") from error
    return file


def _make_map(features: DatasetFeatures, suspects: set[str]) -> tuple[MapPoint, ...]:
    """Returns where images lie by their features, `suspects` (ids) among them."""
    images = features.labelled.images
    if len(images) < MIN_IMAGES:
        return ()
    always = [index for index, image in enumerate(images) if image.sample.id in suspects]
    shown = choose_images(len(images), np.array(always, np.int64))
    coordinates = lay_out(features.mean[shown])
    return tuple(
        MapPoint(image=images[index].sample.id, label=_label(features, index), x=float(x), y=float(y))
        for index, (x, y) in zip(shown.tolist(), coordinates, strict=True)
    )


def _named(
    copies: Copies, label_errors: LabelErrors, series: Iterable[Series], unlike: Iterable[Unlike]
) -> set[str]:
    """Returns the ids of the images that something is said about."""
    named = {image for group in copies.groups for image in group.images}
    named |= {image for pair in series for image in pair.images}
    return named | _named_alone(label_errors, unlike)


def _named_alone(label_errors: LabelErrors, unlike: Iterable[Unlike]) -> set[str]:
    """Returns the ids of the images that something is said about, and not of a pair or a group."""
    return {suspect.image for suspect in label_errors.suspects} | {item.image for item in unlike}


def _describe_images(
    features: DatasetFeatures, neighbours: Neighbours, named: set[str]
) -> dict[str, AuditedImage]:
    images, splits = features.labelled.images, features.labelled.splits
    described = {}
    for index, image in enumerate(images):
        if image.sample.id not in named:
            continue
        closest = zip(
            neighbours.indices[index, :NEIGHBOURS_NAMED].tolist(),
            neighbours.similarities[index, :NEIGHBOURS_NAMED].tolist(),
            strict=True,
        )
        described[image.sample.id] = AuditedImage(
            image=image.sample.id,
            path=_path(features.labelled, index),
            sha256=image.sha256,
            label=_label(features, index),
            split=splits[index],
            neighbours=tuple(
                Neighbour(
                    image=images[other].sample.id,
                    path=_path(features.labelled, other),
                    sha256=images[other].sha256,
                    label=_label(features, other),
                    similarity=similarity,
                )
                for other, similarity in closest
            ),
        )
    return described


def _label(features: DatasetFeatures, index: int) -> str:
    return features.labelled.classes[int(features.labels[index])]


def _path(labelled: LabelledImages, index: int) -> str:
    """Returns an image's path: relative to the root where it is in it, otherwise absolute."""
    path, root = labelled.images[index].sample.path.absolute(), labelled.data.root
    return str(path.relative_to(root) if root is not None and path.is_relative_to(root) else path)

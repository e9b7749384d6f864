"""scikit-learn estimators on the feature store.

Their parameters are stored as they are given, and checked in `fit`, as scikit-learn requires.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_consistent_length, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from tlkit.analysis.encoder import Encoder, pooled_mean, shared_encoder
from tlkit.errors import PluginError
from tlkit.evaluation.multilabel import DEFAULT_THRESHOLD
from tlkit.experiment.folds import ONE_THREAD_UP_TO
from tlkit.inference.pixels import Images
from tlkit.model.classifier import Classifier
from tlkit.model.description import Calibration
from tlkit.model.saving import save_model
from tlkit.parts.backbone import Backbone
from tlkit.parts.head import SelfFittingHead
from tlkit.parts.task import Task
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.schema import PartSpec
from tlkit.runtime.devices import one_thread

#: A head's name, or its recipe table, such as ``{"name": "knn", "neighbours": 5}``.
HeadTable = str | Mapping[str, Any]
ClassWeight = Literal["balanced"] | Mapping[Any, float] | None


class HeadClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A head of tlkit's as a scikit-learn classifier of feature arrays ``(N, C)``.

    Only heads that fit themselves can be used, such as ``probe``, ``prototype`` and ``knn``. With
    `ImageFeatures` in front of it, it classifies images.

    Args:
        head: the head's name, or its recipe table.
        class_weight: "balanced" gives images of classes with fewer of them more weight, as runs do; None: all
            have the same; or each label's weight. It has no effect on ``prototype``: the mean of a class is
            the same with any weight.

    Attributes:
        classes_: the labels, sorted; probabilities have a column for each.
        head_: the fitted head.
        n_features_in_: number of features.
    """

    classes_: NDArray[Any]
    head_: nn.Module

    def __init__(self, head: HeadTable = "probe", *, class_weight: ClassWeight = "balanced") -> None:
        self.head = head
        self.class_weight = class_weight

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fits the head to features ``(N, C)`` and labels ``(N,)``.

        Raises:
            ValueError: the features or labels have the wrong form, or there is one class only.
            PluginError: there is no such head, or it does not fit itself.
        """
        features, labelling = validate_data(self, X, y, dtype=np.float32)
        self.classes_, labels = _encode_labels(labelling)
        backbone = Backbone(_PrecomputedFeatures(features.shape[1]))
        head = _make_head(self.head, load_registry(), backbone, self.classes_)
        weights = _weights(self.class_weight, self.classes_, labelling, labels)
        self.head_ = _fit_head(head, torch.tensor(features), labels, weights)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Predicts probabilities ``(N, classes)`` from features ``(N, C)``."""
        check_is_fitted(self)
        features = validate_data(self, X, reset=False, dtype=np.float32)
        return _probabilities(self.head_, [torch.tensor(features)])

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predicts labels from features ``(N, C)``."""
        best = self.predict_proba(X).argmax(1)  # raises if it is not fitted
        labels: NDArray[Any] = self.classes_[best]
        return labels


class ImageFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Transforms images into their pooled features, which are computed once and cached.

    It learns nothing from the images it is fitted to; see `tlkit.features`.

    Args:
        backbone: any backbone's name, ``local-dir:…`` and ``hf-hub:…`` included; that of `tlkit.fit` unless
            given.
        weights: "pretrained", "none", or a .safetensors file; the backbone's default unless given.
        mirror: whether features are the mean over an image and its mirror image.
        device: such as "cpu" or "cuda:1"; the best one unless given.

    Attributes:
        backbone_: name of the backbone.
    """

    backbone_: str

    def __init__(
        self,
        backbone: str | None = None,
        *,
        weights: str | None = None,
        mirror: bool = True,
        device: str | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.mirror = mirror
        self.device = device

    def fit(self, X: Images, y: object = None) -> Self:
        """Makes the backbone; the images are not looked at."""
        encoder = _encoder(self)
        self.backbone_ = encoder.table.name
        shape = encoder.backbone.feature_shape
        self._n_features_out = shape[1] if len(shape) == 2 else shape[0]
        return self

    def transform(self, X: Images) -> NDArray[np.float32]:
        """Returns the features ``(N, C)`` of images: files, Pillow images or uint8 arrays.

        Raises:
            DataError: some cannot be read; all of these are listed.
        """
        encoder = _encoder(self)
        return pooled_mean(encoder.encode(encoder.identify(X)))

    def __sklearn_tags__(self) -> Any:
        """Says that it takes images, and needs not be fitted."""
        tags = _image_tags(super().__sklearn_tags__())
        tags.requires_fit = False
        return tags


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifies images by a head on the cached features of a frozen backbone.

    Features are computed once per image, whatever is fitted to them: cross-validation and grid searches read
    them back. It is what the first phase of `tlkit.fit` trains, without the temperature of its probabilities
    and without a label "unknown".

    Args:
        backbone: any backbone's name, ``local-dir:…`` and ``hf-hub:…`` included; that of `tlkit.fit` unless
            given.
        head: a head that fits itself, such as "probe", "prototype" or "knn", or its recipe table, such as
            ``{"name": "knn", "neighbours": 5}``.
        weights: "pretrained", "none", or a .safetensors file; the backbone's default unless given.
        mirror: whether the head is fitted to the mean over an image and its mirror image, and predicts with
            the mean of both logits.
        class_weight: "balanced" gives images of classes with fewer of them more weight, as runs do; None: all
            have the same; or each label's weight. A multilabel classifier gives all images the same weight,
            and does not take weights of labels.
        device: such as "cpu" or "cuda:1"; the best one unless given.

    Attributes:
        classes_: the labels, sorted; probabilities have a column for each. Of a multilabel classifier, the
            names of the columns where `y` is a DataFrame, and their positions otherwise.
        multilabel_: whether it is a multilabel classifier.
        head_: the fitted head.
        backbone_: name of the backbone.
    """

    classes_: NDArray[Any]
    multilabel_: bool
    head_: nn.Module
    backbone_: str

    def __init__(
        self,
        backbone: str | None = None,
        head: HeadTable = "probe",
        *,
        weights: str | None = None,
        mirror: bool = True,
        class_weight: ClassWeight = "balanced",
        device: str | None = None,
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.weights = weights
        self.mirror = mirror
        self.class_weight = class_weight
        self.device = device

    def fit(self, X: Images, y: ArrayLike) -> Self:
        """Fits the head.

        Args:
            X: files, Pillow images or uint8 arrays, in any mixture.
            y: their labels, ``(N,)``, or an indicator matrix ``(N, classes)`` of 0 and 1.

        Raises:
            DataError: some images cannot be read; all of these are listed.
            ValueError: the numbers of images and labels differ, there is one class only, or an indicator
                matrix has other values than 0 and 1, or a `class_weight` for each label.
            PluginError: there is no such head, or it does not fit itself, or to one label per image only.
        """
        encoder = _encoder(self)
        images = encoder.identify(X)
        check_consistent_length(images, y)
        self.multilabel_ = type_of_target(y) == "multilabel-indicator"
        if self.multilabel_:
            if isinstance(self.class_weight, Mapping):
                raise ValueError("class_weight of each label cannot be given where an image may have several")
            self.classes_, labels = _encode_indicators(y)
            weights = torch.ones(len(labels))
        else:
            labelling = column_or_1d(y)
            self.classes_, labels = _encode_labels(labelling)
            weights = _weights(self.class_weight, self.classes_, labelling, labels)
        task: Task = "multilabel" if self.multilabel_ else "multiclass"
        head = _make_head(self.head, encoder.registry, encoder.backbone, self.classes_, task)
        views = encoder.encode(images)
        self.head_ = _fit_head(head, torch.stack(views).mean(0), labels, weights)
        self.backbone_ = encoder.table.name
        return self

    def predict_proba(self, X: Images) -> NDArray[np.float32]:
        """Predicts probabilities ``(N, classes)`` of images.

        Raises:
            DataError: some cannot be read; all of these are listed.
        """
        check_is_fitted(self)
        encoder = _encoder(self)
        return _probabilities(self.head_, encoder.encode(encoder.identify(X)), several=self.multilabel_)

    def predict(self, X: Images) -> NDArray[Any]:
        """Predicts labels of images, or an indicator matrix."""
        rows = self.predict_proba(X)  # raises if it is not fitted
        if self.multilabel_:
            return (rows >= DEFAULT_THRESHOLD).astype(np.int64)
        best = rows.argmax(1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def save(self, folder: Path | str) -> Path:
        """Writes a model folder, which `tlkit.load`, `tlkit.serve` and `tlkit.export` take; returns its path.

        The names of its classes are the labels as strings.

        Raises:
            RunFolderError: it cannot be written.
        """
        check_is_fitted(self)
        encoder, path = _encoder(self), Path(folder)
        save_model(
            path,
            Classifier(encoder.backbone, self.head_),
            encoder.backbone,
            # the folder has the weights
            backbone_table={
                **encoder.table.table(),
                **encoder.registry.without_weights(encoder.table.name),
            },
            head_table=_part(self.head).table(),
            classes=[str(label) for label in self.classes_],
            calibration=Calibration(
                temperature=1.0,
                mirror=self.mirror,
                thresholds=(DEFAULT_THRESHOLD,) * len(self.classes_) if self.multilabel_ else None,
            ),
            plugins=encoder.registry.plugins_of(
                (encoder.backbone.blueprint or {}).get("name", encoder.table.name), _part(self.head).name
            ),
        )
        return path

    def __sklearn_tags__(self) -> Any:
        """Says that it takes images, and no features, and perhaps several labels for each."""
        tags = _image_tags(super().__sklearn_tags__())
        tags.classifier_tags.multi_label = True
        return tags


class _PrecomputedFeatures(nn.Module):
    """Stands for the backbone of features that are given as an array."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), self.width)


def _encoder(estimator: ImageFeatures | ImageClassifier) -> Encoder:
    """Returns the encoder that an estimator's parameters describe."""
    encoder = shared_encoder(
        estimator.backbone, estimator.weights, mirror=estimator.mirror, device=estimator.device
    )
    for note in encoder.notes:
        warnings.warn(note, stacklevel=3)
    return encoder


def _image_tags(tags: Any) -> Any:
    tags.input_tags.two_d_array = False
    tags.input_tags.three_d_array = True
    tags.input_tags.string = True
    tags.no_validation = True
    return tags


def _encode_labels(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Returns the classes, sorted, and each label's index among them."""
    check_classification_targets(y)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"the labels have one class, {str(classes[0])!r}: a classifier needs at least two")
    return classes, labels.astype(np.int64)


def _encode_indicators(y: ArrayLike) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Returns the classes, and 0 or 1 for each image and class."""
    # a copy, since the array of a DataFrame may not be written to
    labels = check_array(y, accept_sparse="csr", dtype=np.int64, copy=True)
    labels = labels.toarray() if issparse(labels) else labels
    if wrong := set(np.unique(labels).tolist()) - {0, 1}:
        listed = " and ".join(map(str, sorted(wrong)))
        raise ValueError(f"an indicator matrix has 0 and 1 only, and this one has {listed}")
    return np.asarray(getattr(y, "columns", np.arange(labels.shape[1]))), labels


def _part(head: HeadTable) -> PartSpec:
    if not isinstance(head, str) and not (isinstance(head, Mapping) and "name" in head):
        raise PluginError(
            f"head must be a name, or a table such as {{'name': 'knn', 'neighbours': 5}}, and is {head!r}"
        )
    return PartSpec.of(head)


def _make_head(
    table: HeadTable,
    registry: Registry,
    backbone: Backbone,
    classes: NDArray[Any],
    task: Task = "multiclass",
) -> nn.Module:
    """Makes an unfitted head that can fit itself."""
    part, names = _part(table), [str(label) for label in classes]
    with torch.random.fork_rng(devices=[]):
        head: nn.Module = registry.make("head", part.name, part.options, backbone, names)
    if not isinstance(head, SelfFittingHead):
        raise PluginError(
            f"head {part.name!r} is trained by gradient steps: name one that fits itself, such as 'probe', "
            "'prototype' or 'knn', or train it with a recipe"
        )
    for _, problem in registry.task_problems("head", part.name, task):
        raise PluginError(problem)
    return head


def _weights(
    class_weight: ClassWeight, classes: NDArray[Any], labelling: NDArray[Any], labels: NDArray[np.int64]
) -> Tensor:
    """Returns each image's weight, float32 ``(N,)``."""
    of_class = compute_class_weight(class_weight, classes=classes, y=labelling)
    return torch.from_numpy(of_class[labels].astype(np.float32))


def _fit_head(head: nn.Module, features: Tensor, labels: NDArray[np.int64], weights: Tensor) -> nn.Module:
    assert isinstance(head, SelfFittingHead)  # _make_head makes no other
    with one_thread(len(labels) <= ONE_THREAD_UP_TO):
        head.fit_features(features, torch.from_numpy(labels), weights)
    return head.eval()


@torch.no_grad()
def _probabilities(head: nn.Module, views: Sequence[Tensor], *, several: bool = False) -> NDArray[np.float32]:
    """Predicts probabilities ``(N, classes)``, with the mean logits over the views, as `tlkit.load` does."""
    logits = torch.stack([head(features) for features in views]).mean(0)
    probabilities: NDArray[np.float32] = (logits.sigmoid() if several else logits.softmax(1)).numpy()
    return probabilities

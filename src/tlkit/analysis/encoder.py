"""Computes the features of any images with one frozen backbone, and reads back those that are cached."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.data.dataset import Dataset
from tlkit.data.images import Image, ImageInMemory, UnreadableImage
from tlkit.data.inspection import inspect_images
from tlkit.data.splits import Splits
from tlkit.errors import DataError, RecipeError
from tlkit.experiment.backbones import absolute_name, choose_backbone
from tlkit.experiment.frozen_pass import FrozenPass
from tlkit.experiment.observer import Observer
from tlkit.experiment.phase_feeds import features_of
from tlkit.experiment.planning import prepare_phases
from tlkit.feature_store.store import FeatureStore
from tlkit.inference.pixels import ImageLike, Images, as_images, decode_image
from tlkit.model.classifier import average_positions
from tlkit.parts.backbone import Backbone
from tlkit.parts.source import Sample
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Phase, Recipe, make_recipe
from tlkit.recipe.schema import PartSpec, TrainingSpec
from tlkit.runtime.devices import choose_device, gpu_settings
from tlkit.runtime.process import keep_freed_memory
from tlkit.runtime.processors import reader_threads
from tlkit.utils.formatting import bulleted

#: The classes of the phase that features are computed for: they do not matter.
CLASSES = ("a", "b")
#: How many files are remembered, so that they need not be read again to know their hash.
REMEMBERED = 100_000
#: How many names an error lists.
SHOWN = 20

#: A file's path, size and time of change.
_FileKey = tuple[str, int, int]


class Encoder:
    """Computes features as a probe of `tlkit.fit` is fitted to them; several threads may use it.

    Attributes:
        backbone: the backbone.
        table: its recipe table.
        registry: all parts.
        notes: what users should know about how it was chosen.
    """

    def __init__(
        self,
        table: PartSpec,
        registry: Registry,
        *,
        mirror: bool = True,
        device: str | None = None,
        recipe: Recipe | None = None,
        preprocess: Mapping[str, Any] = MappingProxyType({}),
        notes: Sequence[str] = (),
    ) -> None:
        """Makes the backbone.

        Args:
            table: the backbone's recipe table.
            registry: the parts to choose from.
            mirror: whether images are encoded with their mirror images.
            device: such as "cpu" or "cuda:1"; the best one unless given.
            recipe: whose seed random weights are drawn with.
            preprocess: overrides of the backbone's own preprocessing.
            notes: what users should know about how the backbone was chosen.

        Raises:
            RecipeError: the backbone cannot be made.
        """
        recipe = recipe or make_recipe({"name": "features", "phase": []})
        phase = _phase(table, preprocess, mirror=mirror)
        self._device = choose_device(device)
        with torch.random.fork_rng(devices=[]):
            try:
                (self._prepared,) = prepare_phases(recipe, [phase], CLASSES, registry, self._device)
            except RecipeError as error:
                own = [problem.removeprefix(f"phase.{phase.name}.") for problem in error.problems]
                raise RecipeError(own, recipe=error.recipe) from error
            # it stays there: its graphs would be traced anew each time
            self._on_device = ExitStack()
            self._on_device.enter_context(self._prepared.on_device())
        self.backbone: Backbone = self._prepared.backbone
        self.table = table
        self.registry = registry
        self.notes = tuple(notes)
        self._files: dict[_FileKey, Image] = {}
        self._lock = threading.Lock()

    def encode(self, images: Sequence[Image], observer: Observer | None = None) -> list[Tensor]:
        """Returns the features that a head sees of these images, float32 ``(N, …)`` per view, on the CPU."""
        images = tuple(images)
        keep_freed_memory()
        dataset = Dataset(CLASSES, Splits(images, (), ()), (), (), "")
        with (
            self._lock,
            gpu_settings(self._device),
            torch.random.fork_rng(devices=[]),
            FeatureStore() as store,
        ):
            frozen_pass = FrozenPass(dataset, store, observer or Observer())
            frozen_pass.run([self._prepared])
            return [features.cpu() for features in features_of(self._prepared, images, frozen_pass)]

    def identify(self, images: Images) -> list[Image]:
        """Reads images in whatever form they come, and identifies them by their content.

        A file that has not changed since is read once.

        Raises:
            DataError: some cannot be read; all of these are listed.
        """
        listed = list(as_images(images))
        if not listed:
            raise DataError("there are no images")
        keys = [_file_key(image) for image in listed]
        files = self._read_files({key for key in keys if key is not None})
        identified: list[Image] = []
        failures: list[str] = []
        for index, (image, key) in enumerate(zip(listed, keys, strict=True)):
            name = str(image) if isinstance(image, str | Path) else f"image {index}"
            result = _hold_in_memory(image, name) if key is None else files[key]
            if isinstance(result, Image):
                identified.append(result)
            else:
                failures.append(f"{name}: {result}")
        if failures:
            raise DataError(bulleted("images cannot be read: repair or remove them", failures, SHOWN))
        return identified

    def _read_files(self, keys: Collection[_FileKey]) -> dict[_FileKey, Image | str]:
        """Returns each file's image, or the reason why it cannot be read."""
        with self._lock:
            results: dict[_FileKey, Image | str] = {
                key: self._files[key] for key in keys if key in self._files
            }
            new = [key for key in keys if key not in results]
            samples = [Sample(str(number), Path(key[0])) for number, key in enumerate(new)]
            images, rejected = inspect_images(samples, threads=reader_threads())
            if len(self._files) + len(images) > REMEMBERED:
                self._files.clear()
            self._files |= {new[int(image.sample.id)]: image for image in images}
            results |= {new[int(image.sample.id)]: image for image in images}
            return results | {new[int(number)]: reason for number, reason in rejected}


def features(
    images: Images,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    mirror: bool = True,
    device: str | None = None,
    observer: Observer | None = None,
) -> NDArray[np.float32]:
    """Computes the pooled features of images, or reads back those that are cached.

    They are those that `tlkit.fit` fits a probe to; what one has computed, the other reuses.

    Args:
        images: files, Pillow images and uint8 arrays, in any mixture, or a single one; or a folder, with all
            folders below it.
        backbone: any backbone's name, ``local-dir:…`` and ``hf-hub:…`` included; that of `tlkit.fit` unless
            given.
        weights: "pretrained", "none", or a .safetensors file; the backbone's default unless given.
        mirror: whether features are the mean over an image and its mirror image.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: is shown the progress.

    Returns:
        Features ``(N, C)``.

    Raises:
        DataError: some images cannot be read; all of these are listed.
        TlkitError: the backbone must be corrected first.
    """
    encoder = shared_encoder(backbone, weights, mirror=mirror, device=device)
    observer = observer or Observer()
    for note in encoder.notes:
        observer.note(note)
    return pooled_mean(encoder.encode(encoder.identify(images), observer))


def pooled_mean(views: Sequence[Tensor]) -> NDArray[np.float32]:
    """Returns the mean over the views of pooled features, ``(N, C)``, from features ``(N, …)`` per view."""
    mean = torch.zeros_like(average_positions(views[0]))
    for view in views:  # not stacked: of many images, a second array would not fit into memory
        mean.add_(average_positions(view), alpha=1 / len(views))
    pooled: NDArray[np.float32] = mean.numpy()
    return pooled


def shared_encoder(backbone: str | None, weights: str | None, *, mirror: bool, device: str | None) -> Encoder:
    """Returns the encoder of a backbone; the last ones stay in memory for the next call.

    Args:
        backbone: as for `features`, like the others.
        weights: of the backbone.
        mirror: whether images are encoded with their mirror images.
        device: to compute on.
    """
    weights = str(Path(weights).absolute()) if weights not in (None, "pretrained", "none") else weights
    return _shared_encoder(None if backbone is None else absolute_name(backbone), weights, mirror, device)


@lru_cache(maxsize=2)
def _shared_encoder(backbone: str | None, weights: str | None, mirror: bool, device: str | None) -> Encoder:
    registry, notes = load_registry(), _Notes()
    name = choose_backbone(backbone, weights, registry=registry, observer=notes)
    table = PartSpec(name=name, options={} if weights is None else {"weights": weights})
    return Encoder(table, registry, mirror=mirror, device=device, notes=notes.texts)


class _Notes(Observer):
    """Collects notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def _hold_in_memory(image: ImageLike, name: str) -> Image | str:
    """Returns an image that is no file, or the reason why it is none."""
    try:
        return ImageInMemory.of(name, decode_image(image))
    except UnreadableImage as error:
        return str(error)


def _file_key(image: ImageLike) -> _FileKey | None:
    """Returns a file's path, size and time of change; None: it is no file, or cannot be read."""
    if not isinstance(image, str | Path):
        return None
    try:
        status = Path(image).stat()
    except OSError:
        return None
    return str(Path(image).absolute()), status.st_size, status.st_mtime_ns


def _phase(backbone: PartSpec, preprocess: Mapping[str, Any], *, mirror: bool) -> Phase:
    """Returns the phase whose features are computed: a probe on the backbone."""
    return Phase(
        name="features",
        backbone=backbone,
        preprocess=preprocess,
        head=PartSpec(name="probe"),
        freeze=PartSpec(name="backbone"),
        augmentation=PartSpec(name="none"),
        views=1,
        start_from=None,
        statistics=None,
        cache_features=True,
        training=TrainingSpec(mirror=mirror),
    )

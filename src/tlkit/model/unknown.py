"""Detects images that belong to none of a classifier's classes, by their distance to training images.

The score is the distance to the nearest training image among features of length 1 (Sun et al., "Out-of-
distribution detection with deep nearest neighbors", 2022), of which the signed square roots are taken, less a
part of that image's distance to its own neighbours: where training images lie far apart, a new one may, too.
``benchmarks/unknown.py`` measures it.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tlkit.data.dataset import MAX_REPRESENTATIVES
from tlkit.errors import RunFolderError
from tlkit.model.description import UnknownDescription
from tlkit.parts.backbone import Backbone
from tlkit.utils.hashing import file_sha256
from tlkit.utils.regular_files import check_regular

#: The part of images of the known classes that are called unknown.
WRONG_ALARMS = 0.05
#: With fewer images than this, no threshold has so few wrong alarms.
MIN_IMAGES = round(1 / WRONG_ALARMS)
#: How many neighbours of a training image say how far apart images are there, and the part of their mean
#: distance that is subtracted.
NEIGHBOURS = 10
SUBTRACTED = 0.5
#: Features that differ by rounding alone are no farther apart than this.
ROUNDING = 1e-4
FILE = "unknown.safetensors"


class UnknownDetector(nn.Module):
    """Pooled features to novelty: how far an image is from the training images.

    Attributes:
        features: transformed features of training images, of length 1, ``(S, C)``.
        offsets: what is subtracted from the distance to each of them, ``(S,)``.
        threshold: the novelty above which an image is unknown.
    """

    features: Tensor
    offsets: Tensor

    def __init__(self, features: Tensor, offsets: Tensor, threshold: float) -> None:
        super().__init__()
        self.register_buffer("features", features)
        self.register_buffer("offsets", offsets)
        self.threshold = threshold

    def forward(self, pooled: Tensor) -> Tensor:
        """Maps pooled features ``(B, C)`` to novelty ``(B,)``."""
        # cosine distances, less the offsets
        return 1 - nn.functional.linear(_transform(pooled), self.features, self.offsets).amax(1)


@torch.no_grad()
def fit_detector(pooled: Tensor) -> UnknownDetector:
    """Fits a detector to training images, with the threshold that they give, each left out in turn.

    Args:
        pooled: features of at least two different training images, ``(N, C)``.
    """
    queries = _transform(pooled.float())
    features = queries.half().float()  # as they are stored
    similarities = (queries @ features.T).fill_diagonal_(-2)
    neighbours = similarities.topk(min(NEIGHBOURS, len(queries) - 1), dim=1).values
    offsets = SUBTRACTED * (1 - neighbours.mean(1))
    novelty = 1 - (similarities + offsets).amax(1)
    return UnknownDetector(features, offsets, choose_threshold(novelty))


def choose_threshold(novelty: Tensor) -> float:
    """Returns the threshold for `WRONG_ALARMS`, from images of the known classes, at least `MIN_IMAGES`.

    A new image's rank among them is random, as in conformal prediction.
    """
    rank = math.ceil((1 - WRONG_ALARMS) * (len(novelty) + 1))
    return float(novelty.sort().values[min(rank, len(novelty)) - 1]) + ROUNDING


def _transform(pooled: Tensor) -> Tensor:
    """Returns the signed square roots of features, scaled to length 1, ``(N, C)``."""
    return nn.functional.normalize(pooled.sign() * pooled.abs().sqrt(), dim=1)


def save_detector(folder: Path, detector: UnknownDetector | None) -> UnknownDescription | None:
    """Writes a detector's file into a model folder, and returns what config.json says of it.

    Raises:
        OSError: it cannot be written.
        SafetensorError: it cannot be written.
    """
    if detector is None:
        return None
    state = {"features": detector.features.half(), "offsets": detector.offsets.float()}
    save_file({name: value.cpu().contiguous() for name, value in state.items()}, folder / FILE)
    return UnknownDescription(
        threshold=detector.threshold, wrong_alarms=WRONG_ALARMS, sha256=file_sha256(folder / FILE)
    )


def load_detector(
    folder: Path, description: UnknownDescription | None, backbone: Backbone
) -> UnknownDetector | None:
    """Reads a model folder's detector; None: it has none.

    Args:
        folder: the model folder.
        description: what its config.json says of it.
        backbone: the network's.

    Raises:
        RunFolderError: it is missing, or is not the one that config.json and the network belong to.
    """
    if description is None:
        return None
    path, shape = folder / FILE, backbone.feature_shape
    width = shape[1] if len(shape) == 2 else shape[0]
    # two bytes per number, an offset of four per image, and the header
    largest = MAX_REPRESENTATIVES * (2 * width + 4) + 10_000
    try:
        if (size := check_regular(path)) > largest:
            raise RunFolderError(f"{path} has {size:,} bytes; this network's has at most {largest:,}")
        state, checksum = load_file(path), file_sha256(path)
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder} is incomplete: it has no {FILE}") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
    if checksum != description.sha256:
        raise RunFolderError(f"{path} is not the file that config.json was written for")
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    count = shapes.get("offsets", (0,))[0]
    if not count or shapes != {"features": (count, width), "offsets": (count,)}:
        raise RunFolderError(f"{path} does not belong to a network with {width} features: it has {shapes}")
    for name, value in state.items():
        if not value.is_floating_point() or not value.isfinite().all():
            raise RunFolderError(f"{path} has {name} that are not finite numbers")
    return UnknownDetector(state["features"].float(), state["offsets"].float(), description.threshold)

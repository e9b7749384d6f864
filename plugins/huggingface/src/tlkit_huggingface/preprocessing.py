"""What an image processor of `transformers` does, in tlkit's words."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor

from tlkit import PluginError, Preprocess
from tlkit_huggingface.models import Place, quiet

#: Pillow's filters that both have.
INTERPOLATIONS: dict[int, Any] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
#: By how much both ways' pixels may differ, in what one pixel to the side makes.
TOLERANCE = 1.5


def preprocess_of(place: Place) -> Preprocess:
    """The preprocessing that an image processor stands for.

    It is compared with the processor's own pixels, since a processor may do what its settings do not say.

    Raises:
        PluginError: there is no image processor, or it does what tlkit cannot.
    """
    with quiet(f"the image processor of {place.name}"):
        processor: Any = AutoImageProcessor.from_pretrained(
            place.name, local_files_only=place.local, trust_remote_code=False, backend="pil"
        )
    name = type(processor).__name__
    preprocess = _translated(processor.to_dict(), name)
    if _difference(processor, preprocess) > TOLERANCE:
        raise PluginError(f"{name} does more than its settings say, so it cannot be had in tlkit")
    return preprocess


def _translated(settings: dict[str, Any], name: str) -> Preprocess:
    edge, resize = _resizing(settings, name)
    size = edge
    if settings.get("do_center_crop"):
        size = _square(settings["crop_size"], name, "crops")
    elif "crop_pct" in settings and "shortest_edge" in settings["size"]:  # ConvNeXt's own way
        size = settings["size"]["shortest_edge"]
    elif resize == "crop":
        raise PluginError(
            f"{name} makes images that are not square: it resizes the shorter side, crops nothing"
        )
    if size > edge:
        raise PluginError(f"{name} crops {size} pixels out of {edge}: that adds a border")
    filter_ = INTERPOLATIONS.get(settings.get("resample", 2))
    if filter_ is None:
        raise PluginError(f"{name} resizes by Pillow's filter {settings['resample']}; tlkit has no such one")
    mean, std = _normalising(settings, name)
    return Preprocess(size, resize, _part(size, edge), filter_, mean, std)


def _resizing(settings: dict[str, Any], name: str) -> tuple[int, Literal["crop", "squash"]]:
    """The resized image's shorter side, and how it comes about."""
    if not settings.get("do_resize"):
        raise PluginError(f"{name} does not resize, and a network of tlkit's takes images of one size")
    if settings.get("do_pad"):
        raise PluginError(f"{name} pads images, which cannot be had in tlkit")
    size = settings["size"]
    if "shortest_edge" not in size:
        return _square(size, name, "resizes"), "squash"
    if size.get("longest_edge"):
        raise PluginError(f"{name} limits the longer side, which cannot be had in tlkit")
    edge = int(size["shortest_edge"])
    if "crop_pct" not in settings:
        return edge, "crop"
    # ConvNeXt's own way: large images are squashed, small ones resized to more and cropped
    return (int(edge / settings["crop_pct"]), "crop") if edge < 384 else (edge, "squash")


def _square(size: dict[str, Any], name: str, does: str) -> int:
    height, width = size.get("height"), size.get("width")
    if not height or height != width:
        raise PluginError(f"{name} {does} to {size}; only square images are supported")
    return int(height)


def _part(size: int, edge: int) -> float:
    """The part of the resized image that is kept; timm finds ``floor(size / part)`` to be `edge` again."""
    part = size / edge
    while math.floor(size / part) < edge:
        part = math.nextafter(part, 0)
    return part


def _normalising(
    settings: dict[str, Any], name: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of pixels scaled to 0–1, whatever scale the processor has."""
    mean, std = [0.0] * 3, [1.0] * 3
    if settings.get("do_normalize"):
        mean, std = ([float(value) for value in settings[key]] for key in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3:
        raise PluginError(f"{name} normalises {len(mean)} channels, not 3")
    scale = 255 * (settings["rescale_factor"] if settings.get("do_rescale") else 1.0)
    if scale != 1.0:
        mean, std = [value / scale for value in mean], [value / scale for value in std]
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _difference(processor: Any, preprocess: Preprocess) -> float:
    """Mean difference of both ways' pixels, as a part of what one pixel to the side makes.

    Of an odd border the larger half may be on either side, so one pixel is no mistake. The picture
    brightens evenly to the right and downwards, and is not square.
    """
    edge = math.floor(preprocess.size / preprocess.crop)
    down, right = np.mgrid[0 : 2 * edge, 0 : 3 * edge] / np.array([2 * edge, 3 * edge])[:, None, None]
    ramps = np.stack([right, down, (right + down) / 2], axis=2)
    picture = Image.fromarray((255 * ramps).astype(np.uint8))
    theirs: NDArray[np.float32] = processor(picture, return_tensors="np")["pixel_values"][0]
    ours = preprocess(picture)
    if theirs.shape != (3, *ours.shape[:2]):
        return math.inf
    back = theirs.transpose(1, 2, 0) * np.array(preprocess.std) + np.array(preprocess.mean)
    return edge * float(np.abs(back - ours / 255).mean())

"""Converts image processors of `transformers` to tlkit's preprocessing."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor

from tlkit import PluginError, Preprocess
from tlkit_huggingface.models import Location, quiet

#: Pillow's filters that both libraries support.
INTERPOLATIONS: dict[int, Any] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
#: How much the pixels of both may differ, as a multiple of the effect of a shift by one pixel.
TOLERANCE = 1.5


def read_preprocess(location: Location) -> Preprocess:
    """Reads a model's image processor and returns the equivalent preprocessing.

    Its pixels are compared with the processor's, since a processor may do more than its settings say.

    Raises:
        PluginError: there is no image processor, or tlkit cannot do what it does.
    """
    with quiet(f"the image processor of {location.name}"):
        processor: Any = AutoImageProcessor.from_pretrained(
            location.name, local_files_only=location.local, trust_remote_code=False, backend="pil"
        )
    name = type(processor).__name__
    preprocess = _convert(processor.to_dict(), name)
    if _difference(processor, preprocess) > TOLERANCE:
        raise PluginError(f"{name} does more than its settings say, so tlkit cannot do the same")
    return preprocess


def _convert(settings: dict[str, Any], name: str) -> Preprocess:
    edge, resize = _resized_edge(settings, name)
    size = edge
    if settings.get("do_center_crop"):
        size = _square(settings["crop_size"], name, "crops")
    elif "crop_pct" in settings and "shortest_edge" in settings["size"]:  # ConvNeXt's way
        size = settings["size"]["shortest_edge"]
    elif resize == "crop":
        raise PluginError(
            f"{name} makes images that are not square: it resizes the shorter side and does not crop"
        )
    if size > edge:
        raise PluginError(f"{name} crops {size} pixels out of {edge}: that adds a border")
    filter_ = INTERPOLATIONS.get(settings.get("resample", 2))
    if filter_ is None:
        raise PluginError(f"{name} resizes with Pillow's filter {settings['resample']}, which tlkit lacks")
    mean, std = _mean_and_std(settings, name)
    return Preprocess(size, resize, _crop_fraction(size, edge), filter_, mean, std)


def _resized_edge(settings: dict[str, Any], name: str) -> tuple[int, Literal["crop", "squash"]]:
    """Returns the shorter side of the resized image, and the way of resizing."""
    if not settings.get("do_resize"):
        raise PluginError(f"{name} does not resize, but networks in tlkit take images of one size")
    if settings.get("do_pad"):
        raise PluginError(f"{name} pads images, which tlkit cannot do")
    size = settings["size"]
    if "shortest_edge" not in size:
        return _square(size, name, "resizes"), "squash"
    if size.get("longest_edge"):
        raise PluginError(f"{name} limits the longer side, which tlkit cannot do")
    edge = int(size["shortest_edge"])
    if "crop_pct" not in settings:
        return edge, "crop"
    # ConvNeXt's way: large sizes are squashed, small ones enlarged and cropped
    return (int(edge / settings["crop_pct"]), "crop") if edge < 384 else (edge, "squash")


def _square(size: dict[str, Any], name: str, verb: str) -> int:
    height, width = size.get("height"), size.get("width")
    if not height or height != width:
        raise PluginError(f"{name} {verb} to {size}; only square images are supported")
    return int(height)


def _crop_fraction(size: int, edge: int) -> float:
    """Returns the fraction of the resized image to crop, such that ``floor(size / fraction)`` is `edge`."""
    fraction = size / edge
    while math.floor(size / fraction) < edge:
        fraction = math.nextafter(fraction, 0)
    return fraction


def _mean_and_std(
    settings: dict[str, Any], name: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Returns mean and standard deviation for pixels scaled to 0–1, whatever the processor's scale is."""
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
    """Returns the mean difference of both pixels, as a multiple of the effect of a shift by one pixel.

    An odd border may have its larger half on either side, so a shift by one pixel is acceptable. The image
    brightens evenly to the right and downwards, and is not square.
    """
    edge = math.floor(preprocess.size / preprocess.crop)
    y, x = np.mgrid[0 : 2 * edge, 0 : 3 * edge] / np.array([2 * edge, 3 * edge])[:, None, None]
    ramps = np.stack([x, y, (x + y) / 2], axis=2)
    image = Image.fromarray((255 * ramps).astype(np.uint8))
    theirs: NDArray[np.float32] = processor(image, return_tensors="np")["pixel_values"][0]
    ours = preprocess(image)
    if theirs.shape != (3, *ours.shape[:2]):
        return math.inf
    unnormalized = theirs.transpose(1, 2, 0) * np.array(preprocess.std) + np.array(preprocess.mean)
    return edge * float(np.abs(unnormalized - ours / 255).mean())

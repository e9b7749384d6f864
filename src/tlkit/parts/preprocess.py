"""The fixed preprocessing of images; it travels with a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Resize = Literal["crop", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
#: What timm calls each way of resizing.
TIMM_CROP_MODES: dict[Resize, str] = dict(zip(get_args(Resize), ("center", "squash", "border"), strict=True))
#: The colour of padding: timm's default mean, whatever the network's own.
BORDER = (124, 116, 104)


@dataclass(frozen=True)
class Preprocess:
    """Resizing, cropping and normalisation between a decoded image and a network's input.

    It resizes with Pillow, to the same pixels as timm does, on which the weights were trained. It does not
    use timm's code: importing that takes seconds, which a single prediction would wait for.

    Attributes:
        size: height and width of the result, in pixels.
        resize: "crop" scales the shorter side to ``size / crop`` and crops the centre; "squash" scales
            both sides, whatever the proportions; "pad" scales the longer side and adds a border.
        crop: the fraction of the resized image that the centre crop keeps, above 0 and at most 1.
        interpolation: "bilinear", "bicubic", "lanczos" or "nearest".
        mean: per channel, of pixels scaled to 0–1.
        std: per channel, of pixels scaled to 0–1.
    """

    size: int = 224
    resize: Resize = "crop"
    crop: float = 1.0
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def override(self, options: Mapping[str, Any]) -> Preprocess:
        """Returns these settings with `options` in place of their own.

        Squashing and padding keep the whole image, so they set ``crop`` to 1 unless `options` has it.
        """
        changes = dict(options)
        if changes.get("resize", "crop") != "crop":
            changes.setdefault("crop", 1.0)
        for name in ("mean", "std"):
            if name in changes:
                changes[name] = tuple(changes[name])
        return replace(self, **changes)

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resizes and crops a decoded RGB image.

        Returns:
            Pixels, uint8 RGB ``(size, size, 3)``, not yet normalised.
        """
        import numpy as np
        from PIL import Image

        resampling = Image.Resampling[self.interpolation.upper()]
        resized = image.resize(self._resized(*image.size), resampling)
        result = Image.new("RGB", (self.size, self.size), BORDER if self.resize == "pad" else 0)
        result.paste(resized, (_offset(resized.width, self.size), _offset(resized.height, self.size)))
        return np.array(result)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Returns width and height of the resized image, before it is cropped."""
        side = math.floor(self.size / self.crop)
        if self.resize == "squash":
            return side, side
        if self.resize == "crop":
            shorter = min(width, height)
            return width * side // shorter, height * side // shorter
        ratio = max(width, height) / side
        return round(width / ratio), round(height / ratio)


def _offset(length: int, size: int) -> int:
    """Returns where an image begins along a side of the result; negative where it is cropped."""
    return (size - length) // 2 if length < size else -round((length - size) / 2)

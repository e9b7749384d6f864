"""The fixed preprocessing of images; it travels with a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Resize = Literal["crop", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
#: What timm calls each way of resizing.
TIMM_CROP_MODES: dict[Resize, str] = dict(zip(get_args(Resize), ("center", "squash", "border"), strict=True))


@dataclass(frozen=True)
class Preprocess:
    """Resizing, cropping and normalisation between a decoded image and a network's input.

    Resizing is timm's own, on Pillow images, so the pixels are those that the weights were trained on.

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

    @cached_property
    def _resizing(self) -> Callable[[Image.Image], NDArray[np.uint8]]:
        from timm.data import create_transform

        # with use_prefetcher timm's pipeline ends in uint8 pixels instead of a normalised tensor
        pipeline: Any = create_transform(
            (3, self.size, self.size),
            is_training=False,
            use_prefetcher=True,
            interpolation=self.interpolation,
            crop_pct=self.crop,
            crop_mode=TIMM_CROP_MODES[self.resize],
        )
        return pipeline  # type: ignore[no-any-return]

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resizes and crops a decoded RGB image.

        Returns:
            Pixels, uint8 RGB ``(size, size, 3)``, not yet normalised.
        """
        import numpy as np

        return np.ascontiguousarray(np.asarray(self._resizing(image)).transpose(1, 2, 0))

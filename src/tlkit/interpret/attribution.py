"""Attributes a classifier's prediction to the parts of an image.

Convolutional networks: Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", 2017) on the last feature map. Networks without feature maps, such as
transformers: integrated gradients (Sundararajan et al., "Axiomatic Attribution for Deep Networks", 2017),
smoothed to be readable. Both are captum's implementations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.data.images import UnreadableImage
from tlkit.data.loader import normalize
from tlkit.data.views import Pixels
from tlkit.errors import DataError, close_matches
from tlkit.inference.loading import Model, as_predictor
from tlkit.inference.pixels import ImageLike, read_pixels
from tlkit.interpret.layers import record_outputs
from tlkit.model.classifier import Classifier
from tlkit.utils.formatting import shortlist

#: float32 ``(H, W)`` from 0 to 1.
Heatmap = NDArray[np.float32]

#: Steps of integrated gradients, and how many of them are computed at once.
STEPS = 16
STEPS_AT_ONCE = 8
#: The standard deviation of the blur of integrated gradients, which are noisy, relative to the image's side.
SMOOTHING = 0.03
#: How many classes an error lists.
CLASSES_SHOWN = 20


@dataclass(frozen=True)
class Attribution:
    """How much each part of an image contributes to a class.

    Attributes:
        pixels: the network's input before normalisation, uint8 RGB ``(size, size, 3)``.
        heat: each pixel's contribution to the class, float32 ``(size, size)``, from 0 to a maximum of 1; all
            0 if nothing contributes to it.
        label: the class.
        probability: the class's predicted probability.
        method: "Grad-CAM" or "integrated gradients".
    """

    pixels: Pixels
    heat: Heatmap
    label: str
    probability: float
    method: str

    @property
    def is_blank(self) -> bool:
        """Whether no part of the image contributes to the class."""
        return not self.heat.any()

    def caption(self) -> str:
        """Returns the class with its probability, and below it the method."""
        blank = ": no part of the image contributes" if self.is_blank else ""
        return f"{self.label} {self.probability:.1%}\n{self.method}{blank}"

    def overlay(self) -> Pixels:
        """Returns the heat map over the image in grey, uint8 RGB ``(size, size, 3)``."""
        import matplotlib

        grey = self.pixels.mean(2, keepdims=True) * 0.8
        colours = matplotlib.colormaps["inferno"](self.heat)[..., :3] * 255
        weight = 0.75 * self.heat[..., None]
        blended: Pixels = (grey * (1 - weight) + colours * weight).round().astype(np.uint8)
        return blended


def explain(model: Model, image: ImageLike, *, label: str | None = None) -> Attribution:
    """Shows where a classifier looks for a class in an image.

    Args:
        model: a model folder, a run folder, or what `tlkit.load` returns.
        image: a file, a Pillow image or a uint8 array.
        label: the class; None: the most probable one.

    Raises:
        DataError: the image cannot be read, the class is unknown, or gradients are not finite.
        RunFolderError: there is no model that can be loaded.
    """
    predictor = as_predictor(model)
    if label is not None and label not in predictor.classes:
        listed = shortlist(predictor.classes, CLASSES_SHOWN)
        hint = close_matches(label, predictor.classes) or f"; its classes are {listed}"
        raise DataError(f"the classifier has no class {label!r}{hint}")
    try:
        pixels = read_pixels(image, predictor.preprocess)
    except UnreadableImage as error:
        name = image if isinstance(image, str | Path) else "the image"
        raise DataError(f"{name}: {error}") from error
    network = predictor.module
    inputs = normalize(pixels[None], predictor.preprocess).to(next(network.parameters()).device)
    layer, logits = last_feature_map(network, inputs)
    (probabilities,) = predictor.to_probabilities(logits[:1].detach().cpu().numpy())
    target = int(probabilities.argmax()) if label is None else predictor.classes.index(label)
    if layer is None:
        heat, method = integrated_gradients(network, inputs, target), "integrated gradients"
    else:
        heat, method = grad_cam(network, layer, inputs, target), "Grad-CAM"
    return Attribution(pixels, heat, predictor.classes[target], float(probabilities[target]), method)


def last_feature_map(network: Classifier, inputs: Tensor) -> tuple[nn.Module | None, Tensor]:
    """Finds the module of the backbone that computes its last feature map ``(B, C, h, w)``.

    Returns:
        The module, or None if tokens follow, if the channels are last, or if every map is a single pixel; and
        the logits.
    """
    layer: nn.Module | None = None
    outputs, logits = record_outputs(network.backbone, lambda: network(inputs))
    for module, shape in outputs:
        if len(shape) == 4 and shape[2] * shape[3] > 1:
            layer = module
        elif len(shape) == 3:
            layer = None
    channels_last = getattr(network.backbone, "output_fmt", "NCHW") == "NHWC"
    return (None if channels_last else layer), logits


def grad_cam(network: nn.Module, layer: nn.Module, inputs: Tensor, target: int) -> Heatmap:
    """Computes Grad-CAM of one image ``(1, 3, H, W)`` for a class.

    Returns:
        float32 ``(H, W)`` from 0 to 1.
    """
    from captum.attr import LayerGradCam

    with torch.enable_grad():
        cam: Tensor = LayerGradCam(network, layer).attribute(inputs, target=target, relu_attributions=True)
    enlarged = nn.functional.interpolate(cam.detach().float(), size=inputs.shape[2:], mode="bicubic")
    return _normalized(enlarged[0, 0].clamp_min(0).cpu().numpy())


def integrated_gradients(network: nn.Module, inputs: Tensor, target: int) -> Heatmap:
    """Computes integrated gradients of one image ``(1, 3, H, W)`` for a class.

    The baseline is an image of the mean colour.

    Returns:
        float32 ``(H, W)`` from 0 to 1.
    """
    import cv2
    from captum.attr import IntegratedGradients

    with torch.enable_grad():
        gradients: Tensor = IntegratedGradients(network).attribute(
            inputs, target=target, n_steps=STEPS, internal_batch_size=STEPS_AT_ONCE
        )
    # contributions against the class are dropped, as in Grad-CAM
    heat = gradients.detach().sum(1).clamp_min(0)[0].float().cpu().numpy()
    blurred = cv2.GaussianBlur(heat, (0, 0), SMOOTHING * max(heat.shape))
    return _normalized(np.asarray(blurred, np.float32))


def _normalized(heat: Heatmap) -> Heatmap:
    if not np.isfinite(heat).all():
        raise DataError("the network's gradients are not finite numbers here, so there is no heat map")
    maximum = float(heat.max())
    return (heat / maximum).astype(np.float32) if maximum > 0 else np.zeros_like(heat)

"""Where a classifier looks: how much each part of an image speaks for a class.

Convolutional networks: Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", 2017) on the last feature map. Networks without one, such as transformers:
integrated gradients (Sundararajan et al., "Axiomatic Attribution for Deep Networks", 2017), smoothed for
the eye. Both are captum's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.data.images import UnreadableImage
from tlkit.data.loader import normalize
from tlkit.errors import DataError, close_matches
from tlkit.inference.predictor import ImageLike, Predictor, pixels_of
from tlkit.interpret.layers import record_outputs
from tlkit.model.classifier import Classifier

#: Steps of the integral, and how many of them are computed at once.
STEPS = 16
AT_ONCE = 8
#: Integrated gradients speckle: they are blurred by this part of the image's side.
SMOOTHING = 0.03


@dataclass(frozen=True)
class Attribution:
    """Where a classifier looked in one image.

    Attributes:
        pixels: what the network was given, uint8 RGB ``(size, size, 3)``.
        heat: how much each place speaks for the class, float32 ``(size, size)`` from 0 to 1 at the
            most telling place; all 0 where nothing speaks for it.
        label: the class.
        probability: what the classifier gives it.
        method: "Grad-CAM" or "integrated gradients".
    """

    pixels: NDArray[np.uint8]
    heat: NDArray[np.float32]
    label: str
    probability: float
    method: str

    def overlay(self) -> NDArray[np.uint8]:
        """The heat over the image in grey, uint8 RGB ``(size, size, 3)``."""
        import matplotlib

        grey = self.pixels.mean(2, keepdims=True) * 0.8
        colours = matplotlib.colormaps["inferno"](self.heat)[..., :3] * 255
        weight = 0.75 * self.heat[..., None]
        mixed: NDArray[np.uint8] = (grey * (1 - weight) + colours * weight).round().astype(np.uint8)
        return mixed


def explain(predictor: Predictor, image: ImageLike, *, label: str | None = None) -> Attribution:
    """Where the classifier looks for a class in an image.

    Args:
        predictor: the classifier.
        image: a file, a Pillow image or a uint8 array.
        label: the class; the most probable one unless given.

    Raises:
        DataError: the image cannot be read, or there is no such class.
    """
    if label is not None and label not in predictor.classes:
        hint = close_matches(label, predictor.classes) or f"; it knows {', '.join(predictor.classes[:20])}"
        raise DataError(f"the classifier knows no class {label!r}{hint}")
    try:
        pixels = pixels_of(image, predictor.preprocess)
    except UnreadableImage as error:
        raise DataError(f"{image}: {error}") from error
    network = predictor.module
    inputs = normalize(pixels[None], predictor.preprocess).to(next(network.parameters()).device)
    layer, logits = last_map(network, inputs)
    odds = (logits[0].double() / predictor.temperature).softmax(0).cpu()
    place = int(odds.argmax()) if label is None else predictor.classes.index(label)
    if layer is None:
        heat, method = integrated_gradients(network, inputs, place), "integrated gradients"
    else:
        heat, method = grad_cam(network, layer, inputs, place), "Grad-CAM"
    return Attribution(pixels, heat, predictor.classes[place], float(odds[place]), method)


def last_map(network: Classifier, inputs: Tensor) -> tuple[nn.Module | None, Tensor]:
    """The module of the backbone that gives its last feature map ``(B, C, h, w)``, or None; and the logits.

    None where tokens come after it, where its channels are last, or where it is one pixel large.
    """
    found: nn.Module | None = None
    outputs, logits = record_outputs(network.backbone, lambda: network(inputs))
    for module, shape in outputs:
        if len(shape) == 4 and shape[2] * shape[3] > 1:
            found = module
        elif len(shape) == 3:
            found = None
    channels_last = getattr(network.backbone, "output_fmt", "NCHW") == "NHWC"
    return (None if channels_last else found), logits


def grad_cam(network: nn.Module, layer: nn.Module, inputs: Tensor, place: int) -> NDArray[np.float32]:
    """Grad-CAM of one image ``(1, 3, H, W)`` for a logit: float32 ``(H, W)`` from 0 to 1."""
    with torch.enable_grad():
        found = LayerGradCam(network, layer).attribute(inputs, target=place, relu_attributions=True)
    large = nn.functional.interpolate(found.detach().float(), size=inputs.shape[2:], mode="bicubic")
    return _scaled(large[0, 0].clamp_min(0).cpu().numpy())


def integrated_gradients(network: nn.Module, inputs: Tensor, place: int) -> NDArray[np.float32]:
    """Integrated gradients of one image from the mean colour: float32 ``(H, W)`` from 0 to 1."""
    with torch.enable_grad():
        found = IntegratedGradients(network).attribute(
            inputs, target=place, n_steps=STEPS, internal_batch_size=AT_ONCE
        )
    # what spoke against the class is left out, as in Grad-CAM
    heat = found.detach().sum(1).clamp_min(0)[0].float().cpu().numpy()
    return _scaled(cv2.GaussianBlur(heat, (0, 0), SMOOTHING * max(heat.shape)))


def _scaled(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    top = float(heat.max())
    return (heat / top).astype(np.float32) if top > 0 else np.zeros_like(heat)

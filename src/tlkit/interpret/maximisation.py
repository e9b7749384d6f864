"""What a layer responds to: images made to maximise the activation of its channels.

Gradient ascent on the pixels of a grey, slightly noisy image (Erhan et al., "Visualizing Higher-Layer
Features of a Deep Network", 2009), with nothing else; with L2 decay (Simonyan et al., "Deep Inside
Convolutional Networks", 2014); or with a Gaussian blur now and then (Yosinski et al., "Understanding Neural
Networks Through Deep Visualization", 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.data.loader import normalize
from tlkit.errors import DataError
from tlkit.interpret.layers import channel_count, find_layer
from tlkit.model.classifier import Classifier
from tlkit.parts.preprocess import Preprocess
from tlkit.utils.hashing import seed as make_seed

Regularization = Literal["none", "l2", "blur"]
REGULARIZATIONS: tuple[Regularization, ...] = get_args(Regularization)
#: Of the pixels, in units of the image's standard deviation: how far a step goes in the mean.
STEP = 0.1
#: How much of the picture each step takes back towards grey.
DECAY = 0.06
#: Every how many steps the picture is blurred, and by how many pixels' standard deviation.
BLUR_EVERY = 3
BLUR = 0.8


@dataclass(frozen=True)
class MaximizedImages:
    """Images that maximise channels of a layer.

    Attributes:
        layer: its name in the backbone.
        channels: which.
        regularization: "none", "l2" or "blur".
        images: uint8 RGB ``(channels, size, size, 3)``.
        before: each channel's mean activation on the image it began with, ``(channels,)``.
        after: the same on the image it ended with.
    """

    layer: str
    channels: tuple[int, ...]
    regularization: Regularization
    images: NDArray[np.uint8]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


class _Reached(Exception):
    """The layer has answered; what lies behind it need not be computed."""


def maximize(
    network: Classifier,
    preprocess: Preprocess,
    layer: str,
    channels: Sequence[int],
    *,
    regularization: Regularization = "none",
    size: int | None = None,
    steps: int = 40,
    seed: int = 0,
) -> MaximizedImages:
    """Images that maximise the mean activation of a layer's channels, one image per channel.

    Args:
        network: the classifier.
        preprocess: its preprocessing, which says what values pixels can have.
        layer: a convolution or linear layer of the backbone.
        channels: which of its channels.
        regularization: what keeps the images simple.
        size: their side in pixels; the network's own unless given.
        steps: of gradient ascent.
        seed: what the noise is drawn from that they begin with.

    Raises:
        DataError: no such layer or channel, or the network takes no images of that size.
    """
    module = find_layer(network, layer)
    count = channel_count(module)
    wrong = [channel for channel in channels if not 0 <= channel < count]
    if wrong or not channels:
        raise DataError(f"layer {layer!r} has channels 0 to {count - 1}, not {', '.join(map(str, wrong))}")
    size = size or preprocess.size
    draw = np.random.default_rng(make_seed(seed, layer, tuple(channels)))
    noise = draw.normal(127.5, 8, (len(channels), size, size, 3)).clip(0, 255).astype(np.uint8)
    device = next(network.parameters()).device
    pixels = normalize(noise, preprocess).to(device)
    limits = normalize(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1).repeat(3, 3), preprocess).to(device)
    grey = normalize(np.full((1, 1, 1, 3), 128, np.uint8), preprocess).to(device)
    before = after = torch.zeros(0)
    for step in range(steps + 1):
        pixels = pixels.detach().requires_grad_(step < steps)
        after = _activations(network, module, pixels, channels)
        before = after.detach() if step == 0 else before
        if step < steps:
            (slope,) = torch.autograd.grad(after.sum(), pixels)
            pixels = _climb(pixels.detach(), slope, grey, regularization, step)
            pixels = pixels.clamp(limits[:1], limits[1:])
    spread = (pixels.detach() - limits[:1]) / (limits[1:] - limits[:1])
    images = (spread * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return MaximizedImages(layer, tuple(channels), regularization, images, _numbers(before), _numbers(after))


def _climb(pixels: Tensor, slope: Tensor, grey: Tensor, regularization: Regularization, step: int) -> Tensor:
    """One step up: the gradient's length is made the same everywhere, and the picture kept simple."""
    length = slope.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    pixels = pixels + STEP * slope / length
    if regularization == "l2":
        return grey + (pixels - grey) * (1 - DECAY)
    if regularization == "blur" and step % BLUR_EVERY == BLUR_EVERY - 1:
        return _blurred(pixels)
    return pixels


def _blurred(pixels: Tensor) -> Tensor:
    places = torch.arange(-3, 4, device=pixels.device, dtype=pixels.dtype)
    bell = torch.exp(-(places**2) / (2 * BLUR**2))
    bell = bell / bell.sum()
    kernel = (bell[:, None] * bell).expand(3, 1, 7, 7)
    padded = nn.functional.pad(pixels, (3, 3, 3, 3), mode="replicate")
    return nn.functional.conv2d(padded, kernel, groups=3)


def _activations(
    network: Classifier, module: nn.Conv2d | nn.Linear, pixels: Tensor, channels: Sequence[int]
) -> Tensor:
    """The mean activation of each image's channel, ``(channels,)``."""
    caught: list[Tensor] = []

    def answered(_: nn.Module, __: Any, output: Tensor) -> None:
        caught.append(output)
        raise _Reached

    hook = module.register_forward_hook(answered)
    try:
        with torch.enable_grad():
            network(pixels)
    except _Reached:
        pass
    except Exception as error:  # networks with a fixed size say so in many ways
        raise DataError(
            f"the network takes no {pixels.shape[-1]}x{pixels.shape[-1]} images: {error}"
        ) from error
    finally:
        hook.remove()
    if not caught:
        raise DataError("the network does not use this layer")
    output = caught[0].movedim(1 if isinstance(module, nn.Conv2d) else -1, 1)
    output = output.reshape(*output.shape[:2], -1)  # a layer behind pooling has one value per channel
    return output.mean(2)[torch.arange(len(channels)), torch.tensor(list(channels))]


def _numbers(values: Tensor) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return found

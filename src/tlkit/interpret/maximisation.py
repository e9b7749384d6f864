"""Makes images that maximise the activation of a layer's channels, to show what the layer responds to.

Gradient ascent on the pixels of a grey, slightly noisy image: without regularisation (Erhan et al.,
"Visualizing Higher-Layer Features of a Deep Network", 2009), with L2 decay (Simonyan et al., "Deep Inside
Convolutional Networks", 2014), or with a Gaussian blur every few steps (Yosinski et al., "Understanding
Neural Networks Through Deep Visualization", 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.data.loader import normalize
from tlkit.data.views import Pixels
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer
from tlkit.inference.loading import Model, as_predictor
from tlkit.interpret.layers import (
    Layer,
    channel_count,
    find_layer,
    parse_channels,
    representative_layers,
)
from tlkit.model.classifier import Classifier
from tlkit.parts.preprocess import Preprocess
from tlkit.utils.hashing import seed as derive_seed
from tlkit.utils.sequences import as_list

Regularization = Literal["none", "l2", "blur"]
REGULARIZATIONS: tuple[Regularization, ...] = get_args(Regularization)
#: The mean absolute change of a pixel in a step, in units of the preprocessing's standard deviation.
STEP = 0.1
#: The fraction of the distance to grey that L2 decay takes back in each step.
DECAY = 0.06
#: Steps between two blurs, and the blur's standard deviation in pixels.
BLUR_EVERY = 3
BLUR = 0.8


@dataclass(frozen=True)
class MaximizedImages:
    """Images that maximise channels of a layer.

    Attributes:
        layer: the layer's name in the backbone.
        channels: the channels.
        regularization: "none", "l2" or "blur".
        images: one image per channel, uint8 RGB ``(channels, size, size, 3)``.
        before: each channel's mean activation on its initial image, ``(channels,)``.
        after: each channel's mean activation on its final image, ``(channels,)``.
    """

    layer: str
    channels: tuple[int, ...]
    regularization: Regularization
    images: Pixels
    before: NDArray[np.float64]
    after: NDArray[np.float64]


class _LayerReached(Exception):
    """Ends a forward pass at the layer: what follows it need not be computed."""


def visualize(
    model: Model,
    layers: str | Sequence[str] = (),
    *,
    channels: int | str | Sequence[int] | None = None,
    regularization: Regularization = "blur",
    steps: int = 60,
    size: int | None = None,
    observer: Observer | None = None,
) -> list[MaximizedImages]:
    """Makes images that maximise channels of a classifier's layers.

    Args:
        model: a model folder, a run folder, or what `tlkit.load` returns.
        layers: layers of the backbone with channels; an early, a middle and the last one unless given.
        channels: channels of each layer: a number, several, or such as "0,7,30-33"; four at even distances
            unless given.
        regularization: what keeps the images smooth: "none", "l2" or "blur".
        steps: steps of gradient ascent.
        size: height and width of the images in pixels; the network's own unless given.
        observer: is shown the progress.

    Returns:
        The images of each layer.

    Raises:
        DataError: a layer or a channel does not exist, or the network does not accept images of that size.
        RunFolderError: there is no model that can be loaded.
    """
    predictor = as_predictor(model)
    network = predictor.module
    names = as_list(layers) or representative_layers(network)
    modules = [find_layer(network, name) for name in names]
    channels = [channels] if isinstance(channels, int) else channels
    chosen = [
        parse_channels(layer, channels) if channels is None or isinstance(channels, str) else list(channels)
        for layer in modules
    ]
    maximized = []
    with (observer or Observer()).progress("maximising", len(names), "layers") as tick:
        for name, numbers in zip(names, chosen, strict=True):
            maximized.append(
                maximize(
                    network,
                    predictor.preprocess,
                    name,
                    numbers,
                    regularization=regularization,
                    size=size,
                    steps=steps,
                )
            )
            tick(1)
    return maximized


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
    """Makes one image per channel that maximises the channel's mean activation.

    Args:
        network: the classifier.
        preprocess: its preprocessing, whose mean and std limit the values of pixels.
        layer: a convolution or linear layer of the backbone.
        channels: the channels of the layer.
        regularization: "none", "l2" or "blur".
        size: height and width of the images in pixels; None: the network's own.
        steps: steps of gradient ascent.
        seed: seed of the initial noise.

    Raises:
        DataError: the layer or a channel does not exist, or the network does not accept images of that size.
    """
    module = find_layer(network, layer)
    _check_channels(layer, module, channels)
    size = size or preprocess.size
    generator = np.random.default_rng(derive_seed(seed, layer, tuple(channels)))
    noise = generator.normal(127.5, 8, (len(channels), size, size, 3)).clip(0, 255).astype(np.uint8)
    device = next(network.parameters()).device
    images = normalize(noise, preprocess).to(device)
    black, white, grey = (_flat_colour(value, preprocess).to(device) for value in (0, 255, 128))
    before = after = torch.zeros(0)
    for step in range(steps + 1):
        images = images.detach().requires_grad_(step < steps)
        after = _activations(network, module, images, channels)
        before = after.detach() if step == 0 else before
        if step < steps:
            (gradient,) = torch.autograd.grad(after.sum(), images)
            images = _ascend(images.detach(), gradient, grey, regularization, step).clamp(black, white)
    fractions = (images.detach() - black) / (white - black)
    pixels = (fractions * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return MaximizedImages(
        layer, tuple(channels), regularization, pixels, _to_numpy(before), _to_numpy(after)
    )


def _check_channels(name: str, layer: Layer, channels: Sequence[int]) -> None:
    last = channel_count(layer) - 1
    invalid = [channel for channel in channels if not 0 <= channel <= last]
    if invalid:
        raise DataError(f"layer {name!r} has channels 0 to {last}, not {', '.join(map(str, invalid))}")
    if not channels:
        raise DataError(f"no channels of layer {name!r} are named: it has channels 0 to {last}")


def _flat_colour(value: int, preprocess: Preprocess) -> Tensor:
    """Returns one normalised pixel ``(1, 3, 1, 1)`` with the same value in each channel."""
    return normalize(np.full((1, 1, 1, 3), value, np.uint8), preprocess)


def _ascend(
    images: Tensor, gradient: Tensor, grey: Tensor, regularization: Regularization, step: int
) -> Tensor:
    """Takes one step of gradient ascent, of the same mean length for every image, and regularises."""
    length = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    images = images + STEP * gradient / length
    if regularization == "l2":
        return grey + (images - grey) * (1 - DECAY)
    if regularization == "blur" and step % BLUR_EVERY == BLUR_EVERY - 1:
        return _blur(images)
    return images


def _blur(images: Tensor) -> Tensor:
    offsets = torch.arange(-3, 4, device=images.device, dtype=images.dtype)
    gaussian = torch.exp(-(offsets**2) / (2 * BLUR**2))
    gaussian = gaussian / gaussian.sum()
    kernel = (gaussian[:, None] * gaussian).expand(3, 1, 7, 7)
    padded = nn.functional.pad(images, (3, 3, 3, 3), mode="replicate")
    return nn.functional.conv2d(padded, kernel, groups=3)


def _activations(network: Classifier, layer: Layer, images: Tensor, channels: Sequence[int]) -> Tensor:
    """Returns the mean activation of each image's channel, ``(channels,)``."""
    outputs: list[Tensor] = []

    def stop(_: nn.Module, __: object, output: Tensor) -> None:
        outputs.append(output)
        raise _LayerReached

    hook = layer.register_forward_hook(stop)
    try:
        with torch.enable_grad():
            network(images)
    except _LayerReached:
        pass
    except Exception as error:  # networks with a fixed size raise many kinds of errors
        size = images.shape[-1]
        raise DataError(f"the network does not accept {size}x{size} images: {error}") from error
    finally:
        hook.remove()
    if not outputs:
        raise DataError("the network does not use this layer")
    output = outputs[0].movedim(1 if isinstance(layer, nn.Conv2d) else -1, 1)
    output = output.reshape(*output.shape[:2], -1)  # a layer behind pooling has one value per channel
    return output.mean(2)[torch.arange(len(channels)), torch.tensor(list(channels))]


def _to_numpy(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return array

"""The report's section on what a network's layers respond to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tlkit.inference.predictor import Predictor
from tlkit.interpret.layers import find_layer, parse_channels, representative_layers
from tlkit.interpret.maximisation import REGULARIZATIONS, maximize
from tlkit.reporting.pictures import Album, Picture

#: How many layers are shown, and how many channels of each.
LAYERS = 3
CHANNELS = 3
#: Side of the images in pixels, where the network accepts it.
IMAGE_SIZE = 96
#: Steps of gradient ascent.
MAXIMIZATION_STEPS = 24
CAPTIONS = {"none": "without regularisation", "l2": "with L2 decay", "blur": "with Gaussian blur"}


@dataclass(frozen=True)
class LayerSection:
    """One layer.

    Attributes:
        name: the layer's, in the backbone.
        pictures: images that maximise some of its channels, one picture per regularisation.
    """

    name: str
    pictures: list[Picture]


def count_layer_pictures(predictor: Predictor) -> int:
    """Returns how many pictures `make_layers` makes."""
    return len(representative_layers(predictor.module, LAYERS)) * len(REGULARIZATIONS)


def make_layers(predictor: Predictor, album: Album, tick: Callable[[int], object]) -> list[LayerSection]:
    """Maximises channels of an early, a middle and the last layer, with each regularisation."""
    size = _image_size(predictor)
    sections = []
    for layer in representative_layers(predictor.module, LAYERS):
        channels = parse_channels(find_layer(predictor.module, layer), None, CHANNELS)
        names = ", ".join(map(str, channels))
        pictures = []
        for regularization in REGULARIZATIONS:
            maximized = maximize(
                predictor.module,
                predictor.preprocess,
                layer,
                channels,
                regularization=regularization,
                size=size,
                steps=MAXIMIZATION_STEPS,
            )
            pixels = np.concatenate([*maximized.images], axis=1)
            caption = CAPTIONS[regularization]
            alt = f"Images that maximise channels {names} of layer {layer}, {caption}"
            file = f"layer-{layer}-{regularization}"
            pictures.append(album.photo(file, alt, pixels, f"{caption}: channels {names}"))
            tick(1)
        sections.append(LayerSection(layer, pictures))
    return sections


def _image_size(predictor: Predictor) -> int:
    """Returns a small image size if the network accepts it, else the network's own."""
    own = predictor.preprocess.size
    if own <= IMAGE_SIZE:
        return own
    try:
        with torch.inference_mode():
            device = next(predictor.module.parameters()).device
            predictor.module.features(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE, device=device))
    except Exception:  # networks with a fixed input size raise all sorts of errors
        return own
    return IMAGE_SIZE

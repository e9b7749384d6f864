"""A small VGG16, pretrained on drawn animals; its weights are part of the package."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from tlkit import Backbone, Preprocess, WeightsOrigin

WEIGHTS = Path(__file__).parent / "weights" / "vgg16-quarter.studio.safetensors"
BLOCKS = ((16, 2), (32, 2), (64, 3), (128, 3), (128, 3))
STUDIO_KINDS = 28


def vgg16_quarter(
    *,
    features: Literal["pooled", "map"] = "map",
    weights: Literal["pretrained", "none"] | Path = "pretrained",
) -> Backbone:
    """VGG16's thirteen convolutions at a quarter of their width, pretrained on drawn animals.

    Args:
        features: "pooled": the mean of the last activation maps, ``(B, 128)``; "map": the maps.
        weights: "pretrained": those of this package; "none": random; or a .safetensors file.
    """
    from timm.layers import ClassifierHead
    from timm.models.vgg import VGG
    from torch import nn

    from tlkit import from_timm, load_weights

    layers = [layer for width, count in BLOCKS for layer in (*[width] * count, "M")]
    model = VGG(layers, mlp_ratio=0.01, norm_layer=nn.BatchNorm2d)
    # the last maps go straight to the classifier: VGG's own two layers of 4,096 units would dwarf the rest
    model.pre_logits = nn.Identity()
    model.head = ClassifierHead(BLOCKS[-1][0], STUDIO_KINDS)
    origin = None
    if weights == "pretrained":
        load_weights(model, WEIGHTS)
        origin = WeightsOrigin(f"tlkit-catsdogs {version('tlkit-catsdogs')}", "MIT")
    elif isinstance(weights, Path):
        load_weights(model, weights)
        origin = WeightsOrigin(weights.name)
    preprocess = Preprocess(
        size=128, resize="squash", interpolation="bilinear", mean=(0.5,) * 3, std=(0.25,) * 3
    )
    backbone = from_timm(model, features=features, preprocess=preprocess)
    return replace(backbone, weights_origin=origin)

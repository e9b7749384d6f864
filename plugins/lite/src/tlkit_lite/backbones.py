"""The backbones `efficientnet-lite0`, `efficientnet-lite1` and `efficientnet-lite2`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from tlkit import Backbone, WeightsOrigin


def efficientnet_lite(
    variant: int,
    /,
    *,
    features: Literal["pooled", "map"] = "pooled",
    weights: Literal["pretrained", "none"] | Path = "pretrained",
) -> Backbone:
    """EfficientNet-Lite, pretrained on ImageNet: its weights (Apache-2.0) are installed with the plugin.

    The network is timm's tf_efficientnet_lite0, 1 or 2.

    Args:
        features: "pooled": the input of the network's own classifier, ``(B, 1280)``; "map": its last
            activation maps, ``(B, C, h, w)``.
        weights: "pretrained": those that are installed; "none": random; or a .safetensors file.
    """
    import timm

    from tlkit import from_timm, load_weights
    from tlkit_lite.weights import load_installed

    architecture = f"tf_efficientnet_lite{variant}"
    model = timm.create_model(architecture)
    origin = None
    if weights == "pretrained":
        origin = load_installed(model, f"efficientnet-lite{variant}")
    elif isinstance(weights, Path):
        load_weights(model, weights)
        origin = WeightsOrigin(weights.name)
    return replace(
        from_timm(model, features=features),
        # timm alone builds the network of a model folder, without this plugin
        blueprint={"name": architecture, "features": features, "weights": "none"},
        weights_origin=origin,
    )
